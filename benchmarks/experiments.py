"""What experiments cost: an assignment over one published hash, and decisions that read one, or none beside some.

`hash` is `share`, which a rollout takes; `drawn` assigns an ordinary subject to one of two even variants in half of the
traffic, `uneven` to one of two in 9 to 1, `three` to one of three uneven ones, `outside` finds that another half is
meant. `without` and `beside` decide the same at a point that reads no experiment, in rule sets that have none and one;
`reading` at a point that does, where every decision is made again for the other variant. An assignment is promised to
take less than a microsecond; what is asserted is a ratio.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.decision.assignment import Assigner
from arbiter.decision.hashing import share
from arbiter.expr.view import View
from arbiter.profiles.store import Store
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.engine import Engine, wall_clock
from arbiter.snapshot import Snapshot
from arbiter.types import Request
from benchmarks.measure import alternate

if TYPE_CHECKING:
    from collections.abc import Callable

RULES = """
decisions: {plain: {default: {action: none}}, split: {default: {action: none}}}
rules:
  - {id: a, decision: plain, when: context.device == "ios", then: {action: show}}
  - {id: b, decision: split, priority: 1, when: CONDITION, then: {action: short}}
  - {id: c, decision: split, when: context.device == "ios", then: {action: show}}
"""
EXPERIMENTS = """
experiments:
  copy: {decision: split, layer: l, traffic: 0.5, variants: {control: 1, short: 1}}
  other: {decision: split, layer: l, offset: 0.5, traffic: 0.5, variants: {a: 1, b: 1}}
  uneven: {decision: split, variants: {a: 9, b: 1}}
  three: {decision: split, variants: {a: 3, b: 2, c: 1}}
"""
_PASS = 100
_CONDITION = 'experiments.copy == "short"'
SUBJECTS = [f"subject-{number:06d}" for number in range(2_000)]


def run() -> dict[str, Any]:
    """µs of an assignment and of decisions, and what they are over a hash and over a decision without experiments."""
    split = _snapshot(EXPERIMENTS + RULES.replace("CONDITION", _CONDITION))
    whole = _snapshot(RULES.replace("CONDITION", "profile.short"))
    declared = {each.name: Assigner(each, split.symbols, None) for each in split.frame.experiments.each}
    view = View({}, {}, {}, 0)
    inside = [subject for subject in SUBJECTS if declared["copy"].assign(view, subject).variant]
    others = [subject for subject in SUBJECTS if subject not in set(inside)]
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "store", background=False) as store:
        engines = {"without": Engine(store), "beside": Engine(store)}
        engines["without"].activate(whole)
        engines["beside"].activate(split)
        took = alternate(
            {
                "hash": _each(inside, share, "layer:l"),
                "drawn": _each(inside, declared["copy"].assign, view),
                "uneven": _each(inside, declared["uneven"].assign, view),
                "three": _each(inside, declared["three"].assign, view),
                "outside": _each(others, declared["copy"].assign, view),
                "without": _deciding(engines["without"], inside, "plain"),
                "beside": _deciding(engines["beside"], inside, "plain"),
                "reading": _deciding(engines["beside"], inside, "split"),
            }
        )
    took |= {name: took[name] / _PASS for name in ("hash", "drawn", "uneven", "three", "outside")}
    return {
        "took_us": took,
        "ratios": {
            "drawn_over_hash": took["drawn"] / took["hash"],
            "uneven_over_hash": took["uneven"] / took["hash"],
            "three_over_hash": took["three"] / took["hash"],
            "beside_over_without": took["beside"] / took["without"],
        },
    }


def _each(subjects: list[str], work: Callable[[Any, str], Any], first: Any) -> Callable[[], Any]:
    """A pass over so many subjects that to be called counts for nothing."""
    turns = itertools.cycle([subjects[at : at + _PASS] for at in range(0, len(subjects) - _PASS, _PASS)])

    def run() -> None:
        for subject in next(turns):
            work(first, subject)

    return run


def _deciding(engine: Engine, subjects: list[str], point: str) -> Callable[[], Any]:
    now = wall_clock()
    requests = itertools.cycle([Request(subject, (point,), now, {"device": "ios"}) for subject in subjects])
    return lambda: engine.decide(next(requests))


def _snapshot(text: str) -> Snapshot:
    ruleset, found = load_ruleset({"a.yaml": text.encode()}, {})
    if ruleset is None:
        raise ValueError(found)
    return Snapshot(ruleset, {})
