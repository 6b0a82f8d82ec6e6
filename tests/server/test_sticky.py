"""Who was shown a variant of a sticky experiment, over a real port: kept through reloads, links and until erased."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.client import Exposure
from arbiter.types import ExplainLevel, Standing

if TYPE_CHECKING:
    from tests.server.conftest import OpenShop, Shop

RULES = """
decisions: {{shop.banner: }}
experiments:
  copy:
    decision: shop.banner
    sticky: {sticky}
    traffic: {traffic}
    variants: {{control: {control}, short: {short}}}
rules:
  - {{id: short, decision: shop.banner, when: experiments.copy == "short", then: {{action: show}}}}
"""
SUBJECTS = [f"ann-{number}" for number in range(24)]


def load(shop: Shop, *, sticky: str = "true", traffic: float = 1, control: float = 1, short: float = 1) -> None:
    shop.write(RULES.format(sticky=sticky, traffic=traffic, control=control, short=short))
    state = shop.client.reload()
    assert state.last_reload is not None
    assert state.last_reload.ok, state.last_reload.diagnostics


def variants(shop: Shop, *subjects: str) -> dict[str, str]:
    """The variants of those to whose decisions the experiment matters."""
    found = {subject: shop.client.decide(subject, "shop.banner").experiments for subject in subjects or SUBJECTS}
    return {subject: said["copy"] for subject, said in found.items() if said}


def show(shop: Shop, *subjects: str) -> None:
    given = [shop.client.decide(subject, "shop.banner").decision_id for subject in subjects]
    shop.client.record_exposures([Exposure(decision_id=each) for each in given])


def test_who_was_shown_a_variant_keeps_it_and_who_was_not_does_not(open_shop: OpenShop) -> None:
    shop = open_shop(load=False)
    load(shop)
    before = variants(shop)
    assert set(before.values()) == {"control", "short"}
    shown = SUBJECTS[:12]
    show(shop, *shown)
    for change in ({"control": 1e-6}, {"short": 1e-6}, {"traffic": 0}, {"traffic": 0.01, "control": 50}):
        load(shop, **change)
        after = variants(shop)
        # Of control nothing is delivered, and they were exposed to that.
        assert {subject: after.get(subject) for subject in shown} == {subject: before[subject] for subject in shown}
        others = {subject: variant for subject, variant in before.items() if subject not in shown}
        assert {subject: after.get(subject) for subject in others} != others
    explained = shop.client.decide(shown[0], "shop.banner", explain=ExplainLevel.ALL)
    assert [each.standing for each in explained.standings] == [Standing.KEPT]
    load(shop, sticky="false", traffic=0)
    assert variants(shop) == {}
    # What was shown before is known all the same.
    load(shop, traffic=0)
    assert variants(shop) == {subject: before[subject] for subject in shown}


def test_a_kept_variant_is_exported_goes_along_with_a_link_and_is_erased(open_shop: OpenShop) -> None:
    shop = open_shop(load=False)
    load(shop)
    show(shop, "device")
    variant = variants(shop, "device")["device"]
    (event,) = shop.client.list_events("device").events
    assert event.properties["experiments.copy"] == variant
    load(shop, traffic=0)
    assert variants(shop, "ann") == {}
    shop.client.link_identity("device", "ann")
    assert variants(shop, "ann", "device") == {"ann": variant, "device": variant}
    shop.client.delete_profile("ann")
    assert variants(shop, "ann", "device") == {}
