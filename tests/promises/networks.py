"""Networks that dislike websockets, and what a user of `pusher_default` has there."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import connman
from connman.strategy import Strategy, pusher_default
from tests.hostile.fleet import SLACK
from tests.proxies import Blocks, WebSocketBlocker
from tests.transport.sockjs_servers import PATIENCE, SockjsProcess
from tests.waiting import ProcessorWaits, Stalls, eventually

# The tree's own times. Where a websocket does not open, 2.5 s is the promise; a slow run may ask for more slack.
BEHIND_WS, BEHIND_STREAMING, BEYOND_CACHED = 2.0, 4.0, 1.0
OVER_HTTP = BEHIND_WS + SLACK
COUNT = 100
SOON = 3.0  # seconds in which what was ended is gone; only a failing test waits for so long


class Network:
    """A network with one way out, a proxy that dislikes websockets when it is told to, and what a user has there."""

    def __init__(self, server: SockjsProcess, proxy: WebSocketBlocker, folder: Path) -> None:
        self.proxy = proxy
        self._address = f"http://127.0.0.1:{proxy.port}"
        self._file = folder / "transports.json"
        self._ports = server.port, server.port

    def tree(self) -> Strategy:
        """Make the tree anew, as a program that is started anew does: it knows what is in the file and no more."""
        return default_tree(*self._ports, store=self._file)

    @property
    def words(self) -> list[str]:
        """What a program of its own wants to know: programs/reaching.py."""
        return [str(self._ports[0]), str(self._file), self._address]

    @contextlib.contextmanager
    def connected(self, within: float = PATIENCE, **options: Any) -> Iterator[connman.Connection]:
        """Open a connection, which must not take longer than that, and have messages come back over it."""
        old = self.record
        with opened(self.tree(), within, proxy=self._address, **options) as conn:
            eventually(lambda: self.record != old and self.record.get("transport") == conn.transport_name)
            yield conn

    @contextlib.contextmanager
    def connecting(self) -> Iterator[connman.Connection]:
        """Begin to open a connection, and end it in the midst of that."""
        conn = connman.Connection(self.tree(), proxy=self._address)
        conn.get_connected()
        try:
            yield conn
        finally:
            conn.disconnect(timeout=PATIENCE)

    @property
    def record(self) -> dict[str, Any]:
        """What the file has of the way that worked, empty when there is nothing."""
        with contextlib.suppress(FileNotFoundError):
            for record in json.loads(self._file.read_bytes()).values():
                return dict(record)
        return {}

    def let_pass(self, seconds: float) -> None:
        """Have the file as it will be found that much later."""
        entries = json.loads(self._file.read_bytes())
        for record in entries.values():
            record["timestamp"] -= seconds
        self._file.write_text(json.dumps(entries))


@contextlib.contextmanager
def network(server: SockjsProcess, blocks: Blocks | None, folder: Path) -> Iterator[Network]:
    with WebSocketBlocker(blocks) as proxy:
        yield Network(server, proxy, folder)


def default_tree(ws_port: int, http_port: int, **options: Any) -> Strategy:
    return pusher_default(
        f"ws://127.0.0.1:{ws_port}/echo/websocket", http=f"http://127.0.0.1:{http_port}/echo", **options
    )


@contextlib.contextmanager
def opened(target: Strategy, within: float, **options: Any) -> Iterator[connman.Connection]:
    """Open a connection, which must not take longer than that. The other ways are ended then, and after it all is.

    While the machine stood still no time passed, nor while the threads, which do one thing after the other here, had work
    and no processor.
    """
    with nothing_left(), Stalls() as stalls:
        waits, began = ProcessorWaits(), time.monotonic()
        with connman.Connection(target, **options) as conn:
            seconds, waited = time.monotonic() - began, waits.seconds
            print(
                *conn.attempts,
                f"{conn.transport_name} after {seconds:.3f} s, {waited:.3f} s of waits",
                sep="\n",
            )
            assert seconds < within + max(waited, stalls.so_far())
            eventually(lambda: not dials(), SOON, "the other ways to be ended")
            echo(conn)
            yield conn


def echo(conn: connman.Connection) -> None:
    for number in range(COUNT):
        conn.send(f"{number}")
    assert [conn.recv(PATIENCE) for _ in range(COUNT)] == [str(number) for number in range(COUNT)]


def tried(conn: connman.Connection) -> list[str]:
    """Name what was tried, in order of its start."""
    starts: dict[tuple[str, bool], float] = {}
    for step in conn.attempts:
        starts.setdefault((step.leaf, step.phase == "cache"), step.start)
    return [f"{'cached ' * cached}{leaf}" for leaf, cached in sorted(starts, key=starts.__getitem__)]


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Fail when a thread, or a descriptor of any kind, is left: at once, and not when the other ends are gone as well."""
    known = threads() | descriptors()
    yield
    eventually(
        lambda: (threads() | descriptors()) <= known,
        SOON,
        lambda: f"{(threads() | descriptors()) - known} to go",
    )


def threads() -> set[threading.Thread]:
    """Return the threads of connman's."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("connman-")}


def dials() -> list[str]:
    """Name the threads on which leaves dial."""
    return [thread.name for thread in threads() if thread.name.startswith("connman-dial-")]


def descriptors() -> set[object]:
    """Return each descriptor of this process with what it stands for."""
    found: set[object] = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listdir() itself used
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found
