"""What a test of rules says, once it has been read and found right.

Law: frozen data. Nodes are kept to point at what did not come true.
"""

from __future__ import annotations

from typing import Any

import msgspec

# Fields' types at run time.
from arbiter.authoring.nodes import Node  # noqa: TC001
from arbiter.types import Event, Reason  # noqa: TC001


class WantedTreatment(msgspec.Struct, frozen=True):
    """A treatment as a test names it: by its rule, or by its action alone. None is not compared.

    `whole` says whether `params` are all of them or these among others. `nodes` has where a key is written,
    `param_nodes` where a parameter is.
    """

    node: Node
    rule: str = ""
    action: str | None = None
    params: dict[str, Any] | None = None
    nodes: dict[str, Node] = {}
    param_nodes: dict[str, Node] = {}
    whole: bool = True
    value: float | None = None
    priority: int | None = None


class WantedReason(msgspec.Struct, frozen=True):
    """What is to become of a rule. None is not compared; `missing` is compared as a set."""

    node: Node
    rule: str
    reason: Reason
    lost_to: str | None = None
    lost_on: str | None = None
    expression: str | None = None
    missing: tuple[str, ...] | None = None


class Named(msgspec.Struct, frozen=True):
    """A rule's id, or a trigger's, where a test says it."""

    node: Node
    rule: str


class Expected(msgspec.Struct, frozen=True):
    """What is to come back from one decision point. None is not compared; `treatments` are all, in order."""

    node: Node
    treatments: tuple[WantedTreatment, ...] | None = None
    includes: tuple[WantedTreatment, ...] = ()
    absent: tuple[Named, ...] = ()
    defaulted: bool | None = None
    defaulted_node: Node | None = None
    reasons: tuple[WantedReason, ...] = ()


class WantedFiring(msgspec.Struct, frozen=True):
    """A firing as a test names it. `at` is µs, None where it is not compared, and so is what `acts` does not say.

    `nodes` has where a key is written, ``at`` and the keys of ``then``.
    """

    node: Node
    trigger: str
    at: int | None = None
    acts: dict[str, Any] = {}
    nodes: dict[str, Node] = {}


class Foreseen(msgspec.Struct, frozen=True):
    """What triggers are to do up to the test's clock. `firings` are all, in order, None for not compared; `fires` are
    among them; the triggers in `silent` do not fire.
    """

    node: Node
    firings: tuple[WantedFiring, ...] | None = None
    fires: tuple[WantedFiring, ...] = ()
    silent: tuple[Named, ...] = ()


class RuleTest(msgspec.Struct, frozen=True):
    """One question to the rules, or one case of a test that has several, and the answer that is expected.

    `name` is unique in `file`, the path below the rules directory. `decisions` are asked as one page; `expected` has
    one for each. Times are µs. `changed` and `features` are keyed as a view and a profile's changes are: by feature
    key. `granted` are the purposes that the subject consented to. `models`, `segments` and `experiments`
    stand in for what would be computed. With `foreseen` triggers look at the events, and decisions are asked of what
    they leave; a test may have no decision then.
    """

    name: str
    file: str
    node: Node
    decisions: tuple[str, ...]
    expected: tuple[Expected, ...]
    now: int
    subject_id: str
    granted: tuple[str, ...] = ()
    slots: int = 0
    profile: dict[str, Any] = {}
    account: dict[str, Any] = {}
    context: dict[str, Any] = {}
    events: tuple[Event, ...] = ()
    changed: dict[str, int] = {}
    features: dict[str, Any] = {}
    models: dict[str, dict[str, Any]] = {}
    segments: dict[str, bool] = {}
    foreseen: Foreseen | None = None
    experiments: dict[str, str] = {}
