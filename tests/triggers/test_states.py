"""What is kept of a subject: read where it is asked for, written as it was otherwise, and hardly more than needed."""

from __future__ import annotations

import msgspec

from arbiter.triggers.state import Progress, SubjectState, Waiting, decode_state, encode_state
from arbiter.types import Event
from tests.triggers.test_patterns import SECOND, Subject, machine

PAIRS = [f"id: {name}, sequence: [{{event: {name}}}, {{event: z, where: event.k == {name}.k}}]" for name in "abc"]


def test_what_no_event_moves_is_written_as_it_was_read() -> None:
    with machine(*PAIRS) as made:
        subject = Subject(made)
        for name in "abc":
            subject.event(name, k=1)
        made.prune(subject.state, subject.now)
        written = encode_state(subject.state)
        subject.state = decode_state(written)
        assert encode_state(subject.state) == written
        subject.event("a", k=2)
        unread = [name for name, each in subject.state.progress.items() if isinstance(each, msgspec.Raw)]
        assert unread == ["b", "c"]
        assert encode_state(decode_state(encode_state(subject.state))) == encode_state(subject.state)
        assert subject.event("z", k=2) == ["a:4,5"]
        assert subject.event("z", k=1) == ["a:1,6", "b:2,6", "c:3,6"]


def test_events_out_of_time_go_before_they_are_more_than_a_quarter_of_what_is_kept() -> None:
    with machine("id: t, sequence: [{event: a}, {event: b, within: 10s}]") as made:
        subject, kept = Subject(made), []
        for _ in range(300):  # a minute apart, and each may be used for an hour by what comes late
            subject.now += 59 * SECOND
            subject.event("a")
            made.prune(subject.state, subject.now)
            subject.state = decode_state(encode_state(subject.state))
            kept.append(len(subject.state.events))
        assert max(kept) == 61 * 5 // 4
        assert min(kept[100:]) == 61


def test_an_event_that_nothing_is_to_use_is_not_kept() -> None:
    with machine("id: t, after: {event: a}", "id: p, sequence: [{event: b}, {event: c}]") as made:
        subject = Subject(made)
        assert subject.event("a") == ["t:1"]
        assert not subject.state.events
        subject.event("b")
        assert subject.event("c") == ["p:2,3"]
        assert 3 not in subject.state.events


def test_a_state_that_does_not_say_when_it_is_due_is_asked() -> None:
    event = Event("e1", "", "a", 5 * SECOND, {})
    waiting = Waiting(65 * SECOND, (event.at, 1), (1,))
    state = SubjectState({"w": Progress("key", 0, [], [waiting]), "n": Progress("key", 0, [[1]])}, {1: event})
    form = msgspec.msgpack.decode(encode_state(state))
    del form["due"]
    assert decode_state(msgspec.msgpack.encode(form)).next_due() == 65 * SECOND
