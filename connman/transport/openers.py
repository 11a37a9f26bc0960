"""From a scheme to the way its transport is opened."""

from __future__ import annotations

from connman.transport.base import Dial, Transport
from connman.transport.memory import open_memory
from connman.transport.tcp import open_tcp, open_tls, open_unix
from connman.transport.websocket import open_websocket

_OPENERS = {
    "tcp": open_tcp,
    "tls": open_tls,
    "unix": open_unix,
    "ws": open_websocket,
    "wss": open_websocket,
    "memory": open_memory,
}


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
