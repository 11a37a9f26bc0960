"""What comes of a strategy, and the seams between a tree and those who watch it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from connman.errors import ConnectError, ConnmanError, NotConnected, Retry, retry_verdict
from connman.records import Message
from connman.threads import spawn
from connman.transport.base import Dial, Transport
from connman.transport.causes import describe


@dataclass(frozen=True, slots=True)
class Opened:
    """Tell of a way that works: what a strategy calls back with when it has opened a transport.

    ``transport``: whoever gets the record owns it. ``name`` and ``priority`` are the leaf's. ``first``: messages that
    came behind the login. ``refusal``: why the peer did not let us in, None when it did; the transport has ended then,
    and the way to the peer works all the same.
    """

    transport: Transport
    name: str
    priority: int
    first: Sequence[Message] = ()
    refusal: ConnmanError | None = None


Result = Opened | ConnmanError
Report = Callable[[Result], None]


class Runner(Protocol):
    """A strategy under way.

    Threads: what `Strategy.connect` returns from any thread; what `Strategy.start` returns within the run's events only.
    """

    def abort(self) -> None:
        """End it; what opens late is closed, and nothing is called back any more. Idempotent.

        A callback that another thread has begun just now is not waited for.

        Threads: see `Runner`; never blocks.
        """

    def force_min_priority(self, priority: int) -> None:
        """Give up what has a lower priority than this, now and from now on.

        Threads: see `Runner`; never blocks.
        """


class Watcher(Protocol):
    """What watches over the transports of some leaves and may call them out of order: a `TransportManager`.

    Threads: every method from any thread; none may block.
    """

    @property
    def is_alive(self) -> bool:
        """Whether its leaves are to be tried."""

    def watch(self, transport: Transport) -> None:
        """Learn of a transport that has opened, before the login: set its ``on_end`` and its ``ping_pace``."""

    def opened(self) -> None:
        """Learn that a run of a tree in which it has leaves opened a transport, whichever; once a run."""

    def nothing_opened(self) -> None:
        """Learn that such a run has failed and opened no transport at all."""


def discard(transport: Transport) -> None:
    """Close a transport that nobody wants, which is no fault of its own.

    Threads: whoever owns it.
    """
    # Not a close, which would look like the proof that a `TransportManager` waits for.
    transport.abort(NotConnected("nobody wants it any more"))
    if transport.is_slow_to_dispose:
        try:
            spawn("discard", transport.dispose)
        except RuntimeError:
            transport.dispose()
        return
    transport.dispose()


def too_low(name: str, priority: int, wanted: int) -> str:
    """Return why a leaf is not wanted any more.

    Threads: any; pure.
    """
    return f"{name} has priority {priority}, and {wanted} is there"


def combined(dial: Dial, errors: Sequence[ConnmanError]) -> ConnmanError:
    """Return the one error that stands for those of several ways, none of which has opened.

    Another attempt is worth it when it is on any of the ways: only when it is on none, the last error stands for all.

    Threads: any; pure.
    """
    verdicts = [retry_verdict(error) for error in errors]
    if len(errors) == 1 or (errors and Retry.AGAIN not in verdicts):
        decisive = Retry.ONCE if Retry.ONCE in verdicts else Retry.NEVER
        return [
            error
            for error, verdict in zip(errors, verdicts, strict=True)
            if verdict in (decisive, Retry.AGAIN)
        ][-1]
    last = f": {describe(errors[-1])}" if errors else ""
    error = ConnectError(dial.name, dial.log, f"none of {len(errors)} ways opened{last}")
    error.__cause__ = errors[-1] if errors else None
    return error
