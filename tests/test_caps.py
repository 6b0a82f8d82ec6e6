"""Caps: whatever was shown in whatever order, a rule is out exactly while its cap is full, and says when it is not."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.profiles import records
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.ingesting import IngestEvents
from arbiter.profiles.recounting import recount
from arbiter.profiles.store import Limits, Store, Update
from arbiter.ruleset.diff import difference
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.engine import Engine
from arbiter.snapshot import Snapshot
from arbiter.types import Event, ExplainLevel, Reason, Request, from_micros, to_micros
from tests.conftest import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from arbiter.types import Decision, RuleOutcome

HOUR = 3_600_000_000
DAY = 24 * HOUR
SPANS = {"3h": 3 * HOUR, "2d": 2 * DAY, "1w": 7 * DAY}
PERIODS = (*SPANS, "day", "week", "lifetime")
CAPS = tuple(itertools.product((1, 2, 3), PERIODS))
# By each of them a clock jumps nearby: in Paris by day, in São Paulo at midnight, when that day had none.
JUMPS = ("2026-03-29T01:00:00", "2026-10-25T01:00:00", "2018-11-04T03:00:00", "2018-02-18T02:00:00")
ZONES = ("Europe/Paris", "America/Sao_Paulo", "Asia/Kathmandu", "Nowhere/Nowhere", None)
HEAD = """
schema: {profile: {zone: string}}
subject: {time_zone: profile.zone, default_time_zone: America/New_York}
"""


def rules_of(caps: Sequence[tuple[int, str]]) -> str:
    """A decision point for each cap, whose rule has another below it."""
    points = "".join(f"  d{n}: {{order: [priority]}}\n" for n in range(len(caps)))
    rules = "".join(
        f"  - {{id: r{n}, decision: d{n}, priority: 2, group: one, then: {{action: show, params: {{n: 1}}}},\n"
        f"     cap: {{max: {most}, per: {per}, count_on: exposure}}}}\n"
        f"  - {{id: below{n}, decision: d{n}, group: one, then: {{action: show, params: {{n: 2}}}}}}\n"
        for n, (most, per) in enumerate(caps)
    )
    return f"{HEAD}decisions:\n{points}rules:\n{rules}"


def snapshot_of(rules: str) -> Snapshot:
    found, mistakes = load_ruleset({"r.yaml": rules.encode()}, {})
    assert found is not None, mistakes
    return Snapshot(found, {})


class Shop:
    """An engine, and what was shown to whom."""

    def __init__(self, folder: Path, rules: str, **limits: Any) -> None:
        self.clock = Clock()
        limits = {"late": None, "ahead": None, **limits}
        self.store = Store.open(folder, clock=self.clock, background=False, limits=Limits(**limits))
        self.engine = Engine(self.store, self.clock)
        self.engine.activate(snapshot_of(rules))
        self._numbers = itertools.count()

    def show(self, subject: str, shown: Sequence[tuple[str, int]]) -> None:
        """Report that rules were shown, all in one batch."""
        entries = []
        key = self.store.keys.subject(subject)
        for rule, at in shown:
            event = Event(f"x{next(self._numbers)}", "", "arbiter.exposure", at, {"rule": rule})
            entries.append((key, records.seen_key(key, event.id), event, records.encode(event), b""))
        self.store.write(IngestEvents(entries)).result()

    def decide(self, subject: str, point: str, now: int) -> Decision:
        (decision,) = self.engine.decide(Request(subject, (point,), now))
        return decision

    def told(self, subject: str, point: str, now: int) -> RuleOutcome:
        """What became of the best rule."""
        (decision,) = self.engine.decide(Request(subject, (point,), now, explain=ExplainLevel.ALL))
        return next(each for each in decision.explanation if each.rule_id == f"r{point[1:]}")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    found = Shop(tmp_path / "store", rules_of(CAPS))
    yield found
    found.store.close()


def place_of(zone: str | None) -> ZoneInfo:
    return ZoneInfo(zone if zone is not None and zone in ZONES[:3] else "America/New_York")


def midnight(zone: str | None, now: int, days: int) -> int:
    """The midnight so many days before the subject's last one."""
    day = from_micros(now).astimezone(place_of(zone)).date() - timedelta(days=days)
    return to_micros(datetime(day.year, day.month, day.day, tzinfo=place_of(zone)).astimezone(UTC))


def is_full(log: Sequence[int], most: int, per: str, zone: str | None, now: int) -> bool:
    """By definition, from all times at which the rule was shown."""
    if per in SPANS:
        return sum(at > now - SPANS[per] for at in log) >= most
    if per == "lifetime":
        return len(log) >= most
    place = place_of(zone)

    def begin(at: int) -> Any:
        day = from_micros(at).astimezone(place).date()
        return day if per == "day" else day - timedelta(days=day.weekday())

    counted: int = sum(begin(at) >= begin(now) for at in log)
    return counted >= most


TIMES = st.integers(-9 * DAY, DAY // 2) | st.sampled_from([0, -HOUR, -3 * HOUR, 1 - 3 * HOUR, -2 * DAY, -7 * DAY, 1])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(JUMPS),
    st.integers(-30 * HOUR, 30 * HOUR) | st.sampled_from([-1, 0, 1]),
    st.sampled_from(ZONES),
    st.lists(st.lists(TIMES, min_size=1, max_size=5), max_size=3),
    st.lists(st.tuples(st.integers(-1, 8), st.sampled_from([-1, 0, 1, HOUR // 4])), max_size=4),
    st.lists(st.integers(0, 9 * DAY), max_size=2),
)
def test_a_rule_is_out_exactly_while_a_recount_finds_its_cap_full(
    shop: Shop,
    jump: str,
    off: int,
    zone: str | None,
    batches: list[list[int]],
    nightly: list[tuple[int, int]],
    later: list[int],
) -> None:
    subject = f"s{next(shop._numbers)}"
    now = shop.clock.now = to_micros(datetime.fromisoformat(jump).replace(tzinfo=UTC)) + off
    shop.store.update(Update(subject, {"zone": zone} if zone else {"other": 1})).result()
    batches = [*batches, [midnight(zone, now, days) + more - now for days, more in nightly]]
    for batch in batches:
        shop.show(subject, [(f"r{n}", now + at) for at in batch for n in range(len(CAPS))])
    log = [event.at for event in shop.store.events(subject) if event.properties["rule"] == "r0"]
    assert len(log) == sum(map(len, batches))
    for clock, (n, (most, per)) in itertools.product([now, *(now + each for each in later)], enumerate(CAPS)):
        decision = shop.decide(subject, f"d{n}", clock)
        full = is_full(log, most, per, zone, clock)
        assert decision.treatments[0].rule_id == (f"below{n}" if full else f"r{n}")
        outcome = shop.told(subject, f"d{n}", clock)
        assert outcome.reason is (Reason.CAPPED if full else Reason.WON)
        until = decision.valid_until
        assert (until is None) == (not full or per == "lifetime")
        if until is not None:
            assert until > clock
            assert is_full(log, most, per, zone, until - 1)
            assert not is_full(log, most, per, zone, until)
            assert shop.decide(subject, f"d{n}", until).treatments[0].rule_id == f"r{n}"


def test_what_is_full_says_how_full_and_when_it_is_free(shop: Shop) -> None:
    now = shop.clock.now = to_micros(datetime(2026, 6, 3, 12, tzinfo=UTC))
    place = {cap: f"d{n}" for n, cap in enumerate(CAPS)}
    shop.store.update(Update("ann", {"zone": "Europe/Paris"})).result()
    shop.show("ann", [(f"r{n}", now - at * HOUR) for at in (1, 2, 5) for n in range(len(CAPS))])
    said = {cap: shop.told("ann", point, now).detail for cap, point in place.items()}
    assert said[1, "3h"].startswith("1 of 1 exposure in 3h, free again 2026-06-03T14:00:00")
    assert said[2, "3h"].startswith("2 of 2 exposures in 3h, free again 2026-06-03T13:00:00")
    assert said[3, "2d"].startswith("3 of 3 exposures in 2d, free again 2026-06-05T07:00:00")
    assert said[3, "day"].startswith("3 of 3 exposures this day, free again 2026-06-03T22:00:00")
    assert said[3, "week"].startswith("3 of 3 exposures this week, free again 2026-06-07T22:00:00")
    assert said[3, "lifetime"] == "3 of 3 exposures in all, never free again"


def test_nobody_else_is_capped(shop: Shop) -> None:
    shop.clock.now = 20_000 * DAY
    shop.show("ann", [("r0", shop.clock.now)])
    assert shop.decide("ann", "d0", shop.clock.now).treatments[0].rule_id == "below0"
    assert shop.decide("bob", "d0", shop.clock.now).treatments[0].rule_id == "r0"
    assert shop.decide("ann", "d1", shop.clock.now).treatments[0].rule_id == "r1"


def test_a_report_that_comes_twice_counts_once(shop: Shop) -> None:
    now = shop.clock.now = 20_000 * DAY
    point = f"d{CAPS.index((2, 'lifetime'))}"
    for _ in range(2):
        shop._numbers = itertools.count()
        shop.show("ann", [(f"r{point[1:]}", now)])
    assert shop.decide("ann", point, now).treatments[0].rule_id == f"r{point[1:]}"


def test_another_cap_counts_what_was_shown_before_it_was_there(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "store", rules_of([(1, "3h")]))
    now = shop.clock.now = 20_000 * DAY
    shop.show("ann", [("r0", now - at) for at in (DAY, 2 * DAY, 3 * DAY)])
    assert shop.decide("ann", "d0", now).treatments[0].rule_id == "r0"
    shop.engine.activate(snapshot_of(rules_of([(3, "1w")])))
    assert shop.decide("ann", "d0", now).treatments[0].rule_id == "below0"
    shop.engine.activate(snapshot_of(rules_of([(3, "2d")])))
    assert shop.decide("ann", "d0", now).treatments[0].rule_id == "r0"
    shop.store.close()


def test_two_ids_of_one_person_share_what_was_shown(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "store", rules_of([(2, "lifetime"), (3, "lifetime")]))
    now = shop.clock.now = 20_000 * DAY
    shop.show("device", [(f"r{n}", now - DAY) for n in (0, 1)])
    shop.show("ann", [(f"r{n}", now - HOUR) for n in (0, 1)])
    shop.store.link("device", "ann").result()
    for subject in ("device", "ann"):
        assert shop.decide(subject, "d0", now).treatments[0].rule_id == "below0"
        assert shop.decide(subject, "d1", now).treatments[0].rule_id == "r1"
    shop.store.erase("ann").result()
    assert shop.decide("ann", "d0", now).treatments[0].rule_id == "r0"
    shop.store.close()


def test_what_left_the_log_still_counts(tmp_path: Path) -> None:
    rules = rules_of([(2, "lifetime"), (3, "lifetime")])
    shop = Shop(tmp_path / "store", rules, keep_events=0, late=DAY)
    now = shop.clock.now = 20_000 * DAY
    shop.show("ann", [(f"r{n}", now - HOUR) for n in (0, 1)])
    shop.show("ann", [(f"r{n}", now - at) for n in (0, 1) for at in (0,)])
    while shop.store.rebuild_step(100):
        pass
    for _ in range(2):
        shop.clock.now += 3 * DAY
        while shop.store.collect_step():
            pass
    assert not shop.store.events("ann")
    now = shop.clock.now
    assert shop.decide("ann", "d0", now).treatments[0].rule_id == "below0"
    assert shop.decide("ann", "d1", now).treatments[0].rule_id == "r1"
    shop.show("ann", [("r1", now)])
    assert shop.decide("ann", "d1", now).treatments[0].rule_id == "below1"
    shop.store.close()
    found = recount(tmp_path / "store", FeatureSet(snapshot_of(rules).frame.computed), shop.clock)
    assert (found.subjects, found.count) == (1, 0)


def test_only_rules_with_caps_are_counted() -> None:
    (tally,) = snapshot_of(rules_of([(2, "day"), (3, "1w")])).frame.tallies
    assert tally.keep == {"r0": 2, "r1": 3}
    assert snapshot_of("decisions: {d: }\n").frame.tallies == ()


def test_a_cap_that_changed_is_told() -> None:
    before, after = (snapshot_of(rules_of([cap])).ruleset for cap in ((1, "3h"), (2, "day")))
    (changed,) = difference(before, after).rules.changed
    said = {each.field: (each.before, each.after) for each in changed.changes}
    assert changed.name == "r0"
    assert said == {"cap": ("max 1, per 3h, count_on exposure", "max 2, per day, count_on exposure")}
    assert not difference(before, after).features


def test_the_record_holds_no_more_than_caps_ask_for(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "store", rules_of([(2, "lifetime")]))
    now = shop.clock.now = 20_000 * DAY
    for number in range(50):
        shop.show("ann", [("r0", now - number), ("unknown", now)])
    profile = shop.store.read("ann", now)
    assert list(profile.features.values()) == [{"r0": [now - 1, now]}]
    assert len(msgspec.msgpack.encode(profile)) < 200
    shop.store.close()
