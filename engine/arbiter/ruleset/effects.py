"""What a rule does when it wins: an action with parameters that the action's declaration allows.

Law: reads ``{action, params}`` and holds it against the declared actions; with none declared, every action is allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arbiter.authoring.blocks import Block, check_identifier, one_of, under
from arbiter.authoring.nodes import Mapping, Node, Scalar, kind_of
from arbiter.authoring.scalars import shorten
from arbiter.errors import did_you_mean
from arbiter.ruleset.declarations import article, constant_of
from arbiter.ruleset.expressions import not_allowed
from arbiter.ruleset.rules import Effect
from arbiter.ruleset.terms import Param, Plain, Template

if TYPE_CHECKING:
    from collections.abc import Mapping as Mapped

    from arbiter.authoring.nodes import Entry
    from arbiter.authoring.report import Report
    from arbiter.ruleset.declarations import Typed
    from arbiter.ruleset.templates import Params

KEYS: Final = ("action", "params")
_HINT = "write `{action: name, params: {name: value}}`"


def read_effect(
    node: Node, path: str, report: Report, params: Params, actions: Mapped[str, Mapped[str, Typed]] | None
) -> Effect | None:
    """The effect that a ``then`` or ``default`` describes; None when it was refused. `actions` None: any action."""
    name = path.rpartition(".")[2]
    if not isinstance(node, Mapping):
        report.at(node, f"`{name}` must be a mapping, this is {kind_of(node)}", _HINT, path)
        return None
    block = Block(node, report, what=f"`{name}`", path=path, keys=KEYS)
    if not block.require("action", _HINT):
        return None
    action = block.text("action")
    mapping = block.mapping("params", "write `{name: value}`")
    declared = _declared(action, path, report, actions)
    read: dict[str, Param] = {}
    for param, entry in mapping.entries.items() if mapping is not None else ():
        value = _param(param, entry, under(block.path, "params"), report, params, declared)
        if value is not None:
            read[param] = value
    if action is not None and declared is not None:
        given = mapping.entries if mapping is not None else {}
        for param, typed in declared.items():
            if param not in given and not typed.optional:
                message = f"the action `{action.text}` needs the parameter `{param}`"
                report.at(action, message, f"add `{param}: ...`, {article(typed.type)}", path)
    return Effect(action.text, read) if action is not None else None


def _declared(
    action: Scalar | None, path: str, report: Report, actions: Mapped[str, Mapped[str, Typed]] | None
) -> Mapped[str, Typed] | None:
    """The declared parameters of the action; None when there is nothing to hold it against."""
    if action is None or not check_identifier(action, "name", report, path) or actions is None:
        return None
    if action.text not in actions:
        hint = did_you_mean(action.text, actions) or f"declared are {one_of(sorted(actions)[:8])}" * bool(actions)
        report.at(action, f"unknown action `{action.text}`", hint, path)
        return None
    return actions[action.text]


def _param(
    name: str, entry: Entry, path: str, report: Report, params: Params, declared: Mapped[str, Typed] | None
) -> Param | None:
    where = under(path, name)
    value = params.read(entry.node, where)
    if declared is None:
        return value
    if name not in declared:
        hint = did_you_mean(name, declared) or (f"it takes {one_of(declared)}" if declared else "it takes none")
        report.at(entry.key, f"the action has no parameter `{shorten(name)}`", hint, where)
        return None
    if value is None or entry.node is None:
        return None
    return fitting(value, entry.node, name, declared[name], report, where)


def fitting(
    value: Param, node: Node, name: str, typed: Typed, report: Report, path: str, what: str = "parameter"
) -> Param | None:
    """The parameter as a value of its declared type; None, and a report, when it is none. `what` is filled by it."""
    need = f"the {what} `{name}` must be {article(typed.type)}"
    if isinstance(value, Template):
        kind = "string" if len(value.parts) > 1 or isinstance(value.parts[0], str) else value.parts[0].type
        fits = kind in {typed.type, "dyn"} or typed.type == "dyn" or (kind, typed.type) == ("int", "double")
        if not fits:
            report.at(node, f"{need}, this gives {article(kind)}", path=path)
        return value if fits else None
    constant, wrong = constant_of(node, typed.type)
    if wrong:
        report.at(node, f"{need}, this is {kind_of(node)}", _conversion(node, typed.type), path)
        return None
    if not isinstance(value, Plain):
        return value
    if isinstance(value.value, (str, list, dict)) and typed.type != "timestamp":
        constant = value.value  # in which `$${` has been unescaped
    if typed.values and constant not in typed.values:
        report.at(node, *not_allowed(constant, name, typed.values), path)
        return None
    return Plain(constant)


def _conversion(node: Node, kind: str) -> str:
    """How to write a constant of the wrong type in the right one, if that can be said."""
    if kind == "timestamp":
        return "write `2026-11-01T00:00:00Z`"
    if kind == "bytes":
        return 'write `${b"..."}`'
    if not isinstance(node, Scalar):
        return ""
    if kind == "string":
        return f'write `"{node.text}"`'
    return "remove the quotes" if node.style in {"'", '"'} and kind in {"int", "double", "bool"} else ""
