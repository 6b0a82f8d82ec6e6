"""One input of a training, as its spec has it.

Law: reads one node and reports what is wrong with it; pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast, get_args

from arbiter.authoring.blocks import Block, check_name
from arbiter.authoring.nodes import Mapping, Node, Scalar, kind_of
from arbiter.authoring.scalars import NAME
from arbiter.errors import did_you_mean
from arbiter.models.manifest import Root
from arbiter.training.spec import Encoding, Impute, InputSpec

if TYPE_CHECKING:
    from arbiter.authoring.report import Report
    from arbiter.training.spec import Source

KEYS: Final = ("name", "from", "column", "default", "impute", "log", "as", "categories", "least")
_MOST_ROWS: Final = 10**9


def read_input(node: Node, path: str, report: Report, source: Source, *, trees: bool) -> InputSpec | None:
    """The input at `node`, None when it is none."""
    if not isinstance(node, Mapping):
        report.at(node, f"an input is a mapping, this is {kind_of(node)}", "`{name: age, from: profile.age}`", path)
        return None
    block = Block(node, report, what="an input", path=path, keys=KEYS)
    block.require("name", "what the model calls it")
    block.require("from", "where serving finds it: `features.X`, `profile.X`, `account.X` or `context.X`")
    named = block.text("name")
    if named is not None:
        check_name(named, "an input", report, f"{path}.name")
    root, attribute = _from(block, source)
    encoding = cast("Encoding | None", block.word("as", get_args(Encoding)))
    impute = cast("Impute | None", block.word("impute", get_args(Impute)))
    categories = _categories(block)
    default = _default(block, encoding, impute)
    log = block.boolean("log") or False
    if log and (trees or encoding):
        why = "a logarithm changes nothing for trees" if trees else "a text has no logarithm"
        block.refuse(block.key("log"), why, "remove it", "log")
    if block.has("column") and source.logged:
        block.refuse(block.key("column"), "`column` is for tables", "remove it", "column")
    column = block.text("column")
    name = named.text if named is not None else ""
    return InputSpec(
        name=name,
        root=cast("Root", root),
        attribute=attribute,
        column=column.text if column is not None else name,
        default=default,
        impute=impute,
        log=log,
        encoding=encoding,
        categories=categories,
        least=block.integer("least", 1, _MOST_ROWS) or 1,
    )


def _default(block: Block, encoding: Encoding | None, impute: Impute | None) -> bool | int | float | str | None:
    """What stands in for a missing value; reports what does not go with the rest."""
    node = block.get("default")
    value = node.value if isinstance(node, Scalar) else None
    if node is not None and value is None:
        block.refuse(node, "`default` must be a finite number, a boolean or a text", key="default")
    if node is not None and impute:
        block.refuse(block.key("impute"), "`default` says what stands in, so there is nothing to compute", key="impute")
    if encoding is None:
        for key in ("categories", "least"):
            if block.has(key):
                block.refuse(block.key(key), f"`{key}` is for texts", "add `as: onehot`, or `as: index`", key)
        if isinstance(value, str) or impute == "most_frequent":
            key = "default" if node is not None else "impute"
            block.refuse(block.key(key), "this is for texts", "add `as: onehot`, or `as: index`", key)
    elif impute in {"mean", "median"}:
        block.refuse(block.key("impute"), f"a text has no {impute}", "use `most_frequent`", "impute")
    elif node is not None and value is not None and not isinstance(value, str):
        block.refuse(node, "the default of a text is a text", f'write `"{value}"`', "default")
    return value


def _from(block: Block, source: Source) -> tuple[str, str]:
    scalar = block.text("from")
    if scalar is None:
        return "", ""
    root, _, attribute = scalar.text.partition(".")
    roots = get_args(Root)
    if root not in roots or not NAME.fullmatch(attribute):
        hint = did_you_mean(root, roots) if root not in roots else "names are lower-case letters, digits and `_`"
        block.refuse(scalar, "an input comes from `features.X`, `profile.X`, `account.X` or `context.X`", hint, "from")
    elif root == "account" and source.logged:
        block.refuse(scalar, "what an account was at an earlier time is not kept", "train on a table", "from")
    elif root == "profile" and source.events:
        block.refuse(scalar, "a file of events has no attributes", "train on a table or a store", "from")
    return root, attribute


def _categories(block: Block) -> tuple[str, ...]:
    found: list[str] = []
    for path, node in block.items("categories", "write `[free, trial, pro]`"):
        value: Any = node.value if isinstance(node, Scalar) else None
        if not isinstance(value, str):
            block.report.at(node, "a category is a text", "put it in quotes", path)
        elif value in found:
            block.report.at(node, f"the category `{value}` stands here twice", "remove one of the two", path)
        else:
            found.append(value)
    if block.has("categories") and len(found) == 1:
        block.refuse(block.key("categories"), "there must be two categories at least", key="categories")
    return tuple(found)
