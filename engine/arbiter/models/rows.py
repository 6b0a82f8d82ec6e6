"""From what is known of a subject to the row that a graph takes: generated functions, one for a model or several.

Law: here is what stands in for missing values, how texts become numbers and times ages. What comes out is the row of
the manifest, whatever values go in; a value of the wrong kind is missing. Consent is not looked at: who made the view
took out what may not be seen, and left no outputs to a model that would miss it.
"""

from __future__ import annotations

import math
import textwrap
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.generated import function_of
from arbiter.expr.shaped import taker
from arbiter.models.failure import ModelFailure
from arbiter.types import to_micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from arbiter.expr.view import Symbols, View
    from arbiter.models.manifest import Input
    from arbiter.models.model import Model

Row = list[Any]
_NUMBERS = frozenset({int, float, bool})
# What a tensor takes, by its dtype: True and False are numbers, a double is no integer.
TAKES = {
    "float32": _NUMBERS,
    "float64": _NUMBERS,
    "int64": frozenset({int, bool}),
    "bool": frozenset({bool}),
    "str": frozenset({str}),
}


def row_of(model: Model, symbols: Symbols) -> Callable[[View], Row | None]:
    """What reads a model's row from a view: None when its outputs are unknown.

    It raises ModelFailure for a value that is no category, where the manifest calls that an error.
    """
    writer = _Writer(["return None"], "v.clock")
    columns = [writer.columns(item, dtype, *_read(item, symbols, writer)) for item, dtype in model.takes]
    lines = [*writer.takes(), *writer.lines]
    return function_of([_function("row(v)", lines, columns, "")], writer.names, f"inputs of model {model.name}")


def rows_of(models: Sequence[Model], symbols: Symbols) -> Callable[[View], tuple[Row, int]]:
    """What reads the rows of several models, one after another, and the bits of those whose outputs are unknown: zeros
    stand in their rows. Values that several take alike are read once. It raises as that of `row_of` does.
    """
    users: dict[str, int] = {}
    for number, model in enumerate(models):
        for item, dtype in model.takes:
            users[_alike(item, dtype)] = users.get(_alike(item, dtype), 0) | 1 << number
    writer = _Writer([], "v.clock")
    columns: list[str] = []
    known: dict[str, str] = {}
    for model in models:
        for item, dtype in model.takes:
            key = _alike(item, dtype)
            if key not in known:
                writer.lacking = [f"u |= {users[key]}"]
                known[key] = writer.columns(item, dtype, *_read(item, symbols, writer))
            columns.append(known[key])
    lines = [*writer.takes(), "    u = 0", *writer.lines]
    names = ", ".join(model.name for model in models)
    return function_of([_function("rows(v)", lines, columns, ", u")], writer.names, f"inputs of models {names}")


def encoder_of(takes: Iterable[tuple[Input, str]], name: str) -> Callable[[tuple[Sequence[Any], int]], Row | None]:
    """The same from ``(values, clock)``: one value for each input, None for a missing one, and µs since the epoch."""
    writer = _Writer(["return None"], "t")
    columns = [writer.columns(item, dtype, f"r[{number}]", "") for number, (item, dtype) in enumerate(takes)]
    lines = ["    r, t = given", *writer.lines]
    return function_of([_function("row(given)", lines, columns, "")], writer.names, f"encoding of model {name}")


def is_missing(item: Input, dtype: str, value: Any, clock: int) -> bool:
    """Whether there is no value for an input, or none of a kind or within a range that it takes. `clock` is in µs."""
    if item.unit:
        if not isinstance(value, datetime):
            return True
        value = (clock - to_micros(value)) / item.unit
    elif item.form == "missing" and not item.categories and item.low is None:
        return value is None
    elif type(value) not in _kinds(item, dtype):
        return True
    ranged = item.low is not None and item.high is not None and item.outside == "missing"
    return ranged and not item.low <= value <= item.high


def _function(head: str, lines: list[str], columns: list[str], more: str) -> str:
    return "\n".join([f"def {head}:", *lines, f"    return [{', '.join(columns)}]{more}", ""])


def _alike(item: Input, dtype: str) -> str:
    return repr((msgspec.structs.replace(item, name=""), dtype))


def _read(item: Input, symbols: Symbols, writer: _Writer) -> tuple[str, str]:
    """The expression that reads a value, and the one, of ``{}``, that makes it of what was read, where that differs."""
    if item.root != "features":
        return writer.taken(item.root, item.attribute), ""
    feature = symbols.features.get(item.attribute)
    if feature is None:
        return "None", ""
    read = writer.taken("features", feature.key)
    if feature.computed:
        return f"{writer.named('value', feature.value)}({read}, v.clock)", ""
    return read, f"(v.clock - {{}}) / {feature.unit}" if feature.unit else ""


class _Writer:
    """Writes the lines that make an input's columns. `lacking` is what is done when nothing stands in for a value, and
    `clock` the expression of now, in µs.
    """

    def __init__(self, lacking: list[str], clock: str) -> None:
        self.lacking = lacking
        self.lines: list[str] = []
        self.names: dict[str, Any] = {
            "DATETIME": datetime, "micros": to_micros, "NAN": math.nan, "ModelFailure": ModelFailure,
        }  # fmt: skip
        self._clock = clock
        self._count = 0
        self._taken: dict[str, list[str]] = {}

    def taken(self, root: str, key: str) -> str:
        """The name under which the lines find the value of a root's `key`, None where it is missing."""
        keys = self._taken.setdefault(root, [])
        if key not in keys:
            keys.append(key)
        return f"{root}{keys.index(key)}"

    def takes(self) -> list[str]:
        """The lines that take out of the view what was asked for."""
        lines = []
        for root, keys in self._taken.items():
            if len(keys) == 1:
                lines.append(f"    {root}0 = v.{root}.get({keys[0]!r})")
                continue
            every = ", ".join(f"{root}{number}" for number in range(len(keys)))
            lines.append(f"    {every} = {self.named('take', taker(tuple(keys)))}(v.{root})")
        return lines

    def named(self, stem: str, value: Any) -> str:
        """The name under which the lines find `value`."""
        name = f"{stem}{len(self.names)}"
        self.names[name] = value
        return name

    def columns(self, item: Input, dtype: str, read: str, convert: str) -> str:
        """Write one input; the expression of its columns in a list."""
        self._count += 1
        x = f"x{self._count}"
        if item.form == "missing":
            y = f"y{self._count}"
            missing = [f"{x} = 1"]
            lines = [f"{x} = 0", f"{y} = {read}", *self._checked(item, dtype, y, convert, missing)]
            self.lines += _in(lines)
            return x
        missing = self._missing(item, x)
        coded = self._coded(item, x) if item.categories else []
        self.lines += _in([f"{x} = {read}", *self._checked(item, dtype, x, convert, missing, coded)])
        return f"*{x}" if item.form == "onehot" else x

    def _checked(
        self, item: Input, dtype: str, x: str, convert: str, missing: list[str], more: Iterable[str] = ()
    ) -> list[str]:
        """What is done where there is no value in `x` that fits, and what makes of one that does what is to enter."""
        fit = [f"{x} = {convert.format(x)}"] if convert else []
        if item.unit:
            unfit = f"{x}.__class__ is not DATETIME"
            fit.append(f"{x} = ({self._clock} - micros({x})) / {item.unit}")
        elif item.form == "missing" and not item.categories and item.low is None:
            return [f"if {x} is None:", *_in(missing)]
        else:
            unfit = f"{x}.__class__ not in {self.named('KINDS', _kinds(item, dtype))}"
        if item.low is not None and item.high is not None:
            fit += _ranged(item, x, missing)
        fit += more
        return [f"if {unfit}:", *_in(missing), *(["else:", *_in(fit)] if fit else ())]

    def _missing(self, item: Input, x: str) -> list[str]:
        stand_in = item.stand_in
        if stand_in is None:
            return [f"{x} = {_zero(item)}", *self.lacking]
        if item.categories:
            return [f"{x} = {_codes(item)[stand_in]!r}"]
        return [f"{x} = NAN" if item.impute == "nan" else f"{x} = {stand_in!r}"]

    def _coded(self, item: Input, x: str) -> list[str]:
        lines = [f"{x} = {self.named('CODES', _codes(item))}.get({x})", f"if {x} is None:"]
        if item.unseen == "other":
            other = (0.0,) * item.width if item.form == "onehot" else len(item.categories)
            return [*lines, f"    {x} = {other!r}"]
        if item.unseen == "error":
            said = f"input `{item.name}`: the value of `{item.root}.{item.attribute}` is none of the categories"
            return [*lines, f"    raise ModelFailure({said!r})"]
        return [*lines, f"    {x} = {_zero(item)}", *_in(self.lacking)]


def _kinds(item: Input, dtype: str) -> frozenset[type]:
    """The classes of the values that an input takes."""
    if not item.categories:
        return TAKES[dtype]
    kind = type(item.categories[0])
    # A whole number may be stored as a double; true is no number where categories are told apart.
    return frozenset({int, float}) if kind is int else frozenset({kind})


def _ranged(item: Input, x: str, missing: list[str]) -> list[str]:
    low, high = repr(item.low), repr(item.high)
    if item.outside == "clip":
        return [f"{x} = {low} if {x} < {low} else {high} if {x} > {high} else {x}"]
    return [f"if not {low} <= {x} <= {high}:", *_in(missing)]


def _zero(item: Input) -> str:
    return repr((0.0,) * item.width) if item.form == "onehot" else "0"


def _codes(item: Input) -> dict[Any, Any]:
    """By category what enters the graph."""
    places = range(len(item.categories))
    if item.form == "onehot":
        return {each: tuple(float(n == at) for n in places) for at, each in enumerate(item.categories)}
    return {each: at for at, each in enumerate(item.categories)}


def _in(lines: Iterable[str]) -> list[str]:
    return textwrap.indent("\n".join(lines), "    ").split("\n")
