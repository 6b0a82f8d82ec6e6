"""The function that says what an experiment is for a subject: generated for one experiment, since a decision must not
feel it.

Law: text and names in, a function out. What it computes is published in docs/hashing.md, and a test holds it to the
plain form of that page. One hash gives a unit its place in the layer, by which it is in one experiment of the layer or
in none, and a word from which variants are drawn. The levels of a factor race for a unit: each draws a number of its
own, which its weight stretches, and the least wins (weighted rendezvous hashing; Schindelhauer and Schomaker, Weighted
Distributed Hash Tables, SPAA 2005). So a level whose weight grows takes units from the others and moves nobody else.

A logarithm takes longer than the rest of a race, and is needed only where a race is close: `bars` say how great a draw
must be to win for sure, or lose for sure, against one of which the upper bits are known.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import product
from math import ceil, exp, log
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

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
_BESIDE = 64 - 53  # of them those in the eight bytes that hold the place
_BEYOND = b"\xff" * 65  # above every hash
_WORD = 2**64 - 1
_SCALE = 2.0**-52
_DIGITS = 12  # of a share that count: 0.1 and 0.2 behind it end where 0.3 begins
_CELLS = 256
_CELL_BITS = 56  # of a draw, below those that say in which cell it is
_CLOSE = 2.0**-40  # far above what rounding makes of logarithms, far below a cell
_FEW = 4  # levels for which a tree of all races is short
_LIGHT = 1e-300  # logarithms divided by weights below may be infinite, so that draws are alike


class Kept(NamedTuple):
    """Who stays in a sticky experiment: subjects whose feature of this `key` names one of `variants`, for which it has
    what stands for them, but those of whom `taken` says that others have their place now.
    """

    key: str
    variants: Mapping[str, Any]
    taken: Callable[[str, View], bool]


def drawer(
    experiment: Experiment,
    drawn: Mapping[str, Any],
    out: Mapping[Standing, Any],
    forced: Mapping[str, Any],
    unit: Callable[[View], str | None] | None,
    targeted: Callable[[View], bool] | None,
    held: Callable[[View, str], bool] | None,
    kept: Kept | None,
    *,
    off: bool,
) -> Callable[[View, str], Any]:
    """What gives, for a view and a subject's id, what stands for the variant in `drawn`, or in `out` for what keeps the
    subject outside; for a unit that is `forced` what stands there.

    `unit` gives what is split where that is not the id, `targeted` says whether the targeting holds, `held` whether the
    subject is in the holdout of all, `kept` who stays in a variant; an experiment that is `off` has nobody.
    """
    names: dict[str, Any] = {f"OUT_{standing.name}": found for standing, found in out.items()}
    if off or not experiment.enabled:
        never = "OUT_OVERRIDDEN" if off else "OUT_DISABLED"
        return function_of([f"def f(v, s):\n    return {never}\n"], names, f"drawing of {experiment.name}")
    names |= {
        "blake2b": blake2b, "word": Struct(">56xQ").unpack, "log": log, "in_time": in_time, "unit": unit,
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
    if kept is not None:
        names |= {"KEPT": kept.variants, "taken": kept.taken}
        body += [f"k = v.features.get({kept.key!r})", "if k in KEPT and not taken(s, v):", "    return KEPT[k]"]
    names["SALT"] = f"{experiment.layer_salt}\0"
    # Without keywords, which would cost a fifth of the whole.
    body += [f"d = blake2b((SALT + {u}).encode()).digest()", *_traffic(experiment), "w, = word(d)"]
    for number, factor in enumerate(experiment.factors):
        body += _race(factor, experiment.salt, f"r{number}", names)
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


def bars(holder: float, challenger: float) -> tuple[list[int], list[int]]:
    """By the upper 8 bits of the draw of a level of the weight `holder`, the draws up to which one of the weight
    `challenger` loses for sure, and those above which it wins for sure.

    One of which the fraction is x loses to fractions above x to the power of `challenger` over `holder`.
    """
    power = challenger / holder
    edges = [0.0, *(exp(log(cell / _CELLS) * power) for cell in range(1, _CELLS)), 1.0]
    loses = [max(int((edge - _CLOSE) * 2.0**64), -1) for edge in edges[:-1]]
    return loses, [int((edge + _CLOSE) * 2.0**64) for edge in edges[1:]]


def _traffic(experiment: Experiment) -> list[str]:
    """The lines that send away whom the experiment does not have now. Hashes sort as the places do with which they
    begin.
    """
    ends = [(step.start, bounds(experiment.offset, step.traffic)[1]) for step in experiment.steps]
    first = bounds(experiment.offset, 0)[0]
    if (first, ends) == (0, [(None, PLACES)]):
        return []
    if ends[0][0] is None:
        return [f"if not {_edge(first)!r} <= d < {_edge(ends[0][1])!r}:", "    return OUT_TRAFFIC"]
    lines = [f"e = {_edge(first)!r}"]
    for start, each in ends:
        lines += [f"if v.clock >= {start}:", f"    e = {_edge(each)!r}"]
    return [*lines, f"if not {_edge(first)!r} <= d < e:", "    return OUT_TRAFFIC"]


def _edge(place: int) -> bytes:
    """What hashes of places below are less than, and others not."""
    return (place << _BESIDE).to_bytes(8, "big") if place < PLACES else _BEYOND


def _race(factor: Factor, salt: str, into: str, names: dict[str, Any]) -> list[str]:
    """The lines that put the number of the level that wins into a variable.

    A draw is the unit's word times the level's number, of which 64 bits count. Where all weigh the same the greatest
    draw arrives first; else the draw is made a fraction, of its upper 52 bits and a half: exact, and never 0 or 1.
    """
    runners = [(level, weight) for level, weight in factor.levels if weight]
    weights = [weight for _, weight in runners]
    products = [f"w * {multiplier(salt, factor.name, level)}" for level, _ in runners]
    draws = [f"{product} & {_WORD}" for product in products]
    alike = len(set(weights)) == 1
    if not alike and len(runners) <= _FEW and min(weights) > _LIGHT:
        # Of the first draw the cell is mostly enough, which is a number that need not be made.
        lines = [f"c = {products[0]} >> {_CELL_BITS} & {_CELLS - 1}"]
        lines += [f"{into}_{number} = {draw}" for number, draw in enumerate(draws) if number]
        named = [f"({draws[0]})", *(f"{into}_{number}" for number in range(1, len(draws)))]
        return [*lines, *_tree(list(zip(named, weights, strict=True)), 0, 1, into, names)]
    scores = draws if alike else [_score(f"({draw})", weight) for draw, weight in zip(draws, weights, strict=True)]
    lines = [f"b = {scores[0]}", f"{into} = 0"]
    for number, score in enumerate(scores[1:], 1):
        lines += [f"a = {score}", "if a > b:", f"    b = a; {into} = {number}"]
    return lines


def _tree(
    runners: list[tuple[str, float]], holder: int, challenger: int, into: str, names: dict[str, Any]
) -> list[str]:
    """The lines that decide between the level that leads, of which `c` is the cell, and those from the challenger on.

    Each runs with its draw and its weight.
    """
    if challenger == len(runners):
        return [f"{into} = {holder}"]
    (one, held), (other, against) = runners[holder], runners[challenger]
    loses, wins = f"LOSES_{into}_{holder}_{challenger}", f"WINS_{into}_{holder}_{challenger}"
    names[loses], names[wins] = bars(held, against)
    scores = f"{_score(other, against)} > {_score(one, held)}"
    leads = _tree(runners, challenger, challenger + 1, into, names)
    if challenger + 1 < len(runners):
        leads = [f"c = {other} >> {_CELL_BITS}", *leads]
    return [
        f"if {other} > {loses}[c] and ({other} > {wins}[c] or {scores}):",
        *(f"    {line}" for line in leads),
        "else:",
        *(f"    {line}" for line in _tree(runners, holder, challenger + 1, into, names)),
    ]


def _score(draw: str, weight: float) -> str:
    return f"log(({draw} >> 12) * {_SCALE!r} + {_SCALE / 2!r}) / {weight!r}"
