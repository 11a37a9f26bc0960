"""Services under a name on a relay: the spares that wait there, and the callers that have got one."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from connman.clock import Deadline, SystemClock, maybe_call_later
from connman.connection import fork
from connman.connection.connection import Connection
from connman.connection.group import all_gone, end_all
from connman.errors import (
    ConnectionClosed,
    ConnectTimeout,
    Forked,
    Retry,
    WaitTimeout,
    WouldDeadlock,
    retry_verdict,
)
from connman.manager import Manager
from connman.options import make_options
from connman.records import Message, State
from connman.rpc.joining import Joining, RelayRefused
from connman.rpc.peer import Peer
from connman.rpc.services import Services
from connman.rpc.spare import Spare
from connman.threads import Condition, is_kill, is_own

logger = logging.getLogger("connman.rpc")

# Seconds until the next try when the system has granted no thread for a spare.
_THREAD_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class ProviderStats:
    """Count what a provider has, and what it has done: a snapshot.

    ``spares``: connections that wait for a caller or are on their way to the relay. ``open_spares``: of these, known to
    the relay. ``peers``: callers joined now. ``handovers``: callers joined so far. ``last_error``: text of the newest
    failure of a spare, None before the first.
    """

    spares: int
    open_spares: int
    peers: int
    handovers: int
    last_error: str | None


class _Ended(ConnectionClosed):
    """It was ended by `close`, or with everything else."""


class Provider:
    """Services under a name on a relay, on as many connections as callers want: what `provide` returns.

    It keeps ``spares`` connections at the relay, each of which becomes one caller's; another takes its place at once.
    A spare that is lost comes back. When the relay refuses for good (a bad token, a name it does not allow) no further
    attempt is made: the callers that are joined stay, and `wait_closed` raises why.

    In a forked child it has ended, with Forked; the parent's goes on.

    Threads: every method from any thread, services included, but for what is said there.
    """

    def __init__(
        self,
        joining: Joining,
        services: Services,
        options: Mapping[str, Any],
        *,
        spares: int,
        max_peers: int,
        on_peer: Callable[[Peer], object] | None,
        peer_options: Mapping[str, Any],
        manager: Manager,
    ) -> None:
        self.name = joining.name
        self._joining = joining
        self._services = services
        self._options = options
        joining.options(options, longest_pause=1.0)  # only to hear its complaints now
        self._close_timeout, self._open_timeout = _timeouts(options)
        self._wanted = spares
        self._most = max_peers
        self._on_peer = on_peer
        self._peer_options = peer_options
        self._manager = manager
        self._numbers = itertools.count(1)
        self._build()
        fork.register(self)
        fork.end_at_exit(self)

    def _build(self) -> None:
        self._changed = Condition(threading.RLock())
        # Guarded by _changed: everything below. Spares and pairs by number; None for a spare that is being made.
        self._spares: dict[int, Spare | None] = {}
        self._pairs: dict[int, tuple[Spare, Peer | None]] = {}
        self._handovers = 0
        self._last_error: Exception | None = None
        self._ending: Exception | None = None

    def start(self) -> Self:
        """Start dialling and return at once; `provide` has done it.

        Threads: any; never blocks.
        """
        self._top_up()
        return self

    # Spares.

    def _top_up(self) -> None:
        """Dial as many spares as are missing."""
        while (number := self._reserve()) is not None:
            try:
                spare = Spare(self, number, self._joining, self._options)
            except BaseException:  # user code (a signal handler) raised
                with self._changed:
                    self._spares.pop(number, None)
                raise
            with self._changed:
                if self._ending is not None:
                    self._spares.pop(number, None)
                    self._changed.notify_all()
                    return
                self._spares[number] = spare
            # Outside the lock: it starts a thread, and tells us of the new state.
            self._manager.add(spare.conn)

    def _reserve(self) -> int | None:
        with self._changed:
            # A spare counts as the peer that it may be any moment: there are never more than `_most`.
            missing = min(self._wanted, self._most - len(self._pairs)) - len(self._spares)
            if self._ending is not None or missing <= 0:
                return None
            number = next(self._numbers)
            self._spares[number] = None
            return number

    def take(self, spare: Spare) -> bool:
        """Count a spare as a pair's; for `Spare`."""
        with self._changed:
            if self._ending is not None or self._spares.pop(spare.number, None) is None:
                return False
            spare.is_taken = True
            self._pairs[spare.number] = (spare, None)
            self._handovers += 1
            return True

    def taken(self, spare: Spare, first: list[Message] | None) -> None:
        """Replace a spare that was taken, and serve its caller; for `Spare`."""
        self._top_up()
        if first is None:
            return
        peer = Peer(spare.conn, services=self._services, first=first, replaces=spare, **self._peer_options)
        # A pair that nobody is at any more is closed for good: a use of it would dial, and say our name again.
        peer.closed.add_done_callback(lambda _: spare.conn.end_soon())
        with self._changed:
            if spare.number in self._pairs:
                self._pairs[spare.number] = (spare, peer)
        if self._on_peer is not None:
            self._tell_user(peer, self._on_peer)

    def _tell_user(self, peer: Peer, on_peer: Callable[[Peer], object]) -> None:
        try:
            on_peer(peer)
        except BaseException as error:  # user callback: it must end neither the pair nor its reader
            if is_kill(error):
                raise
            logger.exception("on_peer raised", extra={"conn": self.name})

    def changed(self, spare: Spare, state: State) -> None:
        """Learn of a spare's or a pair's state; for `Spare`."""
        if state in (State.IDLE, State.CLOSED):
            self._ended(spare, state)
        elif state is State.OPEN:
            with self._changed:
                self._changed.notify_all()

    def _ended(self, spare: Spare, state: State) -> None:
        error = spare.conn.last_error
        with self._changed:
            was_spare = self._spares.pop(spare.number, None) is not None
            was_pair = self._pairs.pop(spare.number, None) is not None
            if was_spare:
                self._last_error = error or self._last_error
            self._changed.notify_all()
            is_over = self._ending is not None or not (was_spare or was_pair)
        # Outside the lock: each of these dials, ends, or logs.
        if is_over:
            return
        if was_pair:
            self._top_up()
        elif state is State.CLOSED:
            # By `disconnect_all`, or the end of the interpreter: whoever did it means all of us.
            self.end_soon()
        elif error is not None and retry_verdict(error) is not Retry.AGAIN:
            self._refused(error)
        else:
            maybe_call_later(SystemClock(), _THREAD_PAUSE, self._top_up)

    def _refused(self, error: Exception) -> None:
        if isinstance(error, ConnectionClosed):  # in its life, not when it asked
            error = RelayRefused(error.code, error.reason)
        logger.error("provide %s: no further attempt: %s", self.name, error, extra={"conn": self.name})
        for conn in self._end(error, with_pairs=False):
            conn.end_soon(1000)

    # Ending.

    def _end(self, why: Exception, *, with_pairs: bool = True) -> list[Connection]:
        """Dial no more; return the connections there are."""
        with self._changed:
            self._ending = self._ending or why
            spares = [spare.conn for spare in self._spares.values() if spare is not None]
            pairs = [spare.conn for spare, _ in self._pairs.values()] if with_pairs else []
            self._changed.notify_all()
        return spares + pairs

    def end_soon(self) -> None:
        """Begin what `close` does and return at once; what is open has 1 s to answer.

        Threads: any; never blocks.
        """
        self._tell_end(1.0)

    def _tell_end(self, timeout: float) -> list[Connection]:
        ending = self._end(_Ended())
        for conn in ending:
            conn.end_soon(1001, "the provider stops", timeout)
        return ending

    def close(self, timeout: float | None = None) -> None:
        """End it for good: spares, and callers that are joined, whose calls under way fail with PeerGone. Idempotent.

        Each has ``timeout`` seconds (None: ``close_timeout``; 0 and less: no time) to answer the close, all of them
        under one deadline. A service that runs is not interrupted; its answer goes nowhere.

        Threads: any; called on one of connman's own threads, as by a service, it returns at once and finishes behind.
        """
        fork.check_process()
        bound = self._close_timeout if timeout is None else max(0.0, timeout)
        ending = self._tell_end(bound)
        if not is_own():
            end_all(ending, Deadline.after(SystemClock(), bound))

    def wait_gone(self, within: float) -> bool:
        """Wait up to ``within`` seconds for its connections' threads to be gone; return whether they are.

        Threads: any but connman's own.
        """
        return all_gone(self._end(_Ended()), Deadline.after(SystemClock(), within))

    def after_fork(self) -> None:
        """Have ended in a child process: the connections are the parent's.

        Threads: the first one of the child that uses connman.
        """
        self._build()
        self._ending = Forked(f"{self.name} is provided by the parent process: call provide() in this one")

    # Waiting and looking.

    def wait_ready(self, timeout: float | None = None) -> Self:
        """Wait until the relay knows of a spare, or a caller has one already; return this provider.

        ``timeout`` in seconds; None for no limit, 0 and less: only look.

        Raises: WaitTimeout, whose text holds the newest error; the error with which the relay refused for good;
        ConnectionClosed after `close`; WouldDeadlock on connman's own threads.
        Threads: any but connman's own.
        """
        if not self._wait(lambda: self._ending is not None or self._is_ready(), timeout):
            because = self._because()
            raise WaitTimeout(f"{self.name}: not known to the relay within {timeout:g} s{because}")
        if self._ending is not None:
            raise self._ending
        return self

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until it has ended, its pairs included; ``timeout`` as for `wait_ready`.

        Raises: WaitTimeout; the error with which the relay refused for good; Forked in a forked child; WouldDeadlock on
        connman's own threads.
        Threads: any but connman's own.
        """
        if not self._wait(lambda: self._ending is not None and not self._spares and not self._pairs, timeout):
            raise WaitTimeout(f"{self.name}: not ended within {timeout:g} s")
        if not isinstance(self._ending, _Ended):
            assert self._ending is not None
            raise self._ending

    def _wait(self, predicate: Callable[[], bool], timeout: float | None) -> bool:
        fork.check_process()
        if is_own():
            raise WouldDeadlock("one of connman's own threads cannot wait for a provider")
        with self._changed:
            return Deadline.after(SystemClock(), timeout).wait_for(self._changed, predicate)

    def _is_ready(self) -> bool:
        return bool(self._handovers) or any(spare and spare.conn.is_open for spare in self._spares.values())

    def _because(self) -> str:
        with self._changed:
            spares = [spare for spare in self._spares.values() if spare is not None]
        errors = [spare.conn.last_error for spare in spares if spare.conn.last_error is not None]
        return f"; last error: {errors[-1]}" if errors else ""

    @property
    def services(self) -> Services:
        """The services, shared by all callers: what is added or removed counts from the next call on."""
        return self._services

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The callers that are joined now."""
        fork.check_process()
        with self._changed:
            return tuple(peer for _, peer in self._pairs.values() if peer is not None)

    @property
    def stats(self) -> ProviderStats:
        """What it has, and what it has done: a snapshot."""
        fork.check_process()
        with self._changed:
            spares = [spare for spare in self._spares.values() if spare is not None]
            counts = len(self._spares), len(self._pairs), self._handovers
            last_error = self._last_error
        errors = [error for spare in spares if (error := spare.conn.last_error) is not None]
        newest = errors[-1] if errors else last_error
        is_open = sum(spare.conn.is_open for spare in spares)
        return ProviderStats(counts[0], is_open, *counts[1:], None if newest is None else str(newest))

    def __enter__(self) -> Self:
        """Wait until the relay knows of a spare, at most ``open_timeout`` seconds.

        Raises: as `wait_ready`, but ConnectTimeout for its WaitTimeout, after having ended the provider.
        """
        try:
            return self.wait_ready(self._open_timeout)
        except BaseException as error:  # user code (a signal handler) may have raised as well
            self.close(0)
            if isinstance(error, WaitTimeout):
                raise ConnectTimeout(self.name, (), str(error)) from error
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Provider {self.name}>"


def _timeouts(options: Mapping[str, Any]) -> tuple[float, float]:
    checked = make_options(dict(options))
    return checked.close_timeout, checked.open_timeout
