"""A server goes away under many clients and comes back: when does each of them?

The clients' delays are those of `connman.connection.backoff`, the time is a fake clock's, and chance has a seed.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from connman.connection.backoff import FIRST_DELAY, LONGEST_DELAY, Backoff
from connman.errors import ConnectError, ConnectionLost, ConnmanError, UpgradeRefused
from connman.options import make_options
from connman.testing import FakeClock

BIN = 0.1  # seconds


class NoJitter(random.Random):
    """Chance taken out: always the longest delay."""

    def uniform(self, a: float, b: float) -> float:
        return b


Server = Callable[[float], ConnmanError | None]
"""What a server answers at a time: an error, or None when it takes the client."""


def refuse(_: float) -> ConnmanError:
    return ConnectError("there", (), "tcp: Connection refused")


def answer(status: int, **headers: str) -> Callable[[float], ConnmanError]:
    return lambda _: UpgradeRefused(
        status, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def ask_for_date(seconds: float, status: int = 503) -> Callable[[float], ConnmanError]:
    """Answer with a Retry-After that is a date, `seconds` from now."""

    def serve(_: float) -> ConnmanError:
        date = datetime.now(UTC) + timedelta(seconds=seconds)
        return UpgradeRefused(status, {"retry-after": format_datetime(date, usegmt=True)})

    return serve


def away(seconds: float, meanwhile: Callable[[float], ConnmanError] = refuse) -> Server:
    """Be a server that answers so for a time, and then takes everyone."""
    return lambda now: meanwhile(now) if now < seconds else None


def most_attempts(seconds: float) -> int:
    """Return how many attempts a client makes at most within a time, and one more: the shortest delays there are."""
    count, when = 0, FIRST_DELAY / 2
    while when <= seconds:
        count += 1
        when += min(FIRST_DELAY * 2**count, LONGEST_DELAY) / 2
    return count + 1


@dataclass
class Herd:
    """What the clients did. Times are seconds from the loss."""

    back: list[float] = field(default_factory=list)
    attempts: Counter[int] = field(default_factory=Counter)  # by client
    gave_up: list[ConnmanError] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)  # behind an answer, not behind the loss

    @property
    def bins(self) -> Counter[int]:
        return Counter(int(when / BIN) for when in self.back)

    @property
    def peak(self) -> float:
        """The share of all that came back in the fullest bin."""
        return max(self.bins.values(), default=0) / max(1, len(self.back))


def simulate(
    clients: int,
    server: Server,
    *,
    seed: int = 1,
    chance: Callable[[int], random.Random] = random.Random,
    options: Mapping[str, Any] | None = None,
    until: float = 1000.0,
) -> Herd:
    """Take the server away from `clients` clients at the time 0, and follow them."""
    clock, herd = FakeClock(), Herd()
    made = make_options(dict(options or {}))
    source = chance(seed)

    def fail(client: int, backoff: Backoff, error: ConnmanError) -> None:
        delay = backoff.failed(error)
        if isinstance(delay, ConnmanError):
            herd.gave_up.append(delay)
            return
        if not isinstance(error, ConnectionLost):
            herd.waits.append(delay)
        clock.call_later(delay, lambda: attempt(client, backoff))

    def attempt(client: int, backoff: Backoff) -> None:
        herd.attempts[client] += 1
        error = server(clock.now())
        if error is None:
            herd.back.append(clock.now())
        else:
            fail(client, backoff, error)

    for client in range(clients):
        fail(client, Backoff(made, clock, chance=source), ConnectionLost("the server has gone"))
    clock.advance(until)
    return herd
