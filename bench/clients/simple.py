"""simple-websocket, its threading client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simple_websocket import Client

from bench import wire
from bench.clients.meter import Meter, Result, time_echoes, time_sends

VERSION_OF = "simple-websocket"


def receive(url: str, size: int, count: int) -> Result:
    """Messages a second through receive()."""
    connection = Client(url)
    meter = Meter(count)
    on_message = meter.callback()
    for _ in range(count):
        on_message(connection, connection.receive())
    return meter.rate()


def send(url: str, size: int, count: int, threads: int = 1) -> Result:
    """Messages a second, one send() each."""
    connection = Client(url)
    seconds = time_sends(connection.send, wire.text(size), count, connection.receive, threads=threads)
    return {"value": count / seconds}


def echo(url: str, size: int, count: int) -> Result:
    """Microseconds a round trip of send() and receive()."""
    connection = Client(url)
    return time_echoes(connection.send, connection.receive, wire.text(size), count)


def open_many(url: str, count: int, on_message: Callable[[Any, Any], object] | None) -> object:
    """Open so many connections, one after the other; it has no callback."""
    return [Client(url) for _ in range(count)]
