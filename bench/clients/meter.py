"""What every client measures with: messages from first to last, sends until the server has said that all came."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 60.0
"""Seconds after which a run counts as failed."""

Result = dict[str, Any]
"""What a job returns: `value` in the unit of its row, and whatever else is worth keeping."""


class NotThereError(Exception):
    """What was to be measured does not exist (yet): its text says what."""


class Meter:
    """Takes the time of the first and of the last of so many messages."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._times: list[float] = []
        self._done = threading.Event()

    def mark(self) -> int:
        """Take the time, of the first message and then of the last; return which message is the next to be marked."""
        self._times.append(time.perf_counter())
        if len(self._times) == 2:
            self._done.set()
        return self.count

    def callback(self) -> Callable[[object, object], None]:
        """Return the cheapest callback that counts: called once a message with the connection and the data."""
        seen, marked, mark = 0, 1, self.mark

        def on_message(connection: object, data: object) -> None:
            nonlocal seen, marked
            seen += 1
            if seen == marked:
                marked = mark()

        return on_message

    def wait(self) -> None:
        """Return when the last message is there."""
        if not self._done.wait(PATIENCE):
            raise TimeoutError(f"{self.count} messages did not come within {PATIENCE:g} s")

    @property
    def seconds(self) -> float:
        """From the first message to the last."""
        return self._times[1] - self._times[0]

    def rate(self) -> Result:
        """Return messages a second."""
        return {"value": (self.count - 1) / self.seconds}

    def round_trip(self) -> Result:
        """Return microseconds from one message to the next."""
        return {"value": self.seconds / (self.count - 1) * 1e6}


def time_sends(
    send: Callable[[Any], object],
    message: object,
    calls: int,
    wait: Callable[[], object],
    *,
    threads: int = 1,
) -> float:
    """Call ``send(message)`` so many times from so many threads; return the seconds until ``wait()`` has returned."""
    barrier = threading.Barrier(threads + 1)

    def sender() -> None:
        barrier.wait(PATIENCE)
        for _ in range(calls // threads):
            send(message)

    for _ in range(threads):
        threading.Thread(target=sender, daemon=True).start()
    barrier.wait(PATIENCE)
    begin = time.perf_counter()
    wait()
    return time.perf_counter() - begin


def time_echoes(
    send: Callable[[Any], object], receive: Callable[[], object], message: object, count: int
) -> Result:
    """Send, wait for the answer, and again; return microseconds a round trip."""
    for _ in range(20):
        send(message)
        receive()
    begin = time.perf_counter()
    for _ in range(count):
        send(message)
        receive()
    return {"value": (time.perf_counter() - begin) / count * 1e6}
