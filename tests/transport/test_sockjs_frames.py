"""SockJS frames, however they are cut, and what is refused before it costs anything."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.errors import (
    ConnectionClosed,
    ConnectionLost,
    MessageTooBig,
    PingTimeout,
    ProtocolError,
    SessionLost,
)
from connman.records import Message
from connman.transport.sockjs_frames import HEAD, MESSAGE, PING, SockjsCodec, Told
from tests.transport.streams import PLACES, cut

LIMIT = 1 << 20
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=5)


def fed(*chunks: bytes, limit: int = LIMIT, answers: bool = False) -> tuple[SockjsCodec, list[Message]]:
    codec = SockjsCodec(limit, answers=answers)
    return codec, [message for chunk in chunks for message in codec.feed(chunk)]


def outcome(*chunks: bytes) -> Any:
    codec, messages = fed(*chunks, answers=True)
    return messages, codec.frames, type(codec.end), str(codec.end)


# What arrives


@pytest.mark.parametrize(
    ("line", "messages"),
    [
        (b'a["x"]', ["x"]),
        (b'a["x","y"]', ["x", "y"]),
        (b'a[ "x" ,\t"y" ]\r', ["x", "y"]),
        (b"a[]", []),
        (b'a[""]', [""]),
        (b'm"x"', ["x"]),
        (rb'a["\"\\\/\b\f\n\r\t\u00fc\ud83d\ude00"]', ['"\\/\b\f\n\r\tü😀']),
        ('a["ü😀"]'.encode(), ["ü😀"]),
        (b"h", []),
        (b"h" * 2048, []),
    ],
)
def test_a_frame(line: bytes, messages: list[str]) -> None:
    codec, found = fed(line + b"\n")
    assert (found, codec.end, codec.frames) == (messages, None, 1)


def test_empty_lines_are_nothing() -> None:
    codec, found = fed(b"\n\r\n\n")
    assert (found, codec.end, codec.frames) == ([], None, 0)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    data, messages = b"", []
    for texts in draw(st.lists(TEXTS, max_size=5)):
        is_ascii, tight = draw(st.booleans()), draw(st.booleans())
        dumped = json.dumps(texts, ensure_ascii=is_ascii, separators=(",", ":") if tight else None)
        data += b"a" + dumped.encode() + b"\n" + draw(st.sampled_from([b"", b"h\n", b"hhh\n", b"\r\n"]))
        messages += texts
    return data, messages


@given(streams(), PLACES)
def test_any_cut_gives_the_same_messages(stream: tuple[bytes, list[str]], places: list[int]) -> None:
    codec, found = fed(*cut(stream[0], places))
    assert (found, codec.end) == (stream[1], None)


LINES = st.one_of(
    st.sampled_from(
        [b"h", b"o", b"", b'o{"hostname":"x"}', b'c[3000,"Go away!"]', b"c[]", b"x", b"a[1]", b'm"x"']
    ),
    st.binary(max_size=20),
    TEXTS.map(lambda texts: b"a" + json.dumps(texts).encode()),
    st.tuples(st.sampled_from([b"a", b"m", b"c"]), st.binary(max_size=20)).map(b"".join),
)


@given(st.lists(LINES, max_size=6), PLACES)
def test_anything_has_one_outcome_however_it_is_cut(lines: list[bytes], places: list[int]) -> None:
    data = b"\n".join(lines) + b"\n"
    assert outcome(*cut(data, places)) == outcome(data)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=8))
def test_texts_and_nothing_else_pass(value: Any) -> None:
    codec, found = fed(b"a" + json.dumps(value).encode() + b"\n")
    is_fine = isinstance(value, list) and all(isinstance(item, str) for item in value)
    assert (codec.end is None) == is_fine
    assert found == (value if is_fine else [])


@pytest.mark.parametrize(
    "line",
    [
        b"x", b"<html>", b"a", b"a[", b'a["x"', b'a["x",]', b'a[,"x"]', b'a["x" "y"]', b'a"x"', b'm["x"]', b'm', b'm"x',
        b'a{"x":"y"}', b'a["x\x01"]', rb'a["\x"]', b'a["\xff"]', rb'a["\ud800"]', rb'm"\udc00x"', b"hx", b"ho",
        b'a["x"]x', b'A["x"]', b"\xff", b" h", b"[]",
    ],
)  # fmt: skip
def test_what_is_no_frame_is_a_protocol_error(line: bytes) -> None:
    codec, found = fed(b'a["before"]\n' + line + b'\na["after"]\n')
    assert found == ["before"]
    assert isinstance(codec.end, ProtocolError)
    assert codec.end.__cause__ is None
    assert codec.end.__traceback__ is None


def test_the_close_frame_ends_it() -> None:
    codec, found = fed(b'a["x"]\nc[3000,"Go away!"]\na["y"]\n', b'a["z"]\n')
    assert found == ["x"]
    assert isinstance(codec.end, ConnectionClosed)
    assert (codec.end.code, codec.end.reason) == (3000, "Go away!")


@pytest.mark.parametrize(
    "line",
    [
        b"c",
        b"c[]",
        b"c[1]",
        b'c["x"]',
        b'c[true,"x"]',
        b'c[1,"x",2]',
        b"c" + b"[" * 50_000,
        b'c[-1,""]',
        b'c[1000,"' + b"x" * 70_000 + b'"]',
        b"c{}",
        b"c5",
        rb'c[1000,"\ud800"]',
    ],
)
def test_a_close_frame_without_its_parts_is_a_protocol_error(line: bytes) -> None:
    codec, _ = fed(line + b"\n")
    assert isinstance(codec.end, ProtocolError)


@pytest.mark.parametrize("line", [b"o", b'o{"hostname":"x"}', b"o{"])
def test_a_second_opening_is_a_lost_session(line: bytes) -> None:
    codec, _ = fed(line + b"\n")
    assert isinstance(codec.end, SessionLost)
    assert codec.end.status is None


def test_heartbeats_are_answered_where_the_peer_wants_it() -> None:
    codec, _ = fed(b"h" * 2048 + b"\nh\n", answers=True)
    assert codec.replies == [HEAD.pack(PING, 0)]
    assert fed(b"h\n")[0].replies == []


# What the stream itself tells


def test_an_answered_ping_is_heard_even_within_a_line() -> None:
    codec, found = fed(b'a["x', Told(b"1234"), b'y"]\n')
    assert (codec.pong, found, codec.frames) == (b"1234", ["xy"], 2)


def test_no_bytes_from_a_server_pass_for_an_answered_ping() -> None:
    assert fed(bytes(Told(b"1234")) + b"\n")[0].pong is None


def test_an_error_of_the_stream_is_the_end() -> None:
    error = PingTimeout("silence")
    codec, found = fed(b'a["x"]\n', Told(b"", error), b'a["y"]\n')
    assert (codec.end, found) == (error, ["x"])


def test_an_untold_end_is_a_loss() -> None:
    assert isinstance(SockjsCodec(LIMIT).eof(), ConnectionLost)


# Limits


def test_a_message_may_be_as_large_as_allowed() -> None:
    for text in ("x" * 1000, "ü" * 500, "\x01" * 1000):
        line = b"a" + json.dumps([text, text]).encode() + b"\n"
        assert fed(line, limit=1000)[1] == [text, text]


@pytest.mark.parametrize("text", ["x" * 1001, "ü" * 501, "\x01" * 1001])
def test_a_larger_message_is_refused(text: str) -> None:
    codec, found = fed(b"a" + json.dumps(["x", text]).encode() + b"\n", limit=1000)
    assert found == []
    assert isinstance(codec.end, MessageTooBig)


def test_a_line_without_an_end_is_refused() -> None:
    codec = SockjsCodec(1000)
    codec.feed(b'a["')
    size = 0
    while codec.end is None:
        codec.feed(b"x" * 65536)
        size += 65536
    assert isinstance(codec.end, MessageTooBig)
    assert size < 5 << 20


def test_too_many_messages_in_one_frame_are_refused() -> None:
    line = b"a[" + b",".join([b'""'] * 66_000) + b"]\n"
    assert isinstance(fed(line, limit=1000)[0].end, ProtocolError)
    assert len(fed(line, limit=LIMIT)[1]) == 66_000


def test_json_that_would_take_much_memory_takes_none() -> None:
    line = b"a[" + b",".join([b"[]"] * 500_000) + b"]\n"
    codec = SockjsCodec(LIMIT)
    tracemalloc.start()
    codec.feed(line)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(codec.end, ProtocolError)
    assert peak < 4 * len(line)


def test_what_is_refused_for_its_size_is_never_made() -> None:
    # A text with one character beyond the basic plane takes four bytes for each.
    line = b'a["small","\xf0\x9f\x98\x80' + b"x" * (6 << 20) + b'"]\n'
    codec = SockjsCodec(1 << 20)
    tracemalloc.start()
    codec.feed(line)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(codec.end, MessageTooBig)
    assert peak < 3 * len(line)


def test_a_line_that_drips_is_looked_at_once() -> None:
    line = b"a" + json.dumps(["x" * 300_000]).encode() + b"\n"
    codec, found = fed(*(line[i : i + 3] for i in range(0, len(line), 3)))
    assert (codec.end, len(found)) == (None, 1)


# What is sent


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_is_encoded_as_json(text: str) -> None:
    data = SockjsCodec(LIMIT).encode(text)
    kind, size = HEAD.unpack_from(data)
    assert (kind, size) == (MESSAGE, len(data) - HEAD.size)
    assert json.loads(data[HEAD.size :]) == text
    assert b"\n" not in data[HEAD.size :]


@pytest.mark.parametrize("bad", [b"x", bytearray(b"x"), memoryview(b"x"), 5, None, ["x"]])
def test_only_text_can_be_sent(bad: Any) -> None:
    with pytest.raises(TypeError, match="SockJS carries text only"):
        SockjsCodec(LIMIT).encode(bad)


def test_half_a_character_cannot_be_sent() -> None:
    with pytest.raises(ValueError):
        SockjsCodec(LIMIT).encode("\ud800")


def test_pings_and_closes() -> None:
    codec = SockjsCodec(LIMIT)
    assert codec.encode_ping(b"1234") == HEAD.pack(PING, 4) + b"1234"
    codec.encode_close(1000, "bye")  # nothing to send
    assert codec.finish([b"x"]) == [b"x"]
