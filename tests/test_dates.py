"""Dates by the clock of a place and by each subject's own, across real jumps of clocks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.decision.explain import explain
from arbiter.decision.walk import Need, Walk
from arbiter.expr import functions, ops
from arbiter.expr.view import View
from arbiter.expr.zones import NAMES, _read, instant_of, zone_of
from arbiter.ruleset.load import load_ruleset
from arbiter.snapshot import Snapshot
from arbiter.types import Decision, ExplainLevel, Reason, from_micros, to_micros

if TYPE_CHECKING:
    from arbiter.ruleset.rules import Ruleset

HEAD = """
subject: {time_zone: profile.time_zone, default_time_zone: Europe/Paris}
decisions: {d: }
"""


def ruleset(active: str) -> Ruleset:
    rule = f"rules:\n- {{id: r, decision: d, then: {{action: show}}, active: {active}}}\n"
    found, mistakes = load_ruleset({"rules.yaml": (HEAD + rule).encode()}, {})
    assert found is not None, mistakes
    return found


def micros(text: str) -> int:
    return to_micros(datetime.fromisoformat(text).replace(tzinfo=UTC))


def decide(active: str, at: str, profile: dict[str, Any]) -> Decision:
    point = Snapshot(ruleset(active), {}).point("d")
    decision = Walk(point, View(profile, {}, {}, micros(at)), "someone").advance()
    assert not isinstance(decision, Need)
    return decision


@pytest.mark.parametrize(
    ("zone", "wall", "instant"),
    [
        ("Europe/Paris", "2026-11-01T00:00:00", "2026-10-31T23:00:00"),
        # Skipped: at 02:00 the clock goes to 03:00, and that is the moment.
        ("Europe/Paris", "2026-03-29T02:30:00", "2026-03-29T01:00:00"),
        ("Europe/Paris", "2026-03-29T02:00:00", "2026-03-29T01:00:00"),
        ("Europe/Paris", "2026-03-29T03:00:00", "2026-03-29T01:00:00"),
        ("Europe/Paris", "2026-03-29T03:00:01", "2026-03-29T01:00:01"),
        # Twice: the first of the two.
        ("Europe/Paris", "2026-10-25T02:30:00", "2026-10-25T00:30:00"),
        ("Europe/Paris", "2026-10-25T03:00:00", "2026-10-25T02:00:00"),
        # A midnight that never was, and a day that never was.
        ("America/Sao_Paulo", "2018-11-04T00:00:00", "2018-11-04T03:00:00"),
        ("Pacific/Apia", "2011-12-30T00:00:00", "2011-12-30T10:00:00"),
        ("Pacific/Apia", "2011-12-31T00:00:00", "2011-12-30T10:00:00"),
        ("Asia/Kathmandu", "2026-01-01T00:00:00", "2025-12-31T18:15:00"),
        # Half an hour of summer time.
        ("Australia/Lord_Howe", "2026-10-04T02:10:00", "2026-10-03T15:30:00"),
    ],
)
def test_a_local_time_is_the_first_moment_at_which_the_clock_reads_it_or_later(
    zone: str, wall: str, instant: str
) -> None:
    assert from_micros(instant_of(zone, micros(wall))).replace(tzinfo=None).isoformat() == instant


def test_dates_of_a_place_are_instants() -> None:
    active = ruleset("{from: 2026-11-01, until: 2026-12-01T09:30, zone: Europe/Paris}").rules[0].active
    assert active is not None
    assert (active.start, active.until) == (micros("2026-10-31T23:00:00"), micros("2026-12-01T08:30:00"))


@pytest.mark.parametrize(
    ("zone", "start", "end"),
    [
        ("Pacific/Kiritimati", "2026-10-31T10:00:00", "2026-11-01T10:00:00"),
        ("Asia/Tokyo", "2026-10-31T15:00:00", "2026-11-01T15:00:00"),
        # That day has 25 hours there.
        ("America/New_York", "2026-11-01T04:00:00", "2026-11-02T05:00:00"),
        ("Etc/GMT+12", "2026-11-01T12:00:00", "2026-11-02T12:00:00"),
        # The default's, for whoever has none that exists.
        (None, "2026-10-31T23:00:00", "2026-11-01T23:00:00"),
        ("Nowhere/Land", "2026-10-31T23:00:00", "2026-11-01T23:00:00"),
        ("../../etc/passwd", "2026-10-31T23:00:00", "2026-11-01T23:00:00"),
        ("/dev/zero", "2026-10-31T23:00:00", "2026-11-01T23:00:00"),
        (7, "2026-10-31T23:00:00", "2026-11-01T23:00:00"),
        (["UTC"], "2026-10-31T23:00:00", "2026-11-01T23:00:00"),
    ],
)
def test_a_day_of_the_subject_is_the_day_where_the_subject_is(zone: Any, start: str, end: str) -> None:
    profile = {} if zone is None else {"time_zone": zone}
    active = "{from: 2026-11-01, until: 2026-11-02, zone: subject}"
    before, last = (from_micros(micros(t) - 1).replace(tzinfo=None).isoformat() for t in (start, end))
    given = [len(decide(active, at, profile).treatments) for at in (before, start, last, end)]
    assert given == [0, 1, 1, 0]


def test_an_answer_that_hangs_on_the_subjects_clock_promises_nothing() -> None:
    assert decide("{from: 2026-11-01, zone: subject}", "2026-01-01T00:00:00", {}).valid_until is None
    promised = decide("{from: 2026-11-01, zone: Europe/Paris}", "2026-01-01T00:00:00", {}).valid_until
    assert promised == micros("2026-10-31T23:00:00")


@pytest.mark.parametrize(
    ("zone", "says"),
    [
        ("Asia/Tokyo", "2026-10-31 10:00:00 in Asia/Tokyo is outside `active`"),
        ("subject", "2026-10-30 21:00:00 in America/New_York is outside `active`"),
    ],
)
def test_an_explanation_says_what_the_clock_reads_there(zone: str, says: str) -> None:
    point = Snapshot(ruleset(f"{{from: 2026-11-01, zone: {zone}}}"), {}).point("d")
    view = View({"time_zone": "America/New_York"}, {}, {}, micros("2026-10-31T01:00:00"))
    (outcome,) = explain(point, view, "someone", 0, (), dict, ExplainLevel.ALL)
    assert (outcome.reason, outcome.detail) == (Reason.INACTIVE, says)


def test_names_that_are_no_zones_leave_nothing_behind() -> None:
    kept = _read.cache_info().currsize
    for number in range(1000):
        assert zone_of(f"Nowhere/{number}") is None
        assert zone_of(f"../zones/{number}") is None
    assert _read.cache_info().currsize == kept
    assert len(NAMES) < 1000


@pytest.mark.parametrize("zone", ["../../../etc/localtime", "/etc/localtime", "Nowhere", "", "25", "\0", 3])
def test_parts_of_times_take_no_other_zone(zone: Any) -> None:
    with pytest.raises(ops.FAILURES):
        functions.NATIVE["getHours"](datetime(2026, 1, 1, tzinfo=UTC), zone)


@pytest.mark.parametrize(
    ("active", "message"),
    [
        ("{from: 2026-11-01}", "`from` must be an RFC 3339 time"),
        ("{from: 2026-11-01T00:00:00Z, zone: subject}", "`from` must be a local date or time here"),
        ("{from: 2026-11-01, zone: europe/paris}", "there is no time zone `europe/paris`"),
        ("{from: 2026-11-01, zone: ../etc/passwd}", "there is no time zone"),
        ("{zone: subject}", "`active` says neither `from` nor `until`"),
        ("{from: 0001-01-01, zone: Asia/Tokyo}", "`from` must be a local date or time here"),
        ("{from: 9999-12-31, zone: America/New_York}", "`from` must be a local date or time here"),
        ("{from: 2026-11-02, until: 2026-11-02, zone: subject}", "`until` does not come after `from`"),
        # Both are the moment of the jump.
        ("{from: 2026-03-29T02:10, until: 2026-03-29T02:50, zone: Europe/Paris}", "`until` does not come after `from`"),
    ],
)
def test_dates_that_mean_nothing_are_refused(active: str, message: str) -> None:
    rule = f"rules:\n- {{id: r, decision: d, then: {{action: show}}, active: {active}}}\n"
    found, mistakes = load_ruleset({"rules.yaml": (HEAD + rule).encode()}, {})
    assert found is None
    assert [m.message.startswith(message) for m in mistakes] == [True]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("subject: 3", "`subject` must be a mapping"),
        ("subject: {}", "`subject` needs the key `time_zone`"),
        ("subject: {time_zone: context.zone}", "a zone is read from the profile"),
        ("subject: {time_zone: profile.zone, default_time_zone: Mars}", "there is no time zone `Mars`"),
        ("schema: {profile: {zone: int}}\nsubject: {time_zone: profile.zone}", "`profile.zone` is declared int"),
        ("schema: {profile: {zone: string}}\nsubject: {time_zone: profile.zon}", "unknown profile attribute `zon`"),
        ("subject: {time_zone: profile.a}\n---\nsubject: {time_zone: profile.b}", "`subject` stands in two places"),
        (
            HEAD.partition("\n")[2].partition("\n")[2]
            + "rules: [{id: r, decision: d, then: {action: a}, active: {until: 2026-01-01, zone: subject}}]",
            "no file says where a subject's time zone stands",
        ),
    ],
)
def test_where_a_subjects_zone_stands_is_said_once_and_rightly(section: str, message: str) -> None:
    found, mistakes = load_ruleset({"rules.yaml": section.encode()}, {})
    assert found is None
    assert [m.message.startswith(message) for m in mistakes] == [True]
