"""Bad frames once it is open: violations, lies about sizes, invalid text, stalls, drips, and ends without a word."""

import zlib
from typing import Any

from connman.errors import ConnectionClosed, ConnectionLost, MessageTooBig, PingTimeout, ProtocolError, Retry
from tests.hostile.acts import (
    LINGER,
    MOST,
    PING,
    Act,
    Bad,
    drip,
    flood,
    leave,
    listen,
    opened,
    reset_now,
    violation,
)
from tests.scripted import Guest
from tests.servers import BINARY, CLOSE, PONG, TEXT, server_frame
from tests.servers import PING as PING_FRAME

CONTROL = "a control frame that is fragmented or longer than 125 bytes"
RESERVED = "reserved bits"
LENGTH = "not in its shortest form, or negative"
TOO_BIG = f"a message of more than {MOST} bytes"
UTF8 = "not valid UTF-8"
CODE = "a close frame without a valid code"


def part(payload: bytes, opcode: int = 0, *, fin: bool = False, rsv: int = 0) -> bytes:
    """Return a fragment, by default one in the middle of a message."""
    return server_frame(opcode, payload, fin=fin, rsv=rsv)


def masked(opcode: int, key: bytes) -> bytes:
    payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(b"hello"))
    return bytes((0x80 | opcode, 0x85)) + key + payload


def head(opcode: int, size: int, *, fin: bool = True) -> bytes:
    """Return the header of a frame with a length of 64 bits, whatever that is."""
    return bytes((fin << 7 | opcode, 127)) + size.to_bytes(8)


FORBIDDEN = [
    violation("a masked text", masked(TEXT, b"\x12\x34\x56\x78"), "a masked frame"),
    violation("a text masked with zeros", masked(TEXT, bytes(4)), "a masked frame"),
    violation("a masked ping", masked(PING_FRAME, b"\x12\x34\x56\x78"), "a masked frame"),
    violation("a masked close", bytes((0x88, 0x82)) + bytes(4) + b"\x03\xe8", "a masked frame"),
    *(violation(f"a text with reserved bit {n}", part(b"x", TEXT, fin=True, rsv=4 >> (n - 1)), RESERVED) for n in (1, 2, 3)),
    violation("a ping with a reserved bit", part(b"x", PING_FRAME, fin=True, rsv=4), RESERVED),
    violation("a continuation with a reserved bit", part(b"x", TEXT) + part(b"x", rsv=4), RESERVED),
    *(violation(f"opcode {n:#x}", server_frame(n, b"x"), f"unknown opcode {n:#x}") for n in (3, 7, 11, 15)),
    violation("a page behind the upgrade", b"HTTP/1.1 200 OK\r\n\r\n", RESERVED),
    violation("zeros", bytes(1000), "a continuation of nothing"),
    violation("a fragmented ping", server_frame(PING_FRAME, b"x", fin=False), CONTROL),
    violation("a fragmented pong", server_frame(PONG, b"x", fin=False), CONTROL),
    violation("a fragmented close", server_frame(CLOSE, b"\x03\xe8", fin=False), CONTROL),
    violation("a ping of 126 bytes", server_frame(PING_FRAME, b"x" * 126), CONTROL),
    violation("a pong of 70,000 bytes", server_frame(PONG, b"x" * 70_000), CONTROL),
    violation("a close of 126 bytes", server_frame(CLOSE, b"\x03\xe8" + b"x" * 124), CONTROL),
    violation("a continuation of nothing", part(b"x"), "a continuation of nothing"),
    violation("an end of nothing", part(b"x", fin=True), "a continuation of nothing"),
    violation("a text within a fragmented text", part(b"x", TEXT) + server_frame(TEXT, b"y"), "a new message within"),
    violation("a binary within a fragmented text", part(b"x", TEXT) + part(b"y", BINARY), "a new message within"),
]  # fmt: skip


def too_big(name: str, data: bytes, text: str = TOO_BIG, **fields: Any) -> Bad:
    return violation(name, data, text, 1009, **{"error": MessageTooBig, **fields})


def flooding(data: bytes, first: bytes = b"") -> Act:
    return opened(first, lambda guest: flood(guest, data))


SIZES = [
    violation("a 16-bit length for 5 bytes", b"\x82\x7e\x00\x05hello", LENGTH),
    violation("a 64-bit length for 5 bytes", head(BINARY, 5) + b"hello", LENGTH),
    violation("a 64-bit length for 60,000 bytes", head(BINARY, 60_000), LENGTH),
    violation("a length with the top bit set", head(BINARY, 1 << 63), LENGTH),
    violation("a length of -1", head(BINARY, (1 << 64) - 1), LENGTH),
    too_big("a frame of 4 exabytes", head(BINARY, 1 << 62)),
    too_big("a frame of 1 GiB", head(TEXT, 1 << 30)),
    too_big("a frame of a byte too many", head(BINARY, MOST + 1)),
    too_big("a last fragment that is too much", part(b"x" * MOST, BINARY) + part(b"x", fin=True)),
    too_big("a fragment that claims too much", part(b"x", BINARY) + head(0, MOST, fin=False)),
    too_big("endless fragments", b"", act=flooding(part(b"x" * 60_000), part(b"", BINARY)), within=LINGER),
    too_big("endless tiny fragments", b"", "too many fragments", act=flooding(part(b"x") * 20_000, part(b"x", TEXT)), within=1.0),
    too_big("endless empty fragments", b"", "too many fragments", act=flooding(part(b"") * 20_000, part(b"", BINARY)), within=1.0),
    too_big("an endless frame", b"", act=flooding(b"x" * 65536, head(BINARY, (1 << 63) - 1)), within=LINGER),
]  # fmt: skip


def not_text(name: str, data: bytes) -> Bad:
    return violation(name, data, UTF8, 1007)


SMILE = "\N{GRINNING FACE}".encode()

TEXTS = [
    not_text("a byte that no text has", server_frame(TEXT, b"ab\xffcd")),
    not_text("a character in too many bytes", server_frame(TEXT, b"\xc0\xaf")),
    not_text("half a surrogate pair", server_frame(TEXT, b"\xed\xa0\x80")),
    not_text("a character beyond the last one", server_frame(TEXT, b"\xf4\x90\x80\x80")),
    not_text("a continuation byte alone", server_frame(TEXT, b"\x80")),
    not_text("a character cut at the end", server_frame(TEXT, b"abc" + SMILE[:3])),
    not_text("a long text, bad at its end", server_frame(TEXT, b"x" * 300_000 + b"\xff")),
    *(not_text(f"a character cut after {n} bytes by the last fragment", part(SMILE[:n], TEXT) + part(b"", fin=True)) for n in (1, 2, 3)),
    *(not_text(f"another character after {n} bytes of one", part(SMILE[:n], TEXT) + part(b"x")) for n in (1, 2, 3)),
    not_text("a bad byte in a fragment, and silence", part(b"abc\xff", TEXT)),
]  # fmt: skip


def closes(name: str, payload: bytes, code: int = 1002, text: str = CODE) -> Bad:
    return violation(name, server_frame(CLOSE, payload), text, code)


def closed(name: str, data: bytes, act: Act, **fields: Any) -> Bad:
    """Return a row for a close that is valid, whatever the server does behind it."""
    return Bad(
        name=name,
        act=opened(data, act),
        error=ConnectionClosed,
        text="closed with code 1000",
        stage="open",
        **{"code": 1000, **fields},
    )


GOODBYE = server_frame(CLOSE, b"\x03\xe8")

CLOSES = [
    closes("a close of one byte", b"\x03"),
    *(closes(f"close code {n}", n.to_bytes(2)) for n in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)),
    closes("a close reason that is no text", b"\x03\xe8ab\xff", 1007, UTF8),
    closes("a close reason that is cut", b"\x03\xe8ab" + SMILE[:2], 1007, UTF8),
    closed("data behind the close", GOODBYE + server_frame(TEXT, b"more") + server_frame(PING_FRAME), listen),
    closed("a violation behind the close", GOODBYE + b"\xff" * 100, listen),
    # What is not read resets the connection, and our answer is lost: nobody waits for a peer that goes on after its goodbye.
    closed("a flood behind the close", GOODBYE, lambda guest: flood(guest, server_frame(TEXT, b"more") * 1000), code=None),
    closed("another close behind the close", GOODBYE + server_frame(CLOSE, b"\x03\xf3"), listen),
    Bad(
        name="a close that says: never come back",
        act=opened(server_frame(CLOSE, (4001).to_bytes(2) + b"no")),
        error=ConnectionClosed,
        text="closed with code 4001",
        stage="open",
        retry=Retry.NEVER,
        code=4001,
    ),
]  # fmt: skip


def deflated(data: bytes, times: int = 1) -> bytes:
    """Compress `times` the data. Each time refers to itself alone, so that only one has to be made."""
    deflater = zlib.compressobj(9, wbits=-15)
    return ((deflater.compress(data) + deflater.flush(zlib.Z_FULL_FLUSH)) * times)[:-4]


def packed(name: str, payload: bytes, text: str, code: int = 1007, **fields: Any) -> Bad:
    """Return a row for a compressed text."""
    act = opened(server_frame(TEXT, payload, rsv=4), extension="permessage-deflate")
    return violation(name, b"", text, code, **{"act": act, "options": {"compression": "deflate"}, **fields})


INVALID = "compressed data that is not valid"
BOMB = deflated(bytes(1 << 20), times=64)  # 64 KiB

PACKED = [
    packed("compressed garbage", b"\xff" * 100, INVALID),
    packed("a compressed block of a kind that is not", b"\x07\x00", INVALID),
    packed("a compressed reference to what never was", b"\x02\x03\x21\x00\x00", INVALID),
    packed("compressed text that is no text", deflated(b"\xff\xfe"), UTF8),
    packed("compressed data that ends and ends", b"\x03\x00" * 100, "ends too often"),
    packed("a bomb", BOMB, TOO_BIG, 1009, error=MessageTooBig),
    packed(
        "a bomb in fragments",
        b"",
        TOO_BIG,
        1009,
        error=MessageTooBig,
        act=opened(
            part(BOMB[:1000], TEXT, rsv=4) + b"".join(part(BOMB[n : n + 1000]) for n in range(1000, len(BOMB), 1000)),
            extension="permessage-deflate",
        ),
    ),
    packed(
        "endless empty compressed fragments",
        b"",
        "too many fragments",
        1009,
        error=MessageTooBig,
        within=1.0,
        act=opened(part(b"", TEXT, rsv=4), lambda guest: flood(guest, part(b"") * 20_000), extension="permessage-deflate"),
    ),
    packed("a compressed ping", b"", RESERVED, 1002, act=opened(part(b"x", PING_FRAME, fin=True, rsv=4), extension="permessage-deflate")),
    packed(
        "a continuation that says it is compressed",
        b"",
        RESERVED,
        1002,
        act=opened(part(deflated(b"x"), TEXT, rsv=4) + part(b"x", rsv=4), extension="permessage-deflate"),
    ),
]  # fmt: skip


def lost(name: str, data: bytes, text: str, act: Act = leave) -> Bad:
    return Bad(name=name, act=opened(data, act), error=ConnectionLost, text=text, stage="open")


WITHIN = "in the middle of a frame"
WITHIN_MESSAGE = "in the middle of a fragmented message"

CUTS = [
    lost("ends without a close", b"", "without a close frame"),
    lost("ends within a header", b"\x81", WITHIN),
    lost("ends within a length", b"\x81\x7e\x10", WITHIN),
    lost("ends within a payload", b"\x81\x0ahalf", WITHIN),
    lost("ends within a fragmented message", part(b"x", TEXT), WITHIN_MESSAGE),
    lost("resets without a close", b"", "reset", reset_now),
    lost("resets within a payload", b"\x81\x0ahalf", "reset", reset_now),
]


def silent(name: str, data: bytes, act: Act = listen) -> Bad:
    """Return a row for a peer whose life only the keepalive can judge."""
    return Bad(
        name=name,
        act=opened(data, act),
        error=PingTimeout,
        text="no sign of life",
        stage="open",
        within=PING + PING,
        options={"ping_interval": PING, "ping_timeout": PING},
    )


def dripping(data: bytes) -> Act:
    """Make an act that sends one byte after the other, without an end and without an answer."""
    return lambda guest: drip(guest, data)


def dripping_fragments(guest: Guest) -> bytes:
    """Send whole frames, each with one more byte of a message that never ends."""
    return drip(guest, part(b"x"))


SILENT = [
    silent("never says anything again", b""),
    silent("stalls within a header", b"\x81"),
    silent("stalls within a length", b"\x81\x7f\x00\x00"),
    silent("stalls within a payload", b"\x81\x7e\x10\x00" + b"x" * 100),
    silent("stalls within a fragmented message", part(b"x" * 100, TEXT)),
    silent("drips a payload", head(BINARY, MOST), dripping(b"x")),
    silent("drips a frame from its first byte", b"", dripping(b"\x81\x7e\xff\xff" + bytes(50_000))),
    silent("drips fragments", part(b"x", TEXT), dripping_fragments),
]

STREAMS = [*FORBIDDEN, *SIZES, *TEXTS, *CLOSES, *PACKED, *CUTS, *SILENT]
assert all(bad.error is not ProtocolError or bad.code for bad in STREAMS)
