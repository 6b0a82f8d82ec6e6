"""One occurrence: whether its trigger fires for it, and what it then does, inside the transaction that holds it all.

Law: judged on the subject as it is in this transaction, at the moment of the firing. Whatever an act meets, the rest
goes on: a record says what was done and what was not, and why.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.decision.dates import in_time
from arbiter.errors import ArbiterError, CallerError
from arbiter.profiles.attributes import check_update
from arbiter.profiles.emitting import emit
from arbiter.profiles.firings import Cause, FiringRecord, put_firing
from arbiter.profiles.ingesting import IngestEvents
from arbiter.profiles.naming import name_of
from arbiter.profiles.records import Update
from arbiter.profiles.updating import UpdateAttributes
from arbiter.ruleset.triggering import ToDecide, ToEmit, Unrenderable, bindings_of, told
from arbiter.runtime.counting import entries_of, member_in
from arbiter.runtime.views import view_of
from arbiter.triggers.chains import depth_of, emitted_id
from arbiter.types import EMITTED, Event, Request

if TYPE_CHECKING:
    from arbiter.expr.view import View
    from arbiter.profiles.group import Group
    from arbiter.profiles.store import Profile
    from arbiter.ruleset.triggering import Todo
    from arbiter.runtime.active import Active
    from arbiter.runtime.triggering.running import Running
    from arbiter.triggers.state import Occurrence, SubjectState

_log = logging.getLogger("arbiter.triggers")


class Firing:
    """Works on one occurrence of the subject with this key."""

    def __init__(self, running: Running, group: Group, key: bytes, state: SubjectState, occurrence: Occurrence) -> None:
        self._running = running
        self._group = group
        self._key = key
        self._state = state
        self._occurrence = occurrence
        self._dropped: list[str] = []
        self._emitted = ""
        self._decision = b""

    def take(self) -> str:
        """Fire it; or why it is passed over, in a word."""
        occurrence, running = self._occurrence, self._running
        trigger = running.by_id.get(occurrence.trigger.id)
        if occurrence.late:
            return "late"
        if trigger is None or not trigger.trigger.enabled:
            return "disabled"
        if not running.machine.may(self._state, occurrence):
            return "repeat"
        try:
            name = name_of(self._group.environment, self._group.txn, running.rules.keys, self._key)
            active = running.rules.active.of(name)
            view = self._view(name, active)
            if not in_time(trigger.trigger.active, view):
                return "inactive"
            if not view.consent.granted.issuperset(trigger.trigger.purposes):
                return "consent"
            bindings = bindings_of((cause.label, cause.event.properties) for cause in occurrence.causes)
            if not trigger.when_true(view, bindings):
                return "when"
            acts = trigger.acts(view, bindings)
        except Unrenderable:
            return "render_failed"
        except ArbiterError:
            raise
        except Exception:  # noqa: BLE001 - as follows
            # A fault of ours in one trigger must not keep all others from going on.
            _log.exception("trigger `%s` could not be judged, and is passed over", occurrence.trigger.id)
            return "error"
        self._do(name, active, acts)
        running.machine.fired(self._state, occurrence)
        return ""

    def _view(self, name: str, active: Active) -> View:
        return view_of(self._member(active), Request(name, (), self._occurrence.at), active)

    def _member(self, active: Active) -> Profile:
        """The subject, beside its account, as it is in this transaction, at the moment of the firing."""
        return member_in(self._group, self._key, self._occurrence.at, self._running.rules.keys, active.features)

    # What is done

    def _do(self, name: str, active: Active, acts: tuple[Todo, ...]) -> None:
        occurrence, group = self._occurrence, self._group
        depth = max(depth_of(cause.event.id) for cause in occurrence.causes)
        done = dict(map(told, acts))
        self._update(name, done)
        for act in acts:
            if isinstance(act, ToEmit):
                self._emit(act, depth)
        for act in acts:
            if isinstance(act, ToDecide):
                self._decide(act, name, active)
        put_firing(
            group.environment,
            group.txn,
            FiringRecord(
                id=occurrence.id,
                trigger=occurrence.trigger.id,
                pattern=occurrence.trigger.key,
                subject=self._key,
                at=occurrence.at,
                recorded=group.now,
                snapshot=self._running.rules.digest,
                causes=tuple(
                    Cause(cause.label, cause.event.id, cause.event.type, cause.event.at, cause.position)
                    for cause in occurrence.causes
                ),
                acts=done,
                emitted=self._emitted,
                decision=self._decision,
                depth=depth,
                dropped="; ".join(self._dropped),
            ),
        )
        group.wrote = True

    def _update(self, name: str, done: dict[str, Any]) -> None:
        """Change attributes and segments, all of it or nothing."""
        update = Update(
            subject_id=name or self._key.hex(),
            set=done.get("set", {}),
            unset=tuple(done.get("unset", ())),
            increment=done.get("increment", {}),
            enter_segments=tuple(done.get("enter_segment", ())),
            leave_segments=tuple(done.get("leave_segment", ())),
            by=f"{EMITTED}{self._occurrence.trigger.id}",
        )
        if not (update.set or update.unset or update.increment or update.enter_segments or update.leave_segments):
            return
        try:
            check_update(update, self._group.declared.profile, self._group.limits)
            UpdateAttributes(self._key, update).apply(self._group)
        except CallerError as error:
            self._dropped.append(f"the profile stays as it was: {error}")

    def _emit(self, act: ToEmit, depth: int) -> None:
        if depth >= self._running.rules.chain:
            self._dropped.append(f"nothing is emitted: {depth} firings led here, and `triggers.chain` allows no more")
            return
        event = Event(emitted_id(self._occurrence.id, depth + 1), "", act.event, self._occurrence.at, act.properties)
        try:
            emit(self._group, self._key, event)
        except CallerError as error:
            self._dropped.append(f"nothing is emitted: {error}")
        else:
            self._emitted = event.id

    def _decide(self, act: ToDecide, name: str, active: Active) -> None:
        if not name:
            self._dropped.append("nothing is decided: the id of the subject is not known")
            return
        request = Request(name, (act.decision,), self._occurrence.at, act.context)
        try:
            (decision,) = decided = self._running.rules.engine.decide_on(self._member(active), request, active)
            counted = entries_of(self._key, self._occurrence.at, decided, (self._occurrence.id,))
            if counted:
                IngestEvents(counted).apply(self._group)
        except CallerError as error:
            self._dropped.append(f"nothing is decided: {error}")
        else:
            self._decision = msgspec.msgpack.encode(decision)
