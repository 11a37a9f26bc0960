"""One SockJS session: where its requests go and with what, on which connections, and how all of them are ended."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
import threading
import time
from collections.abc import Iterable

from connman.clock import Clock, Deadline
from connman.endpoint import Endpoint
from connman.errors import ConnectError, ConnectionLost, SessionLost
from connman.transport.base import Dial
from connman.transport.causes import describe
from connman.transport.dial import discard_on_error, open_socket
from connman.transport.http import Cookies, HttpAnswer, HttpWire, Limits
from connman.transport.tls import start_tls
from connman.transport.traffic import Traffic, traffic
from connman.transport.upgrade import make_request

# Of the user's headers all that another host gets, which the server names: any other may be a key ("X-Api-Key").
_HARMLESS = frozenset(("user-agent", "origin", "accept-language"))
_ENDED = "the transport has ended"


class Session:
    """The requests of one session, each of them a POST, on connections of our own.

    Raises: InvalidTarget or InvalidOption, before any I/O, for something that must not enter a request.
    Threads: every method from any thread; each wire belongs to one.
    """

    def __init__(self, dial: Dial) -> None:
        assert dial.endpoint is not None
        self.endpoint = dial.endpoint
        self.options = dial.options
        self.clock: Clock = dial.clock
        self.name = dial.name
        self._given = tuple(dial.headers)
        # The server finds its session, and a load balancer the server, by these; no dots in either.
        self._place = f"{secrets.randbelow(1000):03}/{secrets.token_hex(16)}"
        self._numbers = itertools.count(1)
        self._cookies = Cookies()
        self._headers = self._make_headers()
        self._lock = threading.Lock()
        # Guarded by _lock: _wires, _dials, _past (what the wires that are gone have carried), is_shut.
        self._wires: set[HttpWire] = set()
        self._dials: set[Dial] = set()
        self._past = (0, 0)
        self.is_shut = False

    def _make_headers(self) -> dict[str, str]:
        request = make_request(self.endpoint, self._given, ())
        given: dict[str, tuple[str, str]] = {}
        for line in request.headers:
            name, _, value = line.partition(": ")
            # What is given more than once is one list (RFC 9110 5.3), of cookies one line (RFC 6265 5.4).
            first, values = given.get(name.lower(), (name, ""))
            glue = ("; " if name.lower() == "cookie" else ", ") if values else ""
            given[name.lower()] = first, values + glue + value
        ours = {"Host": request.host, "Content-Type": "application/json; charset=utf-8"}
        # Names differ in case only: a user's counts, in whatever case.
        return {name: ours[name] for name in ours if name.lower() not in given} | dict(given.values())

    def move(self, host: str) -> None:
        """Send all that follows to ``host`` instead, as the server has asked: same scheme, port and path.

        The user's headers (but for those that identify nobody) and the user of the URL do not go there.

        Raises: InvalidTarget when it is no host name.
        """
        moved = Endpoint.parse((host, self.endpoint.port)).host
        if moved == self.endpoint.host:
            return
        self.endpoint = dataclasses.replace(self.endpoint, host=moved, user=None, password=None)
        self._given = tuple(pair for pair in self._given if pair[0].lower() in _HARMLESS)
        self._cookies = Cookies()
        self._headers = self._make_headers()
        for wire in self._wires:
            wire.retire()

    # Connections.

    def connect(self, dial: Dial) -> HttpWire:
        """Connect to the session's host within ``dial``, which keeps the socket registered.

        Raises: ConnectError and its kinds; the abort's error; ConnectionLost when the session has been shut down.
        """
        guard = open_socket(dial)
        with discard_on_error(dial, guard):
            if self.endpoint.is_secure:
                start_tls(dial, guard, self.endpoint.host)
            wire = HttpWire(guard, self.clock)
            with self._lock:
                if self.is_shut:
                    raise ConnectionLost(_ENDED)
                self._wires.add(wire)
        return wire

    def reconnect(self, old: HttpWire | None) -> HttpWire:
        """Return a connection for the next request: ``old``, if the server has not closed it, or else a new one.

        Raises: ConnectionLost.
        """
        if old is not None:
            if old.is_reusable:
                return old
            self.drop(old)
        dial = Dial(self.endpoint, self.options, self.clock, name=self.name)
        with self._lock:
            if self.is_shut:
                raise ConnectionLost(_ENDED)
            self._dials.add(dial)
        try:
            wire = self.connect(dial)
            dial.remove_abortable(wire.guard.shutdown)
            return wire
        except ConnectError as error:
            raise ConnectionLost(f"another request could not be made: {describe(error)}") from error
        finally:
            with self._lock:
                self._dials.discard(dial)

    def drop(self, wire: HttpWire) -> None:
        """Close a connection. Idempotent."""
        told = traffic(wire.guard.sock)
        with self._lock:
            if wire in self._wires and told is not None:
                received, acknowledged = self._past
                self._past = received + told.received, acknowledged + told.acknowledged + told.unacknowledged
            self._wires.discard(wire)
        wire.guard.close()

    def shutdown(self) -> None:
        """Break all connections, those that are being made included; there will be no others. Never blocks."""
        with self._lock:
            self.is_shut = True
            wires, dials = list(self._wires), list(self._dials)
        # Outside the lock: each of these takes one of its own.
        for wire in wires:
            wire.shutdown()
        for dial in dials:
            dial.abort(ConnectionLost(_ENDED))

    def traffic(self, waiting: int) -> Traffic | None:
        """Return what the system knows of all connections together; ``waiting``: bytes that no request has taken yet."""
        with self._lock:
            wires, (received, acknowledged) = list(self._wires), self._past
        told = [seen for wire in wires if (seen := traffic(wire.guard.sock)) is not None]
        if not told:
            return None
        return Traffic(
            received + sum(seen.received for seen in told),
            acknowledged + sum(seen.acknowledged for seen in told),
            waiting + sum(seen.unacknowledged for seen in told),
            min(seen.heard_ago for seen in told),
            min(seen.taken_ago for seen in told),
        )

    # Requests.

    def post(
        self,
        wire: HttpWire,
        what: str,
        body: Iterable[bytes] = (),
        size: int = 0,
        *,
        by: Deadline | None = None,
        answer_within: float | None = None,
    ) -> HttpAnswer:
        """POST to ``what`` of the session and return the head of the answer; ``by`` and ``answer_within`` as in `Limits`.

        Raises: OSError; BadAnswer.
        """
        # Times and numbers keep caches between us and the server from answering.
        busters = f"t={time.time_ns() // 1_000_000}&n={next(self._numbers)}"
        query = f"{self.endpoint.query}&{busters}" if self.endpoint.query else busters
        resource = f"{self.endpoint.path.rstrip('/')}/{self._place}/{what}?{query}"
        limits = Limits(by or Deadline(self.clock, None), self.options.send_timeout, answer_within)
        answer = wire.ask(resource, self._request_headers(), body, size, limits)
        self._cookies.take(answer.cookies)
        return answer

    def get(self, wire: HttpWire, what: str, by: Deadline) -> HttpAnswer:
        """GET what belongs to the base rather than to the session, and return the head of the answer.

        Raises: OSError; BadAnswer.
        """
        query = f"?{self.endpoint.query}" if self.endpoint.query else ""
        resource = f"{self.endpoint.path.rstrip('/')}/{what}{query}"
        limits = Limits(by, self.options.send_timeout)
        return wire.ask(resource, self._request_headers(), (), 0, limits, method="GET")

    def _request_headers(self) -> dict[str, str]:
        headers = self._headers
        own = next((name for name in headers if name.lower() == "cookie"), "Cookie")
        cookies = self._cookies.header(headers.get(own, ""))
        return {**headers, own: cookies} if cookies else headers

    def refusal(self, status: int) -> SessionLost:
        """Return the error for an answer to a request of the open session that is not the one it needs."""
        if status == 404:
            return SessionLost("the server does not know the session (HTTP 404)", status=404)
        return SessionLost(f"the server refused a request with HTTP {status}", status=status)
