"""What is declared personal is decided by, and never shown: not in explanations, and no value at all in logs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.decision.explain import explain
from arbiter.errors import InvalidField, StoreError
from arbiter.expr.view import View
from arbiter.ruleset.diff import difference
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.faults import told
from arbiter.server.explanations import as_text
from arbiter.server.status import status_of
from arbiter.snapshot import Snapshot
from arbiter.types import ExplainLevel, Reason, RuleOutcome

if TYPE_CHECKING:
    from arbiter.ruleset.rules import Ruleset

CANARY = "canary-7f3a"
RULES = """
schema:
  profile: {name: {type: string, personal: true}, notes: {type: map, personal: true}, country: string}
  context: {phone: {type: string, personal: true}}
  events: {visit: {email: {type: string, personal: true}, page: string, weight: {type: double, personal: true}}}
features:
  last_email: {last: visit.email}
  last_page: {last: visit.page}
  visits: {count: visit}
  weight: {decay: visit.weight, half_life: 7d}
  per_visit: {ratio: [weight, visits]}
  plain: {ratio: [visits, visits]}
segments:
  named: profile.name == "Ann"
  inner: segments.named || profile.country == "XX"
decisions: {d: {slots: 9, order: [priority]}}
rules:
  - {id: direct, decision: d, when: profile.name == "Ann" && profile.country == "US", then: {action: show}}
  - {id: both, decision: d, when: profile.country + profile.name == "x", then: {action: show}}
  - {id: nested, decision: d, when: segments.inner, then: {action: show}}
  - {id: context, decision: d, when: context.phone == "1", then: {action: show}}
  - {id: feature, decision: d, when: features.last_email == "x" , then: {action: show}}
  - {id: page, decision: d, when: features.last_page == "x" , then: {action: show}}
  - {id: failing, decision: d, when: int(profile.name) > 3, then: {action: show}}
  - {id: key, decision: d, when: "profile.notes[profile.name] == 1", then: {action: show}}
  - id: rendered
    decision: d
    then: {action: show, params: {n: "${profile.notes[profile.name]}"}}
  - id: delivered
    decision: d
    then: {action: show, params: {hello: "${profile.name}"}}
"""


def loaded(rules: str = RULES) -> Ruleset:
    ruleset, found = load_ruleset({"a.yaml": rules.encode()}, {})
    assert ruleset is not None, [each.render() for each in found]
    return ruleset


@pytest.fixture(scope="module")
def outcomes() -> dict[str, RuleOutcome]:
    snapshot = Snapshot(loaded(), {})
    keys = {name: feature.key for name, feature in snapshot.symbols.features.items()}
    profile: dict[str, Any] = {"name": CANARY, "country": "CA", "notes": {"a": CANARY}}
    view = View(profile, {"phone": CANARY}, {keys["last_email"]: CANARY, keys["last_page"]: "home"}, 0)
    found = explain(snapshot.point("d"), view, "s", 0, (), dict, ExplainLevel.ALL)
    return {each.rule_id: each for each in found}


def test_an_explanation_names_personal_values_and_shows_none(outcomes: dict[str, RuleOutcome]) -> None:
    assert CANARY not in repr(outcomes)
    assert CANARY not in as_text(outcomes.values())
    direct = outcomes["direct"]
    assert (direct.reason, direct.values, direct.withheld) == (Reason.FAILED, {}, ("profile.name",))
    assert outcomes["both"].values == {"profile.country": "CA"}
    assert outcomes["context"].withheld == ("context.phone",)
    assert outcomes["feature"].withheld == ("features.last_email",)
    assert outcomes["page"].values == {"features.last_page": "home"}


def test_a_segment_inside_an_explanation_shows_no_personal_value(outcomes: dict[str, RuleOutcome]) -> None:
    assert "profile.name is withheld" in outcomes["nested"].detail
    assert 'profile.country = "CA"' in outcomes["nested"].detail


def test_an_operators_complaint_about_a_personal_value_is_withheld(outcomes: dict[str, RuleOutcome]) -> None:
    for rule in ("failing", "key"):
        assert outcomes[rule].reason is Reason.UNKNOWN
        assert "withheld" in outcomes[rule].detail
    assert outcomes["rendered"].reason is Reason.RENDER_FAILED
    assert "withheld" in outcomes["rendered"].detail


def test_people_are_told_what_is_withheld(outcomes: dict[str, RuleOutcome]) -> None:
    assert 'profile.name == "Ann" where profile.name is withheld' in as_text([outcomes["direct"]])


def test_a_rule_may_deliver_a_personal_value(outcomes: dict[str, RuleOutcome]) -> None:
    assert outcomes["delivered"].reason is Reason.WON


def test_personal_names_are_those_of_attributes_and_of_features_that_give_them() -> None:
    features = ("features.last_email", "features.per_visit", "features.weight")
    names = ("context.phone", *features, "profile.name", "profile.notes")
    assert loaded().personal == names
    assert Snapshot(loaded(), {}).symbols.personal == set(names)


def test_a_difference_of_versions_tells_what_became_personal() -> None:
    before = loaded(RULES.replace("name: {type: string, personal: true}", "name: string"))
    assert "personal" in repr(difference(before, loaded()))


class Canary(ValueError):
    """An error of a library, whose message repeats what it was given."""


def failing() -> None:
    try:
        int(CANARY)
    except ValueError as error:
        raise StoreError("the disk is full") from error


def test_a_fault_is_told_with_its_frames_and_without_what_it_arose_from() -> None:
    with pytest.raises(StoreError) as caught:
        failing()
    text = told(caught.value)
    assert CANARY not in text
    assert "ValueError" in text
    assert text.endswith("arbiter.errors.StoreError: the disk is full")
    assert "test_personal.py" in text


def test_what_a_caller_did_wrong_is_told_to_the_caller_alone() -> None:
    assert CANARY not in told(InvalidField(f"`{CANARY}` is no number", field="set.name"))


def test_an_internal_error_is_logged_under_its_reference_without_values(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        status = status_of(Canary(CANARY), "DecisionService.Decide")
    assert status.message.split()[-1] in caplog.text
    assert CANARY not in caplog.text + status.message
    assert not any(record.exc_info for record in caplog.records)
