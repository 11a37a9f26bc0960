"""websockets, its threading client; without compression, which the server does not have either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from websockets.sync.client import ClientConnection, connect

from bench import wire
from bench.clients.crowd import start_threads
from bench.clients.meter import PATIENCE, Meter, Result, time_echoes, time_sends

VERSION_OF = "websockets"


def dial(url: str) -> ClientConnection:
    """Open one connection."""
    return connect(url, compression=None, proxy=None, open_timeout=PATIENCE)


def receive(url: str, size: int, count: int) -> Result:
    """Messages a second through recv()."""
    connection = dial(url)
    meter = Meter(count)
    on_message = meter.callback()
    for _ in range(count):
        on_message(connection, connection.recv())
    return meter.rate()


def send(url: str, size: int, count: int, threads: int = 1) -> Result:
    """Messages a second, one send() each."""
    connection = dial(url)
    seconds = time_sends(connection.send, wire.text(size), count, connection.recv, threads=threads)
    return {"value": count / seconds}


def echo(url: str, size: int, count: int) -> Result:
    """Microseconds a round trip of send() and recv()."""
    connection = dial(url)
    return time_echoes(connection.send, connection.recv, wire.text(size), count)


def open_many(url: str, count: int, on_message: Callable[[Any, Any], object] | None) -> object:
    """Open so many connections, one after the other; who wants the messages needs a thread more for each."""
    kept = [dial(url) for _ in range(count)]

    def follow(connection: ClientConnection) -> None:
        for message in connection:
            on_message(connection, message)

    if on_message:
        start_threads([lambda connection=connection: follow(connection) for connection in kept])
    return kept
