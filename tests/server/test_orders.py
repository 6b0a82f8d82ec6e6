"""What operators order, over the API in one process: canaries that differ in features, pages, batches, refusals."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arbiter.cli.answers import _OUTCOMES
from arbiter.client import Ask, Conflict, InvalidRequest, ResourceExhausted, UnknownName
from arbiter.decision.hashing import share
from arbiter.runtime.admin import SetOverride
from arbiter.runtime.local import open_local
from arbiter.server.explanations import _WORDS
from arbiter.types import Event, ExplainLevel, Lack, Reason, Request, Standing
from arbiter.wire.numbers import OUTCOMES, STANDINGS

if TYPE_CHECKING:
    from tests.server.conftest import OpenShop, Shop

MODELS = Path(__file__).parents[2] / "models"


def soon(seconds: float = 3600) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def with_text(text: str) -> str:
    """The shop's rules with another default."""
    return (
        "decisions: {shop.banner: {default: {action: show, params: {banner: TEXT}}}}\n"
        "rules: [{id: only, decision: shop.banner, when: profile.age > 3, then: {action: show}}]\n"
    ).replace("TEXT", text)


def digest_of(shop: Shop) -> str:
    running = shop.client.snapshot().snapshot
    assert running is not None
    return running.digest


def two_versions(shop: Shop) -> tuple[str, str]:
    digests = []
    for text in ("first", "second"):
        shop.write(with_text(text))
        assert shop.client.reload().last_reload is not None
        digests.append(digest_of(shop))
    return digests[0], digests[1]


def inside_and_outside(digest: str, percent: float) -> tuple[str, str]:
    places = {f"s{number}": share(f"canary:{digest}", f"s{number}") * 100 for number in range(200)}
    inside, outside = (next(s for s, p in places.items() if (p < percent) == wanted) for wanted in (True, False))
    return inside, outside


def test_both_versions_of_a_feature_are_right_for_the_subjects_of_each(open_shop: OpenShop) -> None:
    shop = open_shop()
    rules = (
        "features: {bought: DEFINITION}\n"
        "segments: {keen: features.bought >= 5}\n"
        "decisions: {shop.banner: {}}\n"
        "rules:\n"
        "  - id: only\n"
        "    decision: shop.banner\n"
        "    when: features.bought > 0\n"
        '    then: {action: show, params: {n: "${features.bought}"}}\n'
    )
    counted = rules.replace("DEFINITION", "{count: buy, window: 7d}")
    summed = rules.replace("DEFINITION", "{sum: buy.amount, window: 30d}")
    shop.write(counted)
    shop.client.reload()
    candidate = shop.client.keep({"shop.yaml": summed.encode()}).digest
    subjects = inside_and_outside(candidate, 50)
    now = time.time_ns() // 1000

    def bought(name: str, days: int) -> None:
        at = now - days * 86_400_000_000
        shop.client.ingest_events([Event(f"{name}-{n}", who, "buy", at + n, {"amount": 2.5}) for who in subjects
                                   for n in range(2)])  # fmt: skip

    def seen() -> list[object]:
        batch = shop.client.decide_batch(Ask(subject_id=who, decision="shop.banner") for who in subjects)
        found: list[object] = []
        for who, result in zip(subjects, batch.results, strict=True):
            alone = shop.client.decide(who, "shop.banner")
            page = shop.client.decide_page(who, ["shop.banner"]).decisions[0]
            profile = shop.client.get_profile(who)
            assert not isinstance(result, Exception)
            numbers = [each.treatments[0].params["n"] for each in (alone, page)]
            numbers += [result.treatments[0].params["n"], profile.features["bought"]]  # type: ignore[union-attr]
            assert {alone.snapshot, page.snapshot, result.snapshot, profile.snapshot} == {alone.snapshot}
            assert set(numbers) == {numbers[0]}
            assert profile.segments["keen"] == (numbers[0] >= 5)
            found.append(numbers[0])
        return found

    bought("before", 3)
    assert seen() == [2, 2]
    shop.client.set_canary(candidate, 50)
    assert seen() == [5.0, 2]
    bought("during", 1)
    assert seen() == [10.0, 4]
    bought("long ago", 20)
    assert seen() == [15.0, 4]
    shop.client.promote_canary()
    assert seen() == [15.0, 15.0]
    shop.client.rollback(shop.client.snapshots().kept[0].digest)
    shop.client.reload()
    assert seen() == [4, 4]


def test_writes_are_held_to_what_the_current_version_declares(open_shop: OpenShop) -> None:
    shop = open_shop()
    shop.write(f"schema: {{profile: {{age: int}}}}\n{with_text('first')}")
    shop.client.reload()
    other = f"schema: {{profile: {{age: int, size: int}}}}\n{with_text('second')}"
    shop.client.set_canary(shop.client.keep({"shop.yaml": other.encode()}).digest, 100)
    shop.client.update_profile("ann", set={"size": "large"})
    shop.client.promote_canary()
    with pytest.raises(InvalidRequest, match="size"):
        shop.client.update_profile("ann", set={"size": "small"})


def test_a_canary_is_dropped_and_what_cannot_be_one_is_refused(open_shop: OpenShop) -> None:
    shop = open_shop()
    first, second = two_versions(shop)
    with pytest.raises(UnknownName, match="no canary runs"):
        shop.client.promote_canary()
    with pytest.raises(InvalidRequest, match="what runs for everybody"):
        shop.client.set_canary(second, 10)
    with pytest.raises(UnknownName, match="no snapshot 000000000000 is kept"):
        shop.client.set_canary("0" * 32, 10)
    for percent in (0, -1, 100.5, float("nan")):
        with pytest.raises(InvalidRequest, match="send more than 0 and at most 100"):
            shop.client.set_canary(first, percent)
    shop.client.set_canary(first, 100)
    assert shop.client.decide("ann", "shop.banner").snapshot == first
    with pytest.raises(Conflict, match=f"the canary that runs is {first[:12]}"):
        shop.client.drop_canary(second)
    assert shop.client.drop_canary(first).canary is None
    assert shop.client.decide("ann", "shop.banner").snapshot == second


def test_what_everybody_gets_is_no_canary_any_more(open_shop: OpenShop) -> None:
    shop = open_shop()
    first, second = two_versions(shop)
    shop.client.set_canary(first, 10)
    assert shop.client.rollback(first).canary is None
    shop.client.set_canary(second, 10)
    shop.client.reload()
    assert shop.client.snapshot().canary is None
    assert digest_of(shop) == second


def test_only_the_last_three_that_were_sent_are_kept(open_shop: OpenShop) -> None:
    shop = open_shop()
    sent = [shop.client.keep({"shop.yaml": with_text(f"n{number}").encode()}).digest for number in range(5)]
    two_versions(shop)
    for digest in sent[:2]:
        with pytest.raises(UnknownName, match="is kept"):
            shop.client.set_canary(digest, 10)
    for digest in sent[2:]:
        assert shop.client.set_canary(digest, 10).canary is not None
    wrong = shop.client.keep({"shop.yaml": b"rulez: []"})
    assert (wrong.digest, [each.message for each in wrong.diagnostics]) == ("", ["unknown key `rulez` in a rule file"])


def test_an_override_gives_the_slot_to_the_next_rule_and_is_explained(open_shop: OpenShop) -> None:
    shop = open_shop()
    shop.client.update_profile("ann", set={"age": 30, "name": "Ann", "country": "CA"})
    before = shop.client.decide("ann", "shop.banner", slots=1)
    shop.client.override("by-name", until=soon(), reason="complaints")
    answer = shop.client.decide("ann", "shop.banner", slots=1, explain=ExplainLevel.ALL)
    assert [each.treatments[0].rule_id for each in (before, answer)] == ["by-name", "canadian"]
    outcome = next(each for each in answer.explanation if each.rule_id == "by-name")
    assert (outcome.reason, outcome.detail[:21]) == (Reason.OVERRIDDEN, "switched off until 20")
    assert "by-name is overridden (switched off until 20" in answer.explanation_text
    batch = shop.client.decide_batch([Ask(subject_id="ann", decision="shop.banner", slots=1)])
    assert batch.results[0].treatments == answer.treatments  # type: ignore[union-attr]
    # It holds for a canary's subjects too.
    changed = (shop.rules / "shop.yaml").read_text().replace("Hello", "Hi").encode()
    shop.client.set_canary(shop.client.keep({"shop.yaml": changed}).digest, 100)
    assert shop.client.decide("ann", "shop.banner", slots=1).treatments == answer.treatments
    shop.client.clear_override("by-name")
    assert shop.client.decide("ann", "shop.banner", slots=1).treatments[0].params["text"] == "Hi Ann"


def test_every_reason_has_its_words() -> None:
    """What the wire, the sentences and the command line call it."""
    reasons = set(Reason) - {Reason.DEFAULT}
    assert [set(each) for each in (OUTCOMES, _WORDS, _OUTCOMES)] == [reasons] * 3
    assert set(STANDINGS) == set(Standing) - {Standing.SAID}


def test_what_cannot_be_overridden_is_refused(open_shop: OpenShop) -> None:
    client = open_shop().client
    with pytest.raises(UnknownName, match="no rule `canadain`; did you mean `canadian`") as raised:
        client.override("canadain", until=soon())
    assert raised.value.field == "rule_id"
    with pytest.raises(UnknownName, match="no model `canadian`"):
        client.override("canadian", kind="model", until=soon())
    for until in (soon(-1), soon(400 * 86_400)):
        with pytest.raises(InvalidRequest, match="until"):
            client.override("canadian", until=until)
    with pytest.raises(UnknownName, match="no override of rule `canadian` stands"):
        client.clear_override("canadian")
    with pytest.raises(InvalidRequest, match="reason has"):
        client.override("canadian", until=soon(), reason="x" * 2000)


def test_overrides_are_bounded(open_shop: OpenShop) -> None:
    shop = open_shop()
    rule = "  - {{id: r{n}, decision: shop.banner, then: {{action: show}}}}\n"
    shop.write("decisions: {shop.banner: {}}\nrules:\n" + "".join(rule.format(n=n) for n in range(101)))
    shop.client.reload()
    for number in range(100):
        shop.client.override(f"r{number}", until=soon())
    with pytest.raises(ResourceExhausted, match="allows 100") as raised:
        shop.client.override("r100", until=soon())
    assert raised.value.limit == "overrides"
    shop.client.override("r7", until=soon(7200))
    assert len(shop.client.snapshot().overrides) == 100


def test_a_model_that_is_off_gives_nothing_and_the_answer_says_so(tmp_path: Path) -> None:
    shutil.copytree(MODELS.parent / "rules", tmp_path / "rules")
    engine, admin = open_local(tmp_path / "rules", MODELS, tmp_path / "data")
    try:
        now = engine.clock()
        request = Request("ann", ("store.home_banner",), now, explain=ExplainLevel.ALL)
        engine.store.ingest(
            [
                Event(f"e{n}", "ann", "purchase", now - n * 86_400_000_000, {"quantity": 1, "amount": 30.0})
                for n in range(9)
            ]
        ).result()
        assert engine.decide(request)[0].degraded == ()
        known = engine.describe("ann", now).segments
        admin.carry_out(SetOverride(kind="model", name="rfm", until=now + 60_000_000, reason="drift"))
        (decision,) = engine.decide(request)
        assert [(each.model, each.cause) for each in decision.degraded] == [("rfm", Lack.OVERRIDDEN)]
        (batched,) = engine.decide_batch([Request("ann", ("store.home_banner",), now)])
        assert not isinstance(batched, Exception)
        assert {each.model for each in batched[0].degraded} <= {"rfm"}
        unknown = {name for name, value in engine.describe("ann", now).segments.items() if value is None}
        assert unknown > {name for name, value in known.items() if value is None}
        assert any("models.rfm" in " ".join(each.missing) or "models.rfm" in each.detail
                   for each in decision.explanation)  # fmt: skip
    finally:
        engine.store.close()


def test_an_experiment_is_switched_off_for_testers_too_and_comes_back(open_shop: OpenShop) -> None:
    rules = """
decisions: {d: }
experiments: {copy: {decision: d, variants: {control: 1, short: 1}, forced: {short: [tester]}}}
rules:
  - {id: short, decision: d, priority: 1, when: experiments.copy == "short", then: {action: short}}
  - {id: long, decision: d, then: {action: long}}
"""
    shop = open_shop()
    shop.write(rules)
    shop.client.reload()
    decided = shop.client.decide("tester", "d", explain=ExplainLevel.ALL)
    assert (decided.treatments[0].rule_id, decided.treatments[0].variant, decided.experiments) == ("short", "short", {})
    assert [(each.variant, each.standing) for each in decided.standings] == [("short", Standing.FORCED)]
    drawn = {name: shop.client.decide(name, "d") for name in map(str, range(20))}
    assert {each.experiments["copy"] for each in drawn.values()} == {"control", "short"}
    assert all(each.treatments[0].variant == each.experiments["copy"] for each in drawn.values())
    with pytest.raises(UnknownName, match="did you mean `copy`"):
        shop.client.override("cpoy", kind="experiment", until=soon())
    status = shop.client.override("copy", kind="experiment", until=soon(), reason="sales fell")
    assert [(each.kind, each.name) for each in status.overrides] == [("experiment", "copy")]
    off = shop.client.decide("tester", "d", explain=ExplainLevel.ALL)
    assert (off.treatments[0].rule_id, off.treatments[0].variant) == ("long", "")
    assert off.standings[0].standing is Standing.OVERRIDDEN
    assert "sales fell" in off.standings[0].detail
    assert "experiment copy is without the subject, by its overridden: switched off until" in off.explanation_text
    shop.client.clear_override("copy", kind="experiment")
    assert shop.client.decide("tester", "d").treatments[0].rule_id == "short"
