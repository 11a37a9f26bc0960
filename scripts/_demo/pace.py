"""How long the demo's acts take, what its connections are told, and which bounds follow from that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tenacity

POOL_SIZE = 8
CALLERS = 200
DEAF_DIALS = 4  # connections that are in the middle of opening when everything is disconnected
REFUSED_DIALS = 2  # connections that wait for their next attempt then

# Short, so that it all fits into 25 s. The defaults are 10 s, 20 s, 20 s and a delay of up to 128 s.
OPEN_TIMEOUT = 1.0
PING_INTERVAL = 0.5
PING_TIMEOUT = 1.0
FIRST_DELAY, LONGEST_DELAY, JITTER = 0.1, 1.0, 0.2

CALL_THREADS = 6
CALL_TAKES = 0.005  # seconds that a service works, so that calls are under way when the relay is killed
CALL_TIMEOUT = 10.0

SLACK = 1.0
"""Seconds that a busy machine may add to any bound."""


def options() -> dict[str, Any]:
    """Return the options of every connection of the demo."""
    doubling = tenacity.wait_exponential(multiplier=FIRST_DELAY, max=LONGEST_DELAY)
    wait: Callable[[tenacity.RetryCallState], float] = doubling + tenacity.wait_random(0, JITTER)
    return {
        "open_timeout": OPEN_TIMEOUT,
        "handshake_timeout": 2.0,
        "ping_interval": PING_INTERVAL,
        "ping_timeout": PING_TIMEOUT,
        "stable_after": 0.5,
        "wait": wait,
    }


def call_wait() -> Callable[[tenacity.RetryCallState], float]:
    """Return how long those who call each other wait between two attempts to get to the relay."""
    wait: Callable[[tenacity.RetryCallState], float] = tenacity.wait_fixed(
        FIRST_DELAY
    ) + tenacity.wait_random(0, JITTER)
    return wait


def described() -> str:
    """Return the options in one line."""
    numbers = {name: value for name, value in options().items() if name != "wait"}
    told = ", ".join(f"{name}={value:g}" for name, value in numbers.items())
    return f"{told}, wait={FIRST_DELAY:g} s doubling to {LONGEST_DELAY:g} s plus up to {JITTER:g} s at random"


def is_expected_delay(attempt: int, delay: float) -> bool:
    """Return whether ``wait`` may ask for ``delay`` seconds after that many failures in a row."""
    shortest = min(FIRST_DELAY * 2.0 ** (attempt - 1), LONGEST_DELAY)
    return shortest <= delay <= shortest + JITTER


@dataclass(frozen=True, slots=True)
class Pace:
    """The seconds that each act lasts beyond what has to happen in it."""

    calm: float = 1.8  # all is well
    refusing: float = 2.6
    deaf: float = 2.0  # after every connection has timed out once
    frozen: float = 2.0  # after the ping timeout
    calls: float = 0.4  # that calls go through a relay, before it is killed and after it is back
    ending: float = 0.8  # for the last dials to get stuck
    silence: float = 1.5  # after everything was disconnected


QUICK = Pace(calm=0.7, refusing=0.5, deaf=0.1, frozen=0.2, calls=0.2, ending=0.5, silence=0.5)
