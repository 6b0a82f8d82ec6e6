"""What the log of decisions says of one: a row, as it is written while decisions go on, and read again.

Law: data and its MessagePack form, which holds each value exactly; no disk, no clock. A row holds what the decision
could read and no more, and the subject by a reference that only the store connects to it. A row without values says
nothing of a subject: it is counted, and cannot be decided again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from arbiter.types import Decision

CERTAIN: Final = 1.0
"""The propensity of what nothing was drawn for."""
_NOTHING: Final[dict[str, float]] = {}


class Won(msgspec.Struct, frozen=True, array_like=True):
    """A treatment that was delivered: `rule` is empty for the default. `value` is that of the order key. `propensity`
    is the probability with which the experiments that mattered gave the decision that it is part of, 1 where none did,
    times `lot`, that with which its rule was drawn from its group, 1 where it was not.
    """

    rule: str
    action: str
    params: dict[str, Any]
    priority: int = 0
    value: float | None = None
    propensity: float = CERTAIN
    lot: float = CERTAIN


class Lost(msgspec.Struct, frozen=True, array_like=True):
    """A rule that matched and was not delivered: the stage that dropped it, and which rule took its place, if any."""

    rule: str
    stage: str
    lost_to: str = ""


class Head(msgspec.Struct, frozen=True):
    """What rows of one decision point and one snapshot share: under which number they say so, and the stored names and
    those of the context that such a decision may read, as ``(root, name, key)``, in the order of the rows' values. The
    key is a feature's definition, hashed, and empty for all else.
    """

    number: int
    point: str
    snapshot: str
    reads: tuple[tuple[str, str, str], ...]


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One decision, as it is written while decisions go on. `at`, `valid_until` and `horizon` are µs since the epoch.

    `head` is the number of what it shares with others. `subject` is a reference in hexadecimal, empty for one of whom
    nothing is stored. `values` are those of the head's names, None for what was missing; features are as they are
    stored. Where the subject's consent does not cover a log, `id` and `subject` are empty and there are no `values`.

    The rest is what else the decision depended on, and how it came to it. `horizon` is until when the profile held;
    `granted` the purposes that the subject granted, of those declared; `shares` where it falls by salt; `slots` what
    was asked for; `page` the id of the first decision of a page, `place` the number in it; `off` the rules that
    were switched off; `changes` the µs times of the last changes, where the order asks for them; `trials` the models of
    which a version was tried on the subject; `lacking` those without outputs, and why. `losers` is None where nobody
    looked. `variants` are those of the experiments that the decision may read, empty outside; `exposed` the experiments
    that mattered to it.
    """

    head: int
    id: str
    at: int
    subject: str
    values: tuple[Any, ...] | None
    won: tuple[Won, ...]
    defaulted: bool = False
    valid_until: int | None = None
    horizon: int | None = None
    granted: tuple[str, ...] = ()
    shares: dict[str, float] = {}
    slots: int = 0
    page: str = ""
    place: int = 0
    off: tuple[str, ...] = ()
    changes: dict[str, int] = {}
    trials: tuple[str, ...] = ()
    lacking: tuple[tuple[str, str], ...] = ()
    canary: bool = False
    losers: tuple[Lost, ...] | None = None
    variants: dict[str, str] = {}
    exposed: tuple[str, ...] = ()


encode: Final = msgspec.msgpack.Encoder().encode
decode_rows: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
decode_row: Final = msgspec.msgpack.Decoder(Row).decode
decode_heads: Final = msgspec.msgpack.Decoder(list[Head]).decode


def encode_rows(rows: list[tuple[Any, ...]]) -> bytes:
    """Rows behind each other, each as `encode` makes it: one call for many is quicker than one for each."""
    count = len(rows)
    # Before them stands how many there are, of which MessagePack has three forms.
    return encode(rows)[1 if count < 1 << 4 else 3 if count < 1 << 16 else 5 :]


def won_of(decision: Decision) -> tuple[Won, ...]:
    """The treatments of a decision as rows hold them."""
    drawn = decision.drawn or _NOTHING
    return tuple(
        Won(
            each.rule_id, each.action, each.params, each.priority, each.value, lot=drawn.get(each.rule_id, CERTAIN)
        )
        for each in decision.treatments
    )  # fmt: skip


def by_lot(decision: Decision) -> tuple[Won, ...]:
    """The same, with propensities, of a decision in which a rule was drawn from its group."""
    own = decision.propensity
    return tuple(msgspec.structs.replace(each, propensity=own * each.lot) for each in won_of(decision))


def lacking_of(decision: Decision) -> tuple[tuple[str, str], ...]:
    """The models that a decision went without, and why."""
    return tuple((each.model, each.cause.name.lower()) for each in decision.degraded)
