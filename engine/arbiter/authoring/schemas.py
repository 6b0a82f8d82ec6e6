"""The words in which a JSON Schema of authored files is written.

Law: builds plain dictionaries of JSON Schema, draft 7, which is what editors understand best. Knows nothing of what the
files are about. What is said of a key is for whoever hovers over it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from arbiter.authoring.scalars import IDENTIFIER, INT64, NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Schema = dict[str, Any]
DIALECT: Final = "http://json-schema.org/draft-07/schema#"


def whole(pattern: str) -> str:
    """A pattern that must match the whole text, as JSON Schema writes it."""
    return f"^(?:{pattern})$"


def text(description: str, *, pattern: str = "", longest: int = 0) -> Schema:
    """A string."""
    return _said("string", description, **({"pattern": pattern} if pattern else {}), **_up_to(longest))


def name(description: str) -> Schema:
    """A name that expressions can say."""
    return text(description, pattern=whole(NAME.pattern))


def identifier(description: str) -> Schema:
    """The id of something."""
    return text(description, pattern=whole(IDENTIFIER.pattern))


def word(description: str, words: Iterable[str]) -> Schema:
    """One word of a closed set."""
    return _said("string", description, enum=list(words))


def integer(description: str, lowest: int = INT64[0], highest: int = INT64[-1]) -> Schema:
    """An integer within bounds, both included."""
    return _said("integer", description, minimum=lowest, maximum=highest)


def number(description: str, lowest: float, highest: float) -> Schema:
    """A number within bounds, both included."""
    return _said("number", description, minimum=lowest, maximum=highest)


def boolean(description: str) -> Schema:
    """``true`` or ``false``."""
    return _said("boolean", description)


def scalar(description: str, longest: int = 0) -> Schema:
    """A text, a number or a boolean, taken as it is written: an expression."""
    return {"description": description, "type": ["string", "number", "boolean"], "minLength": 1} | _up_to(longest)


def listed(description: str, items: Schema, **rules: Any) -> Schema:
    """A list."""
    return _said("array", description, items=items, **rules)


def closed(description: str, keys: Mapping[str, Schema], *, required: Iterable[str] = (), **rules: Any) -> Schema:
    """A mapping that has these keys and no others."""
    needed = {"required": list(required)} if required else {}
    return _said("object", description, properties=dict(keys), **needed, additionalProperties=False, **rules)


def named(description: str, each: Schema, pattern: str = NAME.pattern, **rules: Any) -> Schema:
    """A mapping from names of the author's to what `each` says."""
    return _said("object", description, propertyNames={"pattern": whole(pattern)}, additionalProperties=each, **rules)


def optional(schema: Schema) -> Schema:
    """The same, or nothing at all behind the key. For a mapping or a list."""
    return schema | {"type": [schema["type"], "null"]}


def either(description: str, *schemas: Schema) -> Schema:
    """One of several forms."""
    return {"description": description, "anyOf": list(schemas)}


def ref(definition: str) -> Schema:
    """What stands under `definitions`."""
    return {"$ref": f"#/definitions/{definition}"}


def document(title: str, description: str, root: Schema, definitions: Mapping[str, Schema] | None = None) -> Schema:
    """The schema of a kind of file."""
    more = {"definitions": dict(definitions)} if definitions else {}
    return {"$schema": DIALECT, "title": title} | root | {"description": description} | more


def _said(kind: str, description: str, **rules: Any) -> Schema:
    return ({"description": description} if description else {}) | {"type": kind} | rules


def _up_to(longest: int) -> Schema:
    return {"maxLength": longest} if longest else {}
