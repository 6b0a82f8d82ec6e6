"""Reading an authored expression: syntax, names, types; all mistakes of one expression in one pass.

Law: source text and a scope in, a tree and mistakes out; character offsets only, files are the ruleset's business.
Types of operators are cel-cpp's to check; names, number mixing and the result's type are ours.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from arbiter.errors import did_you_mean
from arbiter.expr import cel
from arbiter.expr.cost import nested_macros
from arbiter.expr.hints import FUNCTIONS, end_hint, operand_hint, word_hint
from arbiter.expr.limits import LEVELS, MACROS, PATTERN_LENGTH, PATTERN_SIZE, pattern_size
from arbiter.expr.scope import PARSER, Environments, Scope, environments_of
from arbiter.expr.shapes import Shape, cut, shape_of
from arbiter.expr.syntax import PATH_LENGTH, Unreadable, convert, walk, with_children
from arbiter.expr.tree import AnyNode, Call, Const, Fold, ListOf, Local, MapOf, Name, Select

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Checked", "Mistake", "Scope", "infer", "names_of", "read_expression"]

_REMEMBERED = 200_000
_SHAPES = 20_000
_NUMBERS = frozenset({"int", "double", "uint"})
_ARITHMETIC = {"_+_": "+", "_-_": "-", "_*_": "*", "_/_": "/", "_%_": "%", "-_": "-"}
_COMPARISONS = frozenset(
    {"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in", "has", "startsWith", "endsWith", "contains", "matches"}
)
_COMPARED = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"})
_CONVERSIONS = frozenset({"int", "double", "string", "bool", "bytes", "timestamp", "duration"})
_LOGIC = frozenset({"_&&_", "_||_", "!_"})
_OVERLOAD = re.compile(r"found no matching overload for '(.+?)' applied to '\(?(.*?)\)?'\Z")
_UNDECLARED = re.compile(r"undeclared reference to '(.+?)'")


class Mistake(msgspec.Struct, frozen=True, order=True):
    """What is wrong with the characters from `start` to `end` (exclusive) of an expression's source."""

    start: int
    end: int
    message: str
    hint: str = ""


class Checked(msgspec.Struct, frozen=True):
    """The outcome of reading one expression. `root` is None when `mistakes` is not empty."""

    root: AnyNode | None
    type: str
    names: tuple[tuple[str, ...], ...]
    mistakes: list[Mistake]


def read_expression(source: str, scope: Scope, *, expect: str = "") -> Checked:
    """Parse and check `source` within `scope`. `expect` names the type the result must have (``bool``, ``number``).

    Rule sets are read again and again, mostly unchanged: what an expression came to under equal scopes is remembered.
    """
    environments = environments_of(scope)
    found: Checked | None = environments.known.get((source, expect))
    if found is None:
        if len(environments.known) >= _REMEMBERED:
            environments.known.clear()
        found = environments.known[source, expect] = _read_shaped(source, scope, environments, expect)
    return found


def _read_shaped(source: str, scope: Scope, environments: Environments, expect: str) -> Checked:
    """As `_read`, which is spared when an expression that differs only in its literals was read before."""
    shaped = cut(source)
    if shaped is None:
        return _read(source, scope, environments, expect)
    key = (expect, *shaped.key)
    like: tuple[Shape, Checked] | None = environments.shapes.get(key)
    if like is not None:
        return Checked(like[0].tree(shaped), like[1].type, like[1].names, [])
    checked = _read(source, scope, environments, expect)
    shape = shape_of(source, shaped, checked.root) if checked.root is not None else None
    if shape is not None:
        if len(environments.shapes) >= _SHAPES:
            environments.shapes.clear()
        environments.shapes[key] = shape, checked
    return checked


def _read(source: str, scope: Scope, environments: Environments, expect: str) -> Checked:
    if not source.strip():
        return _refused(
            Mistake(0, max(1, len(source)), "the expression is empty", "write an expression, or take it away")
        )
    try:
        root = convert(PARSER.parse(source), source, scope.labels)
    except cel.CelFailure as failure:
        return _refused(*_syntax_mistakes(failure, source))
    except Unreadable as problem:
        return _refused(Mistake(*problem.span, str(problem), problem.hint))
    mistakes: list[Mistake] = []
    root = _resolve_names(root, scope, mistakes)
    nodes = walk(root)
    # cel-cpp types has() on a declared dotted name wrongly, so such expressions are checked with names as dyn.
    tests = any(isinstance(n, Call) and n.function == "has" for n in nodes)
    roots = frozenset(n.path[0] for n in nodes if isinstance(n, Name))
    environment = environments.checking(roots, typed=not tests)
    mistakes += _null_mistakes(nodes)
    mistakes += _type_mistakes(environment, source, nodes, known={m.start for m in mistakes})
    mistakes += _number_mistakes(nodes)
    mistakes += _pattern_mistakes(nodes)
    mistakes += _macro_mistakes(root)
    kind = infer(root)
    wrong = {"bool": kind not in {"bool", "dyn"}, "number": kind not in {"int", "double", "dyn"}}
    if expect and wrong[expect] and not mistakes:
        need = "a condition must be true or false" if expect == "bool" else "a number is needed here"
        hint = _bool_hint(root) if expect == "bool" else ""
        mistakes.append(Mistake(*root.span, f"{need}, this is {_article(kind)} {kind}", hint))
    if mistakes:
        return _refused(*mistakes)
    return Checked(root, kind, names_of(nodes), [])


def names_of(nodes: Iterable[AnyNode]) -> tuple[tuple[str, ...], ...]:
    """The distinct outside names among `nodes`, sorted."""
    return tuple(sorted({n.path for n in nodes if isinstance(n, Name)}))


def infer(node: AnyNode) -> str:  # noqa: C901 - one row a node kind
    """The type of a checked node's value: one of the value types, ``duration``, ``null``, or ``dyn`` when only a run
    can tell.
    """
    match node:
        case Const(kind=kind):
            return kind
        case Name(type=kind):
            return kind
        case Call(function=function, args=args):
            if function in _COMPARISONS or function in _LOGIC:
                return "bool"
            if function in _ARITHMETIC:
                return _arithmetic(function, [infer(a) for a in args])
            if function == "_?_:_":
                kinds = {infer(args[1]), infer(args[2])}
                return kinds.pop() if len(kinds) == 1 else "dyn"
            return "int" if function == "size" else function if function in _CONVERSIONS else "dyn"
        case ListOf():
            return "list"
        case MapOf():
            return "map"
        case Fold(kind=kind):
            return "list" if kind in {"map", "filter"} else "bool"
        case Select(test=test):
            return "bool" if test else "dyn"
        case Local():
            return "dyn"


def _arithmetic(function: str, kinds: list[str]) -> str:
    if set(kinds) == {"int"}:
        return "int"
    if set(kinds) <= {"int", "double"}:
        return "double"
    if "timestamp" in kinds and "dyn" not in kinds:
        return "duration" if function == "_-_" and kinds == ["timestamp", "timestamp"] else "timestamp"
    return kinds[0] if len(set(kinds)) == 1 else "dyn"


def _refused(*mistakes: Mistake) -> Checked:
    # cel-cpp and our own checks may find the same.
    return Checked(None, "dyn", (), sorted(set(mistakes)))


def _resolve_names(node: AnyNode, scope: Scope, mistakes: list[Mistake]) -> AnyNode:
    """The tree with each name's declared type filled in; unknown names are added to `mistakes`."""
    if not isinstance(node, Name):
        return with_children(node, lambda inner: _resolve_names(inner, scope, mistakes))
    found = scope.resolve(node.path)
    if isinstance(found, str):
        return Name(node.path, found, node.span)
    mistakes.append(Mistake(*node.span, *found))
    return node


def _offset(source: str, line: int, column: int) -> int:
    starts = [0, *(m.end() for m in re.finditer("\n", source))]
    return min(len(source), starts[min(line, len(starts)) - 1] + column - 1)


def _syntax_mistakes(failure: cel.CelFailure, source: str) -> list[Mistake]:
    if "recursion" in str(failure):
        message = f"this expression is nested too deeply; at most {LEVELS} levels of operators and brackets are read"
        return [Mistake(0, len(source), message, "name its parts as segments")]
    errors = failure.errors or [(1, 1, str(failure).removeprefix("INVALID_ARGUMENT: "))]
    # One slip makes the parser complain several times; the first complaint is where the author looks.
    line, column, message = errors[0]
    at = _offset(source, line, column)
    message = message.removeprefix("Syntax error: ")
    token = re.search(r"(?:token recognition error at: |input )'(.*?)'(?= expecting|\Z)", message, re.DOTALL)
    word = token.group(1).strip() if token else ""
    if word == "<EOF>" or at >= len(source.rstrip()):
        return [
            Mistake(
                max(0, len(source.rstrip()) - 1),
                len(source.rstrip()),
                "the expression ends too early",
                end_hint(source),
            )
        ]
    if word:
        span = (at, at + len(word))
        if word[0] in "\"'" and "recognition" in message:
            return [Mistake(*span, "this string is not closed", f"end it with {word[0]}")]
        # The parser stumbles over what follows `not` and the first half of `<>`, which are meant.
        meant = re.search(r"(\bnot\s*|<)\Z", source[:at])
        if meant and (meant.group() != "<" or word == ">"):
            word = "<>" if word == ">" else "not"
            span = (meant.start(), meant.start() + len(word))
        return [Mistake(*span, f"`{word}` cannot stand here", word_hint(word, source[: span[0]]))]
    word = re.match(r"[\w.]*", source[at:])
    return [Mistake(at, at + max(1, word.end() if word else 0), message, word_hint(message))]


def _type_mistakes(environment: cel.Environment, source: str, nodes: list[AnyNode], known: set[int]) -> list[Mistake]:
    try:
        environment.check(source)
    except cel.CelFailure as failure:
        found = (
            _type_mistake(_offset(source, line, column), message, nodes) for line, column, message in failure.errors
        )
        return [m for m in found if m and m.start not in known]
    return []


def _type_mistake(at: int, message: str, nodes: list[AnyNode]) -> Mistake | None:
    around = [n.span for n in nodes if n.span[0] <= at < n.span[1]]
    span = min(around, key=lambda s: s[1] - s[0], default=(at, at + 1))
    overload = _OVERLOAD.match(message)
    if overload:
        function, kinds = overload.group(1), [k.strip() for k in overload.group(2).split(",")]
        # Number mixing is allowed in rules: ints become doubles.
        mixed = kinds[1:] if function == "_?_:_" else kinds
        if function.startswith(("_", "math.")) and set(mixed) <= _NUMBERS | {"dyn"}:
            return None
        operator = function.replace("_", " ").strip().replace("@", "")
        shown = " and ".join(k.replace("google.protobuf.", "").lower() for k in kinds)
        if function == "_?_:_":
            return Mistake(*span, f"`? :` cannot take {shown}")
        return Mistake(*span, f"`{operator}` cannot take {shown}", operand_hint(operator, kinds))
    undeclared = _UNDECLARED.match(message)
    if undeclared:
        word = undeclared.group(1)
        if word.split(".")[0] in PATH_LENGTH or not any(
            isinstance(n, Call) and n.function.split(".")[-1] == word for n in nodes
        ):
            return None  # a name: resolved and reported by us
        if word in FUNCTIONS:
            return Mistake(*span, f"`{word}` does not take these arguments")
        return Mistake(*span, f"there is no function `{word}`", did_you_mean(word, FUNCTIONS))
    return Mistake(*span, message)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _bool_hint(root: AnyNode) -> str:
    return "compare it with something, `== ...` say" if isinstance(root, (Name, Const)) else ""


def _null_mistakes(nodes: list[AnyNode]) -> list[Mistake]:
    """Comparisons with null, which no value ever is: what is meant is absence."""
    mistakes = []
    for node in nodes:
        if isinstance(node, Call) and node.function in {"_==_", "_!=_"}:
            null, name = sorted(node.args, key=lambda a: not (isinstance(a, Const) and a.kind == "null"))
            if isinstance(null, Const) and null.kind == "null":
                mark = "!" if node.function == "_==_" else ""
                hint = f"write `{mark}has({'.'.join(name.path)})`" if isinstance(name, Name) else ""
                mistakes.append(Mistake(*node.span, "nothing is ever null: what is missing is unknown", hint))
    return mistakes


def _number_mistakes(nodes: list[AnyNode]) -> list[Mistake]:
    """Declared numbers where none can stand: cel-cpp sees numbers as dyn and lets them pass."""
    mistakes = []
    for node in nodes:
        if isinstance(node, Call) and node.function in _LOGIC:
            operator = node.function.strip("_")
            mistakes += [
                Mistake(*a.span, f"`{operator}` cannot take {infer(a)}", operand_hint(operator, []))
                for a in node.args
                if infer(a) in _NUMBERS
            ]
        if isinstance(node, Call) and node.function in _COMPARED:
            kinds = [infer(a) for a in node.args]
            if len({k in _NUMBERS for k in kinds}) == 2 and not {"dyn", "null"} & set(kinds):  # noqa: PLR2004 - two sides
                operator = node.function.strip("_")
                shown = " and ".join(kinds)
                mistakes.append(Mistake(*node.span, f"`{operator}` cannot take {shown}", operand_hint(operator, kinds)))
    return mistakes


def _pattern_mistakes(nodes: list[AnyNode]) -> list[Mistake]:
    mistakes = []
    for node in nodes:
        if isinstance(node, Call) and node.function == "matches" and node.args and isinstance(node.args[-1], Const):
            pattern = node.args[-1]
            if not isinstance(pattern.value, str):
                continue
            length, states = len(pattern.value), pattern_size(pattern.value)
            if length > PATTERN_LENGTH:
                message = f"this pattern has {length:,} characters; at most {PATTERN_LENGTH:,} are read"
                mistakes.append(Mistake(*pattern.span, message, "compare with a list: `in [...]`, or ask in parts"))
                continue
            if states > PATTERN_SIZE:
                message = f"this pattern comes to some {states:,} states; at most {PATTERN_SIZE:,} are allowed"
                hint = "repetitions with a count are written out: use `+` or `*`, or smaller counts"
                mistakes.append(Mistake(*pattern.span, message, hint))
                continue
            try:
                cel.call("matches", ["", pattern.value], method=True)
            except cel.CelFailure as failure:
                reason = str(failure).partition("invalid regular expression: ")[2] or str(failure)
                mistakes.append(Mistake(*pattern.span, f"not a regular expression that RE2 takes: {reason}"))
    return mistakes


def _macro_mistakes(root: AnyNode) -> list[Mistake]:
    """Macros in macros: what they cost is the product of what they run over."""
    return [
        Mistake(
            *fold.span,
            f"macros stand {depth} deep in each other here; at most {MACROS} do",
            "make a list with `map` or `filter` first, and ask of that",
        )
        for depth, fold in nested_macros(root)
        if depth == MACROS + 1
    ]
