"""SetConsent: what a subject says of a purpose, into the store; and what is recorded, out of it.

Law: turns messages into a `ConsentChange` and entries into messages; what holds is the store's to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.errors import InvalidField
from arbiter.profiles.consenting import ConsentChange
from arbiter.server.calls import Later, parse
from arbiter.v1 import profile_pb2
from arbiter.wire.numbers import CONSENTS
from arbiter.wire.values import read_timestamp, write_timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbiter.profiles.consenting import ConsentRecorded
    from arbiter.runtime.engine import Engine
    from arbiter.server.calls import Call
    from arbiter.telemetry.counters import Counters
    from arbiter.types import ConsentEntry

_STATES = {number: state for state, number in CONSENTS.items()}


class ConsentKeeper:
    """Records consent in the store of an engine."""

    def __init__(self, engine: Engine, counters: Counters) -> None:
        self._engine = engine
        self._counters = counters

    def set(self, content: bytes, call: Call) -> Later:
        """Answer a SetConsentRequest when it is on disk. Raises InvalidField."""
        request = parse(profile_pb2.SetConsentRequest, content)
        change = _change(request, "" if call.caller is None else call.caller.name)

        def finish(done: ConsentRecorded) -> bytes:
            self._counters.store_writes += 1
            return profile_pb2.SetConsentResponse(
                current=_written(change.purpose, done.current),
                recorded=done.recorded,
                declared=any(change.purpose in each.frame.purposes for each in self._engine.snapshots.values()),
            ).SerializeToString()

        return Later(self._engine.store.set_consent(change), finish)


def write_consents(said: Mapping[str, Sequence[ConsentEntry]], *, history: bool) -> list[profile_pb2.Consent]:
    """Return what a subject said by purpose, the newest first; only the newest of each without `history`."""
    shown = None if history else 1
    return [_written(purpose, entry) for purpose, entries in said.items() for entry in entries[:shown]]


def _change(request: profile_pb2.SetConsentRequest, by: str) -> ConsentChange:
    state = _STATES.get(request.state)
    if state is None:
        raise InvalidField("state says nothing: send CONSENT_STATE_GRANTED, _DENIED or _REVOKED", field="state")
    at = None
    if request.HasField("at"):
        try:
            at = read_timestamp(request.at)
        except ValueError as error:
            raise InvalidField(f"at {error}", field="at") from None
    return ConsentChange(
        subject_id=request.subject_id, purpose=request.purpose, state=state, source=request.source, at=at, by=by
    )


def _written(purpose: str, entry: ConsentEntry) -> profile_pb2.Consent:
    return profile_pb2.Consent(
        purpose=purpose,
        state=CONSENTS[entry.state],
        at=write_timestamp(entry.at),
        source=entry.source,
        recorded_at=write_timestamp(entry.recorded),
        recorded_by=entry.by,
    )
