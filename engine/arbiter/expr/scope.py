"""What names an expression may use, and the environments of cel-cpp that know them.

Law: declarations only; nothing here reads an expression.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

from arbiter.errors import did_you_mean
from arbiter.expr import cel
from arbiter.expr.syntax import PATH_LENGTH, path_length

_SINGULAR = {"features": "feature", "segments": "segment", "models": "model", "experiments": "experiment"}
_SECTION = {"profile": "attribute", "context": "attribute", "account": "attribute", "event": "property"}


Roots = dict[str, dict[str, str] | None]


class Scope(msgspec.Struct, frozen=True):
    """What names an expression may use. `roots` maps a root to its names and their types; None: any name, as dyn.
    A root that is not of the language is a label: a step of a trigger, whose event's properties stand behind it.

    `models` maps model → output → type. `experiments` maps what can be read of experiments,
    by the path behind the root, to its type, None for any. `unready` maps a model that cannot be used to what it lacks.
    `barred` maps a root that cannot stand here to a sentence that says why.
    """

    roots: Roots
    models: dict[str, dict[str, str]] = {}
    unready: dict[str, str] = {}
    barred: dict[str, str] = {}
    experiments: dict[str, str] | None = {}

    @property
    def labels(self) -> frozenset[str]:
        """The roots that are names of a trigger's steps."""
        return frozenset(self.roots.keys() - PATH_LENGTH.keys())

    def resolve(self, path: tuple[str, ...]) -> str | tuple[str, str]:
        """The type of a name, or (message, hint) when there is no such name."""
        root = path[0]
        if root == "now" and "context" in self.roots:
            return "timestamp"
        if root in self.barred:
            return self.barred[root], ""
        if root == "models" and "features" in self.roots:
            return self._resolve_model(path)
        if root == "experiments" and "features" in self.roots:
            return self._resolve_experiment(path)
        if root not in self.roots:
            return f"unknown name `{'.'.join(path)}`", self._root_hint(path)
        if len(path) < path_length(root):
            return f"`{root}` needs a name behind it", f"write `{root}.name`"
        names = self.roots[root]
        if names is None:
            return "dyn"
        if path[1] in names:
            return names[path[1]]
        noun = _SINGULAR.get(root) or f"{root} {_SECTION.get(root, 'property')}"
        return f"unknown {noun} `{path[1]}`", did_you_mean(path[1], names) or self._elsewhere(path[1])

    def _resolve_model(self, path: tuple[str, ...]) -> str | tuple[str, str]:
        if len(path) == 1:
            return "`models` needs a model and an output behind it", "write `models.name.output`"
        if path[1] not in self.models:
            return f"unknown model `{path[1]}`", did_you_mean(path[1], self.models)
        if path[1] in self.unready:
            return f"model `{path[1]}` cannot be used here", self.unready[path[1]]
        outputs = self.models[path[1]]
        if len(path) < PATH_LENGTH["models"]:
            return f"`models.{path[1]}` needs an output behind it", f"it has: {', '.join(sorted(outputs))}"
        if path[2] not in outputs:
            hint = did_you_mean(path[2], outputs) or f"it has: {', '.join(sorted(outputs))}"
            return f"model `{path[1]}` has no output `{path[2]}`", hint
        return outputs[path[2]]

    def _resolve_experiment(self, path: tuple[str, ...]) -> str | tuple[str, str]:
        if len(path) == 1:
            return "`experiments` needs a name behind it", "write `experiments.name`"
        known = self.experiments
        if known is None or (".".join(path[1:]) in known):
            return "string"
        if path[1] not in known:
            return f"unknown experiment `{path[1]}`", did_you_mean(path[1], [each for each in known if "." not in each])
        factors = [each.partition(".")[2] for each in known if each.startswith(f"{path[1]}.")]
        hint = did_you_mean(path[2], factors) or (f"it has: {', '.join(factors)}" if factors else "its variant is text")
        return f"experiment `{path[1]}` has no factor `{path[2]}`", hint

    def _elsewhere(self, name: str) -> str:
        return next(
            (f"did you mean `{root}.{name}`?" for root, names in self.roots.items() if name in (names or ())), ""
        )

    def _root_hint(self, path: tuple[str, ...]) -> str:
        near = did_you_mean(path[0], [*self.roots, "now", "models"])
        known = ", ".join(sorted(self.roots.keys() - self.barred.keys()))
        return self._elsewhere(path[-1]) or near or f"names start with {known}"


PARSER: Final = cel.Environment({})
"""What parses: that takes no declarations. A fresh environment takes a millisecond over its first expression."""


class Environments:
    """cel-cpp's view of one scope: names with their declared types, and names as dyn.

    `known` and `shapes` are for `check`, which remembers there what expressions came to under these names.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._checking: dict[tuple[bool, frozenset[str]], cel.Environment] = {}
        self.known: dict[tuple[str, str], Any] = {}
        self.shapes: dict[tuple[str, ...], Any] = {}

    def checking(self, roots: frozenset[str], *, typed: bool) -> cel.Environment:
        """What checks an expression that reads names of these roots. Scopes that differ in others' labels share it."""
        labels = self._scope.labels & roots
        found = self._checking.get((typed, labels))
        if found is None:
            left = {root: names for root, names in self._scope.roots.items() if root in labels | PATH_LENGTH.keys()}
            scope = self._scope
            content = msgspec.msgpack.encode((left, scope.models, scope.experiments or {}, typed), order="sorted")
            found = self._checking[typed, labels] = _environment(content)
        return found


@functools.lru_cache(maxsize=32)
def _environment(content: bytes) -> cel.Environment:
    declared: tuple[Roots, dict[str, dict[str, str]], dict[str, str], bool] = msgspec.msgpack.decode(content)
    roots, models, experiments, typed = declared
    variables = dict.fromkeys([*PATH_LENGTH, *roots], "dyn") | {"now": "timestamp"}
    if typed:
        for root, names in roots.items():
            variables |= {f"{root}.{name}": kind for name, kind in (names or {}).items()}
        for model, outputs in models.items():
            variables |= {f"models.{model}.{output}": kind for output, kind in outputs.items()}
        variables |= {f"experiments.{path}": kind for path, kind in experiments.items()}
    return cel.Environment(variables)


class _ByIdentity:
    """A scope as a cache key that costs nothing to compare."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def __hash__(self) -> int:
        return id(self.scope)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and self.scope is other.scope


def environments_of(scope: Scope) -> Environments:
    """The environments of a scope: the same ones for equal scopes, as long as these are in use."""
    return _environments(_ByIdentity(scope))


@functools.lru_cache(maxsize=8)
def _environments(key: _ByIdentity) -> Environments:
    # Every load of a rule set makes a new scope, mostly equal to the last.
    return _by_content(msgspec.msgpack.encode(key.scope, order="sorted"))


@functools.lru_cache(maxsize=8)
def _by_content(content: bytes) -> Environments:
    return Environments(msgspec.msgpack.decode(content, type=Scope))
