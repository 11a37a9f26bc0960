"""SockJS: lines through its codec, and HTTP answers from the socket to their body. Any split gives the same."""

import json
import re
from random import Random
from typing import Any

from connman.clock import Deadline
from connman.errors import ConnectionClosed, ConnectionLost, MessageTooBig, ProtocolError, SessionLost
from connman.transport.http import HttpWire, Limits
from connman.transport.sockets import SocketGuard
from connman.transport.sockjs_frames import SockjsCodec
from connman.transport.upgrade import BadAnswer
from tests.rigs.fuzz.script import Script, cut
from tests.rigs.fuzz.target import Target, expect
from tests.rigs.fuzz.targets.frames import check_error
from tests.rigs.fuzz.wire import TAILS, StepClock, Wire

_LIMITS = (1 << 20, 1 << 20, 1, 5, 30, 300)
_SECRET = "S3CR3T-7f1e"
_ECHO = b"{S}"  # in an answer: our own secret

_End = type[Exception] | tuple[int, str] | None
_Read = tuple[list[str], _End]


def check_frames(case: bytes) -> None:
    """Read lines whole and in pieces, and beside the plainest reader there is."""
    script = Script(case)
    limit, seed = script.choose(_LIMITS), script.byte()
    stream = script.rest()
    whole, pieces = _read(limit, [stream]), _read(limit, cut(stream, seed))
    expect(whole == pieces, "a split makes a difference", whole, pieces)
    messages, end = whole
    expect(all(len(message.encode()) <= limit for message in messages), "a message above the limit", messages)
    plain, plain_end = _read_plainly(stream)
    if end is MessageTooBig:
        expect(messages == plain[: len(messages)], "another message", messages, plain)
        # It is told before what else may be wrong in the same frame is seen.
        is_too_big = plain_end is ProtocolError or any(len(message.encode()) > limit for message in plain)
        expect(is_too_big, "nothing is too big", plain, limit)
    else:
        expect((messages, end) == (plain, plain_end), "another outcome", whole, (plain, plain_end))


def _read(limit: int, chunks: list[bytes]) -> _Read:
    codec = SockjsCodec(limit)
    messages = [message for chunk in chunks for message in codec.feed(chunk)]
    error = codec.end
    if error is not None:
        check_error(error)
        expect(codec.feed(b'\na["x"]\n') == [], "a message behind the end")
    expect(isinstance(codec.eof(), ConnectionLost), "a wrong end of file")
    end: _End = (error.code or 0, error.reason) if isinstance(error, ConnectionClosed) else None
    return [str(message) for message in messages], end or (None if error is None else type(error))


def _read_plainly(stream: bytes) -> _Read:
    messages: list[str] = []
    *lines, _ = stream.split(b"\n")
    for line in lines:
        kind, rest = line[:1], line[1:]
        if kind in (b"a", b"m"):
            texts = _texts(kind, rest)
            if texts is None:
                return messages, ProtocolError
            messages += texts
        elif kind == b"c":
            return messages, _closed(rest) or ProtocolError
        elif kind == b"o":
            return messages, SessionLost
        elif line.strip(b"\r") and (kind != b"h" or line.strip(b"h\r")):
            return messages, ProtocolError
    return messages, None


def _texts(kind: bytes, rest: bytes) -> list[str] | None:
    texts = _json(rest)
    texts = [texts] if kind == b"m" and isinstance(texts, str) else texts if kind == b"a" else None
    # JSON may begin with blanks; a frame does not.
    is_plain = isinstance(texts, list) and rest[:1] == (b"[" if kind == b"a" else b'"')
    return texts if is_plain and all(isinstance(text, str) and _is_whole(text) for text in texts) else None


def _closed(rest: bytes) -> tuple[int, str] | None:
    told = _json(rest)
    if not isinstance(told, list) or len(told) != 2:
        return None
    code, reason = told
    is_close = type(code) is int and 0 <= code < 65536 and isinstance(reason, str) and _is_whole(reason)
    return (code, reason) if is_close else None


def _json(text: bytes) -> Any:
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError):
        return None


def _is_whole(text: str) -> bool:
    return not any(0xD800 <= ord(character) < 0xE000 for character in text)


def check_answer(case: bytes) -> None:
    """Answer a request with anything, whole and in pieces."""
    script = Script(case)
    tail, seed = script.choose(TAILS), script.byte()
    answer = script.rest().replace(_ECHO, _SECRET.encode())
    whole, pieces = _asked([answer], tail), _asked(cut(answer, seed), tail)
    expect(whole == pieces, "a split makes a difference", whole, pieces)
    if whole[0] == "answered":
        _check_head(answer, *whole[1:])


def _asked(chunks: list[bytes], tail: str) -> tuple[Any, ...]:
    clock = StepClock()
    with Wire(clock, [chunk for chunk in chunks if chunk], tail) as wire:
        limits = Limits(Deadline.after(clock, 10.0), 5.0)
        body, status = b"", 0
        try:
            answer = HttpWire(SocketGuard(wire), clock).ask(f"/?{_SECRET}", {"Host": "h"}, (), 0, limits)
            status = answer.status
            while data := answer.read():
                body += data
        except (OSError, BadAnswer) as error:
            expect(_SECRET not in f"{error} {error!r}", "an error that shows a secret", error)
            expect(error.__cause__ is None, "a cause that shows the request", error.__cause__)
            return type(error).__name__, str(error), status, body
        return "answered", status, body


def _check_head(answer: bytes, status: int, body: bytes) -> None:
    """Read an answer that was accepted once more, in the plainest way."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    while re.match(rb"HTTP/1\.[01] 1(?!01)", head):
        head, _, rest = rest.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    expect(re.match(rb"HTTP/1\.[01] %d( |$)" % status, first) is not None, "another status", first, status)
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    expect(all(name.strip() == name != b"" for name, _ in headers), "no header", headers)
    lengths = {int(value) for name, value in headers if name == b"content-length"}
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    expect(len(lengths) + len(codings) <= 1 and codings in ([], [b"chunked"]), "in doubt", lengths, codings)
    if 100 <= status < 200 or status in (204, 304):
        expect(body == b"", "a body where there is none", body)
    elif lengths:
        expect(body == rest[: lengths.pop()], "another body", body, rest)
    elif not codings:
        expect(body == rest, "another body", body, rest)


# Making cases

_LINES = (
    b"o", b"h", b"hhhh", b'a["x","y"]', b'm"z"', b'c[3000,"Go away!"]', b"a[]", b"", b'a["\\u00e9\xc3\xa9\\n\\"\\\\"]',
    b'a["\\ud83d\\ude00\xf0\x9f\x98\x80"]', b'o{"hostname":"b.example"}', b'a[ "x" , "y" ] \r', b'a["\\ud83d","\\ude00"]',
    b'c[1000,"\\ud800"]', b"c[1" + b"0" * 5000 + b',""]', b"c" + b"[" * 3000, b"a" + b"[" * 3000, b"a[null]", b"a{}", b'm["x"]',
    b'a["x",]', b'a["\xff"]', b'a["\xed\xa0\x80"]', b'a["\\q"]', b"c[true,1]", b'a["' + b"x" * 400 + b'"]', b'a["' + b"\\u0041" * 60 + b'"]',
)  # fmt: skip
_HEADERS = (
    b"Content-Length: 5", b"Content-Length: 6", b"Content-Length: -5", b"Content-Length: 5, 5", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked", b"Content-Encoding: gzip", b"Connection: close", b"Connection: keep-alive", b"Location: http://x/{S}",
    b"Set-Cookie: a={S}", b"Keep-Alive: timeout=5", b"X: " + b"y" * 300, b"{S}", b" folded {S}", b"A : b", b"A: \0", b"A: b\rC: d", b":",
)  # fmt: skip
_STATUSES = (
    b"HTTP/1.1 200 OK", b"HTTP/1.1 204 x", b"HTTP/1.1 404 {S}", b"HTTP/1.0 200 OK", b"HTTP/1.1 103 Early", b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 101 x", b"HTTP/1.1 304 x", b"HTTP/1.1 99", b"HTTP/2 200", b"SSH-2.0", b"http/1.1 200 OK",
)  # fmt: skip
_BODIES = (
    b"", b"hello", b"hello!", b"5\r\nhello\r\n0\r\n\r\n", b"5;x=y\r\nhello\r\n3\r\nyou\r\n0\r\nT: t\r\n\r\n", b"ff\r\nhello", b"-5\r\nhello",
    b"0x5\r\nhello\r\n0\r\n\r\n", b"fffffffffffffffff\r\nx", b"\r\n", b"5\r\nhelloXX0\r\n\r\n", b"x" * 9000,
)  # fmt: skip


def make_frames(random: Random) -> bytes:
    lines = random.choices(_LINES[:10] if random.random() < 0.6 else _LINES, k=random.randrange(1, 6))
    return random.randbytes(2) + b"\n".join([*lines, b""])


def make_answer(random: Random) -> bytes:
    parts = [random.randbytes(2)]
    while random.random() < 0.2:
        parts.append(random.choice(_STATUSES[4:6]) + b"\r\nLink: x\r\n\r\n")
    lines = [random.choice(_STATUSES[:4] if random.random() < 0.7 else _STATUSES)]
    lines += random.choices(_HEADERS[:5] if random.random() < 0.6 else _HEADERS, k=random.randrange(3))
    return b"".join([*parts, b"\r\n".join([*lines, b"", random.choice(_BODIES)])])


FRAMES = Target(
    "sockjs", "lines of SockJS", 200_000, check_frames, make_frames,
    (*_LINES[:10], b"\n", b"\r", b'"', b"\\", b"[", b"]", b",", b"\\ud800", b"\\u", b"\xff", b"\xf0\x9f\x98\x80", b"1e999", b"NaN"),
)  # fmt: skip
ANSWER = Target(
    "http", "answers to the requests of the HTTP transports", 100_000, check_answer, make_answer,
    (*_HEADERS, *_STATUSES, *_BODIES[:6], b"\r\n", b"\r", b"\n", _ECHO, b": ", b";", b"0\r\n\r\n"),
)  # fmt: skip
