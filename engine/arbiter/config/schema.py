"""The JSON Schema of a configuration file.

Law: shapes only, from the options. What two options say of each other is for `read`, which sees where else they stand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.authoring.schemas import Schema, boolean, closed, document, integer, number, optional, text, word
from arbiter.config.options import OPTIONS

if TYPE_CHECKING:
    from arbiter.config.declare import Option


def config_schema() -> Schema:
    """The JSON Schema of a file for `--config`."""
    groups: dict[str, dict[str, Schema]] = {}
    for each in OPTIONS.values():
        groups.setdefault(each.group, {})[each.key] = _schema(each)
    keys = groups.pop("") | {name: optional(closed("", below)) for name, below in groups.items()}
    return document("Arbiter configuration", "The options of `arbiter serve`.", closed("", keys))


def _schema(option: Option) -> Schema:
    said = option.meaning
    if option.words:
        return word(said, option.words)
    if option.type is bool:
        return boolean(said)
    if option.least is None or option.most is None:
        return text(said) | ({} if option.none else {"minLength": 1})
    return (
        integer(said, int(option.least), int(option.most))
        if option.type is int
        else number(said, option.least, option.most)
    )
