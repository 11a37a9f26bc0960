"""From a scheme to the way its transport is opened."""

from __future__ import annotations

from collections.abc import Callable

from connman.endpoint import Endpoint
from connman.errors import InvalidOption
from connman.transport.base import Dial, Transport
from connman.transport.memory import open_memory
from connman.transport.proxy import import_lazy_parts
from connman.transport.tcp import open_tcp, open_tls, open_unix
from connman.transport.websocket import open_websocket


def open_http(dial: Dial) -> Transport:
    """Open a transport over HTTP.

    Raises: as `sockjs.open_sockjs`; InvalidOption without urllib3.
    Threads: the dialling thread.
    """
    return _import_http()(dial)


_OPENERS: dict[str, Callable[[Dial], Transport]] = {
    "tcp": open_tcp,
    "tls": open_tls,
    "unix": open_unix,
    "ws": open_websocket,
    "wss": open_websocket,
    "memory": open_memory,
    **{
        f"xhr-{kind}+{scheme}": open_http for kind in ("streaming", "polling") for scheme in ("http", "https")
    },
}


def prepare(endpoint: Endpoint) -> None:
    """Import what the first dial to ``endpoint`` would: on the caller's thread, see `proxy.import_lazy_parts`.

    Raises: InvalidOption when a package is missing that it needs.
    Threads: any.
    """
    if endpoint.port:
        import_lazy_parts()
    if endpoint.is_http:
        _import_http()


def _import_http() -> Callable[[Dial], Transport]:
    try:
        from connman.transport.sockjs import open_sockjs  # lazy: an extra
    except ModuleNotFoundError as error:
        if error.name != "urllib3":
            raise
        raise InvalidOption("HTTP transports need: pip install connman[http]") from None
    return open_sockjs


class EndpointDialer:
    """Dial the endpoint that the dial names: what every URL target uses. A ``base.Dialer``.

    Threads: any number of dials at once; it holds no state.
    """

    def dial(self, dial: Dial) -> Transport:
        """Open one transport to ``dial.endpoint``.

        Raises: ConnectError, or what the dial was aborted with.
        Threads: the dialling thread.
        """
        assert dial.endpoint is not None
        return _OPENERS[dial.endpoint.scheme](dial)
