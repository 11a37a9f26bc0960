"""A connection on a fake clock and a scripted dialer, with a record of what its user is told."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, Self

from connman import Connection, ConnmanError, Message, Reset
from connman.clock import Timer
from connman.connection.sharing import SharedReaders
from connman.testing import FakeClock, Peer, ScriptedDialer
from connman.testing.dialer import Outcome
from tests.waiting import eventually

PATIENCE = 10.0  # seconds that only a failing test reaches

OPEN, DEAF, HANG = ScriptedDialer.OPEN, ScriptedDialer.DEAF, ScriptedDialer.HANG
REFUSED = ConnectionRefusedError


def forever(outcome: Outcome) -> Iterator[Outcome]:
    return itertools.repeat(outcome)


def say(peer: Peer, *messages: Message) -> None:
    """Have `peer` send, for as long as the connection lasts."""
    with contextlib.suppress(ConnmanError):
        for message in messages:
            peer.send(message)


class Told:
    """The callbacks of one connection, in the order they came: "open", data, and resets.

    A hook of a name in `hooks` ("open", "data", "reset") runs inside the callback, and what it returns is returned.
    """

    def __init__(self) -> None:
        self.events: list[Message | Reset] = []
        self.hooks: dict[str, Callable[..., Any]] = {}
        self.inside = 0
        self.overlaps = 0
        self.threads: set[threading.Thread] = set()

    def on_open(self, conn: Connection) -> Any:
        return self._note("open", "open", conn)

    def on_data(self, conn: Connection, message: Message) -> Any:
        return self._note("data", message, conn, message)

    def on_reset(self, conn: Connection, reset: Reset) -> Any:
        return self._note("reset", reset, conn, reset)

    def _note(self, kind: str, event: Message | Reset, *args: Any) -> Any:
        self.overlaps += self.inside
        self.inside += 1
        self.threads.add(threading.current_thread())
        self.events.append(event)
        try:
            return self.hooks.get(kind, lambda *_: None)(*args)
        finally:
            self.inside -= 1

    @property
    def resets(self) -> list[Reset]:
        return [event for event in self.events if isinstance(event, Reset)]

    @property
    def kinds(self) -> list[str]:
        """The events as texts: "open", the messages, "lost" or "failed"."""
        return [
            ("lost" if event.opened else "failed") if isinstance(event, Reset) else str(event)
            for event in self.events
        ]

    def wait(self, count: int) -> Self:
        eventually(lambda: len(self.events) >= count, PATIENCE, lambda: f"{count} events: {self.events}")
        return self


class TimerClock(FakeClock):
    """A clock for shared readers, which wait between two attempts by a timer: those delays count as well."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer = super().call_later(delay, callback)
        if isinstance(callback, partial) and callback.func.__name__ == "post":  # not a close's, nor a ping's
            with self._changed:
                self._delays.append(delay)
                self._changed.notify_all()
        return timer

    def wait_until_waiting(self, count: int = 1, timeout: float = PATIENCE, *, delays: int = 0) -> None:
        super().wait_until_waiting(0 if delays else count, timeout, delays=delays)


# Which readers the rigs of the running test have; conftest.py runs the tests of a life with each.
reader_kind = ContextVar("reader_kind", default="thread")


def read_as_told(conn: Connection, clock: Any) -> None:
    """Give `conn` the kind of reader that the running test is about."""
    if reader_kind.get() == "shared":
        conn.read_by(SharedReaders(1, "rig", clock))


def reader_name() -> str:
    """Return the name of the thread that reads a rig."""
    return "connman-readers-rig-1" if reader_kind.get() == "shared" else "connman-reader-rig"


class Rig:
    """A `Connection` named "rig" whose dials follow `script`; leaving the with-block ends it. No pings unless asked for."""

    def __init__(self, script: Iterable[Outcome] | Callable[..., Outcome] = (OPEN,), **options: Any) -> None:
        is_shared = reader_kind.get() == "shared"
        self.clock: Any = options.pop("clock", None) or (TimerClock() if is_shared else FakeClock())
        self.dialer = ScriptedDialer(script)
        self.told = Told()
        defaults = {
            "on_open": self.told.on_open,
            "on_data": self.told.on_data,
            "on_reset": self.told.on_reset,
            "ping_interval": None,
            "name": "rig",
        }
        self._tells_opens = "on_open" not in options
        self.conn = Connection(self.dialer, clock=self.clock, **{**defaults, **options})
        read_as_told(self.conn, self.clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.conn.disconnect(timeout=1.0)

    def open(self) -> Peer:
        """Ask for it, wait until it is open and `on_open` was called, and return its far end."""
        self.conn.wait_open(PATIENCE)
        if (
            self._tells_opens and not self.told.hooks
        ):  # else an end might come first, and be told as a failed attempt's
            eventually(lambda: self.told.kinds.count("open") >= self.conn.generation, PATIENCE)
        return self.dialer.next_peer()

    def wait_delay(self, number: int) -> float:
        """Wait until the `number`-th wait between two attempts (from 1) is under way; return its seconds."""
        self.clock.wait_until_waiting(delays=number)
        return float(self.clock.delays[number - 1])

    def fail_through(self, count: int) -> list[float]:
        """Live through the first `count` waits between attempts and return their delays."""
        self.conn.connect()
        for number in range(1, count + 1):
            self.clock.advance(self.wait_delay(number))
        return list(self.clock.delays[:count])
