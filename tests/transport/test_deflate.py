"""Compressed messages (RFC 7692): what other implementations make, any split of it, violations, bombs, and writing."""

import functools
import gc
import itertools
import sys
import tracemalloc
import zlib
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from connman.errors import ConnectionClosed, ConnectionLost, MessageTooBig, ProtocolError
from connman.records import Message
from connman.transport.deflate import DeflateCodec
from connman.transport.extensions import Deflate
from tests.examples import examples
from tests.transport.streams import (
    BINARY,
    CLOSE,
    CONTROLS,
    MIB,
    PING,
    PLACES,
    TEXT,
    copied_from,
    cut,
    feed_all,
    frame,
    in_frames,
    outcome,
    unmask,
)

RSV1 = 0x40
PACKED_TEXT, PACKED_BINARY = TEXT | RSV1, BINARY | RSV1
TAIL = b"\x00\x00\xff\xff"
HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692 7.2.3.1

AGREED = st.builds(
    Deflate,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=st.integers(8, 15),
    client_max_window_bits=st.integers(8, 15),
)


class Packer:
    """Compresses as a server may: with zlib, in its own window and its own way."""

    def __init__(self, agreed: Deflate, level: int = -1, strategy: int = 0) -> None:
        self._agreed = agreed
        # zlib has no raw streams with 8 bits; with 9 its distances are at most 250, which fit into 8.
        bits = max(agreed.server_max_window_bits, 9)
        self._make = functools.partial(zlib.compressobj, level, wbits=-bits, strategy=strategy)
        self._deflater = self._make()

    def pack(self, payload: bytes, *, ends_stream: bool = False) -> bytes:
        if self._agreed.server_no_context_takeover:
            self._deflater = self._make()
        data = self._deflater.compress(payload)
        if ends_stream:
            data += self._deflater.flush()
            self._deflater = self._make()
            return data + b"\0"  # 7.2.3.4
        data += self._deflater.flush(zlib.Z_SYNC_FLUSH)
        assert data.endswith(TAIL)
        return data[:-4]


def packed(payload: bytes) -> bytes:
    return Packer(Deflate()).pack(payload)


def maker(agreed: Deflate) -> Any:
    return functools.partial(DeflateCodec, agreed=agreed)


def make(limit: int = MIB, agreed: Deflate | None = None) -> DeflateCodec:
    return DeflateCodec(limit, agreed or Deflate())


def payload_of(message: Message) -> bytes:
    return message.encode() if isinstance(message, str) else message


def sent(codec: DeflateCodec, *messages: Message) -> bytes:
    frames = [codec.encode(message) for message in messages]
    return b"".join(codec.finish(frames) if codec.is_ordered else frames)


# Streams, with what they mean.

WORDS = st.sampled_from(["tick", '{"bid": 1.5}', "é", "\0", "😀", "abcdefgh" * 40, "x" * 70_000])
TEXTS = st.lists(WORDS, max_size=8).map("".join)
NOISE = st.integers(0, 200_000).map(lambda size: bytes(itertools.islice(itertools.cycle(NOISY), size)))
NOISY = zlib.compress(bytes(range(256)) * 300 + str(list(range(20_000))).encode())
MESSAGES = st.one_of(TEXTS, TEXTS.map(str.encode), NOISE, st.text(max_size=20), st.binary(max_size=20))


@st.composite
def packed_streams(draw: st.DrawFn) -> tuple[Deflate, bytes, list[Message]]:
    """Messages in frames as a server may send them after it has agreed to this: some compressed, some in fragments."""
    agreed = draw(AGREED)
    level = draw(st.sampled_from([-1, 0, 1, 9]))
    packer = Packer(agreed, level, draw(st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_RLE])))
    messages: list[Message] = draw(st.lists(MESSAGES, max_size=5))
    data = b""
    for message in messages:
        first, payload = 1 if isinstance(message, str) else 2, payload_of(message)
        if draw(st.integers(0, 3)):
            first, payload = first | RSV1, packer.pack(payload, ends_stream=draw(st.integers(0, 5)) == 0)
        pieces = cut(payload, draw(st.lists(st.integers(0, 200_000), max_size=3)))
        for number, piece in enumerate(pieces):
            is_last = number == len(pieces) - 1
            data += draw(st.one_of(st.just(b""), CONTROLS)) if number else b""
            data += frame((0x80 if is_last else 0) | (0 if number else first), piece)
    return agreed, data, messages


@given(packed_streams(), PLACES)
@examples(150)
def test_any_split_of_a_valid_stream_gives_its_messages(
    stream: tuple[Deflate, bytes, list[Message]], places: list[int]
) -> None:
    agreed, data, messages = stream
    whole = outcome([data], make=maker(agreed))
    assert whole[:2] == (messages, type(None))
    assert outcome(cut(data, places), make=maker(agreed)) == whole


@given(packed_streams().filter(lambda stream: len(stream[1]) < 3000))
@examples(50)
def test_byte_by_byte_is_a_split_too(stream: tuple[Deflate, bytes, list[Message]]) -> None:
    agreed, data, messages = stream
    got = outcome([bytes((byte,)) for byte in data], make=maker(agreed))
    assert got == outcome([data], make=maker(agreed))
    assert got[0] == messages


@st.composite
def damaged_packed_streams(draw: st.DrawFn) -> tuple[Deflate, bytes]:
    agreed, data, _ = draw(packed_streams())
    damaged = bytearray(data + frame(CLOSE, b"\x03\xe8"))
    places = st.one_of(st.integers(0, 40), st.integers(0, 300_000))
    for place, byte in draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        damaged[place % len(damaged)] = byte
    return agreed, bytes(damaged)


@given(damaged_packed_streams(), PLACES, st.sampled_from([1, 10, 200, 70_000, MIB]))
@examples(300)
def test_any_split_of_a_damaged_stream_gives_the_same_error(
    stream: tuple[Deflate, bytes], places: list[int], limit: int
) -> None:
    agreed, data = stream
    whole = outcome([data], limit, maker(agreed))
    assert outcome(cut(data, places), limit, maker(agreed)) == whole
    assert issubclass(whole[1], type(None) | ProtocolError | ConnectionClosed)
    assert all(len(payload_of(message)) <= limit for message in whole[0])


# Beside the extension of the library websockets.


def their_extension(agreed: Deflate) -> PerMessageDeflate:
    """Return the server's end."""
    return PerMessageDeflate(
        agreed.client_no_context_takeover,
        agreed.server_no_context_takeover,
        agreed.client_max_window_bits,
        max(agreed.server_max_window_bits, 9),
    )


@given(AGREED, st.lists(MESSAGES, max_size=6), st.booleans())
def test_reads_what_websockets_writes(agreed: Deflate, messages: list[Message], is_cut: bool) -> None:
    extension = their_extension(agreed)
    data = b""
    for message in messages:
        payload = payload_of(message)
        opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
        half = len(payload) // 2
        frames = [Frame(opcode, payload)]
        if is_cut:
            frames = [Frame(opcode, payload[:half], fin=False), Frame(Opcode.CONT, payload[half:])]
        data += b"".join(each.serialize(mask=False, extensions=[extension]) for each in frames)
    assert outcome([data], make=maker(agreed))[:2] == (messages, type(None))


def their_reading(extension: PerMessageDeflate, data: bytes) -> list[Message]:
    messages: list[Message] = []
    for first, payload in unmask(data):
        got = extension.decode(Frame(Opcode(first & 15), payload, rsv1=bool(first & RSV1)), max_size=MIB)
        messages.append(bytes(got.data).decode() if got.opcode is Opcode.TEXT else bytes(got.data))
    return messages


@given(AGREED, st.lists(MESSAGES, max_size=6))
def test_websockets_reads_what_we_write(agreed: Deflate, messages: list[Message]) -> None:
    assert their_reading(their_extension(agreed), sent(make(agreed=agreed), *messages)) == messages


@given(AGREED, st.lists(MESSAGES, max_size=6))
@examples(50)
def test_zlib_reads_what_we_write(agreed: Deflate, messages: list[Message]) -> None:
    inflater = zlib.decompressobj(-agreed.client_max_window_bits)
    for (first, payload), message in zip(unmask(sent(make(agreed=agreed), *messages)), messages, strict=True):
        if agreed.client_no_context_takeover:
            inflater = zlib.decompressobj(-agreed.client_max_window_bits)
        if first & RSV1:
            payload = inflater.decompress(payload + TAIL)  # noqa: PLW2901 - as on the wire, then as it was
        assert payload == payload_of(message)


# The examples of RFC 7692 7.2.3, and others by hand.


@pytest.mark.parametrize(
    "frames",
    [
        [(PACKED_TEXT, HELLO)],
        [(0x41, HELLO[:3]), (0x80, HELLO[3:])],
        [(0x41, HELLO), (0x80, b"")],
        [(0x41, b""), (0, HELLO), (0x80, b"")],
        [(PACKED_TEXT, bytes.fromhex("000500faff48656c6c6f00"))],  # not compressed at all
        [(PACKED_TEXT, bytes.fromhex("f348cdc9c9070000"))],  # a last block, and an empty one behind it
        [(PACKED_TEXT, bytes.fromhex("f348cdc9c9070001"))],  # a last block, and another last one
        [(PACKED_TEXT, bytes.fromhex("f24805000000ffffcac9c90700"))],  # two blocks
        [(PACKED_TEXT, bytes.fromhex("000000ffff" * 100) + HELLO)],
    ],
)
def test_hello(frames: list[tuple[int, bytes]]) -> None:
    data = b"".join(frame(*each) for each in frames)
    assert outcome([data], make=maker(Deflate()))[:2] == (["Hello"], type(None))


def test_a_message_may_refer_to_the_one_before() -> None:
    data = frame(PACKED_TEXT, HELLO) + frame(TEXT, b"plain") + frame(PACKED_TEXT, bytes.fromhex("f200110000"))
    assert outcome([data], make=maker(Deflate()))[0] == ["Hello", "plain", "Hello"]
    alone = outcome([data], make=maker(Deflate(server_no_context_takeover=True)))
    assert (alone[0], alone[3]) == (["Hello", "plain"], 1007)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072, 200_000])
def test_sizes_around_those_of_the_slices(size: int) -> None:
    for payload in (bytes(size), bytes(itertools.islice(itertools.cycle(NOISY), size))):
        for level in (0, 6):
            body = Packer(Deflate(), level).pack(payload)
            data = frame(PACKED_BINARY, body) + frame(TEXT, b"next")
            assert outcome([data], make=maker(Deflate()))[:2] == ([payload, "next"], type(None))


def badly_packed(size: int) -> bytes:
    """Return bytes 255 in a fixed block, where each takes nine bits, all of them set (RFC 1951 3.2.6)."""
    bits = 3 + 9 * size + 7 + 3
    return (0b010 | ((1 << 9 * size) - 1) << 3).to_bytes((bits + 7) // 8, "little")


@pytest.mark.parametrize("limit", [1, 200, 65536, MIB])
def test_a_message_as_large_as_the_limit_passes_however_badly_it_is_compressed(limit: int) -> None:
    def got(data: bytes) -> Any:
        return outcome([frame(PACKED_BINARY, data)], limit, maker(Deflate()))

    for level in (0, 1, 6):
        assert got(Packer(Deflate(), level).pack(bytes(limit)))[:2] == ([bytes(limit)], type(None))
        assert got(Packer(Deflate(), level).pack(bytes(limit + 1)))[1] is MessageTooBig
    assert got(badly_packed(limit))[:2] == ([b"\xff" * limit], type(None))
    assert got(badly_packed(limit + 1))[1] is MessageTooBig


# Violations.


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc9\x00", 1002),  # RSV1 on control frames
        (b"\xca\x00", 1002),
        (b"\xc8\x00", 1002),
        (b"\xc0\x00", 1002),  # on a continuation of nothing
        (frame(0x41, HELLO[:3]) + frame(0xC0, HELLO[3:]), 1002),  # on a continuation
        (frame(0x01, b"a") + b"\xc0\x00", 1002),
        (frame(0x41, HELLO[:3]) + frame(PACKED_TEXT, HELLO), 1002),  # a message in a message
        (b"\xe1\x00", 1002),  # other reserved bits
        (b"\xd2\x00", 1002),
        (b"\xa1\x00", 1002),
        (b"\xc3\x00", 1002),  # unknown opcodes
        (b"\xc7\x00", 1002),
        (b"\xc1\x87\0\0\0\0" + HELLO, 1002),  # masked
        (b"\xc1\xfe\x00\x80" + bytes(132), 1002),
        (b"\xc1\x7e\x00\x07" + HELLO, 1002),  # a length not in its shortest form
        (frame(PACKED_TEXT, b"\x07"), 1007),  # no kind of block
        (frame(PACKED_TEXT, bytes.fromhex("f200110000")), 1007),  # refers to nothing
        (frame(PACKED_BINARY, b"\x00\x05\x00\x05\x00hello"), 1007),
        (frame(0x42, b"\x07"), 1007),  # told before the last fragment
        (frame(PACKED_BINARY, b"\x03\x00" * 20), 1007),  # streams without end
        (frame(PACKED_TEXT, packed(b"\xff")), 1007),  # no valid UTF-8
        (frame(PACKED_TEXT, packed(b"a\xc3")), 1007),
        (frame(PACKED_TEXT, packed(b"\xed\xa0\x80")), 1007),
        (frame(0x41, packed(b"a\xc3")) + frame(0x80, b""), 1007),
        (frame(0x41, packed(b"\xff" + b"a" * 1000)), 1007),  # told before the last fragment
        (frame(PACKED_TEXT, packed(b"a" * 100_000 + b"\xc3")), 1007),
        (frame(PACKED_BINARY, packed(bytes(MIB + 1))), 1009),
        (frame(0x42, packed(bytes(MIB + 1))), 1009),
        (b"\xc2\x7f" + (MIB * 2).to_bytes(8, "big"), 1009),  # by its head
        (
            b"\x42\x7f" + MIB.to_bytes(8, "big") + packed(bytes(2 * MIB)) + bytes(70_000),
            1009,
        ),  # by its beginning
        (frame(0x02, bytes(MIB)) + frame(0x80, b"x"), 1009),  # one that is not compressed
    ],
)
def test_a_violation_ends_it_with_its_code(data: bytes, code: int) -> None:
    for before, messages in ((b"", []), (frame(PACKED_TEXT, HELLO), ["Hello"])):
        if code == 1007 and before and b"\xf2\x00\x11" in data:
            continue  # it does refer to something then
        stream = before + data + frame(TEXT, b"after")
        chunks = (
            [stream[i : i + 1] for i in range(len(stream))] if len(stream) < 5000 else cut(stream, [7, 9000])
        )
        for split in ([stream], chunks):
            codec = make()
            assert feed_all(codec, split) == messages
            assert isinstance(codec.end, MessageTooBig if code == 1009 else ProtocolError)
            assert codec.end.code == code
            assert [unmask(reply) for reply in codec.replies] == [[(CLOSE, code.to_bytes(2, "big"))]]
            assert codec.feed(frame(TEXT, b"after")) == []
            assert codec.eof() is codec.end
            assert codec.end.__traceback__ is None
            assert codec.end.__context__ is None


def test_what_lies_outside_the_window_that_was_agreed_on_is_gone() -> None:
    packer = Packer(Deflate())
    data = frame(PACKED_BINARY, packer.pack(NOISY[:1300])) + frame(PACKED_BINARY, packer.pack(NOISY[:1000]))
    assert outcome([data], make=maker(Deflate()))[0] == [NOISY[:1300], NOISY[:1000]]
    assert outcome([data], make=maker(Deflate(server_max_window_bits=9)))[3] == 1007


def test_control_frames_pass_between_the_fragments() -> None:
    codec = make()
    assert codec.feed(frame(0x41, HELLO[:3]) + frame(PING, b"p")) == []
    assert len(codec.replies) == 1
    assert codec.feed(frame(0x80, HELLO[3:]) + frame(CLOSE, b"\x03\xe8")) == ["Hello"]
    assert isinstance(codec.end, ConnectionClosed)
    assert codec.frames == 3


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (frame(PACKED_TEXT, HELLO), "without a close frame"),
        (frame(PACKED_TEXT, HELLO)[:-1], "middle of a frame"),
        (frame(0x42, packed(NOISY * 40))[:70_000], "middle of a frame"),
        (b"\xc2\x7f" + (100_000).to_bytes(8, "big") + Packer(Deflate(), 0).pack(NOISY * 5)[:65536], "middle of a frame"),
        (frame(0x41, HELLO[:3]), "middle of a fragmented message"),
    ],
)  # fmt: skip
def test_the_end_of_file_is_a_loss_that_says_what_was_cut(data: bytes, text: str) -> None:
    codec = make()
    feed_all(codec, [data])
    error = codec.eof()
    assert isinstance(error, ConnectionLost)
    assert text in str(error)


# Bounds.


def peak_of(codec: DeflateCodec, chunks: Iterable[bytes]) -> int:
    """Return the memory that feeding takes at most, messages not counted that were returned before."""
    gc.collect()
    tracemalloc.start()
    try:
        for chunk in chunks:
            codec.feed(chunk)
            while codec.rest:
                codec.feed(codec.rest)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bomb(size: int) -> bytes:
    """Return a message of zeros, compressed."""
    deflater = zlib.compressobj(9, wbits=-15)
    data = b"".join(deflater.compress(bytes(MIB)) for _ in range(size // MIB))
    return data + deflater.flush(zlib.Z_SYNC_FLUSH)[:-4]


@pytest.mark.slow
@pytest.mark.parametrize("first", [PACKED_BINARY, PACKED_TEXT])
@pytest.mark.parametrize("pieces", [1, 50])
def test_a_bomb_is_refused_while_it_is_inflated(first: int, pieces: int) -> None:
    data = bomb(512 * MIB)
    step = len(data) // pieces + 1
    parts = [data[i : i + step] for i in range(0, len(data), step)]
    frames = [frame((first if not n else 0) & ~0x80 | (0x80 if n == len(parts) - 1 else 0), p) for n, p in enumerate(parts)]  # fmt: skip
    codec = make(8 * MIB)
    assert peak_of(codec, frames) < 1.5 * 8 * MIB
    assert isinstance(codec.end, MessageTooBig)


def test_a_chunk_full_of_messages_as_large_as_the_limit_is_read_bit_by_bit() -> None:
    """A chunk of 256 KiB would else become 256 MiB of messages at once."""
    one = bomb(4 * MIB)
    chunk = frame(PACKED_BINARY, one) * 30
    codec = make(4 * MIB, Deflate(server_no_context_takeover=True))
    assert peak_of(codec, [chunk]) < 2.5 * 4 * MIB
    codec = make(4 * MIB, Deflate(server_no_context_takeover=True))
    counts = [len(codec.feed(chunk))]
    while codec.rest:
        counts.append(len(codec.feed(codec.rest)))
    assert counts == [1] * 30


def test_a_frame_that_hardly_shrinks_is_not_kept_before_it_is_inflated() -> None:
    """Its memory is that of the message, once growing and once whole."""
    data = frame(PACKED_BINARY, Packer(Deflate(), 0).pack(bytes(16 * MIB)))
    codec = make(16 * MIB)
    assert peak_of(codec, (data[i : i + 65536] for i in range(0, len(data), 65536))) < 2.3 * 16 * MIB
    assert codec.end is None


@pytest.mark.slow
@pytest.mark.parametrize("attack", [frame(0), frame(0, b"\x00\x00\x00\xff\xff"), frame(PING, b"x")])
def test_an_endless_message_holds_no_more_than_its_limit(attack: bytes) -> None:
    codec = make(100_000)
    codec.feed(frame(0x41))
    assert peak_of(codec, [attack * 10_000] * 12) < 400_000


@pytest.mark.parametrize("payload", [b"", b"\x00\x00\x00\xff\xff"])
def test_a_message_in_too_many_fragments_is_refused(payload: bytes) -> None:
    codec = make(64 * MIB)
    codec.feed(frame(0x42))
    for _ in range(70):
        codec.feed(frame(0, payload) * 1000)
    assert isinstance(codec.end, MessageTooBig)
    assert str(codec.end) == "a message in too many fragments"


def test_the_next_message_has_as_many_fragments() -> None:
    codec = make(64 * MIB)
    one = frame(0x42) + frame(0) * 40_000 + frame(0x80, b"\0")
    assert feed_all(codec, [one * 2]) == [b"", b""]
    assert codec.frames == 2


def calls_for(chunks: Iterable[bytes]) -> int:
    codec = make(64 * MIB)
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        feed_all(codec, chunks)
    finally:
        sys.setprofile(None)
    assert codec.end is None
    return calls


def test_work_grows_with_what_comes_and_with_what_it_becomes() -> None:
    def fragments(number: int) -> list[bytes]:
        return [frame(0x42) + frame(0, b"\x00\x00\x00\xff\xff") * number + frame(0x80)]

    def zeros(number: int) -> list[bytes]:
        return [frame(PACKED_BINARY, bomb(number * MIB))]

    def chunks(number: int) -> list[bytes]:
        data = frame(PACKED_BINARY, Packer(Deflate(), 0).pack(bytes(number * MIB)))
        return [data[i : i + 4096] for i in range(0, len(data), 4096)]

    for make_stream, number in ((fragments, 4000), (zeros, 16), (chunks, 4)):
        assert calls_for(make_stream(2 * number)) < 2.2 * calls_for(make_stream(number))


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 1000])
@pytest.mark.parametrize("size", [4096, 262144])
def test_64_mib_are_taken_out_of_their_chunks_once(number: int, size: int) -> None:
    data = in_frames(number, 2 | RSV1, Packer(Deflate(), 0).pack(bytes(64 * MIB)))
    assert copied_from(make(64 * MIB), data, size) < 1.01 * len(data)  # heads are looked at first


@pytest.mark.slow
def test_what_is_left_of_a_chunk_is_copied_once_for_each_mebibyte_that_comes_out() -> None:
    """Which is at least what inflating it cost, since a chunk has 256 KiB."""
    chunk = frame(PACKED_BINARY, bomb(MIB)) * 200
    assert len(chunk) < 262144
    assert copied_from(make(agreed=Deflate(server_no_context_takeover=True)), chunk, len(chunk)) < 200 * MIB


# Writing.


def test_short_messages_go_out_as_they_are() -> None:
    codec = make()
    [(first, payload)] = unmask(sent(codec, "tick"))
    assert (first, payload) == (TEXT, b"tick")
    assert unmask(sent(codec, b"")) == [(BINARY, b"")]


def test_what_was_sent_before_makes_the_next_smaller() -> None:
    text = '{"type": "subscription", "channel": "prices", "symbols": ["BTC-USD", "ETH-USD"]}'
    codec = make()
    [(first, before), (_, after)] = unmask(sent(codec, text, text))
    assert first == PACKED_TEXT
    assert len(after) < len(before) / 4
    assert unmask(sent(make(), text)) == unmask(sent(make(), text))
    alone = make(agreed=Deflate(client_no_context_takeover=True))
    assert not alone.is_ordered
    assert [payload for _, payload in unmask(sent(alone, text, text))] == [before, before]


def test_a_server_that_asks_for_eight_bits_gets_nothing_compressed() -> None:
    codec = make(agreed=Deflate(client_max_window_bits=8))
    assert not codec.is_ordered
    assert unmask(sent(codec, "x" * 1000)) == [(TEXT, b"x" * 1000)]


def test_without_a_context_what_does_not_shrink_goes_out_as_it_is() -> None:
    codec = make(agreed=Deflate(client_no_context_takeover=True))
    assert unmask(sent(codec, NOISY[:300])) == [(BINARY, NOISY[:300])]


def test_a_message_that_is_refused_leaves_no_trace() -> None:
    codec, extension = make(), their_extension(Deflate())
    assert their_reading(extension, sent(codec, "a" * 100)) == ["a" * 100]
    for bad in ("b" * 100 + "\ud800", 5, None, ["c"]):
        with pytest.raises((ValueError, TypeError)):
            sent(codec, "d" * 100, bad)  # type: ignore[arg-type]
    assert their_reading(extension, sent(codec, "ad" * 100)) == ["ad" * 100]


def test_both_of_our_ends_understand_each_other() -> None:
    near, far = DeflateCodec(MIB, Deflate(), mask=False), DeflateCodec(MIB, Deflate(), mask=False)
    messages: list[Message] = ["x" * 100, b"y" * 100_000, "", "x" * 100]
    assert far.feed(sent(near, *messages)) == messages
