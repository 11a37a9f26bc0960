"""Where a Pusher server is: its addresses, and whether it wants TLS."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType
from urllib.parse import quote, urlsplit

from connman.endpoint import Endpoint
from connman.errors import InvalidOption
from connman.integrations.pusher.wire import PROTOCOL
from connman.transport.base import Dial, Dialer, Transport
from connman.transport.openers import EndpointDialer
from connman.version import __version__

_QUERY = f"protocol={PROTOCOL}&client=connman&version={__version__}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """The URLs of one application: by websocket, without and with TLS, and by HTTP, None where there is no such way."""

    ws: str | None
    wss: str
    http: str | None


def addresses(
    key: str,
    *,
    host: str | None,
    cluster: str | None,
    port: int | None,
    tls: bool,
    tls_port: int | None,
    http: str | EllipsisType | None,
) -> Addresses:
    """Return the addresses of the application ``key``.

    Raises: InvalidOption when neither or both of ``host`` and ``cluster`` are given, or ``key`` or ``http`` cannot be.
    Threads: any; pure.
    """
    if not key:
        raise InvalidOption("key is the text that names the application")
    if (host is None) == (cluster is None):
        raise InvalidOption("a Pusher server is named by host= or by cluster=, one of them")
    where = host if host is not None else f"ws-{cluster}.pusher.com"
    # An IPv6 address stands in brackets in a URL.
    where = f"[{where}]" if ":" in where and not where.startswith("[") else where
    rest = f"/app/{quote(key, safe='')}?{_QUERY}"
    plain = None if tls else f"ws://{where}:{port or 80}{rest}&flash=false"
    secure = f"wss://{where}:{(port if tls else tls_port) or 443}{rest}&flash=false"
    if http is ...:
        # Nobody's host but the one that was named: a fallback to other machines would be a surprise.
        http = None if cluster is None else f"http{'s' if tls else ''}://sockjs-{cluster}.pusher.com/pusher"
    return Addresses(plain, secure, None if http is None else _http(http) + rest)


def _http(base: str) -> str:
    """Return the base URL of the HTTP transports without a slash at its end."""
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidOption("http is the URL of a SockJS endpoint, such as https://sockjs.example.com/pusher")
    return base.rstrip("/")


class Route:
    """How to get to the server: by one target, and from when the server asks for TLS (4000) by another.

    Threads: any.
    """

    def __init__(self, target: Dialer, with_tls: Dialer | None = None) -> None:
        self._target = target
        self._with_tls = with_tls

    def turn_to_tls(self) -> bool:
        """Use TLS from now on; False when it is in use already, or there is no such way.

        Threads: any.
        """
        secure, self._with_tls = self._with_tls, None
        self._target = secure or self._target
        return secure is not None

    def dial(self, dial: Dial) -> Transport:
        """Open one transport.

        Raises: ConnectError and its kin; what the dial was aborted with.
        Threads: the dialling thread.
        """
        return self._target.dial(dial)


def make_route(where: Addresses) -> Route:
    """Return the route to these addresses.

    Threads: any.
    """
    secure = _Url(where.wss)
    return Route(secure) if where.ws is None else Route(_Url(where.ws), secure)


class _Url:
    def __init__(self, url: str) -> None:
        self._endpoint = Endpoint.parse(url)

    def dial(self, dial: Dial) -> Transport:
        dial.endpoint = self._endpoint
        return EndpointDialer().dial(dial)
