"""Raw sockets and frames made in advance on both sides of the picows relay: a call that nobody encodes, waits for or runs."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from bench import wire
from bench.clients import calling
from bench.clients.meter import Result

VERSION_OF = "picows"


def adder(url: str) -> tuple[calling.Add, calling.Begin]:
    """Return the blocking call and the one that only sends."""
    sock, _ = wire.dial(urlsplit(url).port or 0, "0/send")
    request = wire.masked_frame(wire.text(wire.CALL_SIZE).encode())
    size = len(wire.frame(wire.text(wire.CALL_SIZE).encode()))
    there = 0

    def wait() -> None:
        nonlocal there
        while there < size:
            there += len(sock.recv(1 << 16))
        there -= size

    def add(one: int, other: int) -> int:
        sock.sendall(request)
        wait()
        return one + other

    def begin(one: int, other: int) -> Callable[[], int]:
        sock.sendall(request)

        def answer() -> int:
            wait()
            return one + other

        return answer

    return add, begin


def calls(url: str, count: int) -> Result:
    """Measure calls a second, one at a time."""
    return calling.one_by_one(adder(url)[0], count)


def calls_in_flight(url: str, count: int, window: int) -> Result:
    """Measure calls a second with so many under way."""
    return calling.in_flight(*adder(url), count, window)
