"""Streams of frames through the two codecs of WebSocket: any split gives the same, and what a plain reader gives."""

import functools
import pickle
import zlib
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from connman.errors import ConnectionClosed, ConnectionLost, ConnmanError, ProtocolError
from connman.records import Message
from connman.transport.deflate import DeflateCodec
from connman.transport.extensions import Deflate
from connman.transport.frames import FrameCodec
from tests.rigs.fuzz import reference
from tests.rigs.fuzz.script import cut
from tests.rigs.fuzz.target import Target, expect

MIB = 1 << 20
LIMITS = (MIB, 10, 300, 125, 126, 65536, 1, MIB)
AGREED = (
    Deflate(),
    Deflate(server_no_context_takeover=True),
    Deflate(server_max_window_bits=9),
    Deflate(client_no_context_takeover=True, client_max_window_bits=8),
)
# How often frames are written and read again instead, of 256.
_ROUND_TRIPS = 24
_HEAD = 3  # bytes of a case before its stream


def check_frames(case: bytes) -> None:
    """Read a stream whole and in pieces, without compression."""
    _check(case, lambda limit, _: FrameCodec(limit, mask=False), None)


def check_deflate(case: bytes) -> None:
    """Read a stream whole and in pieces, with compression agreed on."""
    agreed = AGREED[case[1] % len(AGREED)] if len(case) > 1 else AGREED[0]
    _check(case, lambda limit, is_server: DeflateCodec(limit, _seen(agreed, is_server), mask=False), agreed)


def _seen(agreed: Deflate, is_server: bool) -> Deflate:
    """Return what was agreed on, from the side of the server the other way round."""
    return (
        agreed
        if not is_server
        else Deflate(
            server_no_context_takeover=agreed.client_no_context_takeover,
            client_no_context_takeover=agreed.server_no_context_takeover,
            server_max_window_bits=max(9, agreed.client_max_window_bits),
            client_max_window_bits=agreed.server_max_window_bits,
        )
    )


def _check(case: bytes, make: Callable[[int, bool], FrameCodec], agreed: Deflate | None) -> None:
    if len(case) < _HEAD:
        return
    seed, stream = case[2], case[_HEAD:]
    limit = LIMITS[(case[1] >> 4) % len(LIMITS)]
    if case[0] < _ROUND_TRIPS:
        _check_round_trip(make, stream, seed)
        return
    codec = make(limit, False)
    whole = outcome(codec, [stream])
    pieces = outcome(make(limit, False), cut(stream, seed))
    expect(whole == pieces, "a split makes a difference", whole, pieces)
    _check_promises(codec, whole, limit, seed)
    read = reference.read(stream, limit, agreed)
    if read.is_exact:
        ours = (whole[0], _told(codec.end), whole[5])
        theirs = (read.messages, read.end, replies_to(read))
        expect(ours == theirs, "the codec and the reader of the RFC differ", ours, theirs)
    else:
        expect(whole[0][: len(read.messages)] == read.messages, "other messages", whole[0], read.messages)


def outcome(codec: FrameCodec, chunks: Iterable[bytes]) -> tuple[Any, ...]:
    """Return all that a stream leads to, comparable."""
    messages: list[Message] = []
    for chunk in chunks:
        messages += codec.feed(chunk)
        while codec.rest:
            messages += codec.feed(codec.rest)
    end, eof = codec.end, codec.eof()
    code = getattr(end, "code", None)
    return messages, type(end), str(end), code, codec.frames, codec.replies, codec.pong, type(eof), str(eof)


def _check_promises(codec: FrameCodec, whole: tuple[Any, ...], limit: int, seed: int) -> None:
    end = codec.end
    expect(isinstance(end, ConnectionClosed | ProtocolError | None), "no end that is documented", end)
    expect(
        isinstance(codec.eof(), ConnectionLost) if end is None else codec.eof() is end, "a wrong end of file"
    )
    sizes = [len(message.encode() if isinstance(message, str) else message) for message in whole[0]]
    expect(not sizes or max(sizes) <= limit, "a message above the limit", sizes, limit)
    if end is not None:
        expect(codec.feed(b"\x81\x01a") == [], "a message behind the end")
        expect(end.__traceback__ is None, "an end that holds its frames")
        if not seed % 8:
            check_error(end)


def check_error(error: ConnmanError) -> None:
    """Check what is promised of every error: it can be pickled, and its text fits a line of a log."""
    again = pickle.loads(pickle.dumps(error))
    expect(
        type(again) is type(error) and str(again) == str(error), "not the same after pickling", error, again
    )
    text = str(error)
    expect(len(text) < 2000 and text.isprintable(), "a text that is no line for a log", text)


def _told(end: ConnmanError | None) -> tuple[str, int | None, str] | None:
    if isinstance(end, ConnectionClosed):
        return "closed", end.code, end.reason
    return ("violation", end.code, "") if isinstance(end, ProtocolError) else None


def replies_to(read: reference.Reading) -> list[bytes]:
    """Return what has to be answered: the newest pings, and a close for the end."""
    replies = [bytes((0x8A, len(ping))) + ping for ping in read.pings[-64:]]
    if read.end is not None:
        code = b"" if read.end[1] == 1005 else read.end[1].to_bytes(2, "big")
        replies.append(bytes((0x88, len(code))) + code)
    return replies


def _check_round_trip(make: Callable[[int, bool], FrameCodec], data: bytes, seed: int) -> None:
    """Write what ``data`` says as messages, and read them again: all come out as they went in."""
    messages = _messages(data)
    writer, reader = make(MIB, False), make(MIB, True)
    frames = writer.finish([writer.encode(message) for message in messages])
    got = outcome(reader, cut(b"".join(frames), seed))
    expect(got[0] == messages and reader.end is None, "not what was sent", got, messages)


def _messages(data: bytes) -> list[Message]:
    found: list[Message] = []
    for number, piece in enumerate(data.split(b"|")):
        repeated = piece * (1, 1, 40, 3000)[number % 4] if len(piece) < 64 else piece
        try:
            found.append(repeated.decode() if number % 2 else repeated)
        except UnicodeDecodeError:
            found.append(repeated)
    return found


# Making streams


def frame(first: int, payload: bytes, form: int = 0) -> bytes:
    """Write a frame as a server does; ``form``: bytes for its length, also where it wants fewer."""
    size = len(payload)
    if not form:
        form = 0 if size < 126 else 2 if size < 65536 else 8
    head = bytes((first, (size, 0, 126)[form] if form < 8 else 127))
    return head + (size.to_bytes(form, "big") if form else b"") + payload


_ODD = (
    b"\xff",
    b"\xc3",
    b"\xa9",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
    b"\xf0\x9f\x98",
    b"\x80",
    b"\xe2\x82",
)
_TEXTS = (
    b"",
    b"a",
    b"hello",
    "é".encode(),
    "€uro".encode(),
    "\U0001f600".encode(),
    b"x" * 125,
    b"y" * 126,
    "ü".encode() * 63,
)
_CODES = (
    1000,
    1001,
    1002,
    1003,
    1004,
    1005,
    1006,
    1007,
    1011,
    1014,
    1015,
    1016,
    2999,
    3000,
    4000,
    4999,
    5000,
    0,
    999,
)
_RARE = 1 / 24


def _payload(random: Random) -> bytes:
    roll = random.random()
    if roll < 0.6:
        return _TEXTS[int(roll * 15) % len(_TEXTS)]
    if roll < 0.7:
        return random.choice(_TEXTS) + random.choice(_ODD) + random.choice(_TEXTS[:3])
    if roll < 0.97:
        return random.randbytes(int(random.random() * 12))
    return bytes(random.choice((123, 125, 126, 127, 300, 65535, 65536)))


def _close_payload(random: Random) -> bytes:
    payload = random.choice(_CODES).to_bytes(2, "big") + _payload(random)
    return payload[:125] if random.random() < 0.9 else payload[: random.randrange(3)]


def _lied(random: Random, data: bytes) -> bytes:
    """Return a frame of which the head says something else."""
    lie = random.randrange(4)
    if lie == 0:
        return bytes((data[0] ^ 0x10 << random.randrange(3),)) + data[1:]
    if lie == 1:
        return data[:1] + bytes((data[1] ^ 0x80,)) + data[2:]
    if lie == 2:
        return (
            data[:1]
            + bytes((127,))
            + random.choice((1 << 63, 1 << 40, MIB + 1, 3)).to_bytes(8, "big")
            + data[2:]
        )
    return data[:1] + bytes((126,)) + random.choice((3, 125, 126, 65535)).to_bytes(2, "big") + data[2:]


def _stream(random: Random, packed: list[tuple[int, bytes]]) -> bytes:
    """Return frames, each of them mostly right in its place; ``packed``: opcodes and payloads of compressed messages."""
    parts: list[bytes] = []
    is_open = False
    for _ in range(1 + int(random.random() ** 2 * 10)):
        roll = random.random()
        first, payload = 0, b""
        if is_open:
            first = (0, 0x80, 0x89, 0x8A, 0x80)[int(roll * 5)]
        elif roll < 0.75:
            first = (0x81, 0x82, 0x01, 0x81, 0x02)[int(roll * 5 / 0.75)]
        else:
            first = (0x89, 0x8A, 0x88, 0x89)[int((roll - 0.75) * 16)]
        if random.random() < _RARE:
            first = random.randrange(256)
        if packed and not is_open and first & 0x0F in (1, 2) and random.random() < 0.8:
            opcode, payload = random.choice(packed)
            parts.append(
                _in_fragments(random, opcode, payload)
                if random.random() < 0.3
                else frame(0xC0 | opcode, payload)
            )
            continue
        payload = _close_payload(random) if first & 0x0F == 8 else _payload(random)
        if first & 0x0F > 7 and random.random() > _RARE:
            payload = payload[:125]
        if first & 0x0F < 3:
            is_open = not first & 0x80
        data = frame(first, payload)
        parts.append(_lied(random, data) if random.random() < _RARE else data)
    return b"".join(parts)


def _in_fragments(random: Random, opcode: int, payload: bytes) -> bytes:
    place = random.randrange(len(payload) + 1)
    between = frame(0x89, b"p") if random.random() < 0.3 else b""
    return frame(0x40 | opcode, payload[:place]) + between + frame(0x80, payload[place:])


def make_frames(random: Random) -> bytes:
    return random.randbytes(_HEAD) + _stream(random, [])


_FLUSHES = (zlib.Z_SYNC_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH)


@functools.cache
def _packed_messages() -> list[tuple[int, bytes]]:
    """Return compressed messages of many kinds, none of which refers to another; the same in every process."""
    random, found = Random(7692), []
    for number in range(240):
        payload = b"".join(_payload(random) for _ in range(1 + number % 4)) * (1, 1, 30, 2000)[number % 4]
        strategy = zlib.Z_FIXED if number % 5 == 0 else zlib.Z_DEFAULT_STRATEGY
        deflater = zlib.compressobj(number % 10, zlib.DEFLATED, -(9 + number % 7), 5, strategy)
        place = len(payload) // 2
        data = deflater.compress(payload[:place]) + deflater.flush(_FLUSHES[number % 4])
        if number % 4 < 3:
            data += deflater.compress(payload[place:]) + deflater.flush(zlib.Z_SYNC_FLUSH)
            data = data.removesuffix(b"\0\0\xff\xff")
        else:
            data += b"\0" * (number % 3)
        found.append((1 + (number % 3 == 0), data))
    return found


def make_deflate(random: Random) -> bytes:
    return random.randbytes(_HEAD) + _stream(random, _packed_messages())


_TOKENS = (
    b"\x81\x00", b"\x01\x00", b"\x80\x00", b"\x89\x00", b"\x8a\x00", b"\x88\x00", b"\x88\x02\x03\xe8", b"\x81\x7e\x00\x7e",
    b"\x82\x7f\0\0\0\0\0\x01\0\0", b"\x82\x7f\x80\0\0\0\0\0\0\0", b"\x7f", b"\x7e", *_ODD,
)  # fmt: skip

FRAMES = Target(
    "frames", "frames without compression: FrameCodec", 500_000, check_frames, make_frames, _TOKENS
)
DEFLATE = Target(
    "deflate", "frames with compression: DeflateCodec", 500_000, check_deflate, make_deflate,
    (*_TOKENS, b"\xc1\x00", b"\x41\x00", b"\0\0\xff\xff", b"\x03\0", b"\x02\0", b"\x01\0\0\xff\xff"),
)  # fmt: skip
