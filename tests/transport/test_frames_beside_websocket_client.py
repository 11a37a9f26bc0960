"""Any split of any stream, valid or not, gives what websocket-client's own parser makes of it.

That parser is `frame_buffer`, `ABNF` and `continuous_frame` of ``websocket._abnf``. Where it is laxer than RFC 6455, and
connman is not, is in LAXER; where it finds the same violation, but later, is in LATER. Each of them is shown below with
the parser as it is. For the comparison `strict_events` adds a check for each, and nothing else.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websocket import (
    ABNF,
    WebSocketConnectionClosedException,
    WebSocketPayloadException,
    WebSocketProtocolException,
)
from websocket._abnf import continuous_frame, frame_buffer
from websocket._utils import validate_utf8

from connman.errors import ConnectionClosed, ConnmanError, MessageTooBig, ProtocolError
from connman.records import Message
from connman.transport.deflate import DeflateCodec
from connman.transport.extensions import Deflate
from connman.transport.frames import FrameCodec
from tests.examples import examples
from tests.transport.streams import (
    BINARY,
    CLOSE,
    MIB,
    PING,
    PLACES,
    PONG,
    STREAMS,
    TEXT,
    cut,
    damaged_streams,
    feed_all,
    frame,
    unmask,
)

# Name: a stream, what connman ends it with, and what websocket-client makes of it: messages, and whether it then waits
# for more bytes, has seen a close, or goes on.
LAXER: dict[str, tuple[bytes, int, list[Message], str]] = {
    "a masked frame (5.1)": (b"\x81\x82\0\0\0\0hi", 1002, ["hi"], "goes on"),
    "a fragmented pong (5.5)": (b"\x0a\x00", 1002, [], "goes on"),
    "a fragmented close (5.5)": (b"\x08\x00", 1002, [], "closed"),
    "a pong of more than 125 bytes (5.5)": (frame(PONG, bytes(126)), 1002, [], "goes on"),
    # WebSocket.recv_data_frame, above the parser, refuses this one.
    "a ping of more than 125 bytes (5.5)": (frame(PING, bytes(126)), 1002, [], "goes on"),
    "a length not in its shortest form (5.2)": (b"\x81\x7e\x00\x02hi", 1002, ["hi"], "goes on"),
    "a long length not in its shortest form (5.2)": (b"\x81\x7f" + bytes(7) + b"\x02hi", 1002, ["hi"], "goes on"),
    "a negative length (5.2)": (b"\x82\x7f\x80" + bytes(7), 1002, [], "waits"),
    "a text whose last character is cut (8.1)": (frame(TEXT, b"a\xc3"), 1007, [], "cut"),
    "a reason whose last character is cut (5.5.1)": (frame(CLOSE, b"\x03\xe8a\xc3"), 1007, [], "closed"),
    "a message of any size (10.4)": (frame(BINARY, bytes(MIB + 1)), 1009, [bytes(MIB + 1)], "goes on"),
}  # fmt: skip

# Name: a stream that connman ends with 1002 or 1007 while websocket-client waits for more, and what that more is.
LATER: dict[str, tuple[bytes, int, bytes]] = {
    "reserved bits, behind the payload": (b"\xc1\x02", 1002, b"hi"),
    "an unknown opcode, behind the payload": (b"\x83\x02", 1002, b"hi"),
    "a fragmented ping, behind the payload": (b"\x09\x02", 1002, b"hi"),
    "a close of more than 125 bytes, behind the payload": (b"\x88\x7e\x00\x7e", 1002, bytes(126)),
    "a continuation of nothing, behind the payload": (b"\x80\x02", 1002, b"hi"),
    "a message in a message, behind the payload": (frame(1, b"a") + b"\x81\x02", 1002, b"hi"),
    "invalid text, at the end of the message": (frame(1, b"\xff"), 1007, frame(0x80, b"")),
}


class Eof(WebSocketConnectionClosedException):
    """The bytes are used up."""


class Source:
    """What websocket-client reads from: the chunks, cut further where it asks for less."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = [chunk for chunk in chunks if chunk]

    def recv(self, size: int) -> bytes:
        if not self._chunks:
            raise Eof
        piece, rest = self._chunks[0][:size], self._chunks[0][size:]
        self._chunks[:1] = [rest] if rest else []
        return piece


class Violation(Exception):
    """What the added checks raise."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


Events = tuple[list[Message], list[bytes], Any]


def read(
    buffer: frame_buffer, whole: continuous_frame, added: Callable[[ABNF], None] = lambda frame: None
) -> Events:
    """Return messages, payloads of pings and the end, as `WebSocket.recv_data_frame` uses these classes."""
    messages: list[Message] = []
    pings: list[bytes] = []
    try:
        while True:
            got = buffer.recv_frame()
            if got.opcode == ABNF.OPCODE_CLOSE:
                added(got)
                data = bytes(got.data)
                code = int.from_bytes(data[:2], "big") if data else 1005
                return messages, pings, (code, data[2:].decode(errors="replace"))
            if got.opcode == ABNF.OPCODE_PING:
                pings.append(bytes(got.data))
            elif got.opcode != ABNF.OPCODE_PONG:
                whole.validate(got)
                whole.add(got)
                added(got)
                if whole.is_fire(got):
                    opcode, last = whole.extract(got)
                    data = bytes(last.data)
                    messages.append(data.decode() if opcode == ABNF.OPCODE_TEXT else data)
    except (
        WebSocketProtocolException,
        WebSocketPayloadException,
        Violation,
        UnicodeDecodeError,
        Eof,
    ) as error:
        return messages, pings, error


def their_events(data: bytes) -> Events:
    """Return what websocket-client's parser makes of a stream."""
    return read(frame_buffer(Source([data]).recv, False), continuous_frame(False, False))


class StrictBuffer(frame_buffer):
    """Theirs, with LAXER refused and LATER judged at once."""

    def __init__(self, source: Source, whole: continuous_frame, limit: int) -> None:
        super().__init__(source.recv, False)
        self._whole = whole
        self._limit = limit

    def recv_header(self) -> None:
        super().recv_header()
        assert self.header is not None
        fin, rsv1, rsv2, rsv3, opcode, has_mask, bits = self.header
        # Their own checks, as far as they need no payload: before it is there, not behind it.
        bare = ABNF(fin, rsv1, rsv2, rsv3, opcode, has_mask, b"")
        bare.validate()
        if opcode < 8:
            self._whole.validate(bare)
        if has_mask or (opcode >= 8 and (not fin or bits > 125)):
            raise Violation(1002)

    def recv_length(self) -> None:
        super().recv_length()
        assert self.header is not None
        assert self.length is not None
        opcode, bits = self.header[4], self.header[6]
        if self.length < {126: 126, 127: 65536}.get(bits, 0) or self.length >> 63:
            raise Violation(1002)
        before = len(self._whole.cont_data[1]) if self._whole.cont_data else 0
        if opcode < 8 and before + self.length > self._limit:
            raise Violation(1009)


def strict_events(chunks: list[bytes], limit: int) -> Events:
    """Return what websocket-client's parser makes of a stream when it is as strict as connman."""
    whole = continuous_frame(False, False)

    def added(got: ABNF) -> None:
        if got.opcode == ABNF.OPCODE_CLOSE:
            if not is_utf8(got.data[2:]):
                raise Violation(1007)
            return
        opcode, data = whole.cont_data or (0, b"")
        # A character that is cut passes there, which is right until the message ends.
        if opcode == ABNF.OPCODE_TEXT and not (is_utf8(data) if got.fin else validate_utf8(data)):
            raise Violation(1007)

    return read(StrictBuffer(Source(chunks), whole, limit), whole, added)


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def assert_same(codec: FrameCodec, chunks: list[bytes], expected: Events) -> None:
    messages, pings, end = expected
    assert feed_all(codec, chunks) == messages
    if isinstance(end, Eof):
        assert codec.end is None
    elif isinstance(end, tuple):
        assert isinstance(codec.end, ConnectionClosed)
        assert (codec.end.code, codec.end.reason) == end
    else:
        assert isinstance(codec.end, ProtocolError)
        # Theirs has no codes, and one error for all that can be wrong with a close frame.
        codes = {end.code} if isinstance(end, Violation) else {1002, 1007}
        assert codec.end.code in codes
    replies = unmask(b"".join(codec.replies))
    assert [payload for first, payload in replies if first == PONG] == pings[-64:]
    assert [payload[:2] for first, payload in replies if first == CLOSE] == close_replies(codec.end)


def close_replies(end: ConnmanError | None) -> list[bytes]:
    if end is None:
        return []
    assert isinstance(end, ConnectionClosed | ProtocolError)
    return [b"" if end.code in (None, 1005) else (end.code or 0).to_bytes(2, "big")]


# Streams of frames of which anything may be wrong.

ODD_TEXTS = st.sampled_from(
    [b"\xff", b"\xc3", b"\xa9", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xf0\x9f\x98", b"\x80", b"\xe2\x82"]
)  # fmt: skip
PAYLOADS = st.one_of(
    st.text(max_size=10).map(str.encode),
    st.lists(st.one_of(ODD_TEXTS, st.sampled_from([b"a", b"\xc3\xa9"])), max_size=3).map(b"".join),
    st.binary(max_size=10),
    st.sampled_from([0, 123, 125, 126, 127, 300, 65535, 65536]).map(bytes),
)
CODES = st.one_of(st.integers(998, 1017), st.sampled_from([0, 2999, 3000, 4999, 5000, 65535]))
CLOSES = st.builds(lambda code, reason: code.to_bytes(2, "big") + reason, CODES, PAYLOADS)


@st.composite
def wild_streams(draw: st.DrawFn) -> bytes:
    """Frames, each of them mostly right in its place."""

    def seldom(odd: st.SearchStrategy[int], usual: int = 0) -> int:
        return draw(odd) if draw(st.integers(0, 31)) == 7 else usual

    data, is_open = b"", False
    for _ in range(draw(st.integers(1, 10))):
        opcode = draw(st.sampled_from([0, 0, 0, 9, 10] if is_open else [1, 1, 2, 2, 9, 10]))
        opcode = seldom(st.sampled_from([0, 1, 2, 8, 8, 8, 3, 7, 11, 15]), opcode)
        fin = seldom(st.just(0), 0x80) if opcode >= 8 else draw(st.sampled_from([0, 0x80]))
        payload = draw(CLOSES if opcode == 8 else PAYLOADS)
        if opcode >= 8:
            payload = payload[: seldom(st.sampled_from([1, 126, 70_000]), 125)]
        data += head_of(draw, fin | seldom(st.integers(0, 7)) << 4 | opcode, len(payload), seldom) + payload
        is_open = not fin if opcode < 8 else is_open
    return data


def head_of(draw: st.DrawFn, first: int, size: int, seldom: Callable[..., int]) -> bytes:
    """Return a head for a payload of this size, which may lie."""
    head = frame(first, bytes(size))[: -size or None]
    if form := seldom(st.sampled_from([2, 8])):
        length = seldom(st.sampled_from([1 << 63, (1 << 64) - 1, 1 << 40, MIB + 1]), size) % (1 << 8 * form)
        head = bytes((first, 126 if form == 2 else 127)) + length.to_bytes(form, "big")
    return (
        bytes((first, head[1] | 0x80)) + head[2:] + draw(st.binary(min_size=4, max_size=4))
        if seldom(st.just(1))
        else head
    )


CLOSING = st.one_of(st.just(b""), CLOSES.map(lambda payload: frame(CLOSE, payload[:125])))
WILD = st.tuples(wild_streams(), CLOSING).map(b"".join)
ANY = st.one_of(WILD, WILD, STREAMS.map(lambda stream: stream[0]), damaged_streams())


@st.composite
def any_streams(draw: st.DrawFn) -> bytes:
    data = draw(ANY)
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 3)) == 3 else data


# Their validation of text takes a microsecond and more for each byte.
SHORT = any_streams().filter(lambda data: len(data) < 200_000)


@given(SHORT, PLACES, PLACES, st.sampled_from([10, 300, MIB, MIB, MIB]))
@example(frame(TEXT, b"\xc3"), [], [], MIB)
@example(frame(1, b"\xe2") + frame(PING, b"p") + frame(0x80, b"\x82\xac"), [3], [], MIB)
@examples(600)
def test_any_split_of_any_stream_gives_what_their_parser_gives(
    data: bytes, places: list[int], their_places: list[int], limit: int
) -> None:
    expected = strict_events(cut(data, their_places), limit)
    assert_same(FrameCodec(limit), cut(data, places), expected)


@pytest.mark.slow
@pytest.mark.parametrize("first", [TEXT, BINARY, 1, 0x80, PING, CLOSE])
@pytest.mark.parametrize("size", [0, 1, 2, 124, 125, 126, 127, 300, 65535, 65536, 65537])
def test_every_length_in_every_form(first: int, size: int) -> None:
    before = frame(1, b"a") if first == 0x80 else b""
    for form in (0, 2, 8):
        if size >> 8 * form and form:
            continue
        length = (
            bytes((126 if form == 2 else 127,)) + size.to_bytes(form, "big") if form else bytes((size % 126,))
        )
        payload = b"\x03\xe8" + bytes(size - 2) if first == CLOSE and size > 1 else bytes(size)
        data = before + bytes((first,)) + length + payload + frame(TEXT, b"next")
        for limit in (200, 65536, MIB):
            assert_same(FrameCodec(limit), [data], strict_events([data], limit))


@pytest.mark.slow
@given(SHORT, PLACES)
@examples(200)
def test_what_is_not_compressed_is_read_the_same_where_compression_was_agreed_on(
    data: bytes, places: list[int]
) -> None:
    plain, packed = FrameCodec(MIB), DeflateCodec(MIB, Deflate())
    messages, chunks = feed_all(plain, [data]), cut(data, places)
    if "reserved bits" in str(plain.end):
        # It may go on where the plain one ends.
        assert feed_all(packed, chunks)[: len(messages)] == messages
    else:
        assert_same(packed, chunks, strict_events([data], MIB))


# The places, one by one.


@pytest.mark.parametrize("name", LAXER)
def test_where_theirs_is_laxer(name: str) -> None:
    data, code, messages, then = LAXER[name]
    theirs, _, end = their_events(data + (b"" if then == "waits" else frame(TEXT, b"next")))
    if then == "cut":
        # Its parser lets the bytes through; WebSocket.recv then raises a UnicodeDecodeError, and is still connected.
        assert isinstance(end, UnicodeDecodeError)
    elif then == "closed":
        assert isinstance(end, tuple)
    else:
        assert isinstance(end, Eof)
    assert theirs == ([*messages, "next"] if then == "goes on" else messages)
    ours = FrameCodec(MIB)
    assert ours.feed(data) == []
    assert isinstance(ours.end, MessageTooBig if code == 1009 else ProtocolError)
    assert ours.end.code == code
    assert strict_events([data], MIB)[2].code == code


@pytest.mark.parametrize("name", LATER)
def test_where_theirs_is_later(name: str) -> None:
    data, code, more = LATER[name]
    assert isinstance(their_events(data)[2], Eof)
    assert isinstance(their_events(data + more)[2], WebSocketProtocolException | WebSocketPayloadException)
    ours = FrameCodec(MIB)
    assert ours.feed(data) == []
    assert isinstance(ours.end, ProtocolError)
    assert ours.end.code == code


def test_theirs_reads_what_we_write() -> None:
    both_ends = FrameCodec(MIB, mask=False)
    for message in ("", "hello", "é" * 200, b"", bytes(70_000)):
        messages, _, end = their_events(both_ends.encode(message))
        assert messages == [message]
        assert isinstance(end, Eof)
