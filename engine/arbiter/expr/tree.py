"""The small typed tree that every authored expression becomes.

Law: data only, serialisable by msgspec (snapshots store it), one node kind per thing the language can say. Nothing here
parses, checks or evaluates. Macros of CEL are nodes (`Fold`), so that the compiler sees `exists`, not its expansion.
`span` is the half-open range of characters in the expression's source.
"""

from __future__ import annotations

from typing import Any

import msgspec

Span = tuple[int, int]


class Node(msgspec.Struct, frozen=True, array_like=True, tag=True, tag_field="node", omit_defaults=True, gc=False):
    """The base of every node. Trees hold no circles, so the collector need not look at them."""


class Const(Node, frozen=True, tag="c"):
    """A literal: None, bool, int, float, str or bytes. `kind` is its CEL type name (``int``, ``uint``, ``double``
    ...).
    """

    kind: str
    value: Any
    span: Span = (0, 0)


class Name(Node, frozen=True, tag="n"):
    """A name outside the expression: ``("profile", "country")``, ``("models", "churn", "probability")``, ``("now",)``.

    `type` is the declared type, or ``dyn``.
    """

    path: tuple[str, ...]
    type: str = "dyn"
    span: Span = (0, 0)


class Local(Node, frozen=True, tag="l"):
    """A variable bound by an enclosing fold."""

    name: str
    span: Span = (0, 0)


class Select(Node, frozen=True, tag="s"):
    """``operand.field``, or ``has(operand.field)`` when `test` is set."""

    operand: AnyNode
    field: str
    test: bool = False
    span: Span = (0, 0)


class Call(Node, frozen=True, tag="f"):
    """A function or operator by its CEL name (``_&&_``, ``_==_``, ``@in``, ``startsWith``); a receiver is the first
    argument.

    `method` tells ``x.f(y)`` from ``f(x, y)``.
    """

    function: str
    args: tuple[AnyNode, ...]
    method: bool = False
    span: Span = (0, 0)


class ListOf(Node, frozen=True, tag="a"):
    """``[a, b]``."""

    items: tuple[AnyNode, ...]
    span: Span = (0, 0)


class MapOf(Node, frozen=True, tag="m"):
    """``{k: v}`` as pairs, in source order."""

    entries: tuple[tuple[AnyNode, AnyNode], ...]
    span: Span = (0, 0)


class Fold(Node, frozen=True, tag="q"):
    """A macro over a list or the keys of a map: `kind` is ``all``, ``exists``, ``exists_one``, ``map`` or ``filter``.

    `where` is the filter of a three-argument ``map``, else None.
    """

    kind: str
    variable: str
    over: AnyNode
    body: AnyNode
    where: AnyNode | None = None
    span: Span = (0, 0)


AnyNode = Const | Name | Local | Select | Call | ListOf | MapOf | Fold


class Expression(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An authored expression: its source text, its tree, its result type (``bool``, ``double``, ``dyn`` ...) and
    where it stands.

    `position` is ``file:line:column`` of its first character. `names` are the outside names that it reads, sorted.
    """

    source: str
    root: AnyNode
    type: str
    position: str
    names: tuple[tuple[str, ...], ...]
