"""From an expression in a rule file to a checked one, its mistakes at their place in the file.

Law: knows which names exist and which values they may take; what an expression is for is its caller's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.authoring.blocks import one_of
from arbiter.authoring.nodes import Node, Scalar, kind_of
from arbiter.authoring.offsets import raw_start
from arbiter.errors import did_you_mean
from arbiter.expr.check import Checked, Mistake, Scope, read_expression
from arbiter.expr.syntax import walk
from arbiter.expr.tree import Call, Const, Expression, ListOf, Name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbiter.authoring.report import Report
    from arbiter.expr.tree import AnyNode
    from arbiter.ruleset.declarations import Typed

LONGEST: Final = 8_000
_BARRED: Final = {
    "models": "a model cannot say who is in an experiment; a rule can ask it",
    "experiments": "an experiment cannot say who is in another; `layer` keeps two apart",
}


class Expressions:
    """Reads expressions within one scope. `values` are the only values that a name may be compared with."""

    def __init__(self, report: Report, scope: Scope, values: Mapping[tuple[str, ...], tuple[Any, ...]]) -> None:
        self.report = report
        self.scope = scope
        self._values = values
        self._read: dict[tuple[str, str], Checked] = {}

    def reporting_to(self, report: Report) -> Expressions:
        """The same, its mistakes reported elsewhere."""
        other = Expressions(report, self.scope, self._values)
        other._read = self._read
        return other

    def read(self, node: Node, what: str, path: str, *, expect: str = "") -> Expression | None:
        """The expression that a scalar is; None when it was refused. Numbers and booleans are expressions too."""
        if isinstance(node, Scalar) and node.value is not None:
            return self.part(node, 0, len(node.text), path, expect=expect)
        if isinstance(node, Scalar):
            hint = "write an expression, or leave the key out"
        else:
            hint = 'write it as text: `profile.plan == "free"`' if expect == "bool" else ""
        self.report.at(node, f"{what} must be an expression, this is {kind_of(node)}", hint, path)
        return None

    def part(self, scalar: Scalar, start: int, end: int, path: str, *, expect: str = "") -> Expression | None:
        """The expression that stands at a half-open range of a scalar's text."""
        source = scalar.text[start:end]
        if len(source) > LONGEST:
            message = f"this expression has {len(source):,} characters; at most {LONGEST:,} are read"
            self.report.inside(scalar, start, start + 1, message, "name its parts as segments", path)
            return None
        checked = self._check(source, expect)
        for mistake in checked.mistakes:
            self.report.inside(scalar, start + mistake.start, start + mistake.end, mistake.message, mistake.hint, path)
        if checked.root is None or checked.mistakes:
            return None
        first = len(source) - len(source.lstrip())
        position = scalar.source.position(raw_start(scalar, start + first))
        return Expression(source, checked.root, checked.type, position, checked.names)

    def written(self, source: str, position: str) -> Expression | None:
        """The condition that Arbiter writes on behalf of what stands at `position`; None when it makes no sense."""
        checked = self._check(source, "bool")
        if checked.root is None or checked.mistakes:
            return None
        return Expression(source, checked.root, checked.type, position, checked.names)

    def allowed(self, path: tuple[str, ...]) -> tuple[Any, ...]:
        """The only values that a name is declared to have; empty for any."""
        return self._values.get(path, ())

    def _check(self, source: str, expect: str) -> Checked:
        checked = self._read.get((source, expect))
        if checked is None:
            checked = read_expression(source, self.scope, expect=expect)
            if checked.root is not None and not self._values.keys().isdisjoint(checked.names):
                wrong = list(self._disallowed(checked.root))
                checked = Checked(checked.root, checked.type, checked.names, [*checked.mistakes, *wrong])
            self._read[source, expect] = checked
        return checked

    def _disallowed(self, root: AnyNode) -> list[Mistake]:
        """Comparisons of a name with a literal that its declaration does not allow."""
        found: list[Mistake] = []
        for node in walk(root):
            match node:
                case Call(function="_==_" | "_!=_", args=(Name(path=path), Const() as literal)):
                    literals: list[AnyNode] = [literal]
                case Call(function="_==_" | "_!=_", args=(Const() as literal, Name(path=path))):
                    literals = [literal]
                case Call(function="@in", args=(Name(path=path), ListOf(items=items))):
                    literals = list(items)
                case _:
                    continue
            allowed = self._values.get(path, ())
            found += [
                Mistake(*item.span, *not_allowed(item.value, ".".join(path), allowed))
                for item in literals
                if allowed and isinstance(item, Const) and item.value not in allowed
            ]
        return found


def not_allowed(value: object, name: str, allowed: tuple[Any, ...]) -> tuple[str, str]:
    """Message and hint for a value that a declaration does not list."""
    words = [str(word) for word in allowed]
    return f"`{name}` is never `{value}`", did_you_mean(str(value), words) or f"it is one of {one_of(words)}"


def rule_scope(
    *,
    profile: dict[str, Typed] | None,
    account: dict[str, Typed] | None,
    context: dict[str, Typed] | None,
    features: dict[str, str] | None,
    segments: dict[str, str] | None,
    models: Mapping[str, Mapping[str, str]],
    inputs: Mapping[str, Iterable[tuple[str, str]]],
    unknown_purposes: Mapping[str, Iterable[str]],
) -> Scope:
    """What conditions, values and parameters may name. A model whose inputs are not all declared is not among it, nor
    one with `unknown_purposes`, by model.
    """
    roots = {root: types_of(each) for root, each in (("profile", profile), ("account", account), ("context", context))}
    roots |= {"features": features, "segments": segments}
    outputs = {model: dict(output) for model, output in models.items()}
    unready = {}
    for model, paths in inputs.items():
        # None: nothing is declared under this root, or it is not known what is.
        lacking = [f"`{r}.{name}`" for r, name in paths if (known := roots[r]) is not None and name not in known]
        if lacking:
            unready[model] = f"it reads {', '.join(lacking)}, which no file declares: see the model's card"
    for model, purposes in unknown_purposes.items():
        if lacking := [f"`{purpose}`" for purpose in purposes]:
            said = f"it is for {', '.join(lacking)}, which no file declares under `consent`: see its manifest"
            unready.setdefault(model, said)
    return Scope(roots=roots, models=outputs, unready=unready)


def targeting(scope: Scope) -> Scope:
    """What the targeting of experiments may name: what is known before any model runs and any variant is drawn."""
    return msgspec.structs.replace(scope, barred=_BARRED)


def types_of(declared: Mapping[str, Typed] | None) -> dict[str, str] | None:
    """Name → type, None when nothing is declared."""
    return None if declared is None else {name: typed.type for name, typed in declared.items()}


def values_of(root: str, declared: Mapping[str, Typed] | None) -> dict[tuple[str, ...], tuple[Any, ...]]:
    """The allowed values of the names that have some, by path."""
    return {(root, name): typed.values for name, typed in (declared or {}).items() if typed.values}
