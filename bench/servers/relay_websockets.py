"""A relay on the websockets library as its users write one: each side's messages are awaited and sent to the other."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bench import wire
from bench.servers.lifetime import mate_of, run_loop, say_port

sides: dict[str, ServerConnection] = {}
complete: dict[str, asyncio.Event] = {}


async def forward(connection: ServerConnection) -> None:
    """Wait for the other side, then send it everything that comes here; `send` waits while it does not read."""
    mine, theirs = mate_of(connection.request.path if connection.request else "")
    sides[mine] = connection
    complete.setdefault(mine, asyncio.Event()).set()
    await complete.setdefault(theirs, asyncio.Event()).wait()
    other = sides[theirs]
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            await other.send(message)
    await other.close()


async def main() -> None:
    """Serve for ever; without compression, which no peer has here, and without pings."""
    options = {"compression": None, "ping_interval": None, "backlog": 1024}
    async with serve(forward, wire.HOST, 0, **options) as server:
        say_port(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()


if __name__ == "__main__":
    run_loop(main(), is_fast="uvloop" in sys.argv)
