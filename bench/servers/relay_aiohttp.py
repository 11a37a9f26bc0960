"""A relay on aiohttp: each side's messages are awaited and sent to the other."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import WSMsgType, web

from bench import wire
from bench.servers.lifetime import mate_of, run_loop, say_port

sides: dict[str, web.WebSocketResponse] = {}
complete: dict[str, asyncio.Event] = {}


async def forward(request: web.Request) -> web.WebSocketResponse:
    """Wait for the other side, then send it everything that comes here; sending waits while it does not read."""
    side = web.WebSocketResponse(compress=False)
    await side.prepare(request)
    mine, theirs = mate_of(request.path)
    sides[mine] = side
    complete.setdefault(mine, asyncio.Event()).set()
    await complete.setdefault(theirs, asyncio.Event()).wait()
    other = sides[theirs]
    async for message in side:
        if message.type is WSMsgType.TEXT:
            await other.send_str(message.data)
        else:
            await other.send_bytes(message.data)
    await other.close()
    return side


async def main() -> None:
    """Serve for ever."""
    app = web.Application()
    app.router.add_get("/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, wire.HOST, 0, backlog=1024).start()
    say_port(runner.addresses[0][1])
    await asyncio.Event().wait()


if __name__ == "__main__":
    run_loop(main(), is_fast="uvloop" in sys.argv)
