"""A connection on a fake clock and a scripted dialer, with a record of what its user is told."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from connman import Connection, ConnmanError, Message, Reset
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


class Rig:
    """A `Connection` named "rig" whose dials follow `script`; leaving the with-block ends it. No pings unless asked for."""

    def __init__(self, script: Iterable[Outcome] | Callable[..., Outcome] = (OPEN,), **options: Any) -> None:
        self.clock: Any = options.pop("clock", None) or FakeClock()
        self.dialer = ScriptedDialer(script)
        self.told = Told()
        defaults = {
            "on_open": self.told.on_open,
            "on_data": self.told.on_data,
            "on_reset": self.told.on_reset,
            "ping_interval": None,
            "name": "rig",
        }
        self.conn = Connection(self.dialer, clock=self.clock, **{**defaults, **options})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.conn.disconnect(timeout=1.0)

    def open(self) -> Peer:
        """Ask for it, wait until it is open, and return its far end."""
        self.conn.wait_open(PATIENCE)
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
