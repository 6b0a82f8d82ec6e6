"""``experiments``, ``layers`` and ``holdout``: from nodes to what they mean, every mistake at its place.

Law: reads nodes into `terms`. Who gets what is not known here; that no two experiments of a layer can have the same
subject at the same time is.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.authoring.blocks import Block, check_identifier, one_of
from arbiter.authoring.nodes import Mapping, Node, Scalar, Sequence, as_text, is_nothing, kind_of
from arbiter.authoring.scalars import IDENTIFIER, shorten
from arbiter.errors import did_you_mean
from arbiter.ruleset.authored import BY
from arbiter.ruleset.dates import read_active
from arbiter.ruleset.experiments.guardrails import read_guardrails
from arbiter.ruleset.experiments.terms import Experiment, Experiments, Factor, Holdout, Layer, Step, together
from arbiter.ruleset.times import rfc3339
from arbiter.types import to_micros

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from collections.abc import Mapping as Mapped

    from arbiter.authoring.nodes import Entry
    from arbiter.authoring.report import Report
    from arbiter.expr.tree import Expression
    from arbiter.ruleset.declarations import Declared
    from arbiter.ruleset.expressions import Expressions

KEYS: Final = (
    "decision",
    "layer",
    "offset",
    "traffic",
    "ramp",
    "variants",
    "factors",
    "when",
    "unit",
    "salt",
    "forced",
    "sticky",
    "guardrails",
    "active",
    "enabled",
)
LAYER_KEYS: Final = ("holdout", "salt")
HOLDOUT_KEYS: Final = ("share", "unit", "salt")
STEP_KEYS: Final = ("from", "traffic")
MOST_VARIANTS: Final = 64
MOST_FORCED: Final = 10_000
ACCOUNT: Final = "profile.account_id"
"""What `unit: account` splits by."""
_ROOM = 1e-9


class ExperimentReader(msgspec.Struct):
    """Reads the experiments of a rule set. `decisions` are the declared decision points, `metrics` the declared
    metrics; None when not known.

    `expressions` are those within which no model and no experiment is known, since neither can say who is in one.
    """

    report: Report
    declared: Declared
    expressions: Expressions
    decisions: Collection[str] | None
    metrics: Collection[str] | None

    def read_all(
        self, experiments: Mapped[str, Entry], layers: Mapped[str, Entry], holdout: Node | None
    ) -> Experiments:
        """All of them. What was refused is left out, and reported."""
        known = {name: layer for name, entry in layers.items() if (layer := self._layer(name, entry)) is not None}
        read = [self._experiment(name, entry, layers, known) for name, entry in experiments.items()]
        found = sorted((each for each in read if each is not None), key=_name)
        self._keep_apart(found, experiments)
        return Experiments(
            tuple(found),
            tuple(sorted(known.values(), key=_name)),
            None if holdout is None else self._holdout(holdout),
        )

    def _layer(self, name: str, entry: Entry) -> Layer | None:
        path, place = f"layers.{name}", entry.key.source.position(entry.key.start)
        salt = f"layer:{name}"
        if entry.node is None or is_nothing(entry.node):
            return Layer(name, salt, position=place)
        block = self._block(entry.node, "a layer", path, LAYER_KEYS, "write `{holdout: 0.05}`, or `{}`")
        if block is None:
            return None
        said = block.identifier("salt")
        return Layer(name, said.text if said else salt, self._share(block, "holdout", 0.0, below=True), place)

    def _holdout(self, node: Node) -> Holdout | None:
        block = self._block(node, "`holdout`", "holdout", HOLDOUT_KEYS, "write `{share: 0.02}`")
        if block is None:
            return None
        block.require("share", "say which share of subjects is in no experiment: `share: 0.02`")
        salt = block.identifier("salt")
        return Holdout(
            self._share(block, "share", 0.0, below=True), self._unit(block), salt.text if salt else "holdout"
        )

    def _experiment(
        self, name: str, entry: Entry, layers: Mapped[str, Entry], known: Mapped[str, Layer]
    ) -> Experiment | None:
        path = f"experiments.{name}"
        if entry.node is None:
            return None
        hint = "write `{decision: ..., variants: {control: 1, other: 1}}`"
        block = self._block(entry.node, "an experiment", path, KEYS, hint)
        if block is None:
            return None
        block.require("decision", "say at which decision points its variants differ", at=entry.key)
        factors = self._factors(block, entry.key)
        layer = self._layer_of(block, layers)
        salt = block.identifier("salt")
        enabled = block.boolean("enabled")
        own = salt.text if salt else name
        held = known.get(layer.text) if layer is not None else None
        experiment = Experiment(
            name=name,
            decisions=self._decisions(block),
            factors=factors,
            salt=own,
            layer=layer.text if layer is not None else "",
            layer_salt=held.salt if held is not None else f"layer:{layer.text}" if layer is not None else own,
            layer_holdout=held.holdout if held is not None else 0.0,
            offset=self._share(block, "offset", 0.0, below=True),
            steps=self._steps(block),
            by=self._unit(block),
            when=self._when(block),
            sticky=self._sticky(block),
            guardrails=read_guardrails(block, self.metrics),
            active=read_active(block, self.declared),
            enabled=enabled is not False,
            position=entry.key.source.position(entry.key.start),
        )
        if block.has("offset") and layer is None and not block.has("layer"):
            block.refuse(
                block.key("offset"), "`offset` is a place in a layer, and this is in none", "say `layer: NAME`"
            )
        return msgspec.structs.replace(experiment, forced=self._forced(block, experiment)) if factors else None

    def _block(self, node: Node, what: str, path: str, keys: tuple[str, ...], hint: str) -> Block | None:
        if isinstance(node, Mapping):
            return Block(node, self.report, what=what, path=path, keys=keys)
        self.report.at(node, f"{what} must be a mapping, this is {kind_of(node)}", hint, path)
        return None

    def _share(self, block: Block, key: str, absent: float, *, below: bool = False) -> float:
        """A number from 0 to 1; `below` says that 1 would leave nothing."""
        found = block.number(key)
        if found is None:
            return absent
        share, node = found
        if 0 <= share < 1 or (share == 1 and not below):
            return share
        hint = f"write `{share / 100:g}` for {share:g} %" if 1 < share <= 100 else ""  # noqa: PLR2004 - per cent
        block.refuse(node, f"`{key}` must be from 0 to {'less than 1' if below else '1'}", hint, key)
        return absent

    def _decisions(self, block: Block) -> tuple[str, ...]:
        node = block.get("decision")
        items = (
            list(block.items("decision")) if isinstance(node, Sequence) else [(f"{block.path}.decision", node)]
        )  # fmt: skip
        found: dict[str, None] = {}
        for path, item in items:
            if item is None:
                continue
            if not isinstance(item, Scalar) or as_text(item) is None:
                self.report.at(item, f"a decision must be text, this is {kind_of(item)}", "", path)
            elif self.decisions is not None and item.text not in self.decisions:
                known = sorted(self.decisions)
                hint = did_you_mean(item.text, known) or f"declared are {one_of(known[:8])}"
                self.report.at(item, f"unknown decision `{shorten(item.text)}`", hint, path)
            elif item.text in found:
                self.report.at(item, f"`{item.text}` stands here twice", "remove one of the two", path)
            else:
                found[item.text] = None
        if isinstance(node, Sequence) and not node.items:
            self.report.at(node, "`decision` is empty, so no variant could matter", "name a decision", block.path)
        return tuple(sorted(found))

    def _layer_of(self, block: Block, layers: Mapped[str, Entry]) -> Scalar | None:
        layer = block.text("layer")
        if layer is None:
            return None
        if layers and layer.text not in layers:
            hint = did_you_mean(layer.text, layers) or f"declared are {one_of(sorted(layers)[:8])}"
            block.refuse(layer, f"unknown layer `{shorten(layer.text)}`", hint, "layer")
            return None
        return layer if check_identifier(layer, "layer", self.report, f"{block.path}.layer") else None

    def _factors(self, block: Block, at: Scalar) -> tuple[Factor, ...]:
        if block.has("factors") and block.has("variants"):
            hint = "keep `variants` for one thing that differs, `factors` for several"
            block.refuse(block.key("factors"), "`variants` and `factors` cannot both be given", hint, "factors")
            return ()
        if not block.has("factors"):
            block.require("variants", "name them with their weights: `variants: {control: 1, short: 1}`", at=at)
            mapping = block.mapping("variants", "write `{control: 1, short: 1}`")
            factor = self._factor("", mapping, f"{block.path}.variants", "variant") if mapping is not None else None
            return (factor,) if factor is not None else ()
        mapping = block.mapping("factors", "write `{headline: {long: 1, short: 1}, picture: {none: 1, dog: 1}}`")
        found: list[Factor] = []
        for name, entry in mapping.entries.items() if mapping is not None else ():
            path = f"{block.path}.factors.{name}"
            if not isinstance(entry.node, Mapping):
                if entry.node is not None:
                    said = f"a factor must be a mapping, this is {kind_of(entry.node)}"
                    self.report.at(entry.node, said, "write `{long: 1, short: 1}`", path)
                continue
            factor = self._factor(name, entry.node, path, "level")
            found += [factor] if factor is not None else []
        count = 1
        for factor in found:
            count *= len(factor.levels)
        if count > MOST_VARIANTS and mapping is not None:
            said = f"these factors come to {count:,} variants; at most {MOST_VARIANTS} are allowed"
            self.report.at(mapping, said, "take fewer levels, or several experiments", f"{block.path}.factors")
            return ()
        if mapping is not None and not mapping.entries:
            self.report.at(mapping, "`factors` is empty", "name what differs", f"{block.path}.factors")
        return tuple(sorted(found, key=_name))

    def _factor(self, name: str, mapping: Mapping, path: str, what: str) -> Factor | None:
        levels: dict[str, float] = {}
        weights = Block(mapping, self.report, what=f"a {what}", path=path, keys=mapping.entries)
        for level, entry in mapping.entries.items():
            if not IDENTIFIER.fullmatch(level):
                hint = 'use letters, digits and `_ - . : /`; `""` stands for who is outside'
                self.report.at(entry.key, f"`{shorten(level)}` cannot be the name of a {what}", hint, path)
                continue
            weight = weights.number(level)
            if weight is not None and weight[0] < 0:
                self.report.at(
                    weight[1], "a weight cannot be below 0", "0 leaves it out of the draw", f"{path}.{level}"
                )
            levels[level] = weight[0] if weight is not None and weight[0] >= 0 else 1.0
        if len(levels) < 2 and not mapping.partial:  # noqa: PLR2004 - to compare
            self.report.at(mapping, f"there must be two {what}s at least, to be compared", "", path)
            return None
        if len(levels) > MOST_VARIANTS:
            self.report.at(mapping, f"there are {len(levels)} {what}s; at most {MOST_VARIANTS} are allowed", "", path)
            return None
        if not any(levels.values()):
            self.report.at(mapping, f"every {what} has the weight 0, so none is ever drawn", "", path)
            return None
        return Factor(name, tuple(sorted(levels.items())))

    def _steps(self, block: Block) -> tuple[Step, ...]:
        if not block.has("ramp"):
            return (Step(None, self._share(block, "traffic", 1.0)),)
        if block.has("traffic"):
            hint = "keep `ramp`; its last step is where it ends"
            block.refuse(block.key("traffic"), "`traffic` and `ramp` cannot both be given", hint, "traffic")
        steps: list[Step] = []
        hint = "write `- {from: 2026-11-01T00:00:00Z, traffic: 0.1}`"
        for path, item in block.items("ramp", hint):
            inner = self._block(item, "a step", path, STEP_KEYS, hint)
            if inner is None or not (inner.require("from", hint) and inner.require("traffic", hint)):
                continue
            node = inner.get("from")
            text = as_text(node) if node is not None else None
            instant = rfc3339(text) if text is not None else None
            if instant is None and node is not None:
                shown = f"`{shorten(text)}`" if text is not None else kind_of(node)
                said = f"`from` must be an RFC 3339 time, this is {shown}"
                inner.refuse(node, said, "write `2026-11-01T00:00:00Z`", "from")
                continue
            start = to_micros(instant) if instant is not None else 0
            if node is not None and steps and start <= (steps[-1].start or 0):
                inner.refuse(node, "`from` does not come after the step before", "sort the steps by time", "from")
            steps.append(Step(start, self._share(inner, "traffic", 0.0)))
        node = block.get("ramp")
        if isinstance(node, Sequence) and not node.items:
            block.refuse(node, "`ramp` is empty, so nobody would be in the experiment", "add a step", "ramp")
        return tuple(steps) or (Step(None, 0.0),)

    def _unit(self, block: Block) -> str:
        unit = block.text("unit")
        if unit is None or unit.text == "subject":
            return "subject"
        by = ACCOUNT if unit.text == "account" else unit.text
        root, _, name = by.partition(".")
        if root not in BY or not name:
            near = did_you_mean(unit.text, ("subject", "account", *(f"{each}.{name}" for each in BY if name)))
            hint = near or "write `subject`, `account`, `profile.name`, `account.name` or `context.name`"
            block.refuse(unit, f"nobody can be split by `{shorten(unit.text)}`", hint, "unit")
            return "subject"
        found = self.expressions.scope.resolve((root, name))
        if isinstance(found, tuple):
            self.report.at(unit, *found, f"{block.path}.unit")
        return by

    def _sticky(self, block: Block) -> bool:
        sticky, unit = block.boolean("sticky") is True, block.text("unit")
        if sticky and unit is not None and unit.text != "subject":
            said = f"what was shown is known of subjects, and this splits by `{shorten(unit.text)}`"
            block.refuse(block.key("sticky"), said, "leave out `sticky`, or `unit`", "sticky")
        return sticky

    def _when(self, block: Block) -> tuple[Expression, ...]:
        node = block.get("when")
        if node is None:
            return ()
        path = f"{block.path}.when"
        lines = list(block.items("when")) if isinstance(node, Sequence) else [(path, node)]
        read = [self.expressions.read(line, "a condition", where, expect="bool") for where, line in lines]
        return tuple(expression for expression in read if expression is not None)

    def _forced(self, block: Block, experiment: Experiment) -> dict[str, str]:
        mapping = block.mapping("forced", "write `{short: [tester-1, tester-2]}`")
        found: dict[str, str] = {}
        for variant, entry in mapping.entries.items() if mapping is not None else ():
            path = f"{block.path}.forced.{variant}"
            if variant not in experiment.variants:
                hint = did_you_mean(variant, experiment.variants) or f"it is one of {one_of(experiment.variants[:8])}"
                self.report.at(entry.key, f"`{experiment.name}` has no variant `{shorten(variant)}`", hint, path)
                continue
            if not isinstance(entry.node, Sequence):
                if entry.node is not None:
                    said = f"`{variant}` must be a list of units, this is {kind_of(entry.node)}"
                    self.report.at(entry.node, said, "write `[tester-1, tester-2]`", path)
                continue
            for number, item in enumerate(entry.node.items):
                text = as_text(item) if isinstance(item, Scalar) else None
                if item is None:
                    continue
                if not text:
                    self.report.at(item, f"a unit must be text, this is {kind_of(item)}", "", f"{path}[{number}]")
                elif text in found:
                    said = f"`{shorten(text)}` is forced into `{found[text]}` already"
                    self.report.at(item, said, "remove one of the two", f"{path}[{number}]")
                else:
                    found[text] = variant
        if len(found) > MOST_FORCED and mapping is not None:
            said = f"{len(found):,} units are forced; at most {MOST_FORCED:,} are allowed"
            self.report.at(mapping, said, "target them by an attribute: `when`", f"{block.path}.forced")
        return dict(sorted(found.items()))

    def _keep_apart(self, found: Iterable[Experiment], entries: Mapped[str, Entry]) -> None:
        """Report the experiments that could have the same unit as another of their layer, or more than there is."""
        layers: dict[str, list[Experiment]] = {}
        for each in found:
            layers.setdefault(each.layer or f"\0{each.name}", []).append(each)
        for members in layers.values():
            for each in members:
                self._inside(each, entries[each.name])
            for one, other in combinations(sorted(members, key=_place), 2):
                self._apart(one, other, members, entries[other.name])

    def _inside(self, each: Experiment, entry: Entry) -> None:
        end, room = each.offset + each.widest, 1 - each.layer_holdout
        if end > room + _ROOM:
            beyond = "the layer's holdout begins" if each.layer_holdout else "the layer ends"
            said = f"`{each.name}` reaches to {end:g} of its layer, and at {room:g} {beyond}"
            self.report.at(
                entry.key, said, f"`offset` and traffic come to {room:g} at most", f"experiments.{each.name}"
            )

    def _apart(self, one: Experiment, other: Experiment, members: Iterable[Experiment], entry: Entry) -> None:
        path = f"experiments.{other.name}"
        if not (one.enabled and other.enabled and together(one, other)):
            return
        if one.by != other.by:
            said = f"`{one.name}` of the same layer splits by `{one.by}`, this by `{other.by}`"
            self.report.at(entry.key, said, "experiments of one layer have one `unit`", path)
        elif other.offset < one.offset + one.widest - _ROOM and other.widest and one.widest:
            said = f"`{other.name}` has a part of layer `{other.layer}` that `{one.name}` has"
            self.report.at(entry.key, said, _room(other, members), path)


def _room(other: Experiment, members: Iterable[Experiment]) -> str:
    """A hint that says where the layer has room for an experiment."""
    at = 0.0
    taken = sorted((m.offset, m.offset + m.widest) for m in members if m is not other and m.enabled)
    for first, end in [*taken, (1 - other.layer_holdout, 1.0)]:
        if first - at >= other.widest - _ROOM:
            return f"write `offset: {at:.12g}`: there is room up to {first:.12g}"
        at = max(at, end)
    return f"the layer has no {other.widest:g} left in one piece: take less traffic, or another layer"


def _name(each: Factor | Experiment | Layer) -> str:
    return each.name


def _place(each: Experiment) -> tuple[float, str]:
    return each.offset, each.name
