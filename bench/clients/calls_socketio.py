"""python-socketio: `Client.call()`; and `emit()` with a callback, since it has no Future."""

from __future__ import annotations

import threading
from collections.abc import Callable

import socketio

from bench.clients import calling
from bench.clients.meter import PATIENCE, Result

VERSION_OF = "python-socketio"


def dial(url: str) -> socketio.Client:
    """Connect by websocket at once, without the detour over polling."""
    client = socketio.Client(handle_sigint=False, reconnection=False)
    client.connect(url.replace("ws:", "http:"), transports=["websocket"], wait_timeout=PATIENCE)
    return client


def adder(client: socketio.Client) -> calling.Add:
    """Return the blocking call."""
    return lambda one, other: client.call("add", (one, other), timeout=PATIENCE)


def calls(url: str, count: int) -> Result:
    """Measure calls a second, one at a time."""
    return calling.one_by_one(adder(dial(url)), count)


def calls_from_threads(url: str, count: int, threads: int) -> Result:
    """Measure calls a second of so many threads."""
    return calling.from_threads(adder(dial(url)), count, threads)


def calls_in_flight(url: str, count: int, window: int) -> Result:
    """Measure calls a second with so many under way."""
    client = dial(url)

    def begin(one: int, other: int) -> Callable[[], int]:
        answered, answers = threading.Event(), []

        def on_answer(answer: int) -> None:
            answers.append(answer)
            answered.set()

        client.emit("add", (one, other), callback=on_answer)

        def wait() -> int:
            if not answered.wait(PATIENCE):
                raise TimeoutError("no answer")
            return answers[0]

        return wait

    return calling.in_flight(adder(client), begin, count, window)
