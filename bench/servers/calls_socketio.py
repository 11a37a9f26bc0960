"""python-socketio, its server with threads behind werkzeug's; websockets by simple-websocket."""

from __future__ import annotations

import logging

import socketio
from werkzeug.serving import make_server

from bench import wire
from bench.servers.lifetime import end_in_background, say_port


def add(session: str, one: int, other: int) -> int:
    """Return the sum."""
    return one + other


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    events = socketio.Server(async_mode="threading")
    events.on("add", add)
    server = make_server(wire.HOST, 0, socketio.WSGIApp(events), threaded=True)
    say_port(server.server_port)
    end_in_background()
    server.serve_forever()
