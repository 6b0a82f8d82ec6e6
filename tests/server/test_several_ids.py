"""Who has several ids is split by the one that is asked with, unless the rules split by what goes along with a link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.decision.hashing import share

if TYPE_CHECKING:
    from tests.server.conftest import OpenShop, Shop

RULES = """
schema:
  profile: {unit: {type: string, merge: take}}
decisions:
  by-unit: {}
  by-subject: {}
rules:
  - id: unit
    decision: by-unit
    rollout: {percent: 50, by: profile.unit, salt: spring}
    then: {action: show}
  - id: subject
    decision: by-subject
    rollout: {percent: 50, by: subject, salt: spring}
    then: {action: show}
"""
PEOPLE = 24


def shown(shop: Shop, point: str, ids: list[str]) -> list[bool]:
    return [bool(shop.client.decide(each, point).treatments) for each in ids]


def halves(ids: list[str]) -> list[bool]:
    return [share("spring", each) < 0.5 for each in ids]


def test_a_link_moves_nobody_who_is_split_by_an_attribute_and_who_is_split_by_id_is_split_by_each(
    open_shop: OpenShop,
) -> None:
    shop = open_shop()
    shop.write(RULES)
    shop.admin.reload()
    devices = [f"device-{number}" for number in range(PEOPLE)]
    people = [f"person-{number}" for number in range(PEOPLE)]
    for device in devices:
        shop.client.update_profile(device, set={"unit": device})
    for person in people[::2]:  # known from elsewhere
        shop.client.update_profile(person, set={"unit": person})
    before = shown(shop, "by-unit", devices)
    assert before == halves(devices)
    for device, person in zip(devices, people, strict=True):
        assert shop.client.link_identity(device, person).linked
    assert shown(shop, "by-unit", devices) == shown(shop, "by-unit", people) == before
    assert shown(shop, "by-subject", devices) == halves(devices)
    assert shown(shop, "by-subject", people) == halves(people) != halves(devices)
