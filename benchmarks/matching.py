"""What matching costs as rules grow, and what a whole walk to a decision adds."""

from __future__ import annotations

import itertools
import random
from typing import Any

from arbiter.decision.walk import Walk
from arbiter.expr.view import View
from arbiter.snapshot import Snapshot
from benchmarks.conditions import POINT, files_of
from benchmarks.measure import alternate
from benchmarks.population import broad, profile, rule_set

SIZES = (10, 100, 1_000, 10_000)


def run() -> dict[str, Any]:
    """µs by number of rules for matching alone and for the decision core; `growth` is 10,000 rules over 100."""
    draw = random.Random(7)
    people = [View(profile(draw), {}, {}, 0) for _ in range(256)]
    subjects = {}
    for size in SIZES:
        point = Snapshot(rule_set(files_of(broad(size))), {}).points[POINT]
        viewers, deciders = itertools.cycle(people), itertools.cycle(people)
        match = point.index.match
        subjects[f"match {size}"] = lambda match=match, viewers=viewers: match(next(viewers))
        subjects[f"decide {size}"] = lambda point=point, deciders=deciders: Walk(point, next(deciders), "x").advance()
    took = alternate(subjects)
    return {
        "match_us": {size: took[f"match {size}"] for size in SIZES},
        "decide_us": {size: took[f"decide {size}"] for size in SIZES},
        "ratios": {"match_10000_over_100": took["match 10000"] / took["match 100"]},
    }
