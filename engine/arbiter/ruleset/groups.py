"""``groups``: the groups of rules that choose by what they learn from outcomes.

Law: reads nodes into `Bandit`s, and says their shape to editors. Of a group that is not declared the best rule wins, as
ever. What was learned is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.authoring.blocks import Block, one_of
from arbiter.authoring.nodes import Mapping, kind_of
from arbiter.authoring.scalars import IDENTIFIER, shorten
from arbiter.authoring.schemas import closed, name, named, number, word
from arbiter.errors import did_you_mean
from arbiter.ruleset.keys import read_duration
from arbiter.ruleset.keyschemas import duration, in_order
from arbiter.ruleset.terms import Bandit

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping as Mapped

    from arbiter.authoring.nodes import Entry
    from arbiter.authoring.report import Report
    from arbiter.authoring.schemas import Schema
    from arbiter.ruleset.rules import Rule
    from arbiter.ruleset.sections import Gathered
    from arbiter.ruleset.terms import Metric

KEYS: Final = ("choose", "metric", "prior", "half_life", "floor")
PRIOR_KEYS: Final = ("wins", "losses")
CHOOSE: Final = ("thompson",)
LEAST_PRIOR: Final = 0.1
MOST_PRIOR: Final = 1_000_000.0
_HINT: Final = "write `{choose: thompson, metric: bought}`"


class _GroupReader(msgspec.Struct):
    """Reads the groups of a rule set. `metrics` are those that are declared, by name, None for one that was refused;
    and None where they cannot be known.
    """

    report: Report
    metrics: Mapped[str, Metric | None] | None

    def read(self, name: str, entry: Entry) -> Bandit | None:
        """One group; None when it was refused."""
        path = f"groups.{name}"
        if not isinstance(entry.node, Mapping):
            if entry.node is not None:
                self.report.at(entry.node, f"a group must be a mapping, this is {kind_of(entry.node)}", _HINT, path)
            return None
        block = Block(entry.node, self.report, what="a group", path=path, keys=KEYS)
        block.require("choose", "how is one of its rules chosen? `thompson` learns which wins most often", at=entry.key)
        block.require("metric", "by which of `metrics` does a rule win?", at=entry.key)
        chosen = block.word("choose", CHOOSE)
        metric = self._metric(block)
        wins, losses = self._prior(block)
        floor = self._floor(block)
        half_life = read_duration(block, "half_life") or 0
        if chosen is None or metric is None:
            return None
        position = entry.key.source.position(entry.key.start)
        return Bandit(name, metric.name, metric.outcome, metric.within, wins, losses, half_life, floor, position)

    def _metric(self, block: Block) -> Metric | None:
        said = block.text("metric")
        if said is None or self.metrics is None:
            return None
        if said.text not in self.metrics:
            known = sorted(self.metrics)
            hint = did_you_mean(said.text, known) or (
                f"declared are {one_of(known[:8])}" if known else "declare it under `metrics`"
            )
            block.refuse(said, f"unknown metric `{shorten(said.text)}`", hint, "metric")
            return None
        metric = self.metrics[said.text]
        if metric is not None and metric.take != "any":
            message = f"a bandit learns from yes or no, and `{metric.name}` adds up"
            block.refuse(said, message, "name a metric of `value: any`", "metric")
            return None
        return metric

    def _prior(self, block: Block) -> tuple[float, float]:
        node = block.mapping("prior", "write `{wins: 1, losses: 1}`")
        if node is None:
            return 1.0, 1.0
        inner = Block(node, self.report, what="`prior`", path=f"{block.path}.prior", keys=PRIOR_KEYS)
        for key in PRIOR_KEYS:
            inner.require(key, "both are believed of a rule before anything is learned: `{wins: 1, losses: 1}`")
        found = []
        for key in PRIOR_KEYS:
            said = inner.number(key)
            if said is not None and not LEAST_PRIOR <= said[0] <= MOST_PRIOR:
                inner.refuse(said[1], f"`{key}` must be from {LEAST_PRIOR} to {MOST_PRIOR:,.0f}", key=key)
            found.append(1.0 if said is None else said[0])
        return found[0], found[1]

    @staticmethod
    def _floor(block: Block) -> float:
        said = block.number("floor")
        if said is None:
            return Bandit("", "", "", 0).floor
        if not 0 <= said[0] <= 1:
            block.refuse(said[1], "`floor` must be from 0 to 1", "it is the share of decisions that explore", "floor")
        return said[0]


def read_groups(
    gathered: Gathered, metrics: Iterable[Metric], rules: Iterable[Rule], report: Report
) -> list[Bandit | None]:
    """The groups of these rules that learn by these metrics; None for each that was refused."""
    measured = dict.fromkeys(gathered.metrics) | {each.name: each for each in metrics}
    reader = _GroupReader(report, measured if gathered.whole else None)
    found = [reader.read(name, entry) for name, entry in gathered.groups.items()]
    _report_empty(found, gathered.groups, rules, report)
    return found


def _report_empty(
    bandits: Iterable[Bandit | None], entries: Mapped[str, Entry], rules: Iterable[Rule], report: Report
) -> None:
    """Report the declared groups that no rule is in: one of the two names is mistaken. Not where anything else
    is: a rule that was refused may be the one that is missed.
    """
    if report:
        return
    used = sorted({rule.group for rule in rules if rule.group})
    for bandit in bandits:
        if bandit is not None and bandit.name not in used:
            hint = did_you_mean(bandit.name, used) or f"write `group: {bandit.name}` into the rules that it chooses of"
            report.at(
                entries[bandit.name].key, f"no rule is in the group `{bandit.name}`", hint, f"groups.{bandit.name}"
            )


def groups() -> Schema:
    """The JSON Schema of the section."""
    believed = {key: number(f"How many {key}.", LEAST_PRIOR, MOST_PRIOR) for key in PRIOR_KEYS}
    keys = {
        "choose": word("How one of the rules is chosen that pass every gate. `thompson`: each is drawn with the "
                       "probability that it is the best one, by what was learned.", CHOOSE),
        "metric": name("The metric, of `value: any`, by which a rule wins."),
        "prior": closed("What is believed of a rule before anything is learned. One of each when left out.",
                        in_order(PRIOR_KEYS, believed), required=[*PRIOR_KEYS]),
        "half_life": duration("How long until what was learned counts half. For ever when left out."),
        "floor": number("The share of decisions in which each rule is drawn alike. 0.05 when left out.", 0, 1),
    }  # fmt: skip
    group = closed("A group.", in_order(KEYS, keys), required=["choose", "metric"])
    return named("Groups of rules that choose by what they learn from outcomes.", group, IDENTIFIER.pattern)
