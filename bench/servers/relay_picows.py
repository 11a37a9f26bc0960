"""A relay on picows: the floor of one that reads frames. Each is sent on in the callback; a full side stops its mate."""

from __future__ import annotations

import asyncio
import sys

import picows

from bench import wire
from bench.servers.lifetime import mate_of, run_loop, say_port

sides: dict[str, Side] = {}


class Side(picows.WSListener):
    """One connection; it is not read before the other is there, nor while that one cannot take more."""

    def __init__(self, path: str) -> None:
        self._mine, self._theirs = mate_of(path)
        self.transport: picows.WSTransport | None = None
        self.mate: Side | None = None

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Look for the other side."""
        self.transport = transport
        sides[self._mine] = self
        mate = sides.get(self._theirs)
        if mate is None:
            transport.underlying_transport.pause_reading()
            return
        self.mate, mate.mate = mate, self
        mate.read(True)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Send it on as it is."""
        self.mate.transport.send(frame.msg_type, frame.get_payload_as_memoryview(), frame.fin)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """Have the other side leave too."""
        if self.mate is not None:
            self.mate.transport.disconnect()

    def pause_writing(self) -> None:
        """Stop who writes here."""
        if self.mate is not None:
            self.mate.read(False)

    def resume_writing(self) -> None:
        """Let who writes here go on."""
        if self.mate is not None:
            self.mate.read(True)

    def read(self, wanted: bool) -> None:
        """Read on, or stop."""
        underlying = self.transport.underlying_transport
        (underlying.resume_reading if wanted else underlying.pause_reading)()


async def main() -> None:
    """Serve for ever."""
    server = await picows.ws_create_server(
        lambda request: Side(request.path.decode()), wire.HOST, 0, backlog=1024
    )
    say_port(server.sockets[0].getsockname()[1])
    await asyncio.Event().wait()


if __name__ == "__main__":
    run_loop(main(), is_fast="uvloop" in sys.argv)
