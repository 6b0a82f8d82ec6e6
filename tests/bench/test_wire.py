"""The client's end of an HTTP/2 connection, fed with what servers may send: without any socket."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbiter.bench import frames as h2
from arbiter.bench.frames import ProtocolError
from arbiter.bench.wire import UNPROCESSED, Answer, Wire

HELLO = h2.frame(h2.SETTINGS, 0, 0)


def ready(*settings: tuple[int, int]) -> Wire:
    wire = Wire("host:1", "/a.B/C")
    wire.feed(h2.frame(h2.SETTINGS, 0, 0, h2.settings(settings)))
    return wire


def asked(wire: Wire, *messages: bytes) -> Wire:
    for number, content in enumerate(messages):
        wire.call(h2.message(content), number)
    return wire


def block(*headers: tuple[str, str]) -> bytes:
    """Headers as a server writes them that was told to keep no table."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode(headers)


BEGINNING = block((":status", "200"), ("content-type", "application/grpc"))


def answer(stream: int, content: bytes, status: int = 0) -> bytes:
    """The plainest answer."""
    return b"".join([
        h2.frame(h2.HEADERS, h2.END_HEADERS, stream, BEGINNING),
        h2.frame(h2.DATA, 0, stream, h2.message(content)),
        h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, block(("grpc-status", str(status)))),
    ])  # fmt: skip


def frames_in(sent: bytes) -> list[tuple[int, int, int, bytes]]:
    found, at = [], 0
    while at < len(sent):
        high, low, kind, flags, stream = h2.read_head(sent, at)
        at += h2.HEAD_BYTES + (high << 8 | low)
        found.append((kind, flags, stream, sent[at - (high << 8 | low) : at]))
    return found


@st.composite
def written_answers(draw: st.DrawFn) -> tuple[int, bytes, list[Answer]]:
    """Some calls, their answers as some server may write them, and what is to come of them."""
    parts, told = [], []
    calls = draw(st.integers(1, 4))
    for number in range(calls):
        stream, status = 2 * number + 1, draw(st.sampled_from([0, 0, 5, 8, 14]))
        framed = h2.message(draw(st.binary(max_size=40)))
        begin, end = BEGINNING, block(("grpc-status", str(status)), ("grpc-message", draw(st.sampled_from(["", "no"]))))
        if draw(st.booleans()):
            begin = b"\x03" + b"\0\0\0\0\x10" + begin + b"\0" * 3
            parts.append(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.PADDED | h2.HAS_PRIORITY, stream, begin))
        else:
            parts.append(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, begin))
        for low in range(0, len(framed), size := draw(st.integers(1, 50))):
            part = framed[low : low + size]
            padded = draw(st.booleans())
            content = b"\x02" + part + b"\0\0" if padded else part
            parts.append(h2.frame(h2.DATA, h2.PADDED if padded else 0, stream, content))
            parts += draw(st.sampled_from([[], [h2.frame(h2.PING, 0, 0, b"12345678")], [h2.frame(0x77, 0, 0, b"new")]]))
        if draw(st.booleans()):
            cut = draw(st.integers(0, len(end)))
            parts.append(h2.frame(h2.HEADERS, h2.END_STREAM, stream, end[:cut]))
            parts.append(h2.frame(h2.CONTINUATION, h2.END_HEADERS, stream, end[cut:]))
        else:
            parts.append(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, end))
        told.append(Answer(number, status, framed))
    return calls, b"".join(parts), told


@given(written_answers(), st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_octets_mean_the_same_wherever_they_are_cut(written: tuple[int, bytes, list[Answer]], cuts: list[int]) -> None:
    calls, octets, told = written
    whole = asked(ready(), *[b""] * calls)
    assert whole.feed(octets) == told
    pieces = asked(ready(), *[b""] * calls)
    found, at, turn = [], 0, 0
    while at < len(octets):
        size = cuts[turn % len(cuts)]
        found += pieces.feed(octets[at : at + size])
        at, turn = at + size, turn + 1
    assert found == told
    assert pieces.out == whole.out
    assert pieces.open == whole.open == 0


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=5),
    st.integers(0, 100),
    st.lists(st.integers(1, 400), min_size=1, max_size=10),
)
def test_messages_arrive_whole_through_any_windows(messages: list[bytes], initial: int, grants: list[int]) -> None:
    wire = ready((h2.INITIAL_WINDOW_SIZE, initial))
    asked(wire, *messages)
    owed = {2 * number + 1: len(content) + 5 for number, content in enumerate(messages)}
    allowed = dict.fromkeys(owed, initial)
    got = dict.fromkeys(owed, b"")
    ended: set[int] = set()
    turn = 0
    sent = bytes(wire.out)[len(h2.PREFACE) :]
    while True:
        for kind, flags, stream, content in frames_in(sent):
            if kind == h2.DATA:
                got[stream] += content
                allowed[stream] -= len(content)
                assert allowed[stream] >= 0
                ended |= {stream} if flags & h2.END_STREAM else set()
        short = [stream for stream in owed if stream not in ended]
        if not short:
            break
        wire.out.clear()
        grant = grants[turn % len(grants)]
        stream = short[turn % len(short)]
        allowed[stream] += grant
        wire.feed(h2.frame(h2.WINDOW_UPDATE, 0, stream, h2.number(grant)))
        sent, turn = bytes(wire.out), turn + 1
    assert list(got.values()) == [h2.message(content) for content in messages]


def test_no_more_is_sent_than_the_window_of_the_whole_connection_allows() -> None:
    wire = ready((h2.INITIAL_WINDOW_SIZE, h2.LARGEST_WINDOW))
    asked(wire, b"x" * 100_000)
    sent = sum(len(content) for kind, _, _, content in frames_in(bytes(wire.out)[len(h2.PREFACE) :]) if kind == h2.DATA)
    assert sent == h2.WINDOW
    wire.out.clear()
    wire.feed(h2.frame(h2.WINDOW_UPDATE, 0, 0, h2.number(1_000_000)))
    more = [(flags, len(content)) for kind, flags, _, content in frames_in(bytes(wire.out)) if kind == h2.DATA]
    assert sum(size for _, size in more) == 100_005 - h2.WINDOW
    assert [flags for flags, _ in more] == [0] * (len(more) - 1) + [h2.END_STREAM]
    assert max(size for _, size in more) <= h2.FRAME_SIZE


def test_the_server_reads_the_same_headers_from_every_call() -> None:
    wire = Wire("host:1", "/a.B/C", [("authorization", "Bearer x")])
    wire.feed(HELLO)
    asked(wire, b"1", b"2", b"3")
    decoder = hpack.Decoder()
    blocks = [content for kind, _, _, content in frames_in(bytes(wire.out)[len(h2.PREFACE) :]) if kind == h2.HEADERS]
    read = [list(decoder.decode(each)) for each in blocks]
    assert read[0] == read[1] == read[2]
    assert {(":path", "/a.B/C"), (":method", "POST"), ("te", "trailers"), ("authorization", "Bearer x")} <= set(read[0])
    assert len(blocks[2]) < len(blocks[0]) / 3


def test_a_server_may_keep_a_smaller_table_also_from_later_on() -> None:
    wire = asked(ready((h2.HEADER_TABLE_SIZE, 64)), b"1", b"2")
    wire.feed(h2.frame(h2.SETTINGS, 0, 0, h2.settings([(h2.HEADER_TABLE_SIZE, 0)])))
    asked(wire, b"3", b"4")
    decoder = hpack.Decoder()
    blocks = [content for kind, _, _, content in frames_in(bytes(wire.out)[len(h2.PREFACE) :]) if kind == h2.HEADERS]
    read = []
    for number, each in enumerate(blocks):
        decoder.max_allowed_table_size = 64 if number < 2 else 0
        read.append(list(decoder.decode(each)))
    assert read[0] == read[1] == read[2] == read[3]


def test_calls_wait_for_the_servers_settings_and_keep_to_its_number_of_streams() -> None:
    wire = Wire("host:1", "/a.B/C")
    assert wire.room == 0
    wire.feed(h2.frame(h2.SETTINGS, 0, 0, h2.settings([(h2.MAX_CONCURRENT_STREAMS, 2)])))
    assert wire.room == 2
    asked(wire, b"1", b"2")
    assert wire.room == 0
    wire.feed(answer(1, b""))
    assert wire.room == 1


def test_settings_and_pings_are_acknowledged() -> None:
    wire = Wire("host:1", "/a.B/C")
    wire.out.clear()
    wire.feed(HELLO + h2.frame(h2.SETTINGS, h2.ACK, 0) + h2.frame(h2.PING, 0, 0, b"12345678"))
    assert frames_in(bytes(wire.out)) == [(h2.SETTINGS, h2.ACK, 0, b""), (h2.PING, h2.ACK, 0, b"12345678")]


@pytest.mark.parametrize(
    ("code", "status"), [(h2.REFUSED_STREAM, UNPROCESSED), (8, 1), (11, 8), (12, 7), (2, 13), (0, 13)]
)
def test_a_stream_that_is_reset_has_a_status(code: int, status: int) -> None:
    wire = asked(ready(), b"1")
    assert wire.feed(h2.frame(h2.RST_STREAM, 0, 1, h2.number(code))) == [Answer(0, status, b"")]


def test_a_server_that_goes_away_ends_what_it_began_and_gives_back_the_rest() -> None:
    wire = asked(ready(), b"1", b"2", b"3")
    assert wire.feed(h2.frame(h2.GOAWAY, 0, 0, h2.number(3) + h2.number(0))) == [Answer(2, UNPROCESSED, b"")]
    assert wire.leaving
    assert wire.room == 0
    assert [each.tag for each in wire.feed(answer(1, b"") + answer(3, b""))] == [0, 1]


@pytest.mark.parametrize(
    ("http", "status"), [("404", 12), ("503", 14), ("401", 16), ("403", 7), ("400", 13), ("500", 2)]
)
def test_an_answer_that_is_only_http_has_a_status(http: str, status: int) -> None:
    begin = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, block((":status", http)))
    assert asked(ready(), b"1").feed(begin + h2.frame(h2.DATA, h2.END_STREAM, 1, b"<html>"))[0].status == status
    alone = h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, block((":status", http)))
    assert asked(ready(), b"1").feed(alone)[0].status == status


@pytest.mark.parametrize("framed", [b"", b"\0\0\0\0\2x", b"\1\0\0\0\1x", b"\0\0\0\0\1xy"])
def test_ok_without_one_whole_message_is_no_success(framed: bytes) -> None:
    data = h2.frame(h2.DATA, 0, 1, framed)
    end = h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, block(("grpc-status", "0")))
    assert asked(ready(), b"1").feed(data + end)[0].status == h2.INTERNAL


def test_a_cancelled_call_gets_no_answer() -> None:
    wire = ready()
    stream = wire.call(h2.message(b"1"), "tag")
    wire.out.clear()
    assert wire.cancel(stream)
    assert frames_in(bytes(wire.out)) == [(h2.RST_STREAM, 0, stream, h2.number(8))]
    assert wire.feed(answer(stream, b"late")) == []
    assert not wire.cancel(stream)


def test_the_last_stream_is_the_last() -> None:
    wire = ready()
    wire._next = h2.LAST_STREAM - 2
    wire.call(h2.message(b"1"), 0)
    assert wire.room
    assert wire.call(h2.message(b"1"), 1) == h2.LAST_STREAM
    assert wire.leaving


def test_the_window_is_made_large_again() -> None:
    wire = asked(ready(), b"1")
    wire._received = (1 << 30) - 1
    wire.out.clear()
    wire.feed(h2.frame(h2.DATA, 0, 1, b"12"))
    assert frames_in(bytes(wire.out)) == [(h2.WINDOW_UPDATE, 0, 0, h2.number((1 << 30) + 1))]


@pytest.mark.parametrize(
    "octets",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        h2.frame(h2.SETTINGS, 0, 0, b"123"),
        h2.frame(h2.RST_STREAM, 0, 1, b"123"),
        h2.frame(h2.DATA, h2.PADDED, 1, b"\x09abc"),
        h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, b""),
        h2.frame(h2.HEADERS, 0, 1, b"") + h2.frame(h2.DATA, 0, 1, b""),
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
    ],
)
def test_what_is_no_http2_is_refused(octets: bytes) -> None:
    with pytest.raises(ProtocolError):
        asked(ready(), b"1").feed(octets)
