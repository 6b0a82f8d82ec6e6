"""One frozen, complete version of everything that decisions depend on.

Law: built whole, never changed. A request reads the reference once and sees one version throughout. Equal inputs give
equal digests, whatever the order of files.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.errors import NotFound, did_you_mean
from arbiter.expr.generated import function_of
from arbiter.expr.view import FeatureRead, Symbols, View
from arbiter.ruleset.compiled import Point
from arbiter.ruleset.rules import Rule, Ruleset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arbiter.models.model import Model

_encoder = msgspec.msgpack.Encoder(order="sorted")
_decoder = msgspec.msgpack.Decoder(Ruleset)


def pack(ruleset: Ruleset) -> bytes:
    """The canonical MessagePack of a rule set."""
    return _encoder.encode(ruleset)


def unpack(data: bytes) -> Ruleset:
    """The rule set of its MessagePack; raises msgspec.DecodeError for anything else."""
    return _decoder.decode(data)


def digest_of(ruleset: Ruleset, model_digests: Mapping[str, str]) -> str:
    """The 32 hexadecimal characters that name a snapshot."""
    return blake2b(_encoder.encode([ruleset, sorted(model_digests.items())]), digest_size=16).hexdigest()


class Snapshot:
    """Rules and models of one version, ready to decide.

    `rows` has, by model, the function that builds the model's input row from a view (None when an input without
    default is missing).
    """

    def __init__(self, ruleset: Ruleset, models: Mapping[str, Model]) -> None:
        self.ruleset = ruleset
        self.models = dict(models)
        self.digest = digest_of(ruleset, {name: m.digest for name, m in models.items()})
        self.symbols = Symbols(
            {f.name: FeatureRead(f.key, f.unit if f.aggregate == "since" else 0) for f in ruleset.features},
            {s.name: s.condition.root for s in ruleset.segments},
            {name: tuple((i.root, i.attribute) for i in m.inputs) for name, m in models.items()},
        )
        self.rows: dict[str, Callable[[View], list[float] | None]] = {
            name: _row_builder(model, self.symbols) for name, model in models.items()
        }
        by_point: dict[str, list[Rule]] = {}
        for rule in ruleset.rules:
            by_point.setdefault(rule.decision, []).append(rule)
        self.points = {d.name: Point(d, by_point.get(d.name, ()), self.symbols) for d in ruleset.decisions}

    def point(self, name: str) -> Point:
        """The compiled decision point; raises NotFound with the closest known name."""
        found = self.points.get(name)
        if found is None:
            hint = did_you_mean(name, self.points)
            raise NotFound(f"there is no decision point `{name}`{'; ' + hint if hint else ''}", field="decision")
        return found

    def counts(self) -> dict[str, int]:
        """How many of each thing the snapshot holds."""
        rules = self.ruleset
        return {
            "decisions": len(rules.decisions), "rules": len(rules.rules), "segments": len(rules.segments),
            "features": len(rules.features), "models": len(self.models),
        }  # fmt: skip


def _row_builder(model: Model, symbols: Symbols) -> Callable[[View], list[float] | None]:
    """One generated function that reads a model's inputs from a view: numbers as they are, bools as 0 and 1, else the
    default.
    """
    names: dict[str, Any] = {"KINDS": frozenset({int, float, bool})}
    lines = ["def row(v):", "    p = v.profile; c = v.context; f = v.features"]
    for i, item in enumerate(model.inputs):
        source, key, unit = {"profile": "p", "context": "c", "features": "f"}[item.root], item.attribute, 0
        if item.root == "features":
            feature = symbols.features.get(item.attribute)
            key, unit = (feature.key, feature.unit) if feature else ("", 0)
        lines += [f"    x{i} = {source}.get({key!r})", f"    if x{i}.__class__ not in KINDS:"]
        lines.append("        return None" if item.default is None else f"        x{i} = {item.default!r}")
        if unit:
            lines += ["    else:", f"        x{i} = (v.clock - x{i}) / {unit}"]
    lines.append(f"    return [{', '.join(f'x{i}' for i in range(len(model.inputs)))}]")
    return function_of(["\n".join([*lines, ""])], names, f"inputs of model {model.name}")
