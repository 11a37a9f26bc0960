"""websocket-client, its `create_connection` with `send` and `recv`; `unchecked` leaves out its check of UTF-8, in pure Python."""

from __future__ import annotations

import websocket

from bench import wire
from bench.clients.meter import PATIENCE, Meter, Result, time_echoes, time_sends

VERSION_OF = "websocket-client"


def receive(url: str, size: int, count: int, unchecked: int = 0) -> Result:
    """Messages a second through recv()."""
    connection = websocket.create_connection(url, skip_utf8_validation=bool(unchecked))
    meter = Meter(count)
    on_message = meter.callback()
    for _ in range(count):
        on_message(connection, connection.recv())
    return meter.rate()


def send(url: str, size: int, count: int, threads: int = 1) -> Result:
    """Messages a second, one send() each."""
    connection = websocket.create_connection(url, timeout=PATIENCE)
    seconds = time_sends(connection.send, wire.text(size), count, connection.recv, threads=threads)
    return {"value": count / seconds}


def echo(url: str, size: int, count: int, unchecked: int = 0) -> Result:
    """Microseconds a round trip of send() and recv()."""
    connection = websocket.create_connection(url, skip_utf8_validation=bool(unchecked))
    return time_echoes(connection.send, connection.recv, wire.text(size), count)
