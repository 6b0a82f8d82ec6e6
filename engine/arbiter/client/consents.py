"""What subjects consent to: the method that records it, and what comes back from calls.

Law: as `methods`: builds calls and runs none.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - a field's type at run time
from typing import TYPE_CHECKING

import msgspec

from arbiter.client import arguments
from arbiter.client.calls import Again, Call, Method, rpc
from arbiter.types import ConsentState, from_micros
from arbiter.v1 import profile_pb2
from arbiter.wire.numbers import CONSENTS
from arbiter.wire.values import read_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.v1 import value_pb2

# Without its time it could undo what somebody said in between.
SET_CONSENT = rpc(
    profile_pb2.DESCRIPTOR.services_by_name["ProfileService"].methods_by_name["SetConsent"],
    profile_pb2.SetConsentRequest,
    profile_pb2.SetConsentResponse,
    Again.TIMED,
)
_STATES = {number: state for state, number in CONSENTS.items()}


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a subject said of a purpose. `recorded_by` is the caller's name, empty where none is known."""

    purpose: str
    state: ConsentState
    at: datetime
    source: str
    recorded_at: datetime
    recorded_by: str


class ConsentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What holds of a purpose now; whether what was sent was recorded; whether rules that run declare the purpose."""

    current: Consent
    recorded: bool
    declared: bool


class ConsentMethods:
    """The part of `Methods` that is about consent."""

    @Method
    def set_consent(
        self,
        subject_id: str,
        purpose: str,
        state: ConsentState,
        *,
        source: str,
        at: datetime | None = None,
        timeout: float | None = None,
    ) -> Call[ConsentAnswer]:
        """Record that a subject grants, denies or revokes a purpose, said in `source`; return once it is on disk.

        `at` is when it was said: the newest time holds. Without it, now; then the call is never sent twice.
        """
        message = profile_pb2.SetConsentRequest(
            subject_id=arguments.text(subject_id, "subject_id"),
            purpose=arguments.text(purpose, "purpose"),
            state=arguments.consent_state(state),
            source=arguments.text(source, "source"),
            at=None if at is None else arguments.moment(at, "at"),
        )
        return SET_CONSENT.call(message, read_consent_answer, timeout)


def read_consent_answer(response: profile_pb2.SetConsentResponse) -> ConsentAnswer:
    """Return what holds of a purpose."""
    return ConsentAnswer(current=read_consent(response.current), recorded=response.recorded, declared=response.declared)


def read_consent(message: profile_pb2.Consent) -> Consent:
    """Return what was said."""
    return Consent(
        purpose=message.purpose,
        state=_STATES[message.state],
        at=from_micros(read_timestamp(message.at)),
        source=message.source,
        recorded_at=from_micros(read_timestamp(message.recorded_at)),
        recorded_by=message.recorded_by,
    )


def read_denials(denials: Iterable[value_pb2.Denial]) -> dict[str, tuple[str, ...]]:
    """Return what lacks consent by name, with the purposes that it lacks."""
    return {each.name: tuple(each.purposes) for each in denials}
