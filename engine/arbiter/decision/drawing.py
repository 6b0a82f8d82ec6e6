"""The function that says what an experiment is for a subject: generated for one experiment, since a decision must not
feel it.

Law: text and names in, a function out. What it computes is published in docs/hashing.md, and a test holds it to the
plain form of that page. One hash gives a unit its place in the layer, by which it is in one experiment of the layer or
in none, and a word from which variants are drawn. The levels of a factor race for a unit: each draws a number of its
own, which its weight stretches, and the least wins (weighted rendezvous hashing; Schindelhauer and Schomaker, Weighted
Distributed Hash Tables, SPAA 2005). So a level whose weight grows takes units from the others and moves nobody else.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import product
from math import ceil, log
from typing import TYPE_CHECKING, Any

from arbiter.decision.dates import in_time
from arbiter.decision.hashing import multiplier
from arbiter.expr.generated import function_of
from arbiter.ruleset.experiments.terms import JOINT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arbiter.expr.view import View
    from arbiter.ruleset.experiments.terms import Experiment, Factor
    from arbiter.types import Standing

PLACES = 2**53
_BELOW = 512 - 53  # bits of the hash below those of the place
_WORD = 2**64 - 1
_SCALE = 2.0**-52
_DIGITS = 12  # of a share that count: 0.1 and 0.2 behind it end where 0.3 begins


def drawer(
    experiment: Experiment,
    drawn: Mapping[str, Any],
    out: Mapping[Standing, Any],
    forced: Mapping[str, Any],
    unit: Callable[[View], str | None] | None,
    targeted: Callable[[View], bool] | None,
    held: Callable[[View, str], bool] | None,
    *,
    off: bool,
) -> Callable[[View, str], Any]:
    """What gives, for a view and a subject's id, what stands for the variant in `drawn`, or in `out` for what keeps the
    subject outside; for a unit that is `forced` what stands there.

    `unit` gives what is split where that is not the id, `targeted` says whether the targeting holds, `held` whether the
    subject is in the holdout of all; an experiment that is `off` has nobody.
    """
    names: dict[str, Any] = {f"OUT_{standing.name}": found for standing, found in out.items()}
    if off or not experiment.enabled:
        never = "OUT_OVERRIDDEN" if off else "OUT_DISABLED"
        return function_of([f"def f(v, s):\n    return {never}\n"], names, f"drawing of {experiment.name}")
    names |= {
        "blake2b": blake2b, "number": int.from_bytes, "log": log, "in_time": in_time, "unit": unit,
        "ACTIVE": experiment.active, "targeted": targeted, "held": held, "FORCED": forced,
    }  # fmt: skip
    body = [] if unit is None else ["u = unit(v)", "if u is None:", "    return OUT_UNIT"]
    u = "s" if unit is None else "u"
    if forced:
        body += [f"if {u} in FORCED:", f"    return FORCED[{u}]"]
    if experiment.active is not None:
        body += ["if not in_time(ACTIVE, v):", "    return OUT_INACTIVE"]
    if targeted is not None:
        body += ["if not targeted(v):", "    return OUT_TARGETING"]
    if held is not None:
        body += ["if held(v, s):", "    return OUT_HOLDOUT"]
    names["SALT"] = f"{experiment.layer_salt}\0"
    # Without keywords, which would cost a fifth of the whole.
    body += [f"n = number(blake2b((SALT + {u}).encode()).digest())", *_traffic(experiment), f"w = n & {_WORD}"]
    for number, factor in enumerate(experiment.factors):
        body += _race(factor, experiment.salt, f"r{number}")
    levels = [[name for name, weight in factor.levels if weight] for factor in experiment.factors]
    if len(levels) == 1:
        names["DRAWN"] = [drawn[level] for level in levels[0]]
    else:
        combined = product(*(enumerate(each) for each in levels))
        names["DRAWN"] = {
            tuple(number for number, _ in each): drawn[JOINT.join(level for _, level in each)] for each in combined
        }
    places = ", ".join(f"r{number}" for number in range(len(levels)))
    lines = "".join(f"    {line}\n" for line in [*body, f"return DRAWN[{places}]"])
    return function_of([f"def f(v, s):\n{lines}"], names, f"drawing of {experiment.name}")


def bounds(offset: float, traffic: float) -> tuple[int, int]:
    """The half-open range of places, in 2^-53, that an experiment has of its layer."""
    return ceil(offset * PLACES), ceil(round(offset + traffic, _DIGITS) * PLACES)


def place_of(salt: str, unit: str) -> int:
    """A unit's place in the layer of this salt, in 2^-53: the upper 53 bits of the hash."""
    return int.from_bytes(blake2b(f"{salt}\0{unit}".encode()).digest(), "big") >> _BELOW


def _traffic(experiment: Experiment) -> list[str]:
    """The lines that send away whom the experiment does not have now."""
    if [bounds(experiment.offset, step.traffic) for step in experiment.steps if step.start is None] == [(0, PLACES)]:
        return []
    lines: list[str] = [f"p = n >> {_BELOW}"]
    ends = [(step.start, bounds(experiment.offset, step.traffic)[1]) for step in experiment.steps]
    first = bounds(experiment.offset, 0)[0]
    if ends[0][0] is None:
        end = str(ends[0][1])
    else:
        lines.append(f"e = {first}")
        for start, each in ends:
            lines += [f"if v.clock >= {start}:", f"    e = {each}"]
        end = "e"
    return [*lines, f"if not {first} <= p < {end}:", "    return OUT_TRAFFIC"]


def _race(factor: Factor, salt: str, into: str) -> list[str]:
    """The lines that put the number of the level that wins into a variable.

    A draw is the unit's word times the level's number, of which 64 bits count. Where all weigh the same the greatest
    draw arrives first; else the draw is made a fraction, of its upper 52 bits and a half: exact, and never 0 or 1.
    """
    runners = [(level, weight) for level, weight in factor.levels if weight]
    alike = len({weight for _, weight in runners}) == 1
    lines: list[str] = []
    for number, (level, weight) in enumerate(runners):
        drawn = f"w * {multiplier(salt, factor.name, level)} & {_WORD}"
        if not alike:
            drawn = f"log((({drawn}) >> 12) * {_SCALE!r} + {_SCALE / 2!r}) * {1 / weight!r}"
        if number == 0:
            lines += [f"b = {drawn}", f"{into} = 0"]
        else:
            lines += [f"a = {drawn}", "if a > b:", f"    b = a; {into} = {number}"]
    return lines
