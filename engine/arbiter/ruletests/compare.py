"""What a test expects, held against what was decided.

Law: pure; says each difference once, at the narrowest place in the test where it shows, in lines that can be laid side
by side. Numbers are compared as numbers, to one part in a thousand million: sums and products are not written out.
"""

from __future__ import annotations

import math
from base64 import b64encode
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.authoring.nodes import Node  # noqa: TC001 - a field's type at run time
from arbiter.decision.wording import shown
from arbiter.expr.ops import eq
from arbiter.ruleset.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arbiter.ruletests.spec import Expected, RuleTest, WantedReason, WantedTreatment
    from arbiter.types import Decision, RuleOutcome, Treatment

_CLOSE = 1e-9


class Mismatch(msgspec.Struct, frozen=True):
    """Something that did not come true: what, at `node`, line by line what was expected and what came instead.

    `rules` are those whose fate at `decision` tells why; of triggers there is no decision, and `why` has them with what
    became of them.
    """

    node: Node
    decision: str
    what: str
    expected: tuple[str, ...]
    got: tuple[str, ...]
    rules: tuple[str, ...] = ()
    why: tuple[tuple[str, str], ...] = ()


def compare(test: RuleTest, decisions: Sequence[Decision]) -> tuple[Mismatch, ...]:
    """Every difference. Reasons are compared where decisions are explained."""
    found: list[Mismatch] = []
    for decision, expected in zip(decisions, test.expected, strict=True):
        found += _compare_one(decision, expected)
    return tuple(found)


def _compare_one(decision: Decision, expected: Expected) -> Iterator[Mismatch]:
    point = decision.point
    if expected.treatments is not None:
        yield from _all(decision, expected, expected.treatments)
    won = {treatment.rule_id: treatment for treatment in decision.treatments}
    came = tuple(map(_label, decision.treatments)) or ("nothing",)
    for wanted in expected.includes:
        found = next((each for each in decision.treatments if _is_meant(wanted, each)), None)
        if found is None:
            yield Mismatch(wanted.node, point, "includes", (_wanted_label(wanted),), came, _named(wanted.rule))
        else:
            yield from _details(point, wanted, found)
    for absent in expected.absent:
        if absent.rule in won:
            yield Mismatch(absent.node, point, "absent", (f"without {absent.rule}",), came, (absent.rule,))
    if expected.defaulted is not None and expected.defaulted is not decision.defaulted:
        node = expected.defaulted_node or expected.node
        words = (shown(expected.defaulted),), (shown(decision.defaulted),)
        yield Mismatch(node, point, "defaulted", *words, tuple(rule for rule in won if rule))
    outcomes = {outcome.rule_id: outcome for outcome in decision.explanation}
    for reason in expected.reasons:
        outcome = outcomes.get(reason.rule)
        if outcome is not None:
            yield from _reason(point, reason, outcome)


def _all(decision: Decision, expected: Expected, wanted: tuple[WantedTreatment, ...]) -> Iterator[Mismatch]:
    """The whole list: first who is in it and in which order, then what each is."""
    given = decision.treatments
    if len(given) != len(wanted) or not all(map(_is_meant, wanted, given)):
        lines = tuple(map(_wanted_label, wanted)) or ("nothing",)
        # Where a test names an action, the action is what is compared.
        came = tuple(
            _label(each, by_action=number < len(wanted) and not wanted[number].rule)
            for number, each in enumerate(given)
        )
        asked, won = [each.rule for each in wanted], [each.rule_id for each in given]
        # Those on one side only say why; where only the order differs, all do.
        odd = [*(rule for rule in asked if rule not in won), *(rule for rule in won if rule not in asked)]
        rules = _named(*odd) or _named(*won)
        yield Mismatch(expected.node, decision.point, "treatments", lines, came or ("nothing",), rules)
        return
    for each, treatment in zip(wanted, given, strict=True):
        yield from _details(decision.point, each, treatment)


def _is_meant(wanted: WantedTreatment, treatment: Treatment) -> bool:
    return wanted.rule == treatment.rule_id if wanted.rule else wanted.action == treatment.action


def _details(point: str, wanted: WantedTreatment, treatment: Treatment) -> Iterator[Mismatch]:
    of = wanted.rule or treatment.rule_id or "the default"
    rules = _named(treatment.rule_id)
    if wanted.action is not None and wanted.action != treatment.action:
        yield Mismatch(wanted.nodes["action"], point, f"action of {of}", (wanted.action,), (treatment.action,), rules)
    if wanted.params is not None:
        names = [*wanted.params, *((n for n in treatment.params if n not in wanted.params) if wanted.whole else ())]
        for name in names:
            want, came = ((shown(params[name]),) if name in params else ("no such parameter",)
                          for params in (wanted.params, treatment.params))  # fmt: skip
            if not (name in wanted.params and name in treatment.params) or not alike(
                wanted.params[name], treatment.params[name]
            ):
                node = wanted.param_nodes.get(name, wanted.node)
                yield Mismatch(node, point, f"param `{name}` of {of}", want, came)
    if wanted.value is not None and (treatment.value is None or not alike(wanted.value, treatment.value)):
        value = "unknown" if treatment.value is None else shown(treatment.value)
        yield Mismatch(wanted.nodes["value"], point, f"value of {of}", (shown(wanted.value),), (value,), rules)
    if wanted.priority is not None and wanted.priority != treatment.priority:
        lines = (str(wanted.priority),), (str(treatment.priority),)
        yield Mismatch(wanted.nodes["priority"], point, f"priority of {of}", *lines)


def _reason(point: str, wanted: WantedReason, outcome: RuleOutcome) -> Iterator[Mismatch]:
    missing = None if wanted.missing is None else ", ".join(sorted(set(wanted.missing)))
    parts = [
        ("", wanted.reason.name, outcome.reason.name),
        (" to ", wanted.lost_to, outcome.lost_to),
        (" on ", wanted.lost_on, outcome.lost_on),
        (" in ", wanted.expression, outcome.expression),
        (" for lack of ", missing, ", ".join(sorted(outcome.missing))),
    ]
    asked = [(word, want, came) for word, want, came in parts if want is not None]
    if any(want != came for _, want, came in asked):
        expected = "".join(f"{word}{want or 'nothing'}" for word, want, _ in asked)
        # Of another reason only what it has is said: who did not lose lost to nobody.
        got = "".join(f"{word}{came}" for word, _, came in asked if came)
        yield Mismatch(wanted.node, point, f"reason of {wanted.rule}", (expected,), (got,), (wanted.rule,))


def _label(treatment: Treatment, *, by_action: bool = False) -> str:
    if treatment.rule_id and not by_action:
        return treatment.rule_id
    return f"action {treatment.action}" + ("" if treatment.rule_id else " (the default)")


def _wanted_label(wanted: WantedTreatment) -> str:
    return wanted.rule or f"action {wanted.action}"


def _named(*rules: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(rule for rule in rules if rule))


def alike(wanted: Any, got: Any) -> bool:
    """Whether a value is the one that a test writes: moments and bytes stand in tests as text."""
    if isinstance(got, dict) and isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(alike(wanted[name], value) for name, value in got.items())
    if isinstance(got, list) and isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(alike, wanted, got))
    if isinstance(wanted, str) and isinstance(got, datetime):
        return rfc3339(wanted) == got
    if isinstance(wanted, str) and isinstance(got, bytes):
        return b64encode(got).decode() == wanted
    if float in {type(wanted), type(got)} and {type(wanted), type(got)} <= {int, float}:
        return math.isclose(wanted, got, rel_tol=_CLOSE)
    return eq(wanted, got)
