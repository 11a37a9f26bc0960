"""RFC 6455 frames: any split of the bytes gives the same, violations have their codes, work and memory are bounded."""

import array
import gc
import sys
import threading
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.errors import ConnectionClosed, ConnectionLost, MessageTooBig, ProtocolError
from connman.records import Message
from connman.transport.frames import FrameCodec
from tests.examples import examples
from tests.transport.streams import (
    BINARIES,
    BINARY,
    CLOSE,
    MIB,
    PING,
    PLACES,
    PONG,
    STREAMS,
    TEXT,
    TEXTS,
    copied_from,
    cut,
    damaged_streams,
    feed_all,
    frame,
    in_frames,
    message_streams,
    outcome,
    unmask,
)


@given(STREAMS, PLACES)
def test_any_split_of_a_valid_stream_gives_its_messages(
    stream: tuple[bytes, list[Message]], places: list[int]
) -> None:
    data, messages = stream
    assert outcome([data])[:2] == (messages, type(None))
    assert outcome(cut(data, places)) == outcome([data])


@given(st.lists(st.one_of(message_streams().filter(lambda s: len(s[0]) < 2000)), max_size=3))
@examples(30)
def test_byte_by_byte_is_a_split_too(parts: list[tuple[bytes, list[Message]]]) -> None:
    data = b"".join(part for part, _ in parts)
    assert outcome(bytes((byte,)) for byte in data) == outcome([data])


def test_every_split_in_two_gives_the_same() -> None:
    data = b"".join(
        frame(first, payload)
        for first, payload in [
            (TEXT, b"hello"), (BINARY, b""), (TEXT, "é".encode() * 100), (PING, b"p"), (1, b"a"), (PONG, b""),
            (0, b"b" * 130), (0x80, b""), (BINARY, bytes(70)), (TEXT, b""), (CLOSE, b"\x03\xe8bye"),
        ]
    )  # fmt: skip
    for place in range(len(data)):
        assert outcome([data[:place], data[place:]]) == outcome([data])


@given(damaged_streams(), PLACES, st.sampled_from([10, 200, MIB]))
@examples(300)
def test_any_split_of_a_damaged_stream_gives_the_same_error(
    data: bytes, places: list[int], limit: int
) -> None:
    assert outcome(cut(data, places), limit) == outcome([data], limit)


# Violations.


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1\x00", 1002),  # reserved bits
        (b"\xa1\x00", 1002),
        (b"\x91\x00", 1002),
        (b"\x83\x00", 1002),  # reserved opcodes
        (b"\x87\x00", 1002),
        (b"\x8b\x00", 1002),
        (b"\x8f\x00", 1002),
        (b"\x81\x85\0\0\0\0hello", 1002),  # masked
        (b"\x82\xfe", 1002),
        (b"\x09\x00", 1002),  # fragmented control frames
        (b"\x08\x00", 1002),
        (b"\x89\x7e\x00\x7e" + bytes(126), 1002),  # long control frames
        (b"\x88\x7f", 1002),
        (b"\x80\x00", 1002),  # a continuation of nothing
        (b"\x00\x00", 1002),
        (b"\x01\x01a\x81\x01b", 1002),  # a message in a message
        (b"\x01\x01a\x02\x01b", 1002),
        (b"\x81\x7e\x00\x05hello", 1002),  # lengths not in their shortest form
        (b"\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x05hello", 1002),
        (b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", 1002),
        (b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", 1002),  # a negative length
        (b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x01", 1009),  # 1 MiB and a byte
        (b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", 1009),
        (b"\x02\x01a\x00\x01b\x80\x7f\x00\x00\x00\x00\x00\x0f\xff\xff", 1009),
        (b"\x81\x01\xff", 1007),
        (b"\x81\x02a\xc3", 1007),
        (b"\x81\x03\xed\xa0\x80", 1007),  # a surrogate
        (b"\x81\x7e\x00\x7f" + bytes(126) + b"\xff", 1007),
        (b"\x01\x02a\xc3\x80\x00", 1007),
        (b"\x01\x01a\x00\x02\xc3\xa9\x00\x01\xff", 1007),  # told before the last fragment
        (b"\x88\x01\x03", 1002),
        (b"\x88\x02\x03\xe7", 1002),  # 999
        (b"\x88\x02\x03\xec", 1002),  # 1004
        (b"\x88\x02\x03\xed", 1002),  # 1005
        (b"\x88\x02\x03\xee", 1002),  # 1006
        (b"\x88\x02\x03\xf7", 1002),  # 1015
        (b"\x88\x02\x07\xd0", 1002),  # 2000
        (b"\x88\x02\x13\x88", 1002),  # 5000
        (b"\x88\x03\x03\xe8\xff", 1007),
    ],
)
def test_a_violation_ends_it_with_its_code(data: bytes, code: int) -> None:
    for before, messages in ((b"", []), (frame(TEXT, b"before"), ["before"])):
        for chunks in ([before + data + frame(TEXT, b"after")], [bytes((b,)) for b in before + data]):
            codec = FrameCodec(MIB)
            assert feed_all(codec, chunks) == messages
            assert isinstance(codec.end, MessageTooBig if code == 1009 else ProtocolError)
            assert codec.end.code == code
            assert [unmask(reply) for reply in codec.replies] == [[(CLOSE, code.to_bytes(2, "big"))]]
            assert codec.feed(frame(TEXT, b"after")) == []
            assert codec.eof() is codec.end


def test_sizes_up_to_the_limit_pass_whatever_the_limit() -> None:
    for limit in (1, 100, 125, 126, 65535, 65536):
        whole = frame(BINARY, bytes(limit))
        pieces = frame(2, bytes(limit - 1)) + frame(0, b"") + frame(0x80, b"\0")
        assert outcome([whole + pieces], limit)[0] == [bytes(limit), bytes(limit)]
        assert outcome([frame(BINARY, bytes(limit + 1))], limit)[1] is MessageTooBig
        assert outcome([frame(TEXT, bytes(limit + 1))], limit)[1] is MessageTooBig
        assert outcome([frame(2, bytes(limit)) + frame(0x80, b"\0")], limit)[1] is MessageTooBig
    assert outcome([frame(PING, bytes(125)) + frame(BINARY, b"x")], 1)[0] == [b"x"]


# Control frames and the end.


def test_pings_are_answered_in_order_and_pongs_noted() -> None:
    codec = FrameCodec(MIB)
    assert codec.feed(
        frame(PING, b"1") + frame(TEXT, b"a") + frame(PING) + frame(PONG, b"x") + frame(PONG, b"y")
    ) == ["a"]
    assert unmask(b"".join(codec.replies)) == [(PONG, b"1"), (PONG, b"")]
    assert codec.pong == b"y"
    assert codec.frames == 5


def test_a_ping_within_a_fragmented_message_is_answered_before_its_end() -> None:
    codec = FrameCodec(MIB)
    assert codec.feed(frame(1, b"a") + frame(PING, b"p")) == []
    assert unmask(b"".join(codec.replies)) == [(PONG, b"p")]
    assert codec.feed(frame(0x80, b"b")) == ["ab"]


def test_only_the_newest_of_a_flood_of_pings_are_answered() -> None:
    codec = FrameCodec(MIB)
    codec.feed(b"".join(frame(PING, str(n).encode()) for n in range(1000)) + frame(CLOSE))
    pongs = [(PONG, str(n).encode()) for n in range(1000 - 64, 1000)]
    assert unmask(b"".join(codec.replies)) == [*pongs, (CLOSE, b"")]


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"", 1005, ""),
        (b"\x03\xe8", 1000, ""),
        (b"\x03\xf6" + "tschüss".encode(), 1014, "tschüss"),
        (b"\x0b\xb8", 3000, ""),
        (b"\x13\x87" + b"x" * 123, 4999, "x" * 123),
    ],
)
def test_a_close_is_told_and_answered(payload: bytes, code: int, reason: str) -> None:
    codec = FrameCodec(MIB)
    assert codec.feed(frame(TEXT, b"last") + frame(CLOSE, payload) + b"\xff garbage") == ["last"]
    assert isinstance(codec.end, ConnectionClosed)
    assert (codec.end.code, codec.end.reason) == (code, reason)
    assert unmask(b"".join(codec.replies)) == [(CLOSE, payload[:2])]
    assert codec.eof() is codec.end


def test_a_close_is_not_answered_when_ours_was_first() -> None:
    codec = FrameCodec(MIB)
    codec.encode_close(1000, "")
    codec.feed(frame(CLOSE, b"\x03\xe8"))
    assert isinstance(codec.end, ConnectionClosed)
    assert codec.replies == []


def test_a_close_within_a_fragmented_message_ends_it() -> None:
    assert outcome([frame(1, b"a") + frame(CLOSE, b"\x03\xe8")])[:4] == (
        [],
        ConnectionClosed,
        "closed with code 1000",
        1000,
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "without a close frame"),
        (frame(TEXT, b"whole"), "without a close frame"),
        (b"\x81", "middle of a frame"),
        (b"\x81\x05he", "middle of a frame"),
        (b"\x01\x05hello", "middle of a fragmented message"),
    ],
)
def test_the_end_of_file_is_a_loss_that_says_what_was_cut(data: bytes, text: str) -> None:
    codec = FrameCodec(MIB)
    codec.feed(data)
    error = codec.eof()
    assert isinstance(error, ConnectionLost)
    assert text in str(error)


@pytest.mark.parametrize("data", [frame(TEXT, b"\xff"), frame(0x83), frame(CLOSE, b"\xff")])
def test_an_error_holds_neither_chunk_nor_codec(data: bytes) -> None:
    codec = FrameCodec(MIB)
    codec.feed(data)
    assert codec.end is not None
    assert codec.end.__traceback__ is None
    assert codec.end.__context__ is None


# Writing.


@given(st.one_of(TEXTS, BINARIES))
def test_messages_come_out_as_they_went_in(message: Message) -> None:
    codec = FrameCodec(MIB)
    payload = message.encode() if isinstance(message, str) else message
    assert unmask(codec.encode(message)) == [(TEXT if isinstance(message, str) else BINARY, payload)]
    both_ends = FrameCodec(MIB, mask=False)
    assert both_ends.feed(both_ends.encode(message)) == [message]


@pytest.mark.parametrize(
    "data",
    [bytearray(b"abcd"), memoryview(b"abcd"), memoryview(b"a-b-c-d-")[::2], array.array("H", [25185, 25699])],
)
def test_anything_bytes_like_is_binary(data: Any) -> None:
    assert unmask(FrameCodec(MIB).encode(data)) == [(BINARY, b"abcd")]


@pytest.mark.parametrize("data", [None, 5, ["a"], object(), 1.5])
def test_anything_else_is_a_type_error(data: Any) -> None:
    with pytest.raises(TypeError):
        FrameCodec(MIB).encode(data)


def test_a_lone_surrogate_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        FrameCodec(MIB).encode("a\ud800")


def test_pings_carry_what_a_control_frame_can() -> None:
    codec = FrameCodec(MIB)
    assert unmask(codec.encode_ping(b"x" * 125)) == [(PING, b"x" * 125)]
    with pytest.raises(ValueError):
        codec.encode_ping(b"x" * 126)


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999])
def test_close_codes_that_may_be_sent(code: int) -> None:
    assert unmask(FrameCodec(MIB).encode_close(code, "why")) == [(CLOSE, code.to_bytes(2, "big") + b"why")]


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 70000])
def test_close_codes_that_may_not_be_sent(code: int) -> None:
    codec = FrameCodec(MIB)
    with pytest.raises(ValueError):
        codec.encode_close(code, "")
    codec.feed(frame(CLOSE))
    assert codec.replies, "a refused close counted as sent"


@pytest.mark.parametrize(
    ("reason", "sent"), [("é" * 100, "é" * 61), ("x" * 200, "x" * 123), ("x" + "😀" * 40, "x" + "😀" * 30)]
)
def test_a_reason_is_cut_between_characters(reason: str, sent: str) -> None:
    assert unmask(FrameCodec(MIB).encode_close(1000, reason)) == [(CLOSE, b"\x03\xe8" + sent.encode())]


def test_many_threads_may_encode_at_once() -> None:
    codec = FrameCodec(MIB)
    results: list[bytes] = []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        results.extend([codec.encode("hello") for _ in range(500)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {tuple(unmask(result)) for result in results} == {((TEXT, b"hello"),)}
    assert len({result[2:6] for result in results}) > 3990, "masks repeat"


# Bounds. Work is counted in calls; copying, which calls do not show, would take hours if it were quadratic.


def calls_for(chunks: Sequence[bytes], limit: int = 64 * MIB) -> int:
    """Return how many calls, of Python and of C, a codec makes for a stream."""
    codec = FrameCodec(limit)
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


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_work_grows_with_the_number_of_fragments(payload: bytes) -> None:
    def stream(number: int) -> list[bytes]:
        return [frame(1) + frame(0, payload) * number + frame(0x80)]

    assert calls_for(stream(4000)) < 2.2 * calls_for(stream(2000))


def test_work_grows_with_the_number_of_chunks() -> None:
    def stream(number: int) -> list[bytes]:
        return [frame(BINARY, bytes(100 * number))[i * 100 : i * 100 + 100] for i in range(number + 1)]

    assert calls_for(stream(4000)) < 2.2 * calls_for(stream(2000))


@pytest.mark.slow
def test_a_frame_of_64_mib_in_small_chunks_is_copied_a_fixed_number_of_times() -> None:
    data = frame(BINARY, bytes(64 * MIB))
    codec = FrameCodec(64 * MIB)
    tracemalloc.start()
    try:
        messages = feed_all(codec, (data[i : i + 4096] for i in range(0, len(data), 4096)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(messages[0]) == 64 * MIB
    assert peak < 2.3 * 64 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 1000])
@pytest.mark.parametrize("size", [4096, 262144])
def test_64_mib_are_taken_out_of_their_chunks_once(number: int, size: int) -> None:
    data = in_frames(number, 2, bytes(64 * MIB))
    assert copied_from(FrameCodec(64 * MIB), data, size) < 1.01 * len(data)  # heads are looked at first


def test_60_000_fragments_make_one_message() -> None:
    codec = FrameCodec(64 * MIB)
    assert feed_all(codec, [frame(1) + frame(0, b"x") * 60_000 + frame(0x80)]) == ["x" * 60_000]
    assert codec.frames == 1  # for whoever looks for signs of life


def test_as_many_fragments_make_one_message_as_bring_64_bytes_each() -> None:
    codec = FrameCodec(64 * MIB)
    [message] = feed_all(codec, [frame(2) + frame(0, bytes(64)) * 200_000 + frame(0x80)])
    assert len(message) == 200_000 * 64


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("payload", [b"", b"x"])
def test_a_message_in_too_many_fragments_is_refused(first: int, payload: bytes) -> None:
    """Else they cost time without an end: 4 million of a byte make a message of 4 MiB, and those of none never any."""
    codec = FrameCodec(64 * MIB)
    chunk = frame(0, payload) * 1000
    assert codec.feed(frame(first)) == []
    for _ in range(70):
        assert codec.feed(chunk) == []
    assert isinstance(codec.end, MessageTooBig)
    assert codec.end.code == 1009
    assert str(codec.end) == "a message in too many fragments"


def test_the_next_message_has_as_many_fragments() -> None:
    codec = FrameCodec(64 * MIB)
    one = frame(1) + frame(0, b"x") * 40_000 + frame(0x80)
    assert feed_all(codec, [one * 3]) == ["x" * 40_000] * 3


@pytest.mark.parametrize(("first", "attack"), [(b"", frame(PING)), (b"", frame(PONG)), (frame(1), frame(0))])
def test_a_flood_of_frames_is_looked_at_bit_by_bit(first: bytes, attack: bytes) -> None:
    """A chunk full of pings would else keep a thread, which others share, for a tenth of a second."""
    codec = FrameCodec(MIB)
    messages, feeds = codec.feed(first + attack * 10_000 + frame(0x80 if first else TEXT)), 1
    while codec.rest:
        messages += codec.feed(codec.rest)
        feeds += 1
    assert messages == [""]
    assert feeds >= 10
    assert codec.end is None


def test_only_a_whole_message_and_a_control_frame_count() -> None:
    codec = FrameCodec(MIB)
    for data, count in ((frame(1, b"a"), 0), (frame(0, b"b"), 0), (frame(PING), 1), (frame(0x80, b"c"), 2)):
        codec.feed(data)
        assert codec.frames == count


@pytest.mark.parametrize("at", [65534, 65535, 65536])
def test_a_long_fragment_of_text_is_checked_piece_by_piece(at: int) -> None:
    """The check of all of it at once would take four times its bytes."""
    text = "x" * at + "\N{GRINNING FACE}" + "y" * 70_000
    codec = FrameCodec(MIB)
    assert codec.feed(frame(1, text.encode()) + frame(0x80)) == [text]
    codec.feed(frame(1, text.encode() + b"\xff"))
    assert codec.end is not None
    assert str(codec.end) == "text that is not valid UTF-8"


@pytest.mark.slow
@pytest.mark.parametrize("attack", [frame(0), frame(0, b"ab"), frame(PING, b"x")])
def test_an_endless_message_holds_no_more_than_its_limit(attack: bytes) -> None:
    codec = FrameCodec(100_000)
    codec.feed(frame(1))
    chunk = attack * 10_000
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(12):
            assert feed_all(codec, [chunk]) == []
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 250_000


def test_a_dripped_message_holds_no_more_than_its_bytes() -> None:
    codec = FrameCodec(MIB)
    codec.feed(frame(BINARY, bytes(200_000))[:10])
    tracemalloc.start()
    try:
        for _ in range(60_000):
            codec.feed(b"\0\0")
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 200_000


def test_a_huge_frame_is_refused_before_its_payload_is_kept() -> None:
    codec = FrameCodec(MIB)
    assert codec.feed(b"\x82\x7f" + (1 << 30).to_bytes(8, "big")) == []
    assert isinstance(codec.end, MessageTooBig)


# Looking without touching


def is_in_the_middle(codec: FrameCodec) -> bool:
    return bool(codec._cut or codec._opcode or codec.end)  # noqa: SLF001


@given(st.one_of(message_streams(), STREAMS).map(lambda s: s[0]) | damaged_streams(), st.booleans(), PLACES)
def test_the_only_text_is_what_feeding_brings(data: bytes, is_whole: bool, places: list[int]) -> None:
    codec = FrameCodec(200)
    for chunk in [data] if is_whole else cut(data, places):
        before = {name: getattr(codec, name) for name in FrameCodec.__slots__ if name != "_utf8"}
        text = codec.only_text(chunk)
        assert {name: getattr(codec, name) for name in before} == before
        is_under_way = is_in_the_middle(codec)
        messages = codec.feed(chunk)
        is_alone = not (is_in_the_middle(codec) or codec.replies or codec.pong or codec.rest)
        if text is not None:
            assert messages == [text]
            assert is_alone
            assert not is_under_way
        elif is_alone and not is_under_way and len(messages) == 1 and codec.frames == 1:
            # One frame: a binary one, or in fragments.
            assert isinstance(messages[0], bytes) or chunk[0] != 0x81
        if codec.rest or codec.end is not None:
            return
        codec.frames, codec.pong, codec.replies = 0, None, []


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 1000, 65535])
def test_a_text_alone_is_seen_at_once(size: int) -> None:
    codec = FrameCodec(1 << 17)
    assert codec.only_text(frame(TEXT, b"x" * size)) == "x" * size


@pytest.mark.parametrize(
    "chunk",
    [
        b"", b"\x81", b"\x81\x7e", b"\x81\x7e\x00", b"\x81\x7e\x00\x01x", b"\x81\x81\0\0\0\0x", b"\xc1\x01x",
        frame(TEXT, b"x" * 65536), frame(TEXT, b"\xff"), frame(TEXT, b"x")[:-1], frame(TEXT, b"x") + b"\x81",
        frame(BINARY, b"x"), frame(PING, b""), frame(CLOSE, b""), b"\x01\x01x", b"\x80\x01x",
    ],
)  # fmt: skip
def test_nothing_else_is_an_only_text(chunk: bytes) -> None:
    assert FrameCodec(1 << 17).only_text(chunk) is None


def test_a_text_above_the_limit_is_for_feed_to_refuse() -> None:
    assert FrameCodec(9).only_text(frame(TEXT, b"x" * 10)) is None
