"""What people write on a command line, as values.

Law: text in, values out; a mistake becomes a usage error that names what was written. Knows nothing of servers.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from arbiter.ruleset.times import duration_micros

if TYPE_CHECKING:
    from collections.abc import Iterable

_INT = range(-(1 << 63), 1 << 63)
_json = msgspec.json.Decoder(Any)


def read_assignment(written: str) -> tuple[str, Any]:
    """``name=value``: JSON where the value is JSON, a moment where it is one with its zone, else the text itself."""
    name, equals, text = written.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"`{written}` is no assignment: write name=value, as in country=CA or age=41")
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return name, _moment(text) or text
    if value is None:
        raise typer.BadParameter(f"`{name}=null`: an absent value is said by --unset {name}")
    if isinstance(value, int) and not isinstance(value, bool) and value not in _INT:
        raise typer.BadParameter(f"`{written}`: an integer must fit 64 bits; with a fraction it is a double: {text}.0")
    return name, value


def read_assignments(written: Iterable[str]) -> dict[str, Any]:
    """Assignments to names, each given once."""
    values: dict[str, Any] = {}
    for each in written:
        name, value = read_assignment(each)
        if name in values:
            raise typer.BadParameter(f"`{each}`: {name} is given twice: one of the two is meant")
        values[name] = value
    return values


def read_numbers(written: Iterable[str]) -> dict[str, int]:
    """Assignments of whole numbers to names."""
    return {name: _whole(name, value) for name, value in read_assignments(written).items()}


def _whole(name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise typer.BadParameter(f"`{name}`: a whole number from 1 on must stand behind the =, as in {name}=10")
    return value


def read_durations(written: Iterable[str]) -> dict[str, timedelta]:
    """Assignments of durations, such as ``30m`` or ``7d``, to names."""
    durations: dict[str, timedelta] = {}
    for each in written:
        name, _, text = each.partition("=")
        micros = duration_micros(text)
        if not name or micros is None:
            raise typer.BadParameter(
                f"`{each}` is no time to live: write name=duration with the units s, m, h, d and w, as in code=30m"
            )
        if name in durations:
            raise typer.BadParameter(f"`{each}`: {name} is given twice: one of the two is meant")
        durations[name] = timedelta(microseconds=micros)
    return durations


def read_context(text: str) -> dict[str, Any]:
    """One JSON object; ``@FILE`` names a file that holds one, ``@-`` is standard input."""
    try:
        content = _content(text[1:]) if text.startswith("@") else text
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"cannot read {text[1:]}: {error}", param_hint="--context") from error
    try:
        context = msgspec.json.decode(content, type=dict[str, Any])
        # msgspec takes the last of two equal keys; Python's own parser shows both.
        json.loads(content, object_pairs_hook=_once)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise typer.BadParameter(
            f'{error}. Write one JSON object, as in \'{{"device": "ios"}}\', or @FILE for a file that holds one',
            param_hint="--context",
        ) from error
    return context


def _once(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"the key `{name}` is given twice")
        seen.add(name)


def _content(name: str) -> str:
    return typer.get_text_stream("stdin").read() if name == "-" else Path(name).read_text("utf-8")


def read_moment(text: str, option: str) -> datetime:
    """An ISO 8601 moment with its zone."""
    moment = _moment(text)
    if moment is None:
        raise typer.BadParameter(
            f"`{text}` is no moment with its zone: write it as 2026-11-20T18:30:00Z", param_hint=option
        )
    return moment


def _moment(text: str) -> datetime | None:
    """A moment only when it names its zone, so that a plain date stays a text."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.astimezone(UTC)
