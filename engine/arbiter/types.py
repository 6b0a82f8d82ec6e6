"""The frozen values that every part of Arbiter shares.

Law: plain data, no behaviour beyond construction, no imports from the rest of the package. Times are aware UTC
`datetime` at the edges and in expressions, and integer microseconds since the epoch inside stores.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

# A value is a bool, int (64 bits), finite float, str, bytes, aware datetime, list, or dict of str to values.
type_names = ("bool", "int", "double", "string", "bytes", "timestamp", "list", "map")

# Begins the ids of events that triggers emit, which nobody else may send.
EMITTED = "trigger:"
# Begins the types and the ids of events that Arbiter records of itself, which nobody else may send.
RESERVED = "arbiter."
EXPOSURE, OUTCOME, DECISION = f"{RESERVED}exposure", f"{RESERVED}outcome", f"{RESERVED}decision"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(at: datetime) -> int:
    """Microseconds since the epoch of an aware datetime; exact."""
    return (at - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The aware UTC datetime of microseconds since the epoch; exact."""
    return EPOCH + timedelta(microseconds=micros)


class Event(msgspec.Struct, frozen=True, array_like=True):
    """An immutable fact about a subject. `id` is unique per subject; `at` is µs since the epoch."""

    id: str
    subject_id: str
    type: str
    at: int
    properties: dict[str, Any] = {}


class ConsentState(enum.StrEnum):
    """What a subject says of a purpose: yes, no, no longer."""

    GRANTED = "granted"
    DENIED = "denied"
    REVOKED = "revoked"


class ConsentEntry(msgspec.Struct, frozen=True, array_like=True):
    """What was said of a purpose: at which moment, through which source; and when and by whom it was recorded.

    Times are µs since the epoch. `by` is the name of the caller, empty where callers are not known.
    """

    at: int
    state: ConsentState
    source: str
    recorded: int
    by: str = ""


class ExplainLevel(enum.IntEnum):
    """How much of the decision point an explanation covers."""

    NONE = 0
    WINNERS = 1
    LOSERS = 2
    ALL = 3


TriggerStage = Literal["idle", "in progress", "pending", "spent", "disabled", "inactive"]
"""How a trigger stands with a subject: nothing of its pattern has happened, some of it, all of it and it fires at its
time; it fired and does so once only; its author switched it off; the clock is outside its dates.
"""


class Request(msgspec.Struct, frozen=True):
    """What is asked: one or several decision points for one subject at one instant.

    `now` is the request's clock in µs. `slots` 0 means as many as the decision point declares.
    """

    subject_id: str
    decisions: tuple[str, ...]
    now: int
    context: dict[str, Any] = {}
    slots: int = 0
    explain: ExplainLevel = ExplainLevel.NONE
    explain_rules: tuple[str, ...] = ()


class Reason(enum.IntEnum):
    """Why a treatment was delivered, or the stage at which a rule was dropped. Closed: numbers never change meaning."""

    WON = 1
    DEFAULT = 2
    DISABLED = 3
    FAILED = 4
    UNKNOWN = 5
    INACTIVE = 6
    ROLLED_OUT_OF = 7
    LOST_GROUP = 8
    LOST_SLOT = 9
    DUPLICATE = 10
    RENDER_FAILED = 11
    OVERRIDDEN = 12
    NO_CONSENT = 13
    CAPPED = 14


class Treatment(msgspec.Struct, frozen=True):
    """What is delivered. `rule_id` is empty and `reason` is DEFAULT when no rule won. `variant` has the variants of the
    experiments for which it is given in place of another, with commas between several. `takes` are the keys of the
    tallies, each with a name, in which caps take note of it when it is decided, `strict` says that one of them is; of
    those only the `group` of the rule is known.
    """

    rule_id: str
    action: str
    params: dict[str, Any]
    priority: int = 0
    value: float | None = None
    reason: Reason = Reason.WON
    variant: str = ""
    group: str = ""
    takes: tuple[tuple[str, str], ...] = ()
    strict: bool = False


class Standing(enum.StrEnum):
    """How a subject came into its variant of an experiment, or what kept it outside."""

    DRAWN = "drawn"
    KEPT = "kept"
    FORCED = "forced"
    SAID = "said"
    DISABLED = "disabled"
    OVERRIDDEN = "overridden"
    INACTIVE = "inactive"
    UNIT = "unit"
    TARGETING = "targeting"
    HOLDOUT = "holdout"
    LAYER = "layer"
    TRAFFIC = "traffic"


class ExperimentOutcome(msgspec.Struct, frozen=True):
    """How a subject stands with an experiment: its variant, empty outside, and why. `mattered` says that another
    variant would have changed the decision.
    """

    name: str
    variant: str
    standing: Standing
    detail: str = ""
    mattered: bool = False


class RuleOutcome(msgspec.Struct, frozen=True):
    """What became of one rule. `expression` is the failed or unknown sub-expression, `values` what it read there,
    `withheld` the names that it read there and whose values are personal, `missing` the names that were unknown,
    `denied` those that the subject's consent does not cover, each with the purposes that it lacks (for NO_CONSENT under
    the rule's own id), `lost_to` the rule that took the slot or group, decided on order key `lost_on`.
    """

    rule_id: str
    reason: Reason
    position: str = ""
    expression: str = ""
    values: dict[str, Any] = {}
    missing: tuple[str, ...] = ()
    lost_to: str = ""
    lost_on: str = ""
    detail: str = ""
    value: float | None = None
    withheld: tuple[str, ...] = ()
    denied: dict[str, tuple[str, ...]] = {}


class Lack(enum.IntEnum):
    """Why there was nothing of a model: the deadline came first, it failed, or an operator switched it off."""

    LATE = 1
    FAILED = 2
    OVERRIDDEN = 3


class Degradation(msgspec.Struct, frozen=True, order=True):
    """A model whose outputs were unknown, so that the rules that needed them were."""

    model: str
    cause: Lack


class ModelInput(msgspec.Struct, frozen=True):
    """An input of a model as it was used: `value` is what `source` held, None for nothing, and `columns` what entered.

    `imputed` says that something stood in for a value that was missing. A personal value is `withheld`, and so is what
    it became.
    """

    name: str
    source: str
    value: Any = None
    columns: tuple[Any, ...] = ()
    imputed: bool = False
    withheld: bool = False


class ModelOutcome(msgspec.Struct, frozen=True):
    """What became of a model that a decision asked for. `detail` says why there are no outputs, where that is neither
    for `lack` nor for consent; `denied` has the names that consent hides from it, with the purposes that lack.
    """

    model: str
    version: int
    inputs: tuple[ModelInput, ...]
    outputs: dict[str, Any]
    lack: Lack | None = None
    detail: str = ""
    denied: dict[str, tuple[str, ...]] = {}


class Decision(msgspec.Struct, frozen=True):
    """The complete answer at one decision point. `valid_until` is µs since the epoch, or None when nothing can be
    promised. `degraded` names models that could not answer. `explanation` and `models` are filled where asked for, and
    `standings` with them. `experiments` has the variant that was drawn of each experiment where another would have
    changed the decision, and `propensity` is the probability with which these gave this very decision. `drawn`
    has, by their ids, the probability of the rules that were drawn from their groups.
    """

    point: str
    treatments: tuple[Treatment, ...]
    defaulted: bool
    valid_until: int | None = None
    degraded: tuple[Degradation, ...] = ()
    explanation: tuple[RuleOutcome, ...] = ()
    models: tuple[ModelOutcome, ...] = ()
    experiments: dict[str, str] = {}
    standings: tuple[ExperimentOutcome, ...] = ()
    propensity: float = 1.0
    drawn: dict[str, float] | None = None
