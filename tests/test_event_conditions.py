"""The `where` of a feature against cel-cpp: an event counts exactly when its condition is true of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from arbiter.expr import cel
from arbiter.expr.check import Scope, read_expression
from arbiter.expr.compile import event_filter
from arbiter.expr.tree import Expression
from arbiter.profiles.features import FeatureSet
from arbiter.ruleset.reads import reads_of
from arbiter.types import Event
from tests.test_features import feature
from tests.test_oracle import doubles, flipped, ints, literals, members, residual, values

if TYPE_CHECKING:
    from collections.abc import Iterable

SCOPE = Scope(roots={"event": None})
ORACLE = cel.Environment({"event": "dyn"})


def of_an_event(source: str) -> str:
    for root in ("profile", "account", "context"):
        source = source.replace(f"{root}.", "event.")
    return source


conditions = st.recursive(
    st.one_of(literals, literals, flipped, members, residual).map(of_an_event),
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
    ),
    max_leaves=4,
)
properties = st.fixed_dictionaries({}, optional=dict.fromkeys("abcdef", values) | {"i": ints, "j": ints, "x": doubles})


def holds(program: cel.Program, event: dict[str, Any]) -> bool:
    try:
        return program.evaluate({"event": event}) is True
    except cel.CelFailure:
        return False


@settings(max_examples=200, derandomize=True, suppress_health_check=list(HealthCheck))
@given(conditions, st.lists(properties, min_size=6, max_size=12))
def test_an_event_counts_where_cel_cpp_finds_the_condition_true(source: str, events: list[dict[str, Any]]) -> None:
    checked = read_expression(source, SCOPE, expect="bool")
    assume(checked.root is not None)
    assert checked.root is not None
    where = Expression(source, checked.root, checked.type, "a.yaml:1:1", checked.names)
    test, program = event_filter(where), ORACLE.program(source)
    assert test is not None
    expected = [holds(program, event) for event in events]
    assert [test(event) for event in events] == expected, source
    # And so every aggregate counts these and no others.
    log = [Event(str(at), "ann", "buy", at, event) for at, event in enumerate(events)]
    definitions = [
        msgspec.structs.replace(each, where=where)
        for each in (feature("count"), feature("decay", prop="", half_life=3), feature("since"))
    ]
    found = FeatureSet(definitions)

    def fetch(first: int | None, last: int | None) -> Iterable[Event]:
        return [e for e in log if (first is None or e.at >= first) and (last is None or e.at <= last)]

    now = len(log)
    read = found.read(found.complete({}, now, fetch), now, fetch).values
    count, decay, since = (read.get(each.key) for each in definitions)
    times = [at for at, counts in enumerate(expected) if counts]
    assert count == len(times)
    assert since == (times[-1] if times else None)
    heat = reads_of(definitions)[definitions[1].key].value(decay, now)
    assert math.isclose(heat, math.fsum(2.0 ** ((at - now) / 3) for at in times), rel_tol=1e-12)
