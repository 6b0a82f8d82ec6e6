"""How subjects went between segments: every one of them is somewhere at every moment, as a plain count has it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from arbiter.models import Model, from_bytes
from arbiter.training.declared import read_declarations
from arbiter.training.examples import History, assemble
from arbiter.training.flows import NEW, UNKNOWN
from arbiter.training.reading import read_spec
from arbiter.training.report import page, report
from arbiter.training.run import train
from arbiter.types import Event

if TYPE_CHECKING:
    from arbiter.training.declared import Declarations

DAY = 24 * 3600 * 1_000_000
NOW = 20_000 * DAY
SPEC = b"""
name: groups
version: 1
kind: segment
source: {events: log.jsonl}
rules: rules
rows: {every: 10d, times: 3}
segments: {keen: {most: buys}, calm: rest}
inputs: [{name: buys, from: features.buys}, {name: age, from: features.age}]
estimator: kmeans
"""


@pytest.fixture(scope="module")
def declared() -> Declarations:
    return read_declarations({"r.yaml": b"features: {buys: {count: buy, window: 10d}, age: {last: buy.age}}"}, "rules")


def bought(subject: str, *days: int, age: float | None = 30.0) -> History:
    """A subject that bought twice on each of these days before now."""
    properties = {} if age is None else {"age": age}
    events = [
        Event(f"e{day}-{number}", subject, "buy", NOW - day * DAY - number, properties)
        for day in sorted(days, reverse=True)
        for number in (1, 0)
    ]
    return History(subject, events)


PEOPLE = [
    *(bought(f"stayed{n}", *range(45), age=30.0 + n % 3) for n in range(40)),
    *(bought(f"calm{n}", 44, 30, 12, 2, age=30.0 + n % 3) for n in range(30)),
    *(bought(f"left{n}", *range(26, 45), 2, age=30.0 + n % 3) for n in range(20)),
    *(bought(f"came{n}", *range(15), age=30.0 + n % 3) for n in range(10)),
    *(bought(f"odd{n}", *range(45), age=None) for n in range(5)),
]


@pytest.fixture(scope="module")
def model(declared: Declarations) -> Model:
    spec = read_spec(SPEC, "train.yaml")
    made = train(spec, SPEC, assemble(spec, PEOPLE, declared.features, until=NOW))
    return from_bytes(made.manifest, made.onnx)


def test_sizes_and_moves_are_those_of_a_plain_count(model: Model, declared: Declarations) -> None:
    moments = [NOW - 30 * DAY, NOW - 20 * DAY]
    found = report(model, PEOPLE, declared, NOW, {}, moments)
    (flow,) = found.flows
    assert (flow.output, flow.moments) == ("cluster", [*moments, NOW])
    assert set(flow.words) == {"keen", "calm", UNKNOWN, NEW}

    def kind(subject: str, at: int) -> str:
        """What each was made to be."""
        if subject.startswith("odd"):
            return UNKNOWN
        if subject.startswith("came"):
            return "keen" if at == NOW else NEW
        if subject.startswith("left"):
            return "keen" if at < NOW - 20 * DAY else "calm"
        return "keen" if subject.startswith("stayed") else "calm"

    for number, at in enumerate(flow.moments):
        sizes = Counter(kind(each.subject, at) for each in PEOPLE)
        assert dict(zip(flow.words, flow.sizes[number], strict=True)) == {word: sizes[word] for word in flow.words}
    for number, (first, second) in enumerate(zip(flow.moments, flow.moments[1:], strict=False)):
        moved = Counter((kind(each.subject, first), kind(each.subject, second)) for each in PEOPLE)
        for row, left in enumerate(flow.words):
            for column, right in enumerate(flow.words):
                assert flow.moves[number][row][column] == moved[left, right], (left, right)
    written = page(found, "now")
    assert "cluster over time" in written
    assert written.count("<table>") == 2
    assert "http" not in written


def test_without_moments_before_it_nothing_is_said_to_have_gone(model: Model, declared: Declarations) -> None:
    found = report(model, PEOPLE, declared, NOW, {})
    assert (found.flows, found.subjects, found.unknown) == ([], 105, 5)
