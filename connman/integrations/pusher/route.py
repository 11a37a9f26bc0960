"""Where a Pusher server is: its addresses, and whether it wants TLS."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from types import EllipsisType
from urllib.parse import quote, urlsplit

from connman.clock import Clock
from connman.errors import InvalidOption
from connman.integrations.pusher.wire import PROTOCOL, is_text
from connman.strategy import Cached, Strategy, TransportManager, pusher_default
from connman.strategy import Transport as Leaf
from connman.strategy.store import Store
from connman.transport.base import Dial, Dialer, Transport
from connman.version import __version__

logger = logging.getLogger("connman.pusher")

_CLUSTER = re.compile(r"[A-Za-z0-9-]+")
_NO_HOST = frozenset("/?#@\\")
_PATH = re.compile(r"/[^?#\\\s]*")
_QUERY = f"protocol={PROTOCOL}&client=connman&version={__version__}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """The URLs of one application; None where there is no such way.

    ``ws``: by websocket without TLS. ``wss``: with TLS; ``is_beside``: it is known well enough to be tried beside ``ws``
    unasked. ``http`` and ``https``: the base of SockJS, for use beside ``ws`` and beside ``wss``.
    """

    ws: str | None
    wss: str
    is_beside: bool
    http: str | None
    https: str | None


def addresses(
    key: str,
    *,
    host: str | None,
    cluster: str | None,
    port: int | None,
    tls: bool,
    tls_port: int | None,
    http: str | EllipsisType | None,
    path: str = "",
) -> Addresses:
    """Return the addresses of the application ``key``.

    Raises: InvalidOption when neither or both of ``host`` and ``cluster`` are given, or one of them all cannot be.
    Threads: any; pure.
    """
    if not key or not is_text(key):
        raise InvalidOption("key is the text that names the application")
    if (host is None) == (cluster is None):
        raise InvalidOption("a Pusher server is named by host= or by cluster=, one of them")
    if cluster is not None and not _CLUSTER.fullmatch(cluster):
        raise InvalidOption("cluster is a name such as eu or us2")
    # Whatever else a URL may hold would put the rest of it elsewhere.
    if host is not None and (_NO_HOST & set(host) or host.count(":") == 1):
        raise InvalidOption("host is a name or an address alone: the rest goes into port=, tls= and path=")
    if path and (host is None or not _PATH.fullmatch(path)):
        raise InvalidOption("path begins with a slash, holds no query, and goes with host=")
    where = host if host is not None else f"ws-{cluster}.pusher.com"
    # An IPv6 address stands in brackets in a URL.
    where = f"[{where}]" if ":" in where and not where.startswith("[") else where
    rest = f"/app/{quote(key, safe='')}?{_QUERY}"
    on_host = f"{path.rstrip('/')}{rest}&flash=false"
    plain = None if tls else f"ws://{where}:{port or 80}{on_host}"
    secure = f"wss://{where}:{(port if tls else tls_port) or 443}{on_host}"
    # Nobody's host but the one that was named: a fallback to other machines, or ports, would be a surprise.
    is_beside = plain is not None and (cluster is not None or tls_port is not None)
    if http is ...:
        has_http = find_spec("urllib3") is not None
        if cluster is not None and not has_http:
            logger.info("no HTTP where websockets are blocked: that takes connman[http]")
        base = f"://sockjs-{cluster}.pusher.com/pusher" if cluster is not None and has_http else None
        return Addresses(
            plain, secure, is_beside, base and f"http{base}{rest}", base and f"https{base}{rest}"
        )
    url = None if http is None else _checked(http) + rest
    # Who uses TLS uses no HTTP without.
    return Addresses(plain, secure, is_beside, url, url if url and url.startswith("https:") else None)


def _checked(base: str) -> str:
    """Return the base URL of SockJS without a slash at its end."""
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidOption("http is the URL of a SockJS endpoint, such as https://sockjs.example.com/pusher")
    return base.rstrip("/")


class Route:
    """How to get to the server: by one target, and from when the server asks for TLS (4000) by another.

    Threads: any.
    """

    def __init__(self, target: Dialer, with_tls: Dialer | None = None) -> None:
        self.target = target
        self._with_tls = with_tls

    def turn_to_tls(self) -> bool:
        """Use TLS from now on; False when it is in use already, or there is no such way.

        Threads: any.
        """
        secure, self._with_tls = self._with_tls, None
        self.target = secure or self.target
        return secure is not None

    def dial(self, dial: Dial) -> Transport:
        """Open one transport.

        Raises: ConnectError and its kin; what the dial was aborted with.
        Threads: the dialling thread.
        """
        return self.target.dial(dial)


def make_route(
    where: Addresses, cache: Store | str | os.PathLike[str], *, activity_timeout: float, clock: Clock
) -> Route:
    """Return the route to these addresses: where there are several ways, by the tree of Pusher's own clients.

    Raises: InvalidOption.
    Threads: any.
    """
    # As pusher-js has it: streaming that dies young twice is left out, here for a while; websockets never are, but when
    # one was cut the server is asked for a sign of life sooner.
    http_manager = TransportManager(2, max_ping_delay=activity_timeout, clock=clock)
    manager = TransportManager(max_ping_delay=activity_timeout, clock=clock)

    def tree(ws: str, wss: str | None, http: str | None) -> Strategy:
        # A single way needs no tree, which would wait for others: what fails is tried again after the pause.
        if wss is None and http is None:
            return Leaf(ws, manager=manager)
        main = pusher_default(ws, wss=wss, http=http, manager=manager, http_manager=http_manager)
        return Cached(main, cache)

    secure = tree(where.wss, None, where.https)
    if where.ws is None:
        return Route(secure)
    return Route(tree(where.ws, where.wss if where.is_beside else None, where.http), secure)
