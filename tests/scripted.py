"""A TCP server on loopback that does, to each connection, exactly what a script says."""

from collections.abc import Callable

from connman.testing import BadServer, Guest

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

ScriptedServer = BadServer


def serve(script: Callable[[Guest], object]) -> BadServer:
    """Return a server to enter with `with`."""
    return BadServer(script)
