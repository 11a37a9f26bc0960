"""The HTTP upgrade of a WebSocket: what may enter the request, and what the answer has to say. Pure, no I/O."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from connman.endpoint import Endpoint
from connman.errors import InvalidOption, InvalidTarget
from connman.options import checked_headers
from connman.version import __version__

# What websockets and most servers allow; websocket-client itself has no bound.
_MOST_LINE = 8192
_MOST_HEADERS = 128
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3

_VISIBLE = re.compile(r"[!-~]+")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [\t -~\x80-\xff]*)?")
_HEADER_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_CHUNK_HEAD = re.compile(rb"([0-9A-Fa-f]{1,8})[^\r\n]*\r\n")


class BadAnswer(ValueError):
    """The peer's answer is no valid one. The text holds nothing the peer sent: that may be an echo of our secrets."""


@dataclass(frozen=True, slots=True)
class Request:
    """What we ask for. ``headers``: lines "name: value", without Host and those that the upgrade itself needs."""

    resource: str = field(repr=False)
    host: str
    headers: tuple[str, ...] = field(repr=False)
    subprotocols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of what the server answered; header names in lower case, repeated ones in the order they came."""

    version: str
    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)

    def values(self, name: str) -> list[str]:
        """Return the value of each header of that name.

        Threads: any.
        """
        return [value for key, value in self.headers if key == name]

    def joined(self) -> dict[str, str]:
        """Return the headers with the values of repeated ones joined by ", " (RFC 9110 5.3).

        Threads: any.
        """
        return {name: ", ".join(self.values(name)) for name, _ in self.headers}


def make_request(
    endpoint: Endpoint, headers: Sequence[tuple[str, str]], subprotocols: Sequence[str]
) -> Request:
    """Return the request for an endpoint, with our defaults where the user says nothing.

    Everything is checked here once more, whoever checked it before: no character may end a line of the request.

    Raises: InvalidTarget, InvalidOption.
    Threads: any; pure.
    """
    if not _VISIBLE.fullmatch(endpoint.resource) or not endpoint.resource.startswith("/"):
        raise InvalidTarget("the path or the query holds a character that no request may have")
    if not _VISIBLE.fullmatch(endpoint.authority):
        raise InvalidTarget("the host holds a character that no request may have")
    if not all(_TOKEN.fullmatch(name) for name in subprotocols):
        raise InvalidOption("a subprotocol is not a token (RFC 6455 4.1)")
    pairs = checked_headers(headers)
    given = {name.lower(): value for name, value in pairs}
    if "user-agent" not in given:
        pairs.append(("User-Agent", f"connman/{__version__}"))
    if endpoint.user is not None and "authorization" not in given:
        pairs.append(("Authorization", _basic(endpoint.user, endpoint.password or "")))
    lines = tuple(f"{name}: {value}" for name, value in pairs if name.lower() != "host")
    # An interface's name means nothing to the server (RFC 6874 3).
    host = given.get("host", re.sub(r"%[^\]]*\]", "]", endpoint.authority))
    return Request(endpoint.resource, host, lines, tuple(subprotocols))


class HeadReader:
    """Takes the head of an HTTP answer out of a byte stream, however it is cut, within limits.

    Threads: one.
    """

    def __init__(self) -> None:
        self.leftover = b""
        """What came behind the head, once `feed` has returned it."""
        self._buffer = bytearray()
        self._begin = 0  # of the line under way
        self._searched = 0
        self._status: tuple[str, int] | None = None
        self._headers: list[tuple[str, str]] = []

    def feed(self, chunk: bytes) -> Answer | None:
        """Take what arrived, b"" for the end of file; return the head once it is complete.

        Raises: BadAnswer as soon as it can be told.
        Threads: one.
        """
        if not chunk:
            within = "within its answer" if self._buffer else "without an answer"
            raise BadAnswer(f"the server closed the connection {within}")
        self._buffer += chunk
        if self._status is None and self._buffer[:5] != b"HTTP/"[: len(self._buffer)]:
            raise BadAnswer("the server does not speak HTTP/1.1")
        while (line := self._next_line()) is not None:
            if not line and self._status is not None:
                self.leftover = bytes(self._buffer[self._begin :])
                return Answer(*self._status, tuple(self._headers))
            self._take(line)
        return None

    def _next_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", self._searched)
        # A last byte that may be the first half of the line's end does not count as one of its own.
        length = (len(self._buffer) - self._buffer.endswith(b"\r") if end < 0 else end) - self._begin
        if length > _MOST_LINE:
            raise BadAnswer(f"a line of more than {_MOST_LINE} bytes in the answer")
        if end < 0:
            self._searched = max(self._begin, len(self._buffer) - 1)
            return None
        line = bytes(self._buffer[self._begin : end])
        self._begin = self._searched = end + 2
        return line

    def _take(self, line: bytes) -> None:
        if self._status is None:
            if (found := _STATUS_LINE.fullmatch(line)) is None:
                raise BadAnswer("the answer has no valid HTTP/1.1 status line")
            self._status = (f"1.{found[1].decode()}", int(found[2]))
            return
        if (found := _HEADER_LINE.fullmatch(line)) is None:
            raise BadAnswer("a line in the answer is no valid header")
        if len(self._headers) == _MOST_HEADERS:
            raise BadAnswer(f"more than {_MOST_HEADERS} headers in the answer")
        self._headers.append((found[1].decode().lower(), found[2].decode("latin-1")))


def check_accepted(answer: Answer, key: str, offered: Sequence[str]) -> str | None:
    """Check an answer with status 101 as RFC 6455 4.1 asks, and return the subprotocol it chose.

    But for its extensions, which ``extensions.agreed_deflate`` checks.

    A server that chooses none of those offered is refused, as browsers and websocket-client do.

    Raises: BadAnswer.
    Threads: any; pure.
    """
    if answer.version != "1.1":
        raise BadAnswer("the upgrade was answered with HTTP/1.0")
    if [value.lower() for value in answer.values("upgrade")] != ["websocket"]:
        raise BadAnswer("the answer lacks 'Upgrade: websocket'")
    tokens = ",".join(answer.values("connection")).split(",")
    if "upgrade" not in [token.strip(" \t").lower() for token in tokens]:
        raise BadAnswer("the answer lacks 'Connection: Upgrade'")
    digest = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    if answer.values("sec-websocket-accept") != [base64.b64encode(digest).decode()]:
        raise BadAnswer("the answer's Sec-WebSocket-Accept is missing, wrong or repeated")
    chosen = answer.values("sec-websocket-protocol")
    if len(chosen) > 1 or not set(chosen) <= set(offered):
        raise BadAnswer("the answer has a subprotocol that was not offered")
    if offered and not chosen:
        raise BadAnswer("the server chose none of the subprotocols offered")
    return chosen[0] if chosen else None


class ChunkedBody:
    """Takes the content out of a body in chunked coding (RFC 9112 7.1), however it is cut, as far as it makes sense.

    Threads: one.
    """

    def __init__(self) -> None:
        self.is_complete = False
        """Whether the last chunk has been seen; no trailer is waited for."""
        self._raw = b""
        self._begin = 0  # of the chunk under way
        self._content = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what arrived.

        Threads: one.
        """
        self._raw += data
        while not self.is_complete and (found := _CHUNK_HEAD.match(self._raw, self._begin)):
            size = int(found[1], 16)
            end = found.end() + size
            if end + 2 > len(self._raw) and size:
                return
            self._content += self._raw[found.end() : end]
            self._begin = end + 2
            self.is_complete = not size

    def content(self) -> bytes:
        """Return what has come so far, of a chunk that is cut as well.

        Threads: one.
        """
        found = None if self.is_complete else _CHUNK_HEAD.match(self._raw, self._begin)
        begun = self._raw[found.end() : found.end() + int(found[1], 16)] if found else b""
        return bytes(self._content) + begun


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
