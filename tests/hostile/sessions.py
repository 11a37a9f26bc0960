"""Bad SockJS servers over HTTP: answers that are none, that never end or are too large, and lines that mean nothing."""

import zlib
from typing import Any

from connman.errors import (
    BadUpgrade,
    ConnectError,
    ConnectionLost,
    ConnmanError,
    MessageTooBig,
    ProtocolError,
    RequestRefused,
    Retry,
    SessionLost,
)
from tests.hostile.acts import (
    BODY_PATIENCE,
    MOST,
    Act,
    Bad,
    drip,
    flood,
    late,
    leave,
    nothing,
    reads_first,
    reset_now,
    says,
    says_dripping,
    says_endlessly,
)

STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
# The step of that name, told from what a row calls open.
_OPENING = "(open)"
_BOMB = zlib.compress(bytes(20_000_000))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def session(name: str, act: Act, text: str, **fields: Any) -> Bad:
    fields = {"error": BadUpgrade, "stage": "request", "scheme": "xhr-streaming+http", **fields}
    return Bad(name=f"session: {name}", act=act, text=text, **fields)


def answer(name: str, *lines: bytes, text: str = "valid header") -> Bad:
    head = b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""])
    return session(name, says(head + b"hello"), text)


def refused(status: int, retry: Retry, act: Act = leave, **fields: Any) -> Bad:
    head = f"HTTP/1.1 {status} No\r\nLocation: http://127.0.0.1:1/\r\n\r\n".encode()
    text = f"request refused with HTTP {status}"
    return session(f"{status}", says(head, act), text, error=RequestRefused, retry=retry, **fields)


def opening(name: str, data: bytes, text: str, act: Act = leave, **fields: Any) -> Bad:
    """Return a row for what comes in place of the opening frame."""
    return session(name, says(STREAM + data, act), text, **{"stage": _OPENING, **fields})


def line(name: str, data: bytes, text: str, error: type[ConnmanError] = ProtocolError) -> Bad:
    """Return a row for a line, once it is open and has said hello."""
    return session(name, says(_HELLO + chunk(data + b"\n")), text, error=error, stage="open")


_HELLO = STREAM + chunk(b"o\n") + chunk(b'a["hello"]\n')
_SLOW = {"scheme": "xhr-streaming+http"}

SESSIONS = [
    session("leaves", reads_first(leave), "closed the connection without an answer|reset", error=ConnectError),
    session("resets", reads_first(reset_now), "reset|without an answer", error=ConnectError),
    session("half a head", says(b"HTTP/1.1 200 OK\r\nContent-Le"), "the answer was cut short", error=ConnectError),
    session("garbage", says(bytes(range(256)) + b"\r\n\r\n"), "does not speak HTTP/1.1"),
    session("an endless line", says_endlessly(b"x" * 65536, b"HTTP/1.1 200 "), "a line of more than 8192 bytes"),
    session("endless headers", says_endlessly(b"X: x\r\n" * 1000, b"HTTP/1.1 200 OK\r\n"), "more than 128 headers"),
    session("continue, and continue, …", says_endlessly(b"HTTP/1.1 100 Continue\r\n\r\n" * 99), "more than 65536 bytes"),
    session("hints, and hints, …", says_endlessly(b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" * 99), "more than 65536 bytes"),
    answer("two lengths", b"Content-Length: 5", b"Content-Length: 6", text="Content-Length"),
    answer("a length below 0", b"Content-Length: -5", text="Content-Length"),
    answer("a length beside chunks", b"Content-Length: 5", b"Transfer-Encoding: chunked", text="Transfer-Encoding"),
    answer("an unknown coding", b"Transfer-Encoding: gzip, chunked", text="Transfer-Encoding"),
    answer("no header", b"hello"),
    answer("a folded header", b"A: b", b" c"),
    answer("a blank before the colon", b"Content-Length : 5"),
    session("a bomb", says(b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n" + _BOMB), "compressed"),
    refused(404, Retry.NEVER),
    refused(302, Retry.NEVER),
    refused(503, Retry.AGAIN, lambda guest: flood(guest, b"x" * 65536)),
    refused(500, Retry.AGAIN, lambda guest: drip(guest, b"x"), within=BODY_PATIENCE),
    late("session: never answers", nothing, "request", **_SLOW),
    late("session: drips its head", says_dripping(b"X: x\r\n", b"HTTP/1.1 200 OK\r\n"), "request", **_SLOW),
    late("session: never opens", says(STREAM, nothing), _OPENING, **_SLOW),
    late("session: drips an extension", says_dripping(b"x", STREAM + b"5;"), _OPENING, **_SLOW),
    late("session: beats for ever", says_endlessly(chunk(b"h\n" * 9000), STREAM), _OPENING, **_SLOW),
    opening("an endless extension", b"5;", "the answer was cut short", lambda guest: flood(guest, b"x" * 65536), error=ConnectError),
    opening("chunks that are none", b"hello\r\n", "the answer was cut short", error=ConnectError),
    opening("a page that wants a login", chunk(b"<html>Welcome to our airport</html>"), "begins with no SockJS frame"),
    opening("an endless beat", b"", "more than 65536 bytes", lambda guest: flood(guest, chunk(b"h" * 60_000))),
    opening("an end before it opens", chunk(b"h\n") + chunk(b""), "ended before the session was open"),
    opening("a message before it opens", chunk(b'a["x"]\no\n'), "begins with no SockJS frame"),
    opening("a host that is none", chunk(b'o{"hostname":"a b"}\n'), "opening frame cannot be read"),
    opening("an opening that is nested", chunk(b"o" + b"[" * 60_000 + b"\n"), "opening frame cannot be read"),
    line("a second opening", b"o", "begun another", SessionLost),
    line("no frame", b"x", "no SockJS frame"),
    line("numbers", b"a[1,2]", "anything but texts"),
    line("a message that is a list", b'm["x"]', "anything but texts"),
    line("nested", b"a" + b"[" * 1_000_000, "anything but texts"),
    line("text that is none", b'a["\xff"]', "no valid JSON"),
    line("halves of a character", rb'a["\ud83d","\ude00"]', "no valid JSON"),
    line("too many messages", b"a[" + b'"",' * 200_000 + b'""]', "too many messages"),
    line("too large a message", b'a["' + b"x" * (MOST + 1) + b'"]', "larger than", MessageTooBig),
    line("too large a message of large characters", b'a["\xf0\x9f\x98\x80' + b"x" * MOST + b'"]', "larger than", MessageTooBig),
    line("a close without a reason", b"c[1000]", "without a code and a reason"),
    line("a close with half a character", rb'c[1000,"\ud800"]', "without a code and a reason"),
    line("a close with a code of 4,000 digits", b"c[1" + b"0" * 4000 + b',""]', "without a code and a reason"),
    session("an endless frame", says(_HELLO, lambda guest: flood(guest, chunk(b"x" * 60_000))), "no SockJS frame|larger than", error=MessageTooBig, stage="open"),
    session("an end within a frame", says(_HELLO + chunk(b'a["x') + chunk(b"")), "within a frame", error=ConnectionLost, stage="open"),
    session("an end within a chunk", says(_HELLO + b"ff\r\nh\n"), "cut short", error=ConnectionLost, stage="open"),
    session("a reset", says(_HELLO + chunk(b"h\n")[:-2], reset_now), "cut short|reset", error=ConnectionLost, stage="open"),
]  # fmt: skip
"""Rows that websocket-client has no part in."""
