"""Byte streams through the framings of tcp, tls and unix: as they come, lines, and messages behind their length."""

from itertools import pairwise
from random import Random

import connman
from connman.errors import ConnectionClosed, ConnectionLost, InvalidOption, MessageTooBig, ProtocolError
from connman.records import Message
from connman.transport.framing import LengthCodec, LineCodec, Lines, RawCodec
from tests.rigs.fuzz.script import Script, cut
from tests.rigs.fuzz.target import Target, expect
from tests.rigs.fuzz.targets.frames import check_error

_LIMITS = (1 << 20, 1, 5, 100, 300)
_DELIMITERS = (b"\n", b"\r\n", b"\0", b"ab", b"aab", b"\n\n", b"\r")
# Every kind of text encoding: of one byte, of many, with states, with marks, and those that are none for the wire.
_ENCODINGS = (
    None, None, "utf-8", "utf-16", "utf-16-le", "utf-32", "ascii", "latin-1", "cp1252", "utf-7", "utf-8-sig", "shift_jis",
    "iso2022_jp", "hz", "gb18030", "big5hkscs", "euc_kr", "idna", "punycode", "raw_unicode_escape", "cp037", "mac_roman",
)  # fmt: skip
# What is written in these can be read again.
_FAITHFUL = (None, "utf-8", "utf-16", "utf-16-le", "utf-32", "ascii", "latin-1", "cp1252", "gb18030")

_Codec = RawCodec | LineCodec | LengthCodec


def check(case: bytes) -> None:
    """Read a stream whole and in pieces; or write messages and read them again."""
    script = Script(case)
    kind, is_round_trip, seed, limit = (
        script.byte(),
        script.byte() < 64,
        script.byte(),
        script.choose(_LIMITS),
    )
    if kind < 16:
        _check_raw(script.rest(), seed)
    elif kind < 160:
        _check_lines(script, limit, seed, is_round_trip)
    else:
        _check_lengths(script, limit, seed, is_round_trip)


def _read(codec: _Codec, chunks: list[bytes]) -> tuple[list[Message], str]:
    messages = [message for chunk in chunks for message in codec.feed(chunk)]
    end, eof = codec.end, codec.eof()
    expect(isinstance(end, ProtocolError | None), "no end that is documented", end)
    expect(
        isinstance(eof, ConnectionClosed | ConnectionLost) if end is None else eof is end,
        "a wrong end of file",
    )
    if end is not None:
        expect(codec.feed(b"\n\n\0\0") == [], "a message behind the end")
        check_error(end)
    # A wrong text and a long line tell of different things: both are told of, not only that it has ended.
    return messages, f"{type(eof).__name__} {eof}"


def _check_raw(stream: bytes, seed: int) -> None:
    chunks = cut(stream, seed)
    messages, end = _read(RawCodec(1), chunks)
    expect(
        messages == chunks and end.startswith("ConnectionClosed"), "not the bytes as they came", messages, end
    )


def _check_lines(script: Script, limit: int, seed: int, is_round_trip: bool) -> None:
    delimiter, encoding = script.choose(_DELIMITERS), script.choose(_ENCODINGS)
    framing, rest = Lines(delimiter, encoding), script.rest()
    if is_round_trip:
        _check_written_lines(framing, rest, seed)
        return
    whole = _read(framing.codec(limit), [rest])
    pieces = _read(framing.codec(limit), cut(rest, seed))
    expect(whole == pieces, "a split makes a difference", whole, pieces)
    expected: list[Message] = []
    *lines, left = rest.split(delimiter)
    for line in lines:
        text = line.removesuffix(b"\r") if delimiter == b"\n" else line
        if len(text) > limit:
            expect(whole == (expected, _too_big(limit)), "a long line passes", whole, expected)
            return
        try:
            expected.append(text if encoding is None else text.decode(encoding))
        except UnicodeError:
            expect(
                whole[0] == expected and whole[1].startswith("ProtocolError"), "an invalid line passes", whole
            )
            return
    slack = len(delimiter) - 1 + (delimiter == b"\n")
    if len(left) > limit + slack:
        end = _too_big(limit)
    else:
        end = (
            "ConnectionLost the stream ended in the middle of a message"
            if left
            else "ConnectionClosed closed"
        )
    expect(whole == (expected, end), "other lines", whole, (expected, end))


def _too_big(limit: int) -> str:
    return f"{MessageTooBig.__name__} a message of more than {limit} bytes"


def _check_written_lines(framing: Lines, data: bytes, seed: int) -> None:
    codec, sent, expected = framing.codec(1 << 20), b"", []
    for message in data.split(b"|"):
        told: Message = message
        if framing.encoding is not None:
            told = message.decode("latin-1")
        try:
            written = codec.encode(told)
        except ValueError:
            continue
        expect(written.endswith(framing.delimiter), "a line without its end", written)
        sent += written
        # A return before the line feed is taken for a part of it, as the documentation says.
        bare = told[:-1] if framing.delimiter == b"\n" and written[-2:-1] == b"\r" else told
        expected.append(bare)
    if framing.encoding in _FAITHFUL and not (framing.encoding or "").startswith("utf-16"):
        got = _read(framing.codec(1 << 20), cut(sent, seed))
        expect(got[0] == expected, "not what was sent", got, expected)


def _check_lengths(script: Script, limit: int, seed: int, is_round_trip: bool) -> None:
    size, order = 1 + script.below(8), script.choose(("big", "little"))
    framing, rest = connman.length_prefixed(size, order), script.rest()  # type: ignore[arg-type]
    if is_round_trip:
        messages = [piece for piece in rest.split(b"|") if len(piece) < 256]
        sent = b"".join(map(framing.codec(1 << 20).encode, messages))
        got = _read(framing.codec(1 << 20), cut(sent, seed))
        expect(got == (messages, "ConnectionClosed closed"), "not what was sent", got, messages)
        return
    whole = _read(framing.codec(limit), [rest])
    pieces = _read(framing.codec(limit), cut(rest, seed))
    expect(whole == pieces, "a split makes a difference", whole, pieces)
    expected, end, pos = [], "ConnectionClosed closed", 0
    while pos < len(rest):
        length = int.from_bytes(rest[pos : pos + size], order)  # type: ignore[arg-type]
        begin = pos + size
        if begin <= len(rest) and length > limit:
            end = _too_big(limit)
            break
        if begin + length > len(rest) or begin > len(rest):
            end = "ConnectionLost the stream ended in the middle of a message"
            break
        expected.append(rest[begin : begin + length])
        pos = begin + length
    expect(whole == (expected, end), "other messages", whole, (expected, end))


def check_framing_options(script: Script) -> None:
    """Make framings of any values: they work, or are an InvalidOption."""
    # Of a list: Python remembers every name that is asked for, for good.
    delimiter, encoding = script.piece(4), script.choose(_NAMES)
    try:
        codec = connman.lines(delimiter, encoding=encoding).codec(1000)
    except InvalidOption:
        return
    codec.feed(b"".join(a + b for a, b in pairwise([b"x", delimiter, b"\xff", delimiter])))


_NAMES = (
    "utf-8",
    "hex",
    "x\0",
    "idna",
    "",
    "rot13",
    "no such",
    "UTF 8",
    "\ud800",
    "undefined",
    "é",
    "utf-16",
    "unicode_escape",
)


def make(random: Random) -> bytes:
    head = random.randbytes(4)
    if head[0] < 160:
        head += random.randbytes(2)
        delimiter = _DELIMITERS[head[4] % len(_DELIMITERS)]
        parts = [random.choice(_PIECES) for _ in range(random.randrange(8))]
        glue = b"|" if head[1] < 64 else delimiter
        return head + glue.join(parts) + (glue if random.random() < 0.5 else b"")
    head += random.randbytes(2)
    size = 1 + head[4] % 8
    order = "big" if head[5] % 2 == 0 else "little"
    pieces = [random.choice(_PIECES) for _ in range(random.randrange(6))]
    if head[1] < 64:
        return head + b"|".join(pieces)
    return head + b"".join(len(piece).to_bytes(size, order) + piece for piece in pieces)  # type: ignore[arg-type]


_PIECES = (
    b"", b"a", b"ab", b"aa", b"x\r", b"\r", b"hello", "é".encode(), "€".encode("utf-16"), b"\xff", b"+AGE-", b"\x1b$B", b"xn--a",
    b"y" * 5, b"y" * 6, b"z" * 100, b"z" * 101, b"w" * 255, b"a\n", b"\0", b"~{", b"\x1b(B", b"-", b"\\u12",
)  # fmt: skip

STREAMS = Target(
    "streams", "byte streams: RawCodec, LineCodec, LengthCodec", 100_000, check, make,
    (*_DELIMITERS, *_PIECES, b"|"),
)  # fmt: skip
