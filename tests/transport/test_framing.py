"""Messages in byte streams: raw chunks, lines, length prefixes."""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.errors import ConnectionClosed, ConnectionLost, InvalidOption, MessageTooBig, ProtocolError
from connman.options import Framing
from connman.records import Message
from connman.transport.framing import RawCodec, length_prefixed, lines

MIB = 1 << 20
FRAMINGS: list[Framing] = [
    lines(),
    lines(b"\r\n"),
    lines(b"aab"),
    lines(b"\0"),
    length_prefixed(),
    length_prefixed(1, "little"),
    length_prefixed(8),
]


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *edges], [*edges, len(data)], strict=True)]


def outcome(framing: Framing, chunks: Iterable[bytes], limit: int = MIB) -> tuple[Any, ...]:
    codec = framing.codec(limit)
    messages = [message for chunk in chunks for message in codec.feed(chunk)]
    end = codec.eof()
    return messages, type(codec.end), str(codec.end), type(end), str(end), codec.frames


def carries(framing: Framing, message: bytes) -> bool:
    try:
        framing.codec(MIB).encode(message)
    except ValueError:
        return False
    return not (framing == lines() and message.endswith(b"\r"))  # indistinguishable from a "\r\n" line


MESSAGES = st.lists(
    st.one_of(st.binary(max_size=60), st.text("ab\r\n", max_size=9).map(str.encode)), max_size=8
)
PLACES = st.lists(st.integers(0, 1000), max_size=20)


@pytest.mark.parametrize("framing", FRAMINGS, ids=str)
@given(messages=MESSAGES, places=PLACES)
def test_any_split_gives_the_messages_back(
    framing: Framing, messages: list[bytes], places: list[int]
) -> None:
    messages = [message for message in messages if carries(framing, message)]
    codec = framing.codec(MIB)
    data = b"".join(codec.encode(message) for message in messages)
    expected = (messages, type(None), "None", ConnectionClosed, "closed", len(messages))
    assert outcome(framing, cut(data, places)) == expected


@pytest.mark.parametrize("framing", [*FRAMINGS, lines(encoding="utf-8")], ids=str)
@given(
    data=st.one_of(st.binary(max_size=200), st.text("ab\r\n\0", max_size=200).map(str.encode)), places=PLACES
)
def test_any_split_of_anything_gives_the_same_end(framing: Framing, data: bytes, places: list[int]) -> None:
    pieces, whole = outcome(framing, cut(data, places), 20), outcome(framing, [data], 20)
    assert pieces == whole


def test_lines_lose_their_delimiter_and_a_return_before_a_newline() -> None:
    assert lines().codec(9).feed(b"a\r\n\nb\r\r\n\rc\n") == [b"a", b"", b"b\r", b"\rc"]
    assert lines(b"\r\n").codec(9).feed(b"a\r\nb\nc\r\n") == [b"a", b"b\nc"]
    assert lines(b"\0").codec(9).feed(b"a\r\0") == [b"a\r"]


def test_lines_with_an_encoding_are_text() -> None:
    codec = lines(encoding="latin-1").codec(9)
    assert codec.encode("é") == b"\xe9\n"
    assert codec.feed(b"\xe9\r\n") == ["é"]
    assert lines().codec(9).encode("é") == b"\xc3\xa9\n"


def test_a_line_that_is_not_valid_ends_it_after_those_before() -> None:
    codec = lines(encoding="utf-8").codec(9)
    assert codec.feed(b"ok\n\xff\nlost\n") == ["ok"]
    assert isinstance(codec.end, ProtocolError)
    assert codec.end.code is None
    assert "utf-8" in str(codec.end)
    assert codec.feed(b"more\n") == []


@pytest.mark.parametrize(
    ("framing", "message"),
    [
        (lines(), b"a\nb"),
        (lines(), "a\nb"),
        (lines(b"aa"), b"xa"),  # "xaaa" would be cut after x
        (lines(encoding="ascii"), "é"),
        (lines(), "\ud800"),
        (length_prefixed(1), bytes(256)),
        (length_prefixed(), "\ud800"),
    ],
)
def test_what_cannot_be_carried_is_a_value_error(framing: Framing, message: Message) -> None:
    with pytest.raises(ValueError):
        framing.codec(MIB).encode(message)


@pytest.mark.parametrize(
    "codec", [RawCodec(9), lines().codec(9), length_prefixed().codec(9)], ids=["raw", "lines", "length"]
)
def test_what_every_codec_does(codec: RawCodec) -> None:
    assert codec.encode_ping(b"") is None
    assert codec.encode_close(1000, "bye") is None
    assert codec.encode(b"abc") == codec.encode("abc") == codec.encode(bytearray(b"abc"))  # type: ignore[arg-type]
    for wrong in (None, 5, ["a"]):
        with pytest.raises(TypeError):
            codec.encode(wrong)  # type: ignore[arg-type]
    assert isinstance(codec.eof(), ConnectionClosed)


def test_raw_chunks_are_messages_as_they_came() -> None:
    codec = RawCodec(1)
    assert codec.feed(b"abc") == [b"abc"]
    assert codec.feed(b"") == []
    assert (codec.frames, codec.end) == (1, None)
    end = codec.eof()
    assert isinstance(end, ConnectionClosed)
    assert end.code is None


@pytest.mark.parametrize(
    ("framing", "whole", "too_big"),
    [
        (lines(), b"12345\n12345\r\n", b"123456\n"),
        (lines(), b"12345\r\n", b"1234567"),
        (lines(b"--"), b"12345--", b"123456--"),
        (lines(b"--"), b"12345--", b"1234567"),
        (length_prefixed(2), b"\0\x0512345", b"\0\x06"),
        (length_prefixed(8), b"\0\0\0\0\0\0\0\x0512345", b"\xff" * 8),
    ],
)
def test_a_message_above_the_limit_is_refused(framing: Framing, whole: bytes, too_big: bytes) -> None:
    for chunks in ([whole + too_big], [bytes((b,)) for b in whole + too_big]):
        messages, end, *_ = outcome(framing, chunks, 5)
        assert messages
        assert {bytes(message) for message in messages} == {b"12345"}
        assert end is MessageTooBig


@pytest.mark.parametrize(
    ("framing", "data"), [(lines(), b"a\nb"), (length_prefixed(), b"\0\0"), (length_prefixed(), b"\0\0\0\2a")]
)
def test_an_end_of_file_in_a_message_is_a_loss_that_says_so(framing: Framing, data: bytes) -> None:
    codec = framing.codec(9)
    codec.feed(data)
    error = codec.eof()
    assert isinstance(error, ConnectionLost)
    assert "middle of a message" in str(error)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lines(b""),
        lambda: lines("\n"),  # type: ignore[arg-type]
        lambda: lines(encoding="no such"),
        lambda: lines(encoding="hex"),
        lambda: lines(encoding=""),
        lambda: lines(encoding=5),  # type: ignore[arg-type]
        lambda: length_prefixed(0),
        lambda: length_prefixed(9),
        lambda: length_prefixed(True),
        lambda: length_prefixed(4, "network"),  # type: ignore[arg-type]
    ],
)
def test_a_framing_that_cannot_work_is_refused_when_made(make: Callable[[], Framing]) -> None:
    with pytest.raises(InvalidOption):
        make()


def test_framings_are_values() -> None:
    assert lines() == lines(b"\n")
    assert hash(length_prefixed(2)) == hash(length_prefixed(2, "big"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        lines().delimiter = b"x"  # type: ignore[attr-defined]


@pytest.mark.parametrize("framing", [lines(), lines(b"\r\n"), length_prefixed()], ids=str)
def test_work_grows_with_the_number_of_chunks(framing: Framing) -> None:
    def calls_for(number: int) -> int:
        data = framing.codec(MIB).encode(bytes(100 * number))
        codec, calls = framing.codec(MIB), 0

        def count(_frame: object, event: str, _arg: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            messages = [m for i in range(0, len(data), 100) for m in codec.feed(data[i : i + 100])]
        finally:
            sys.setprofile(None)
        assert len(messages) == 1
        return calls

    assert calls_for(4000) < 2.2 * calls_for(2000)


@pytest.mark.parametrize(
    "framing",
    [*(pytest.param(each, marks=pytest.mark.slow) for each in (lines(), lines(b"\r\n"))), length_prefixed()],
    ids=str,
)
def test_a_long_message_in_small_chunks_is_copied_a_fixed_number_of_times(framing: Framing) -> None:
    # Quadratic copying or searching would be terabytes here: it would not end.
    data = framing.codec(64 * MIB).encode(bytes(64 * MIB))
    codec = framing.codec(64 * MIB)
    messages = [m for i in range(0, len(data), 4096) for m in codec.feed(data[i : i + 4096])]
    assert [len(message) for message in messages] == [64 * MIB]
