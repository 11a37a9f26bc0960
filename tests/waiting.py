"""Waiting for a condition, with a bound that only a failing test reaches."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    predicate: Callable[[], T],
    timeout: float = 10.0,
    message: str | Callable[[], str] = "the condition to hold",
) -> T:
    """Wait until `predicate()` is true and return what it returned; `AssertionError` after `timeout` seconds.

    `message` completes "waited 10 s for …"; a callable is asked at the time of the failure.
    """
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (result := predicate()):
        if time.monotonic() >= deadline:
            text = message() if callable(message) else message
            raise AssertionError(f"waited {timeout:g} s for {text}")
        pause.wait(0.005)
    return result
