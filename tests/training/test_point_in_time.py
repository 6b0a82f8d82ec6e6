"""Rows of events hold what was known at their moment: nothing that came later changes them, and they are what serving
would have computed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.profiles.consenting import ConsentChange
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Limits, Store, Update
from arbiter.ruleset.reads import reads_by_name
from arbiter.training.declared import Declarations, read_declarations
from arbiter.training.examples import TOO_EARLY, TOO_LATE, History, assemble
from arbiter.training.logs import GONE, NO_CONSENT, read_store
from arbiter.training.reading import read_spec
from arbiter.training.table import NO_LABEL, Table, TrainingFailed
from arbiter.types import ConsentState, Event, to_micros

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arbiter.training.spec import Spec

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = 3_600_000_000
DAY = 24 * HOUR
BEGIN = to_micros(START)
RULES = b"""
schema:
  events: {buy: {amount: double, kind: string}, see: {device: string}}
  profile: {plan: {type: string, default: free}, age: int}
consent: {purposes: [analytics]}
features:
  buys: {count: buy}
  buys_3d: {count: buy, window: 3d}
  spend_3d: {sum: buy.amount, window: 3d, where: event.amount > 1}
  kinds_5d: {distinct: buy.kind, window: 5d}
  largest: {max: buy.amount}
  last_kind: {last: buy.kind}
  age_of_buy: {since: buy, unit: d}
  warm: {decay: buy.amount, half_life: 2d}
  rate: {ratio: [buys_3d, sees_3d]}
  sees_3d: {count: see, window: 3d}
"""
NUMBERS = ("buys", "buys_3d", "spend_3d", "kinds_5d", "largest", "age_of_buy", "warm", "rate")


def declared() -> Declarations:
    return read_declarations({"rules.yaml": RULES}, "rules")


def spec(**parts: Any) -> Spec:
    inputs = "".join(f"  - {{name: {name}, from: features.{name}}}\n" for name in NUMBERS)
    said = {
        "kind": "propensity",
        "estimator": "logistic_regression",
        "source": "{events: log.jsonl}",
        "rows": "{at: [2026-01-08T00:00:00Z]}",
        "label": "{count: buy, window: 2d}",
        "inputs": "\n" + inputs + "  - {name: last_kind, from: features.last_kind, as: index}\n",
    } | parts
    text = "name: m\nversion: 1\nrules: rules\nvalidation: {held_out: 0.5}\n" + "".join(
        f"{key}: {value}\n" for key, value in said.items()
    )
    return read_spec(text.encode(), "train.yaml")


def assembled(told: Spec, events: list[Event], until: int | None = BEGIN + 100 * DAY) -> Table:
    ordered = sorted(events, key=lambda event: event.at)
    return assemble(told, [History("s", ordered)], declared().features, until=until)


def buy(at: float, amount: float = 5.0, kind: str = "a") -> Event:
    moment = BEGIN + round(at * HOUR)
    return Event(f"b{moment}-{amount}-{kind}", "s", "buy", moment, {"amount": amount, "kind": kind})


def see(at: float, device: str = "ios") -> Event:
    moment = BEGIN + round(at * HOUR)
    return Event(f"v{moment}", "s", "see", moment, {"device": device})


times = st.integers(0, 20 * 24 * 4).map(lambda quarter: quarter / 4)  # hours, so that some lie on the very moment
buys = st.builds(buy, times, st.sampled_from([0.5, 2.0, 7.25]), st.sampled_from(["a", "b", "c"]))
logs = st.lists(st.one_of(buys, st.builds(see, times)), max_size=40, unique_by=lambda event: event.id)


@given(logs, logs)
@settings(max_examples=60, deadline=None)
def test_no_later_event_changes_a_row_looked_at_at_a_moment(events: list[Event], more: list[Event]) -> None:
    told = spec()
    (at,) = told.moments.at
    first = [buy(0), *events]
    known = {event.id for event in first}
    later = [event for event in more if event.at > at and event.id not in known]
    before, after = assembled(told, first), assembled(told, [*first, *later])
    assert before.columns == after.columns
    cut = assembled(told, [event for event in first if event.at <= at])
    assert cut.columns == before.columns


@given(logs)
@settings(max_examples=60, deadline=None)
def test_a_row_for_an_event_knows_nothing_of_that_event_nor_of_what_follows(events: list[Event]) -> None:
    told = spec(rows="{each: see}", label="{count: see, window: 2d}")
    sees = sorted((event for event in events if event.type == "see"), key=lambda event: event.at)
    if not sees:
        return
    whole = assembled(told, events)
    assert whole.times == [event.at for event in sees]
    for number, event in enumerate(sees):
        known = [each for each in events if each.at < event.at]
        alone = assembled(told, [*known, event])
        for name, column in whole.columns.items():
            assert alone.columns[name][-1] == column[number]
        assert whole.label is not None
        assert whole.label[number] == any(event.at < each.at <= event.at + 2 * DAY for each in sees)


@given(logs)
@settings(max_examples=40, deadline=None)
def test_a_row_is_what_the_store_would_have_said_at_that_moment(events: list[Event]) -> None:
    told = spec()
    (at,) = told.moments.at
    events = [buy(0), *(event for event in events if event.id != buy(0).id)]
    table = assembled(told, events)
    features = FeatureSet(declared().features)
    known = sorted((event for event in events if event.at <= at), key=lambda event: event.at)
    states = features.complete({}, at, lambda first, last: [
        event for event in known if (first is None or event.at >= first) and (last is None or event.at <= last)
    ])  # fmt: skip
    stored = features.read(states, at, lambda *_: known).values
    for name, read in reads_by_name(declared().features).items():
        if name in table.columns:
            value = read.value(stored.get(read.key), at)
            assert table.columns[name][0] == (pytest.approx(value) if isinstance(value, float) else value)


def test_a_label_looks_forward_from_its_moment_and_no_further_than_its_window() -> None:
    told = spec()
    hours = 7 * 24
    for at, happened in ((hours, False), (hours + 0.25, True), (hours + 48, True), (hours + 48.25, False)):
        assert assembled(told, [buy(0), buy(at, 9.0)]).label == [happened]


def test_a_label_may_be_a_word_or_an_amount() -> None:
    events = [buy(0), buy(170, 3.0, "b"), buy(171, 4.0, "c")]
    amount = spec(kind="score", label="{sum: buy.amount, window: 2d}", estimator="linear_regression")
    assert assembled(amount, events).label == [7.0]
    word = spec(kind="class", label="{first: buy.kind, window: 2d}")
    assert assembled(word, events).label == ["b"]
    with pytest.raises(TrainingFailed, match=f"1: {NO_LABEL}"):
        assembled(word, [buy(0)])


def test_rows_whose_outcome_is_not_known_yet_are_left_out() -> None:
    told = spec(rows="{at: [2026-01-08T00:00:00Z, 2026-01-10T00:00:00Z, 2026-01-11T00:00:00Z]}")
    table = assembled(told, [buy(0)], until=BEGIN + 11 * DAY)
    assert table.rows == 2
    assert table.left_out == {TOO_LATE: 1}
    assert assembled(told, [buy(0), buy(9 * 24)], until=None).rows == 1


def test_rows_that_look_back_further_than_the_log_are_left_out() -> None:
    names = ("buys_3d", "sees_3d")
    inputs = "\n" + "".join(f"  - {{name: {name}, from: features.{name}}}\n" for name in names)
    rows = "{at: [2026-01-04T00:00:00Z, 2026-01-08T00:00:00Z]}"
    told = spec(inputs=inputs, rows=rows, source="{events: x, since: 2026-01-02T00:00:00Z}")
    table = assembled(told, [buy(0)])
    assert (table.rows, table.left_out) == (1, {TOO_EARLY: 1})


def test_what_was_sent_with_a_request_comes_from_the_event_that_a_row_is_for() -> None:
    inputs = "\n  - {name: device, from: context.device, as: index}\n"
    told = spec(rows='{each: see, where: event.device != "tv"}', inputs=inputs)
    table = assembled(told, [see(1, "ios"), see(2, "tv"), see(3, "web")])
    assert table.columns == {"device": ["ios", "web"]}


class Written:
    """A store that is written to at a clock that stands still, and closed before it is read."""

    def __init__(self, folder: Path) -> None:
        self.clock = BEGIN
        self.folder = folder / "store"
        self.store = Store.open(self.folder, clock=lambda: self.clock, background=False)
        self.store.use_features(FeatureSet(declared().features))

    def events(self, subject: str, *events: Event) -> None:
        self.store.ingest([msgspec.structs.replace(event, subject_id=subject) for event in events]).result()

    def histories(self, *purposes: str) -> tuple[list[History], dict[str, int]]:
        self.store.close()
        left_out: dict[str, int] = {}
        return list(read_store(self.folder, purposes, BEGIN + 50 * DAY, left_out)), left_out


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    made = Written(tmp_path)
    yield made
    made.store.close()


def test_every_subject_of_a_store_comes_with_its_events(written: Written) -> None:
    for number in range(300):
        written.events(f"u{number}", buy(30), buy(number % 7))
    histories, left_out = written.histories()
    assert len({history.subject for history in histories}) == len(histories) == 300
    assert all(len(each.events) == 2 and each.events[0].at < each.events[1].at for each in histories)
    assert left_out == {}


def test_attributes_are_those_of_the_moment(written: Written) -> None:
    written.events("s", buy(0))
    updates: list[dict[str, Any]] = [{"plan": "trial"}, {"plan": "pro", "age": 40}, {"age": 41}]
    for day, changes in enumerate(updates, 1):
        written.clock = BEGIN + day * DAY
        written.store.update(Update(subject_id="s", set=changes)).result()
    ((history,), _) = written.histories()
    seen = [history.attributes(BEGIN + round(day * DAY)) for day in (0.5, 1, 1.5, 2, 9)]
    assert seen == [{}, {"plan": "trial"}, {"plan": "trial"}, {"plan": "pro", "age": 40}, {"plan": "pro", "age": 41}]
    inputs = "\n  - {name: plan, from: profile.plan, as: index}\n"
    told = spec(source="{store: data}", inputs=inputs, rows="{at: [2026-01-01T12:00:00Z, 2026-01-02T12:00:00Z]}")
    table = assemble(told, [history], (), until=BEGIN + 50 * DAY, defaults=declared().defaults)
    assert table.columns == {"plan": ["free", "trial"]}


def test_what_the_history_of_attributes_forgot_is_not_made_up(tmp_path: Path) -> None:
    clock = BEGIN
    with Store.open(tmp_path / "store", clock=lambda: clock, background=False, limits=Limits(versions=2)) as store:
        store.ingest([buy(0)]).result()
        for day in range(1, 5):
            clock = BEGIN + day * DAY
            store.update(Update(subject_id="s", set={"age": day})).result()
    (history,) = read_store(tmp_path / "store", (), BEGIN + 50 * DAY, {})
    found = [history.attributes(BEGIN + day * DAY) for day in range(1, 6)]
    assert found == [None, None, {"age": 3}, {"age": 4}, {"age": 4}]


def test_nobody_is_learnt_from_without_consent(written: Written) -> None:
    for subject in ("yes", "no"):
        written.events(subject, buy(0))
    change = ConsentChange(subject_id="yes", purpose="analytics", state=ConsentState.GRANTED, source="form", at=BEGIN)
    written.store.set_consent(change).result()
    histories, left_out = written.histories("analytics")
    assert (len(histories), left_out) == (1, {NO_CONSENT: 1})


def test_whoever_lost_events_is_left_out(tmp_path: Path) -> None:
    clock = BEGIN
    limits = Limits(keep_for=5 * DAY)
    with Store.open(tmp_path / "store", clock=lambda: clock, background=False, limits=limits) as store:
        store.use_features(FeatureSet(declared().features))
        while store.rebuild_step(100):
            pass
        store.ingest([buy(0), buy(1)]).result()
        store.ingest([msgspec.structs.replace(buy(40 * 24), subject_id="new")]).result()
        clock = BEGIN + 41 * DAY
        while store.collect_step():
            pass
    left_out: dict[str, int] = {}
    assert len(list(read_store(tmp_path / "store", (), clock, left_out))) == 1
    assert left_out == {GONE: 1}
