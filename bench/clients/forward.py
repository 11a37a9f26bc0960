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
    one, arriving = wire.masked_frame(wire.text(size).encode()), len(wire.frame(wire.text(size).encode()))
    block = memoryview(one * max(1, BLOCK // len(one)))
    buffer = bytearray(BLOCK)
    selector = selectors.DefaultSelector()
    unsent = {sender: len(one) * count for sender, _ in pairs}
    missing = {taker: arriving * count for _, taker in pairs}
    for pair in pairs:
        for sock, event in zip(pair, (selectors.EVENT_WRITE, selectors.EVENT_READ), strict=True):
            sock.setblocking(False)
            selector.register(sock, event)
    whole, begin = len(block), time.perf_counter()
    until = begin + PATIENCE
    while missing:
        if time.perf_counter() > until:
            raise TimeoutError(f"{sum(missing.values())} bytes did not arrive")
        for key, event in selector.select(1.0):
            sock = key.fileobj
            if event == selectors.EVENT_READ:
                got = sock.recv_into(buffer)
                missing[sock] -= got or _gone(missing[sock])
                if missing[sock] <= 0:
                    del missing[sock]
                    selector.unregister(sock)
            else:
                # Where in a frame the last send() ended: the next begins there.
                left = unsent[sock]
                at = -left % len(one)
                unsent[sock] = left = left - sock.send(block[at : min(whole, at + left)])
                if not left:
                    selector.unregister(sock)
    return time.perf_counter() - begin


def _gone(missing: int) -> int:
    raise ConnectionError(f"the relay left with {missing} bytes to come")
