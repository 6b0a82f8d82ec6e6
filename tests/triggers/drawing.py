"""Random triggers and random histories, and triggers as an author would write them.

Law: everything comes from the random numbers that are given.
"""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from arbiter.ruleset.image import symbols_of
from arbiter.ruleset.load import load_ruleset
from arbiter.ruleset.triggering import open_triggers
from arbiter.types import Event
from tests.triggers.oracle import Atom, Part, Spec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from arbiter.ruleset.triggering import OpenTrigger

SECOND = 1_000_000
LATE = 15 * SECOND
_TYPES = ("a", "b", "c")
_VALUES: tuple[Any, ...] = (1, 2, 1.0, True, "1", "u")
_HELD = (*_VALUES, 1, 1, [1], [1.0], 2**53 + 1, 2.0**53)  # the last two are equal to CEL, as doubles
_WINDOWS = tuple(second * SECOND for second in (1, 5, 10, 30))


class Happens(NamedTuple):
    """An event at a position of the log that arrives at a time, or without one that time passes."""

    arrival: int
    position: int = 0
    event: Event | None = None


def opened(specs: Sequence[Spec], more: str = "") -> tuple[OpenTrigger, ...]:
    """The triggers, through the language."""
    text = "triggers:\n" + "".join(f"  - {json.dumps(_written(spec))}\n" for spec in specs) + more
    ruleset, found = load_ruleset({"triggers.yaml": text.encode()}, {})
    assert ruleset is not None, [each.render() for each in found]
    return open_triggers(ruleset, symbols_of(ruleset, {}))


def triggers(random: Random, many: int) -> list[Spec]:
    """Random triggers, sorted by id."""
    return [_trigger(random, f"t{number}") for number in range(many)]


def history(random: Random, most: int) -> list[Happens]:
    """A random history of one subject: several events arrive at once, late, or with times to come."""
    happens = []
    now, position = 1_000 * SECOND, 0
    for _ in range(random.randint(2, most)):
        if random.random() < 0.2:
            happens.append(Happens(now + random.choice((0, 1, 3)) * SECOND))
        now = max(now, happens[-1].arrival if happens else now) + random.choice((0, 0, 1, 2, 4, 5, 10, 30)) * SECOND
        happens.append(Happens(now))
        for _ in range(random.choice((1, 1, 2, 3))):
            position += random.randint(1, 3)
            delay = random.choice((0, 0, 0, 0, 1, 2, 5, 10, 25, 60, -3)) * SECOND
            properties: dict[str, Any] = {}
            if random.random() < 0.9:
                properties["x"] = random.choice(_HELD)
            if random.random() < 0.8:
                properties["y"] = random.randint(1, 3)
            name = f"{random.choice(('', '', '', 'trigger:'))}{position}"
            event = Event(name, "", random.choice("aabbc"), now - delay, properties)
            happens.append(Happens(now, position, event))
    return [*happens, Happens(now + random.choice((0, 5, 50)) * SECOND)]


def _trigger(random: Random, name: str) -> Spec:
    kind = random.choice(("after", "any", "count", "count", "sequence", "sequence", "sequence", "all", "all"))
    labels = [f"p{number}" for number in range(random.choice((2, 2, 3, 4)))] if kind in {"sequence", "all"} else ["p0"]
    if kind == "any":
        labels = ["p0"] * random.randint(2, 3)
    parts = []
    for number, label in enumerate(labels):
        before = labels[:number] if kind in {"sequence", "all"} else []
        within = random.choice((None, *_WINDOWS)) if kind == "sequence" and number else None
        types = tuple(random.sample(_TYPES, random.choice((1, 1, 1, 2))))
        parts.append(Part(label, types, _atoms(random, before), within))
    unless = None
    if random.random() < 0.4:
        types = random.choice(((), *((each,) for each in _TYPES)))
        unless = Part("", types, _atoms(random, labels[:1]), random.choice(_WINDOWS))
    return Spec(
        name,
        kind,
        tuple(parts),
        within=random.choice((None, *_WINDOWS)) if kind in {"sequence", "all", "count"} else None,
        times=random.randint(2, 4) if kind == "count" else 0,
        by=random.choice(("", "x")) if kind == "count" else "",
        unless=unless,
        per=random.choice((0, 0, 0, inf, 20 * SECOND)),
        priority=random.choice((0, 0, 1)),
    )


def _atoms(random: Random, before: Sequence[str]) -> tuple[Atom, ...]:
    atoms = []
    if random.random() < 0.2:
        atoms.append(
            random.choice((Atom("is", "x", random.choice(_VALUES)), Atom("in", "x", (1, "u")), Atom("above", "y", 1)))
        )
    if before and random.random() < 0.4:
        atoms.append(Atom("is", random.choice("xxy"), random.choice("xxxy"), random.choice(before)))
    if before and random.random() < 0.2:
        atoms.append(Atom("above", "y", "y", random.choice(before)))
    random.shuffle(atoms)
    return tuple(atoms)


def _written(spec: Spec) -> dict[str, Any]:
    parts = [_part(part) for part in spec.parts]
    alone = spec.kind in {"after", "count"}
    written: dict[str, Any] = {"id": spec.id, spec.kind: parts[0] if alone else parts, "then": {"unset": "n"}}
    window = {} if spec.within is None else {"within": _duration(spec.within)}
    if spec.kind == "count":
        by = {"by": f"event.{spec.by}"} if spec.by else {}
        written["count"] = parts[0] | {"times": spec.times} | by | window
    else:
        written |= window
    if spec.unless is not None:
        written["unless"] = _part(spec.unless)
    if spec.per:
        written["repeat"] = "once" if spec.per == inf else {"per": _duration(int(spec.per))}
    return written | {"priority": spec.priority}


def _part(part: Part) -> dict[str, Any]:
    written: dict[str, Any] = {"event": list(part.types) if part.types else "*"}
    if part.label:
        written["as"] = part.label
    if part.atoms:
        written["where"] = " && ".join(map(_atom, part.atoms))
    return written if part.within is None else written | {"within": _duration(part.within)}


def _atom(atom: Atom) -> str:
    sign = {"is": "==", "in": "in", "above": ">"}[atom.test]
    other = f"{atom.label}.{atom.value}" if atom.label else json.dumps(atom.value)
    return f"event.{atom.name} {sign} {other}"


def _duration(micros: int) -> str:
    return f"{micros // SECOND}s"
