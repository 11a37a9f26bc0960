"""The physical floor: what the system and the interpreter cost when there is no library at all."""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from bench import wire
from bench.clients.meter import PATIENCE, Meter, Result, time_echoes, time_sends


def dial(url: str) -> tuple[wire.socket.socket, bytes]:
    """Open a connection by hand; return it and what came with the answer."""
    parts = urlsplit(url)
    sock, behind = wire.dial(parts.port or 0, parts.path.lstrip("/"))
    sock.settimeout(None)
    return sock, behind


def receive(url: str, size: int, count: int) -> Result:
    """Messages a second if all one did were recv(): the bytes of so many messages, which nobody takes apart."""
    sock, behind = dial(url)
    per_message = len(wire.frame(wire.text(size).encode()))
    left = per_message * count - len(behind)
    buffer = bytearray(1 << 18)
    left -= sock.recv_into(buffer)
    total, begin = left, time.perf_counter()
    while left > 0:
        left -= sock.recv_into(buffer)
    seconds = time.perf_counter() - begin
    return {"value": total / per_message / seconds}


def cut(url: str, size: int, count: int) -> Result:
    """Messages a second if one knew where each begins and what it is: cut out, decoded, handed to a callback that counts.

    What any client written in Python does at least.
    """
    sock, rest = dial(url)
    meter = Meter(count)
    on_message = meter.callback()
    whole = len(wire.frame(wire.text(size).encode()))
    head = whole - size
    left = count
    while left:
        chunk = rest + sock.recv(1 << 17) if rest else sock.recv(1 << 17)
        there = len(chunk) // whole
        for begin in range(head, there * whole, whole):
            on_message(None, chunk[begin : begin + size].decode())
        rest = chunk[there * whole :]
        left -= there
    return meter.rate()


def open_many(url: str, count: int, on_message: Callable[[Any, Any], object] | None) -> object:
    """Open so many connections by hand, which one thread reads: a selector, recv(), and a callback for what it brings."""
    selector = selectors.DefaultSelector()
    for _ in range(count):
        sock, _ = dial(url)
        selector.register(sock, selectors.EVENT_READ)

    def loop() -> None:
        while True:
            for key, _ in selector.select():
                chunk = key.fileobj.recv(1 << 16)
                if on_message is not None:
                    on_message(None, chunk)

    threading.Thread(target=loop, daemon=True).start()
    return selector


def callbacks(url: str, size: int, count: int) -> Result:
    """Messages a second if all one did were to call a callback that counts."""
    meter, message = Meter(count), wire.text(size)
    on_message = meter.callback()
    for _ in range(count):
        on_message(None, message)
    return meter.rate()


def send(url: str, size: int, count: int, threads: int = 1) -> Result:
    """Messages a second, one sendall() of a frame made in advance for each."""
    sock, _ = dial(url)
    sock.settimeout(PATIENCE)
    seconds = time_sends(sock.sendall, wire.masked_text(size), count, lambda: sock.recv(64), threads=threads)
    return {"value": count / seconds}


def echo(url: str, size: int, count: int) -> Result:
    """Microseconds a round trip of sendall() and recv()."""
    sock, _ = dial(url)
    return time_echoes(sock.sendall, lambda: sock.recv(1 << 16), wire.masked_text(size), count)
