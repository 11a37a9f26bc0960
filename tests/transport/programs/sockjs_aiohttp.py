"""A server of SockJS, the PyPI package on aiohttp; see sockjs_node.js, which does the same.

"forget" has a session expire, although somebody asks for it: here none does by itself.
"""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import sockjs
from aiohttp import web

logging.disable()
PAUSE = 0.01
paths: list[str] = []


class Manager(sockjs.SessionManager):  # type: ignore[misc]
    """Sessions that end when they have expired, and not when the package looks for such: every 5 s at most."""

    async def look_after(self, _app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._look())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(PAUSE)
            await self._gc_expired_sessions()


async def answer(manager: Any, session: Any, message: Any) -> None:
    if message.type is not sockjs.MsgType.MESSAGE:
        return
    word, _, number = message.data[:20].partition(" ")
    if word in ("close", "forget"):
        # Between two polls the package forgets the code of a close, and the next poll that a session is to expire.
        while not manager.is_acquired(session):
            await asyncio.sleep(PAUSE)
    if word == "burst":
        for count in range(int(number)):
            session.send(str(count))
    elif word == "close":
        session.close(int(number), "as you wish")
    elif word == "forget":
        session.expire()
    else:
        session.send(message.data)


async def greet(_manager: Any, session: Any, message: Any) -> None:
    if message.type is sockjs.MsgType.OPEN:
        session.send("hello")


@web.middleware
async def note(request: Any, handler: Any) -> Any:
    if request.path != "/requests":
        paths.append(request.path_qs)
    return await handler(request)


async def requests(_request: web.Request) -> web.Response:
    return web.Response(text=json.dumps(paths))


def main() -> None:
    port, disconnect_delay, heartbeat_delay = (int(word) for word in sys.argv[1:])
    app = web.Application(middlewares=[note], client_max_size=1 << 28)
    app.router.add_get("/requests", requests)
    manager = Manager("echo", app, answer, heartbeat_delay / 1000, disconnect_delay / 1000)
    app.cleanup_ctx.append(manager.look_after)
    sockjs.add_endpoint(app, answer, name="echo", prefix="/echo", manager=manager)
    sockjs.add_endpoint(app, greet, name="greet", prefix="/greet")
    web.run_app(
        app, host="127.0.0.1", port=port, print=lambda *_: print("ready", flush=True), handle_signals=False
    )


main()
