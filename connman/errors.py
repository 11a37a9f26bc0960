"""Every error connman raises, and the one table that says which of them are worth another attempt.

All are picklable, none shows a secret, and only the timeouts inherit from ``TimeoutError`` (hence ``OSError``).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any, Self, TypeVar

from connman.records import Step

__all__ = [
    "BadUpgrade",
    "CallTimeout",
    "CertificateError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionClosed",
    "ConnectionLost",
    "ConnmanError",
    "Fatal",
    "Forked",
    "GaveUp",
    "HandshakeFailed",
    "HandshakeTimeout",
    "InvalidOption",
    "InvalidTarget",
    "MessageTooBig",
    "NoSuchPeer",
    "NoSuchService",
    "NotConnected",
    "PeerGone",
    "PingTimeout",
    "PoolClosed",
    "PoolError",
    "PoolTimeout",
    "ProtocolError",
    "ProxyRefused",
    "RemoteError",
    "RequestRefused",
    "Retry",
    "RpcError",
    "SendTimeout",
    "SessionLost",
    "UpgradeRefused",
    "WaitTimeout",
    "WouldDeadlock",
    "retry_verdict",
]

_E = TypeVar("_E", bound="ConnmanError")


def _rebuild(kind: type[_E], args: tuple[Any, ...], state: dict[str, Any]) -> _E:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ConnmanError(Exception):
    """The root of all errors of connman."""

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError's own pickling guesses at the arguments; an error is rebuilt from its text and its fields instead.
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class Fatal(ConnmanError):
    """End retrying: raise it in ``handshake`` (or return False from ``retry_if``) when no further attempt can help."""


class InvalidTarget(ConnmanError, ValueError):
    """The target is malformed, or its scheme is not one connman speaks. Raised at construction, before any I/O."""


class InvalidOption(ConnmanError, ValueError):
    """An option has a value that cannot work. Raised at construction, before any I/O."""


class ConnectError(ConnmanError):
    """An attempt to open failed.

    ``endpoint``: where to, without secrets. ``attempts``: the log of the attempt as a tuple of `Step`.
    """

    def __init__(self, endpoint: str, attempts: Iterable[Step] = (), message: str = "") -> None:
        self.endpoint = endpoint
        self.message = message
        super().__init__()
        self.with_log(attempts)

    def with_log(self, attempts: Iterable[Step]) -> Self:
        """Replace the attempt log, and the text that is told from it; return the error itself.

        Threads: the one that is about to raise it.
        """
        self.attempts = tuple(attempts)
        text = self.message or (self.attempts[-1].cause if self.attempts else None) or "connecting failed"
        steps = "; ".join(str(step) for step in self.attempts)
        where = f"{self.endpoint}: " if self.endpoint else ""
        self.args = (f"{where}{text}" + (f" [{steps}]" if steps else ""),)
        return self


class ConnectTimeout(ConnectError, TimeoutError):
    """``open_timeout`` ran out: one deadline over DNS, TCP, proxy, TLS and upgrade together."""


class CertificateError(ConnectError):
    """The peer's certificate was refused (wrong host, expired, unknown issuer), or ours by the peer. Not retried."""


class ProxyRefused(ConnectError):
    """The proxy answered and would not connect us; ``status`` is its HTTP status, None for SOCKS."""

    def __init__(
        self, endpoint: str, attempts: Iterable[Step] = (), message: str = "", status: int | None = None
    ) -> None:
        self.status = status
        super().__init__(endpoint, attempts, message)


class UpgradeRefused(ConnectError):
    """The server answered the WebSocket upgrade with something other than 101.

    ``status``: the HTTP status. ``headers``: names in lower case. ``body``: at most the first 64 KiB.
    """

    _what = "upgrade"

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        endpoint: str = "",
        attempts: Iterable[Step] = (),
    ) -> None:
        self.status = status
        self.headers = dict(headers or {})
        self.body = body
        super().__init__(endpoint, attempts, f"{self._what} refused with HTTP {status}")


class RequestRefused(UpgradeRefused):
    """The server answered the request that opens an HTTP transport with something other than 200.

    404: there is no SockJS at that path. Retried as a refused upgrade is.
    """

    _what = "request"


class HandshakeFailed(ConnectError):
    """``handshake`` raised; the exception it raised is the ``__cause__``."""


class HandshakeTimeout(HandshakeFailed, TimeoutError):
    """``handshake_timeout`` ran out before ``handshake`` returned."""


class GaveUp(ConnectError):
    """``stop=`` ended retrying; the error of the last attempt is the ``__cause__``."""


class NotConnected(ConnmanError):
    """There is no open connection to use just now, and nothing was sent."""


class ConnectionClosed(ConnmanError):
    """The connection was closed in order, by us or by the peer; ``code`` is None where the protocol has none.

    ``reason`` is in no text: a server that closes because of a token may quote it.
    """

    def __init__(self, code: int | None = None, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        what = "closed" if code is None else f"closed with code {code}"
        super().__init__(what + (" (see .reason)" if reason else ""))


class ConnectionLost(ConnmanError):
    """The connection broke. ``cause``: a text. ``sent``: messages of a ``send_many`` that went out whole before."""

    def __init__(self, cause: str = "connection lost", *, sent: int = 0) -> None:
        self.cause = cause
        self.sent = sent
        super().__init__(cause)


class SessionLost(ConnectionLost):
    """The server of an open HTTP transport does not know its session any more, or refused a request of it.

    ``status``: the HTTP status (404: unknown, as after 5 s without a request for messages), None when the server has
    begun another session in its place. Always worth another attempt, which asks for a new session.
    """

    def __init__(self, cause: str = "session lost", *, sent: int = 0, status: int | None = None) -> None:
        self.status = status
        super().__init__(cause, sent=sent)


class PingTimeout(ConnectionLost, TimeoutError):
    """The peer showed no life for ``ping_timeout`` after a ping."""


class SendTimeout(ConnectionLost, TimeoutError):
    """A message could not be handed to the network within ``send_timeout``: the peer does not read."""


class ProtocolError(ConnmanError):
    """The peer broke the protocol; ``code`` is the WebSocket close code that was sent for it, or None."""

    def __init__(self, message: str = "protocol error", code: int | None = None) -> None:
        self.code = code
        super().__init__(message)


class BadUpgrade(ConnectError, ProtocolError):
    """The answer to the upgrade is no valid one: garbage, a wrong accept key, something we did not ask for."""

    def __init__(self, endpoint: str, attempts: Iterable[Step] = (), message: str = "") -> None:
        ConnectError.__init__(self, endpoint, attempts, message)
        self.code = None


class MessageTooBig(ProtocolError):
    """A message is larger than ``max_message_size``."""


class WaitTimeout(ConnmanError, TimeoutError):
    """``recv``, ``wait_open`` or ``wait_closed`` reached its timeout. The connection is as it was."""


class WouldDeadlock(ConnmanError):
    """A wait that only the calling thread could end: refused at once instead of hanging."""


class Forked(ConnmanError):
    """The Future belongs to the parent process; ask for a new one in this process."""


class PoolError(ConnmanError):
    """The root of the errors of pools."""


class PoolClosed(PoolError):
    """The pool was disconnected; it takes no further use."""


class PoolTimeout(PoolError, TimeoutError):
    """No connection of the pool came free in time; the text holds the newest connect error."""


class RpcError(ConnmanError):
    """The root of the errors of calls."""


class RemoteError(RpcError):
    """The service raised at the other side: its ``name``, ``message`` and ``code``."""

    def __init__(self, name: str, message: str = "", code: int | str | None = None) -> None:
        self.name = name
        self.message = message
        self.code = code
        super().__init__(f"{name}: {message}" if message else name)


class CallTimeout(RpcError, TimeoutError):
    """No answer within the call's timeout; whether it ran is unknown."""


class PeerGone(RpcError):
    """The path to the peer broke. ``sent``: False when the request never left, so nothing ran; True when that is unknown."""

    sent = True


class NoSuchService(RpcError):
    """The peer offers no service of that id; nothing ran."""


class NoSuchPeer(RpcError):
    """The relay knows no provider of that name; nothing ran."""


def printable(text: str, limit: int = 200) -> str:
    """Return text from the network fit for a log line: control characters escaped, at most ``limit`` long.

    Threads: any.
    """
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


class Retry(enum.Enum):
    """Say what may follow an error: another attempt, one more with fresh headers, or none."""

    AGAIN = "again"
    ONCE = "once"
    NEVER = "never"


# The table. HTTP statuses and close codes that are not named here fall to the bands below them.
# 3xx: following a redirect would hand our headers to another origin, and asking again gets the same answer.
# 401 and 403: once more, because the headers may be a callable that gets a fresh token.
_STATUS = {401: Retry.ONCE, 403: Retry.ONCE, 408: Retry.AGAIN, 425: Retry.AGAIN, 429: Retry.AGAIN}
_STATUS_BANDS = ((300, 499, Retry.NEVER),)
# RFC 6455 7.4.1 and the IANA registry: 1008 policy violation and 1010 missing extension do not get better by asking
# again, 3000 is "unauthorized", 3003 "forbidden". 4000-4099 and from 4300 are "refused", 4100-4299 "come back" (pusher's bands).
_CODES = {1008: Retry.NEVER, 1010: Retry.NEVER, 3000: Retry.ONCE, 3003: Retry.ONCE}
_CODE_BANDS = ((4000, 4099, Retry.NEVER), (4300, 4999, Retry.NEVER))
ORDERLY_CODES = (None, 1000, 1001, 1005)
"""Closes that end a conversation in order (RFC 6455 7.4.1): done, going away, no code given; None: no close frame."""
_NEVER = (Fatal, CertificateError, InvalidTarget, InvalidOption, GaveUp)


def retry_verdict(error: BaseException) -> Retry:
    """Return what the table says of ``error``.

    NEVER: `Fatal`, a refused certificate, an invalid target, redirects and other HTTP 4xx, closes 1008, 1010,
    4000-4099 and from 4300. ONCE (with headers evaluated anew): HTTP 401 and 403, closes 3000 and 3003.
    AGAIN: everything else, such as refused, reset, unreachable, timeouts, DNS failures, HTTP 5xx, 408, 425, 429,
    closes 1000, 1001, 1006, 1011 to 1014 and 4100-4299, lost sessions, and errors connman does not know. A handshake that failed
    because the peer closed is judged by that close.

    Threads: any; pure.
    """
    if isinstance(error, _NEVER):
        return Retry.NEVER
    if isinstance(error, HandshakeFailed) and isinstance(error.__cause__, ConnectionClosed):
        error = error.__cause__
    if isinstance(error, UpgradeRefused):
        return _look_up(error.status, _STATUS, _STATUS_BANDS)
    if isinstance(error, ProxyRefused) and error.status is not None:
        # Only 407 is about our credentials; what a proxy says of the target (500, 502 and so on) may pass.
        return Retry.NEVER if error.status == 407 else Retry.AGAIN
    if isinstance(error, ConnectionClosed) and error.code is not None:
        return _look_up(error.code, _CODES, _CODE_BANDS)
    return Retry.AGAIN


def _look_up(number: int, exact: dict[int, Retry], bands: tuple[tuple[int, int, Retry], ...]) -> Retry:
    in_band = next((verdict for low, high, verdict in bands if low <= number <= high), Retry.AGAIN)
    return exact.get(number, in_band)
