"""A server of SockJS, the PyPI package on aiohttp; see sockjs_node.js, which does the same."""

import json
import logging
import sys
from typing import Any

import sockjs
from aiohttp import web

logging.disable()
paths: list[str] = []


async def answer(manager: Any, session: Any, message: Any) -> None:
    if message.type is not sockjs.MsgType.MESSAGE:
        return
    word, _, number = message.data[:20].partition(" ")
    if word == "burst":
        for count in range(int(number)):
            session.send(str(count))
    elif word == "close":
        session.close(int(number), "as you wish")
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
    sockjs.add_endpoint(
        app,
        answer,
        name="echo",
        prefix="/echo",
        disconnect_delay=disconnect_delay / 1000,
        heartbeat_delay=heartbeat_delay / 1000,
    )
    sockjs.add_endpoint(app, greet, name="greet", prefix="/greet")
    web.run_app(
        app, host="127.0.0.1", port=port, print=lambda *_: print("ready", flush=True), handle_signals=False
    )


main()
