"""HTTP/1.1 over our own sockets: urllib3 speaks, we dial, set the limits and the deadlines, and may end it any time."""

from __future__ import annotations

import contextlib
import http.client
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Never imported before somebody dials over HTTP: see `openers.prepare`.
import urllib3
import urllib3.connection

from connman.clock import Clock, Deadline
from connman.transport.http_head import read_head
from connman.transport.sockets import DialSocket, SocketGuard, is_readable
from connman.transport.upgrade import BadAnswer

_CHUNK = 65536
# Of a request's body, at once: each of these has to be taken within the time for sending.
_PIECE = 16384
_MOST_BODY = 65536  # of a refusal
# A server may give up an idle connection any time. One that it says nothing about is not used again after so long, and
# none is kept for longer than that.
_IDLE = 2.0
_LONGEST_IDLE = 15.0
_KEEP_ALIVE = re.compile(r"timeout\s*=\s*([0-9]{1,6})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a request may take."""

    by: Deadline
    """All of it, and what is read of the answer."""
    patience: float
    """Seconds for each piece of its body to be taken."""
    answer_within: float | None = None
    """Seconds for the head of the answer, once all of the request is sent; None for no limit of its own."""


class _Raw(io.RawIOBase):
    """The reading side of a socket as a file."""

    def __init__(self, wire: HttpWire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._wire.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Connection(urllib3.connection.HTTPConnection):
    """One request on a socket of ours.

    What urllib3 may log or show of a request has no path: that holds the session and the query.
    """

    debuglevel = 0  # whatever http.client's is: it prints whole requests

    def __init__(self, wire: HttpWire, resource: str) -> None:
        super().__init__("connman.invalid")
        self.sock: Any = wire
        self._resource = resource

    def putrequest(
        self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False
    ) -> None:
        super().putrequest(
            method, self._resource, skip_host=skip_host, skip_accept_encoding=skip_accept_encoding
        )


class HttpWire:
    """One connection to an HTTP server: one request at a time, no redirects, no retries, no cookies.

    Threads: one at a time, but for `shutdown`.
    """

    def __init__(self, guard: SocketGuard, clock: Clock) -> None:
        self.guard = guard
        self.deadline = Deadline(clock, None)
        """Until when what is asked for next must be here."""
        self._clock = clock
        # What was read and not handed on yet: a head that was looked at, and what came behind it.
        self._ahead = b""
        self._is_head = False
        self._is_reusable = True
        self._use_before = 0.0
        self._is_retired = False

    def retire(self) -> None:
        """Have it not used again after the request under way."""
        self._is_retired = True

    def ask(
        self,
        resource: str,
        headers: Mapping[str, str],
        body: Iterable[bytes],
        size: int,
        limits: Limits,
        *,
        method: str = "POST",
    ) -> HttpAnswer:
        """Send a request with ``body``, of ``size`` bytes, and return the head of the answer.

        Its body is still to be read.

        What is read of that has to be here by ``limits.by``.

        Raises: OSError, TimeoutError among them; BadAnswer.
        """
        connection = _Connection(self, resource)
        self._is_reusable = False  # until the whole answer is here
        self.deadline = limits.by.sooner(limits.patience)
        pieces = self._in_time(body, limits)
        is_early = True
        with _translated():
            # A server that refuses a request need not read all of it: its answer may be here.
            with contextlib.suppress(BrokenPipeError):
                connection.request(
                    method,
                    "/",
                    body=pieces,
                    headers={**headers, "Content-Length": str(size)},
                    preload_content=False,
                    decode_content=False,
                )
                is_early = False
            self.deadline = limits.by.sooner(limits.answer_within)
            self._ahead, self._is_head = b"", True
            response = connection.getresponse()
        self.deadline = limits.by
        return HttpAnswer(self, response, is_last=connection.sock is None or is_early, is_early=is_early)

    def _in_time(self, body: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
        for part in body:
            for begin in range(0, len(part), _PIECE):
                self.deadline = limits.by.sooner(limits.patience)
                yield part[begin : begin + _PIECE]

    def finished(self, headers: Mapping[str, str], *, is_last: bool) -> None:
        """Note that a whole answer is here, and whether the connection may be used again."""
        self._is_reusable = not is_last
        told = _KEEP_ALIVE.search(headers.get("keep-alive", ""))
        # A second less than it says: our request takes its time as well.
        idle = _IDLE if told is None else min(int(told[1]) - 1.0, _LONGEST_IDLE)
        self._use_before = self._clock.now() + idle

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent: the server has closed it neither openly nor, by its age, perhaps."""
        is_fresh = self._is_reusable and not self._is_retired and self._clock.now() < self._use_before
        return is_fresh and not self.guard.is_shut and not is_readable(self.guard.sock)

    @property
    def idle_for(self) -> float:
        """For how many seconds more it may be used again."""
        return max(0.0, self._use_before - self._clock.now()) if self._is_reusable else 0.0

    def shutdown(self) -> None:
        """Wake whoever waits in it; it is of no more use. Idempotent.

        Threads: any; never blocks.
        """
        self.guard.shutdown()

    # What urllib3 calls.

    def recv(self, size: int) -> bytes:
        """Return up to ``size`` bytes, b"" at the end of file.

        Raises: OSError; BadAnswer when the head of the answer is none, or too long.
        """
        sock = DialSocket(self.guard, self.deadline)
        if self._is_head:
            self._is_head = False
            self._ahead = read_head(sock.recv)
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return sock.recv(size)

    def sendall(self, data: bytes) -> None:
        """Send all of ``data``.

        Raises: OSError.
        """
        DialSocket(self.guard, self.deadline).sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return the answer as a file."""
        return io.BufferedReader(_Raw(self))

    def settimeout(self, seconds: object) -> None:
        """Ignore it: the deadline rules."""

    def close(self) -> None:
        """Ignore it: whoever has dialled closes."""


class HttpAnswer:
    """An answer: its head, and its body as it comes.

    Threads: one.
    """

    def __init__(
        self, wire: HttpWire, response: urllib3.HTTPResponse, *, is_last: bool, is_early: bool
    ) -> None:
        self._wire = wire
        self._response = response
        self._is_last = is_last
        self.is_early = is_early
        """Whether the server has not taken all of the request."""
        self._is_over = False
        self._left = response.length_remaining  # None without a length
        self.status: int = response.status
        self.headers = {name.lower(): ", ".join(response.headers.getlist(name)) for name in response.headers}
        """Names in lower case; the values of repeated ones joined."""
        self.cookies: list[str] = response.headers.getlist("set-cookie")

    def read(self) -> bytes:
        """Return what of the body is here, waiting for some; b"" at its end.

        Raises: OSError, also when it is cut short; TimeoutError at the wire's deadline.
        """
        if self._is_over:
            return b""
        with _translated():
            data = self._response.read1(_CHUNK)
        if self._left is not None:
            self._left -= len(data or b"")
        if not data:
            if self._left:  # which urllib3 says since 2.4
                raise OSError("the answer was cut short")
            self._is_over = True
            self._wire.finished(self.headers, is_last=self._is_last)
        return data or b""

    def read_all(self, by: Deadline) -> bytes:
        """Return the body, or what of it is here by then; at most 64 KiB.

        Raises: nothing.
        """
        self._wire.deadline = by
        body = b""
        with contextlib.suppress(OSError, BadAnswer):
            while len(body) < _MOST_BODY and (data := self.read()):
                body += data
        return body[:_MOST_BODY]


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Let out what broke, and not what http.client and urllib3 make of it, which may quote the request.

    Raises: OSError, BadAnswer.
    """
    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, OSError | BadAnswer):
            raise cause from None
        raise OSError("the answer was cut short") from None
    except http.client.RemoteDisconnected:
        raise ConnectionResetError("the server closed the connection without an answer") from None
    except http.client.HTTPException as error:
        raise BadAnswer(f"the answer is no valid HTTP ({type(error).__name__})") from None


class Cookies:
    """The cookies of one session: name and value, for one host, gone with it.

    Threads: any; single operations are atomic.
    """

    _MOST = 32
    _LONGEST = 4096
    _FIT = re.compile(r"[!#-+\--:<-\[\]-~]+=[!#-+\--:<-\[\]-~\"]*")  # RFC 6265 4.1.1

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def take(self, headers: Iterable[str]) -> None:
        """Keep what Set-Cookie headers say, as far as it can be sent and there is room.

        Threads: any.
        """
        for header in headers:
            pair = header.partition(";")[0].strip(" \t")
            name = pair.partition("=")[0]
            has_room = name in self._values or len(self._values) < self._MOST
            if has_room and len(pair) <= self._LONGEST and self._FIT.fullmatch(pair):
                self._values[name] = pair

    def header(self, own: str = "") -> str:
        """Return the value of a Cookie header, the user's ``own`` before them; "" for none.

        Threads: any.
        """
        return "; ".join(filter(None, (own, *list(self._values.values()))))
