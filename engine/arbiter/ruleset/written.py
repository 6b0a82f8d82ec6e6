"""Values as authors write them, on one line.

Law: words only.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from arbiter.authoring.scalars import UNITS
from arbiter.ruleset.render import text
from arbiter.ruleset.terms import Fields, Items, Plain, Template


def duration_text(micros: int) -> str:
    """A duration in the largest unit that divides it; weeks are days."""
    letter = next((each for each in "dhms" if micros % UNITS[each] == 0), "")
    return f"{micros // UNITS[letter]}{letter}" if letter else f"{micros} µs"


def param_text(param: Any) -> str:
    """A parameter, its expressions as `${}`."""
    match param:
        case Template(parts):
            return "".join(part if isinstance(part, str) else f"${{{part.source}}}" for part in parts)
        case Items(items):
            return f"[{', '.join(map(param_text, items))}]"
        case Fields(fields):
            return f"{{{', '.join(f'{name}: {param_text(each)}' for name, each in fields.items())}}}"
        case Plain(value):
            return constant_text(value)
    return str(param)


def constant_text(value: Any) -> str:
    """As JSON writes it, so that `"7"`, `7` and `7.0` differ."""
    match value:
        case list():
            return f"[{', '.join(map(constant_text, value))}]"
        case dict():
            return f"{{{', '.join(f'{name}: {constant_text(each)}' for name, each in value.items())}}}"
        case datetime():
            return text(value)
        case bytes():
            return str(value)
    return msgspec.json.encode(value).decode()
