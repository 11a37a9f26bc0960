"""What the connections report by their callbacks: written down and checked as it comes."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pace
from leaks import LeakGuard
from timeline import Event

from connman import Connection, Message, Reset
from connman.errors import ConnectError, ConnectionClosed, ConnectTimeout

now = time.monotonic
STALE = 0.4  # seconds without a price that are worth a word; they come every 0.02 s


class Sequence:
    """The tick numbers of one generation: every symbol from where the snapshot says, without a gap or a repeat."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}
        self.gaps = 0
        self.repeats = 0

    def snapshot(self, expected: dict[str, int]) -> None:
        """Take what each symbol's next number will be."""
        self._next = dict(expected)

    def tick(self, symbol: str, seq: int) -> None:
        """Take one tick; a symbol that no snapshot has announced is a gap as well."""
        expected = self._next.get(symbol, 0)
        self.gaps += seq > expected
        self.repeats += seq < expected
        self._next[symbol] = max(expected, seq + 1)


class Track:
    """What one connection has reported.

    Threads: written by its callbacks, which come one at a time; read by any.
    """

    def __init__(self) -> None:
        self.opens = self.losses = self.failures = self.messages = 0
        self.gaps = self.repeats = self.out_of_order = self.late = 0
        self.delays = self.wrong_delays = 0
        self.attempt = 0
        self.opened_at = self.lost_at = -float("inf")
        self.outages: list[float] = []
        self.timeouts: list[float] = []
        self.price = ""
        self.heard_at = -float("inf")
        self.is_open = False
        self._sequence = Sequence()

    def opened(self, when: float) -> None:
        """Take note of an open."""
        self.out_of_order += self.is_open
        self.is_open = True
        self.opens += 1
        self.opened_at = when
        self.attempt = 0
        self._sequence = Sequence()
        if self.losses:
            self.outages.append(when - self.lost_at)

    def received(self, message: dict[str, Any], when: float) -> None:
        """Check one message."""
        self.heard_at = when
        self.out_of_order += not self.is_open
        if "snapshot" in message:
            self._sequence.snapshot(message["snapshot"])
            return
        self.messages += 1
        self._sequence.tick(message["symbol"], message["seq"])
        self.price = f"{message['symbol']} {message['price']:.2f}"

    def reset(self, reset: Reset, when: float) -> None:
        """Take note of a loss, an end or a failed attempt, and check the delay that follows."""
        self.out_of_order += self.is_open != reset.opened
        if reset.opened:
            self.is_open = False
            self.losses += 1
            self.lost_at = when
            self.gaps += self._sequence.gaps
            self.repeats += self._sequence.repeats
        else:
            self.failures += 1
        self._check_delay(reset)
        if isinstance(reset.error, ConnectTimeout):
            self.timeouts.append(sum(step.seconds for step in reset.error.attempts))

    def _check_delay(self, reset: Reset) -> None:
        # Every open of the demo lasts longer than `stable_after`, so that a loss begins the series anew.
        self.attempt = 1 if reset.opened else self.attempt + 1
        if reset.retry_in is not None:
            self.delays += 1
            is_right = reset.attempt == self.attempt and pace.is_expected_delay(reset.attempt, reset.retry_in)
            self.wrong_delays += not is_right


class Audit:
    """The callbacks of all connections.

    Threads: every method from any thread.
    """

    def __init__(self, guard: LeakGuard, show: Callable[[Event], None]) -> None:
        self._guard = guard
        self._show = show
        self._condition = threading.Condition()
        # Guarded by _condition: _tracks, by the connection's id. Each track belongs to its connection's callbacks.
        self._tracks: dict[int, Track] = {}
        self._is_silence_due = False

    def callbacks(self) -> dict[str, Any]:
        """Return the options that make a connection report here."""
        return {"on_open": self.on_open, "on_data": self.on_data, "on_reset": self.on_reset}

    def on_open(self, conn: Connection) -> None:
        """Note it and say so in the timeline."""
        with self._noting(conn) as track:
            track.opened(now())
        self._show(Event("open"))

    def on_data(self, conn: Connection, message: Message) -> None:
        """Check one message; no lock, thousands of these come every second."""
        track = self.track(conn)
        track.late += self._is_silence_due
        track.received(json.loads(message), now())

    def on_reset(self, conn: Connection, reset: Reset) -> None:
        """Note it and say so in the timeline."""
        with self._noting(conn) as track:
            track.reset(reset, now())
        self._guard.look(f"{reset.error} {reset!r}")
        self._show(Event(_kind(reset), _cause(reset.error), reset.attempt, reset.retry_in))

    @contextlib.contextmanager
    def _noting(self, conn: Connection) -> Iterator[Track]:
        track = self.track(conn)
        with self._condition:
            track.late += self._is_silence_due
            yield track
            self._condition.notify_all()

    def track(self, conn: Connection) -> Track:
        """Return what ``conn`` has reported so far."""
        known = self._tracks.get(conn.id)
        if known is not None:
            return known
        with self._condition:
            return self._tracks.setdefault(conn.id, Track())

    def tracks(self) -> list[Track]:
        """Return those of all connections that have reported or were asked for."""
        with self._condition:
            return list(self._tracks.values())

    def sum(self, name: str) -> int:
        """Return the sum of one counter over all connections."""
        return sum(int(getattr(track, name)) for track in self.tracks())

    def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``predicate()``, which may look at tracks only, is true; False when ``timeout`` seconds did not do."""
        with self._condition:
            return self._condition.wait_for(predicate, timeout)

    def news(self) -> str:
        """Return the newest price, or for how long there has been none."""
        latest = max(self.tracks(), key=lambda track: track.heard_at, default=None)
        if latest is None or not latest.price:
            return ""
        age = now() - latest.heard_at
        return latest.price if age < STALE else f"no price for {age:.1f} s"

    def demand_silence(self) -> None:
        """Count every callback from now on as late."""
        self._is_silence_due = True


def seconds_until(
    audit: Audit, began: float, moments: Callable[[], Iterable[float]], timeout: float
) -> float:
    """Wait until all ``moments()`` lie after ``began``; return the seconds to the last of them, inf if that fails."""
    if not audit.wait(lambda: all(moment > began for moment in moments()), timeout):
        return float("inf")
    return max(moments()) - began


def _kind(reset: Reset) -> str:
    if isinstance(reset.error, ConnectionClosed) and reset.retry_in is None:
        return "closed"
    return "lost" if reset.opened else "attempt failed"


def _cause(error: Exception) -> str:
    text = error.message if isinstance(error, ConnectError) else str(error)
    return f"{type(error).__name__}: {text}"
