"""The one door to cel-cpp: parsing, checking, evaluating.

Law: only this module imports `cel_expr_python`. It hands out parsed trees as protobuf messages, checker messages with
character offsets, and values. Sources: the CEL specification (https://cel.dev) as implemented by cel-cpp.
"""

from __future__ import annotations

import functools
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_math, ext_strings
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from arbiter.expr.v1.syntax_pb2 import ParsedExpr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TYPES: dict[str, cel.Type] = {
    "bool": cel.Type.BOOL,
    # Numbers are dyn to the checker: authors need not tell int from double.
    "int": cel.Type.DYN,
    "double": cel.Type.DYN,
    "string": cel.Type.STRING,
    "bytes": cel.Type.BYTES,
    "timestamp": cel.Type.TIMESTAMP,
    "duration": cel.Type.DURATION,
    "list": cel.Type.LIST,
    "map": cel.Type.MAP,
    "dyn": cel.Type.DYN,
}
_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*?)(?=\n \| )", re.DOTALL)


class CelFailure(Exception):
    """cel-cpp refused or could not evaluate. `errors` holds (line, column, message) of each complaint, counted from
    1.
    """

    def __init__(self, text: str) -> None:
        self.errors = [(int(line), int(column), message) for line, column, message in _ERROR.findall(text)]
        super().__init__(text)


class Environment:
    """Names with their types, as cel-cpp sees them. Dotted names are declared as qualified variables."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._env = cel.NewEnv(
            variables={name: _TYPES[kind] for name, kind in variables.items()},
            extensions=[ext_math.ExtMath(), ext_strings.ExtStrings()],
        )

    def parse(self, source: str) -> ParsedExpr:
        """The syntax tree; raises CelFailure for syntax errors."""
        message = AnyMessage.FromString(self._compile(source, disable_check=True).serialize())
        try:
            return ParsedExpr.FromString(message.value)
        except DecodeError:
            # Macros multiply the depth that cel-cpp itself bounds; protobuf bounds it again.
            raise CelFailure("recursion limit of the encoded tree exceeded") from None

    def check(self, source: str) -> None:
        """Raise CelFailure with every type error that the checker finds."""
        self._compile(source, disable_check=False)

    def program(self, source: str) -> Program:
        """The expression ready to be evaluated, unchecked; raises CelFailure for syntax errors."""
        return Program(self._compile(source, disable_check=True))

    def _compile(self, source: str, *, disable_check: bool) -> cel.Expression:
        try:
            return self._env.compile(source, disable_check=disable_check)
        except RuntimeError as error:
            raise CelFailure(str(error)) from None


class Program:
    """One compiled expression of cel-cpp."""

    def __init__(self, expression: cel.Expression) -> None:
        self._expression = expression

    def evaluate(self, data: Mapping[str, object]) -> Any:
        """The value as plain Python; raises CelFailure when evaluation ends in an error."""
        try:
            result = self._expression.eval(data=data)
        except RuntimeError as error:
            raise CelFailure(str(error)) from None
        if result.type() == cel.Type.ERROR:
            raise CelFailure(str(result.value()))
        return _plain(result.plain_value())


def _plain(value: Any) -> Any:
    """The binding gives bytes as bytearray and types as objects of its own."""
    match value:
        case bytearray():
            return bytes(value)
        case list():
            return [_plain(v) for v in value]
        case dict():
            return {_plain(k): _plain(v) for k, v in value.items()}
        case cel.Type():
            return str(value)
    return value


def _kind(value: object) -> str:
    if isinstance(value, datetime):
        return "timestamp"
    return "duration" if isinstance(value, timedelta) else "dyn"


@functools.lru_cache(maxsize=4096)
def _call_program(function: str, method: bool, kinds: tuple[str, ...]) -> Program:  # noqa: FBT001 - a cache key
    names = [f"a{i}" for i in range(len(kinds))]
    source = f"{names[0]}.{function}({', '.join(names[1:])})" if method else f"{function}({', '.join(names)})"
    return Environment(dict(zip(names, kinds, strict=True))).program(source)


def call(function: str, args: Sequence[Any], *, method: bool) -> Any:
    """Call one function of CEL's standard library (or its math and strings extensions) on plain values.

    Raises CelFailure when the function fails on these values or does not exist.
    """
    program = _call_program(function, method, tuple(map(_kind, args)))
    return program.evaluate({f"a{i}": value for i, value in enumerate(args)})
