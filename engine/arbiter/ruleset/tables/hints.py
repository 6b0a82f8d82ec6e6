"""What to write instead of a cell that makes no sense.

Law: words for authors, chosen from a column's type and the text of a cell. Finds no mistakes itself.
"""

from __future__ import annotations

import re
from typing import Final

from arbiter.ruleset.times import rfc3339

_ANYTHING: Final = frozenset({"*", "any", "Any", "ANY", "all", "ALL", "n/a", "N/A"})
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_TIMES: Final = frozenset({"timestamp", "dyn"})
_YES: Final = frozenset({"yes", "y", "on"})
_NO: Final = frozenset({"no", "n", "off"})
_NOT: Final = re.compile(r"(?:not\s+|!\s*)([^=\s(].*)", re.DOTALL)
_BOTH: Final = re.compile(r"(?:>=?)?\s*-?[\d.]+\s*(?:and|&&|to|-|<=?|\s)+\s*-?[\d.]+")
_APOSTROPHE: Final = re.compile(r"\w[\w .-]*'[\w .'-]*\w")
_HALF: Final = re.compile(r"[\[(].*\.\..*|.*\.\..*[\])]", re.DOTALL)


def cell_hint(kind: str, text: str) -> str:
    """For a text that is no value of a column of this type; else an empty string."""
    if text in _ANYTHING:
        return "write `-` for any value"
    if _DAY.fullmatch(text) and kind in _TIMES and rfc3339(f"{text}T00:00:00Z"):
        return f"write `{text}T00:00:00Z`"
    negated = _NOT.fullmatch(text)
    if negated:
        opposite = {"true": "false", "false": "true"}.get(negated[1]) if kind == "bool" else None
        return f"write `{opposite or f'not({negated[1]})'}`"
    if _BOTH.fullmatch(text):
        return "write `[1..10]`; with `(` or `)` the end does not belong to it"
    if _HALF.fullmatch(text):
        return "a range has two ends in brackets: `[1..10]`, `(1..10)`; for one end write `>= 1`"
    if kind == "string" and _APOSTROPHE.fullmatch(text):
        return f'write `"{text}"`, in quotes'
    return ""


def kind_hint(kind: str, given: str, value: object) -> str:
    """For a value of type `given` in a column of another type; else an empty string."""
    if given != "string":
        return ""
    text = str(value)
    if kind == "timestamp" and rfc3339(text):
        return f"write `{text}` without quotes"
    if kind == "bool" and text.lower() in _YES | _NO:
        return f"write `{'true' if text.lower() in _YES else 'false'}`"
    return cell_hint(kind, text)
