"""Whether a value fits an option.

Law: one value, one option; pure. Where the value stands is for who reads it to say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from arbiter.authoring.nodes import Node, Scalar, kind_of
from arbiter.authoring.scalars import NotANumber, core_value, shorten
from arbiter.errors import did_you_mean

if TYPE_CHECKING:
    from arbiter.config.declare import Option, Value

_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%\w]+\]|[^\s:\[\]]*):([0-9]{1,5})")
_LAST_PORT: Final = 65_535
_TRUTH: Final = {
    **dict.fromkeys(("yes", "on", "1"), "write `true`"),
    **dict.fromkeys(("no", "off", "0"), "write `false`"),
}


class Unfit(ValueError):
    """The value does not fit; `hint` says what to write, where that is known."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def of_node(option: Option, node: Node) -> Value:
    """The option's value from a file. Raises Unfit."""
    if not isinstance(node, Scalar) or node.value is None:
        hint = 'write `""` for none' if option.none else ""
        raise Unfit(f"`{option.name}` must be {option.wanted}, not {kind_of(node)}", hint)
    if isinstance(node.value, str) and option.type is not str:
        hint = f"write `{node.text}` without quotes" if node.style and _fits(option, node.text) else ""
        raise _other(option, node.text, hint, kind_of(node) if hint else "")
    if not isinstance(node.value, str) and option.type is str:
        raise _other(option, node.text, f'write `"{shorten(node.text)}"`', kind_of(node))
    return _judged(option, node.value, node.text)


def of_text(option: Option, text: str) -> Value:
    """The option's value from the environment or a flag: as in a file, but no text has quotes. Raises Unfit."""
    if option.type is str:
        return _judged(option, text, text)
    try:
        value = core_value(text)
    except NotANumber as error:
        raise _other(option, text) from error
    if value is None:
        raise _other(option, text)
    return _judged(option, value, text)


def _judged(option: Option, value: Value, text: str) -> Value:
    if option.type is str:
        return _text(option, str(value))
    if option.type is bool:
        if not isinstance(value, bool):
            raise _other(option, text)
        return value
    if isinstance(value, (bool, str)) or (option.type is int and not isinstance(value, int)):
        raise _other(option, text)
    if (option.least is not None and value < option.least) or (option.most is not None and value > option.most):
        raise _other(option, text)
    return option.type(value)


def _text(option: Option, text: str) -> str:
    if not text.isprintable():
        raise Unfit(f"`{option.name}` holds a character that cannot be printed: {shorten(text)!a}")
    if option.words and text not in option.words:
        raise _other(option, text, did_you_mean(text, option.words))
    if option.shown == "HOST:PORT" and (text or not option.none):
        found = _ADDRESS.fullmatch(text)
        if found is None or int(found[1]) > _LAST_PORT:
            hint = f"a port is at most {_LAST_PORT}" if found else "as in `127.0.0.1:50051` or `[::1]:50051`"
            raise _other(option, text, hint)
    if not text and not option.none:
        raise Unfit(f"`{option.name}` must not be empty")
    return text


def _other(option: Option, text: str, hint: str = "", kind: str = "") -> Unfit:
    said = kind or (f"`{shorten(text)}`" if text else "empty")
    if option.type is bool and not hint:
        hint = _TRUTH.get(text.lower(), "")
    return Unfit(f"`{option.name}` must be {option.wanted}, not {said}", hint)


def _fits(option: Option, text: str) -> bool:
    try:
        of_text(option, text)
    except Unfit:
        return False
    return True
