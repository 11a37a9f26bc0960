"""Streams of frames for the tests: made by hand, by hypothesis, damaged; and what a codec makes of them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hypothesis import strategies as st

from connman.records import Message
from connman.transport.frames import FrameCodec
from connman.transport.masking import masked

MIB = 1 << 20
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A


def frame(first: int, payload: bytes = b"") -> bytes:
    """Write a frame as a server does."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def unmask(data: bytes) -> list[tuple[int, bytes]]:
    """Read frames as a server does: first byte and payload; all of them must be masked."""
    found, pos = [], 0
    while pos < len(data):
        first, second = data[pos], data[pos + 1]
        assert second & 0x80
        size, pos = second & 0x7F, pos + 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, pos = int.from_bytes(data[pos : pos + width], "big"), pos + width
        key, pos = data[pos : pos + 4], pos + 4
        found.append((first, bytes(masked(data[pos : pos + size], key))))
        pos += size
    return found


def feed_all(codec: FrameCodec, chunks: Iterable[bytes]) -> list[Message]:
    messages = []
    for chunk in chunks:
        messages += codec.feed(chunk)
        while codec.rest:
            messages += codec.feed(codec.rest)
    return messages


class Counted(bytes):
    """A chunk that counts the bytes which are copied out of it, by slicing or whole."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        got = super().__getitem__(key)
        if isinstance(got, bytes):
            Counted.copied += len(got)
            return Counted(got)
        return got


def copied_from(codec: FrameCodec, data: bytes, size: int) -> int:
    """Return how many bytes a codec copies out of the chunks of this size that it gets."""
    before = Counted.copied
    feed_all(codec, (Counted(data[i : i + size]) for i in range(0, len(data), size)))
    assert codec.end is None
    return Counted.copied - before


def in_frames(number: int, first: int, payload: bytes) -> bytes:
    """Return a message in so many frames of the same size."""
    step = -(-len(payload) // number)
    pieces = [payload[i : i + step] for i in range(0, len(payload), step)]
    heads = [first, *[0] * (len(pieces) - 1)]
    heads[-1] |= 0x80
    return b"".join(map(frame, heads, pieces))


def outcome(
    chunks: Iterable[bytes], limit: int = MIB, make: Callable[..., FrameCodec] = FrameCodec
) -> tuple[Any, ...]:
    """Return all that a stream leads to, comparable."""
    codec = make(limit, mask=False)
    messages = feed_all(codec, chunks)
    end = codec.end
    return messages, type(end), str(end), getattr(end, "code", None), codec.frames, codec.replies, codec.pong


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *edges], [*edges, len(data)], strict=True)]


# Streams, with what they mean.

SIZES = st.sampled_from([0, 1, 5, 124, 125, 126, 127, 300, 65535, 65536])
TEXTS = st.one_of(
    st.text(max_size=20), st.builds(lambda size: "x" * size, SIZES), st.builds(lambda n: "é" * n, SIZES)
)
BINARIES = st.one_of(st.binary(max_size=20), st.builds(bytes, SIZES))
CONTROLS = st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=125))


@st.composite
def message_streams(draw: st.DrawFn) -> tuple[bytes, list[Message]]:
    """One message in one frame or several, some with control frames in between."""
    message: Message = draw(st.one_of(TEXTS, BINARIES))
    payload = message.encode() if isinstance(message, str) else message
    opcode = 1 if isinstance(message, str) else 2
    pieces = cut(payload, draw(st.lists(st.integers(0, 70000), max_size=4)))
    if len(pieces) == 1:
        return frame(0x80 | opcode, payload), [message]
    data = frame(opcode, pieces[0])
    for piece in pieces[1:-1]:
        data += draw(st.one_of(st.just(b""), CONTROLS)) + frame(0, piece)
    return data + draw(st.one_of(st.just(b""), CONTROLS)) + frame(0x80, pieces[-1]), [message]


PARTS = st.one_of(message_streams(), CONTROLS.map(lambda data: (data, [])))
STREAMS = st.lists(PARTS, max_size=6).map(
    lambda parts: (b"".join(data for data, _ in parts), [m for _, messages in parts for m in messages])
)
PLACES = st.lists(st.integers(0, 300_000), max_size=30)


@st.composite
def damaged_streams(draw: st.DrawFn) -> bytes:
    data = bytearray(
        draw(STREAMS)[0] + frame(CLOSE, draw(st.binary(max_size=10))) + draw(st.binary(max_size=10))
    )
    for place, byte in draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4)):
        data[place % len(data)] = byte
    return bytes(data)
