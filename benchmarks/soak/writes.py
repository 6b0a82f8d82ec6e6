"""Writes, and the way to know what became of each.

Law: the ledger is changed when a write is known to be on disk, and only then. A refusal for a full disk means that
nothing was written, and is believed: the ledger stays, so that a write that went through all the same shows as wrong.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import grpc

from arbiter.v1 import profile_pb2
from arbiter.wire.values import write_entries, write_timestamp
from benchmarks.soak.calls import PATIENCE_S, Unanswered, limit, told
from benchmarks.soak.ledger import Change, Happened
from benchmarks.soak.world import MINUTE

if TYPE_CHECKING:
    from benchmarks.soak.board import Mark
    from benchmarks.soak.caller import Caller
    from benchmarks.soak.ledger import Subject

_LATEST_S = 3.0  # a write whose call broke off is on disk after this long, or never
_UNCERTAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
_MOST_POINTS = 500


class _Refused(Exception):
    """The disk is full, and this was not written."""


class _Lost(Exception):
    """Nobody knows whether it was written, and it cannot be sent again."""


class _Conflict(Exception):
    """The profile has another version."""


def update(caller: Caller, subject: Subject) -> None:
    """Change attributes: with a key, with an expected version, with both, or with neither."""
    rng = caller.rng
    change = _change(rng, subject)
    request = profile_pb2.UpdateProfileRequest(subject_id=subject.id, unset=change.unset)
    write_entries(request.set, change.set)
    write_entries(request.increment, change.increment)
    write_entries(request.append, change.append)
    form = rng.choices(("key", "version", "both", "plain"), (50, 20, 15, 15))[0]
    if form in {"key", "both"}:
        request.idempotency_key = f"k{rng.getrandbits(60):x}"
    if form in {"version", "both"}:
        request.expected_version = subject.version
    try:
        answer = _write(caller, "UpdateProfile", request, again=form != "plain")
        version = answer.version
    except _Refused:
        return
    except _Conflict:
        # Nobody else writes to this subject: the attempt whose answer was lost is what raised the version.
        version = subject.version + 1
    except _Lost:
        version = _settled(caller, subject)
    if version == subject.version and form == "plain":
        return
    assert version == subject.version + 1, f"an update of version {subject.version} gave version {version}"
    subject.changed(change)
    caller.done["writes acknowledged"] += 1
    if form == "key" and rng.random() < 0.2:
        try:
            repeated = _write(caller, "UpdateProfile", request, again=True)
        except _Refused:
            return
        assert repeated.version == version, f"repeated, the update of version {version} gave {repeated.version}"
    elif rng.random() < 0.05:
        _stale(caller, subject)


def _stale(caller: Caller, subject: Subject) -> None:
    """An update that expects an older version must change nothing."""
    request = profile_pb2.UpdateProfileRequest(subject_id=subject.id, expected_version=subject.version - 1)
    write_entries(request.set, {"points": -1})
    try:
        _write(caller, "UpdateProfile", request, again=True, certain=False)
    except (_Conflict, _Refused):
        return
    raise AssertionError(f"an update that expects version {subject.version - 1} went through")


def ingest(caller: Caller, subjects: list[Subject]) -> None:
    """Store a batch of events, and sometimes send it again."""
    rng = caller.rng
    drawn = [(subject, _event(caller, subject)) for subject in subjects for _ in range(rng.randrange(1, 4))]
    chosen: dict[tuple[str, int], tuple[Subject, Happened]] = {}
    for subject, event in drawn:
        chosen.setdefault((subject.id, event.at), (subject, event))
    batch = list(chosen.values())
    request = profile_pb2.IngestEventsRequest()
    for subject, event in batch:
        written = request.events.add(id=event.id, subject_id=subject.id, type=event.type)
        written.at.CopyFrom(write_timestamp(event.at))
        write_entries(written.properties, event.properties)
    try:
        answer = _write(caller, "IngestEvents", request, again=True)
    except _Refused:
        return
    counted = answer.accepted, answer.duplicates
    assert counted in {(len(batch), 0), (0, len(batch))}, f"of {len(batch)} new events were told {counted}"
    for subject, event in batch:
        subject.happened(event)
    caller.done["writes acknowledged"] += 1
    caller.done["events acknowledged"] += len(batch)
    if rng.random() < 0.2:
        try:
            repeated = _write(caller, "IngestEvents", request, again=True)
        except _Refused:
            return
        assert (repeated.accepted, repeated.duplicates) == (0, len(batch)), f"repeated, events gave {repeated}"


def _write(caller: Caller, method: str, request: Any, *, again: bool, certain: bool = True) -> Any:
    """The acknowledgement. Raises _Refused, _Lost (unless `again`), _Conflict (if it is `certain`, only for an attempt
    after one whose fate is unknown), Unanswered.
    """
    last = time.monotonic() + PATIENCE_S
    unknown = False  # whether an attempt may have been carried out
    while True:
        before = caller.board.mark()
        try:
            return caller.calls.once(method, request)
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.ABORTED and (unknown or not certain):
                raise _Conflict from error
            full = code is grpc.StatusCode.RESOURCE_EXHAUSTED and limit(error) == "disk_full"
            if full:
                _may_be_full(caller, before, error)
                if not unknown:
                    caller.done["writes refused, disk full"] += 1
                    raise _Refused from error
            elif code in _UNCERTAIN:
                unknown = True
                caller.done["writes of unknown fate"] += 1
                if not again:
                    raise _Lost from error
            elif code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise Unanswered(told(method, error)) from error
            if time.monotonic() > last:
                raise Unanswered(told(method, error)) from error
        time.sleep(random.uniform(0.05, 0.4))


def _may_be_full(caller: Caller, before: Mark, error: grpc.RpcError) -> None:
    after = caller.board.mark()
    odd = before.full % 2 or after.full % 2 or before.full != after.full
    assert odd, f"refused though there is room: {error.details()}"


def _settled(caller: Caller, subject: Subject) -> int:
    """The version after a write that was lost, when it cannot come any more."""
    time.sleep(_LATEST_S)
    answer = caller.calls.read("GetProfile", profile_pb2.GetProfileRequest(subject_id=subject.id))
    version: int = answer.version
    return version


def _change(rng: random.Random, subject: Subject) -> Change:
    """Something to change, of what the rules read."""
    held = subject.attributes
    points = held.get("points", 0)
    match rng.randrange(7):
        case 0:
            return Change(set={"tier": rng.choice(["gold", "silver", "none"]), "age": rng.randrange(15, 60)})
        case 1:
            return Change(set={"country": rng.choice(["US", "CA", "DE"])}, increment={"points": rng.randrange(1, 9)})
        case 2 if points < _MOST_POINTS:
            return Change(increment={"points": rng.randrange(1, 30)})
        case 3:
            return Change(unset=tuple(rng.sample(["tier", "nickname", "age", "country"], 2)))
        case 4 if len(held.get("tags", [])) < 12:
            return Change(append={"tags": rng.choice(["vip", "new", "old"])})
        case 5:
            return Change(unset=("tags",), set={"nickname": rng.choice(["Ann", "Zoë", "ユウ"])})
    return Change(set={"points": rng.randrange(60)})


def _event(caller: Caller, subject: Subject) -> Happened:
    """An event: mostly now, sometimes hours ago, sometimes still to come. No two of a subject's at one moment."""
    rng = caller.rng
    at = caller.board.now() - rng.randrange(30_000_000)
    if rng.random() < 0.3:
        at += rng.randrange(-180, 45) * MINUTE
    while at in subject.moments:
        at -= 1
    name = f"e{rng.getrandbits(60):x}"
    if rng.random() < 0.7:
        return Happened(at, name, "buy", {"amount": rng.randrange(1, 40), "item": f"i{rng.randrange(6)}"})
    return Happened(at, name, "visit", {"channel": rng.choice(["mail", "web", "shop"])})
