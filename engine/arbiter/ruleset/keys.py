"""Keys that several sections have, each read in one way: conditions, durations, purposes, tags.

Law: one key of a block in, its value out; what is wrong is reported there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from arbiter.authoring.blocks import Block, check_identifier
from arbiter.authoring.nodes import Scalar, Sequence, as_text, kind_of
from arbiter.authoring.scalars import IDENTIFIER, shorten
from arbiter.ruleset.consent import known_purposes, named_purposes
from arbiter.ruleset.times import duration_micros, unit_letter

if TYPE_CHECKING:
    from arbiter.expr.tree import Expression
    from arbiter.ruleset.declarations import Declared
    from arbiter.ruleset.expressions import Expressions


def read_when(block: Block, expressions: Expressions) -> tuple[Expression, ...]:
    """``when``: one condition, or a list of them, which is a conjunction; nothing when there is none."""
    node = block.get("when")
    if node is None:
        return ()
    path = f"{block.path}.when"
    lines = list(block.items("when")) if isinstance(node, Sequence) else [(path, node)]
    read = [expressions.read(line, "a condition", where, expect="bool") for where, line in lines]
    return tuple(expression for expression in read if expression is not None)


def read_purposes(block: Block, key: str, declared: Declared) -> tuple[str, ...]:
    """The purposes that a list names, sorted; those that are not declared are reported."""
    uses = named_purposes(block.get(key), key, f"{block.path}.{key}", block.report)
    return known_purposes(uses, declared.purposes, block.report)


def read_tags(block: Block) -> tuple[str, ...]:
    """``tags``, sorted, each once."""
    tags = set()
    said = block.get("tags")
    word = said.text if isinstance(said, Scalar) and IDENTIFIER.fullmatch(said.text) else "one, two"
    for path, item in block.items("tags", f"write `[{word}]`"):
        if not isinstance(item, Scalar) or as_text(item) is None:
            block.report.at(item, f"a tag must be text, this is {kind_of(item)}", path=path)
        elif check_identifier(item, "tag", block.report, path):
            tags.add(item.text)
    return tuple(sorted(tags))


def read_duration(block: Block, key: str) -> int | None:
    """The µs of a duration; None when there is none, or nothing sound."""
    node = block.get(key)
    if node is None:
        return None
    micros = duration_micros(node.text) if isinstance(node, Scalar) else None
    if micros is None:
        parts = re.fullmatch(r"([0-9]+) ?(\w*)", node.text) if isinstance(node, Scalar) else None
        better = parts[1] + unit_letter(parts[2] or "d") if parts is not None else ""
        hint = f"did you mean `{better}`?" if duration_micros(better) else "write `5m`, `12h`, `7d` or `4w`, say"
        shown = f"`{shorten(node.text)}`" if isinstance(node, Scalar) else kind_of(node)
        block.refuse(node, f"`{key}` must be a duration, this is {shown}", hint, key)
    return micros
