"""Load for a relay: pairs of raw sockets and frames made in advance, one loop; the far ends count what arrives."""

from __future__ import annotations

import importlib.metadata
import selectors
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from bench import wire
from bench.clients.meter import PATIENCE, Result

BLOCK = 1 << 18
"""Bytes that one send() hands to the system, about."""
Pair = tuple[socket.socket, socket.socket]
"""Who sends, and who takes."""


def by_path(port: int, number: int) -> Pair:
    """Join two connections through a relay that pairs by path."""
    taker, _ = wire.dial(port, f"{number}/take")
    sender, _ = wire.dial(port, f"{number}/send")
    return sender, taker


def by_name(port: int, number: int) -> Pair:
    """Join two through connman's relay: a spare of a provider, and a caller who is given it."""
    name = f"taker-{number}"
    taker, sender = wire.dial(port, "")[0], wire.dial(port, "")[0]
    _say(taker, f'{{"command":"provide","name":"{name}"}}')
    _expect(taker, "provided")
    _say(sender, f'{{"command":"reach","name":"{name}"}}')
    _expect(taker, "handover")
    _say(taker, '{"command":"ready"}')
    _expect(sender, "reached")
    return sender, taker


def _say(sock: socket.socket, text: str) -> None:
    sock.sendall(wire.masked_frame(text.encode()))


def _expect(sock: socket.socket, command: str) -> None:
    sock.settimeout(PATIENCE)
    got = sock.recv(2)
    while len(got) < 2 or len(got) < 2 + got[1]:
        got += sock.recv(2 + got[1] - len(got) if len(got) > 1 else 1) or _left(command)
    if f'"{command}"'.encode() not in got:
        raise AssertionError(f"wanted {command}, got {got!r}")


def _left(command: str) -> bytes:
    raise ConnectionError(f"the relay left instead of saying {command}")


JOINS: dict[str, Callable[[int, int], Pair]] = {"connman": by_name}
"""How two are joined where it is not by path."""


def forward(url: str, pairs: int, count: int, size: int) -> Result:
    """Frames a second that come out at the far ends, of ``count`` frames over all pairs."""
    parts = urlsplit(url)
    library = parts.path.strip("/")
    join = JOINS.get(library, by_path)
    joined = [join(parts.port or 0, number) for number in range(pairs)]
    seconds = pump(joined, count // pairs, size)
    return {"value": count // pairs * pairs / seconds, "version": f"{library} {_version(library)}"}


def _version(library: str) -> str:
    return importlib.metadata.version(library)


def pump(pairs: list[Pair], count: int, size: int) -> float:
    """Send so many frames through each pair; return the seconds from the first byte sent to the last one received."""
    with selectors.DefaultSelector() as selector:
        load = Load(selector, pairs, count, size)
        begin = time.perf_counter()
        while load.missing:
            if time.perf_counter() > begin + PATIENCE:
                raise TimeoutError(f"{sum(load.missing.values())} bytes did not arrive")
            for key, event in selector.select(1.0):
                (load.take if event == selectors.EVENT_READ else load.send)(key.fileobj)
        return time.perf_counter() - begin


class Load:
    """What is still to be sent, and what is still to arrive."""

    def __init__(self, selector: selectors.BaseSelector, pairs: list[Pair], count: int, size: int) -> None:
        self._selector = selector
        one = wire.masked_frame(wire.text(size).encode())
        self._frame = len(one)
        self._block = memoryview(one * max(1, BLOCK // len(one)))
        self._buffer = bytearray(BLOCK)
        self._unsent = {sender: len(one) * count for sender, _ in pairs}
        self.missing = {taker: len(wire.frame(wire.text(size).encode())) * count for _, taker in pairs}
        for sender, taker in pairs:
            sender.setblocking(False)
            taker.setblocking(False)
            selector.register(sender, selectors.EVENT_WRITE)
            selector.register(taker, selectors.EVENT_READ)

    def send(self, sock: socket.socket) -> None:
        """Send what the system takes, from where in a frame the last send() ended."""
        left = self._unsent[sock]
        at = -left % self._frame
        self._unsent[sock] = left = left - sock.send(self._block[at : at + left])
        if not left:
            self._selector.unregister(sock)

    def take(self, sock: socket.socket) -> None:
        """Count what has arrived."""
        got = sock.recv_into(self._buffer)
        if not got:
            raise ConnectionError(f"the relay left with {self.missing[sock]} bytes to come")
        self.missing[sock] -= got
        if self.missing[sock] <= 0:
            del self.missing[sock]
            self._selector.unregister(sock)
