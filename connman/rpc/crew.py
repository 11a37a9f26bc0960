"""The connections of a provider: spares that wait at the relay, pairs that serve a caller, and who replaces whom."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from connman.clock import Clock, Deadline, SystemClock, maybe_call_later
from connman.connection.connection import Connection
from connman.errors import ConnectionClosed, Retry, retry_verdict
from connman.manager import Manager
from connman.records import Message, State
from connman.rpc.joining import Joining, RelayRefused
from connman.rpc.peer import Peer
from connman.rpc.spare import Spare
from connman.threads import Condition, is_kill, uncut

logger = logging.getLogger("connman.rpc")

# Seconds until the next try when the system has granted no thread for a spare, or too many were dialled.
_PAUSE = 1.0
# Callers that join and leave at once cost a dial each: so many at once, and so many a second from then on.
_DIALS_AT_ONCE = 1000
_DIALS_A_SECOND = 100


class Ended(ConnectionClosed):
    """The provider was ended by `Provider.close`, or with everything else."""


class Crew:
    """As many spares as are wanted, and the pairs that they have become, with at most ``most`` of both together.

    ``make_peer(spare, first)``: makes the peer of a spare that was taken. ``on_peer(peer)``: the user's. It is the
    `Owner` of its spares.

    Threads: any, but for `take` and `taken`, which belong to the reader of their spare.
    """

    def __init__(
        self,
        joining: Joining,
        options: Mapping[str, Any],
        manager: Manager,
        *,
        wanted: int,
        most: int,
        make_peer: Callable[[Spare, list[Message]], Peer],
        on_peer: Callable[[Peer], object] | None,
        clock: Clock | None = None,
        dials_at_once: int = _DIALS_AT_ONCE,
    ) -> None:
        self._joining = joining
        self._name = joining.name
        self._options = options
        self._manager = manager
        self._wanted = wanted
        self._most = most
        self._make_peer = make_peer
        self._on_peer = on_peer
        self._clock = clock or SystemClock()
        self._dials_at_once = dials_at_once
        self._numbers = itertools.count(1)
        self.build()

    def build(self, ending: Exception | None = None) -> None:
        """Make everything that holds a lock; a forked child does it again, and has ended then."""
        self._changed = Condition(threading.RLock())
        # Guarded by _changed: everything below. Spares and pairs by number; None for a spare that is being made.
        self._spares: dict[int, Spare | None] = {}
        self._pairs: dict[int, tuple[Spare, Peer | None]] = {}
        self._last_error: Exception | None = None
        self._is_pausing = False
        self._may_dial, self._counted_at = float(self._dials_at_once), self._clock.now()
        self.handovers = 0
        self.ending = ending

    # Spares.

    def top_up(self) -> None:
        """Dial as many spares as are missing; those that would be too many a second later, see `_pause`."""
        numbers, are_all = self._reserve()
        if not are_all:
            self._pause()
        try:
            for number in numbers:
                self._dial(number)
        except BaseException:  # user code (a signal handler) raised
            with self._changed:
                for number in numbers:
                    if self._spares.get(number, self) is None:
                        del self._spares[number]
            raise

    def _reserve(self) -> tuple[list[int], bool]:
        """Return the numbers of spares to dial now, and whether these are all that are missing."""
        with self._changed:
            # A spare counts as the peer that it may be any moment: there are never more than `_most`.
            missing = min(self._wanted, self._most - len(self._pairs)) - len(self._spares)
            if self.ending is not None or self._is_pausing or missing <= 0:
                return [], True
            now = self._clock.now()
            earned = (now - self._counted_at) * _DIALS_A_SECOND
            self._may_dial, self._counted_at = min(self._dials_at_once, self._may_dial + earned), now
            count = min(missing, int(self._may_dial))
            self._may_dial -= count
            numbers = list(itertools.islice(self._numbers, count))
            self._spares.update(dict.fromkeys(numbers))
            return numbers, count == missing

    def _dial(self, number: int) -> None:
        spare = Spare(self, number, self._joining, self._options)
        with self._changed:
            if self.ending is not None:
                self._spares.pop(number, None)
                self._changed.notify_all()
                return
            self._spares[number] = spare
        # Outside the lock: it starts a thread, and tells us of the new state.
        self._manager.add(spare.conn)

    def _pause(self) -> None:
        """Dial nothing for a moment: the system has granted no thread, or too many callers came and left."""
        with self._changed:
            if self._is_pausing:
                return
            self._is_pausing = True
        if maybe_call_later(self._clock, _PAUSE, self._go_on) is None:
            with self._changed:
                self._is_pausing = False

    def _go_on(self) -> None:
        with self._changed:
            self._is_pausing = False
        self.top_up()

    def take(self, spare: Spare) -> bool:
        """Count a spare as a pair's; see `Owner`."""
        with self._changed:
            if self.ending is not None or self._spares.pop(spare.number, None) is None:
                return False
            spare.is_taken = True
            self._pairs[spare.number] = (spare, None)
            self.handovers += 1
            return True

    def taken(self, spare: Spare, first: list[Message] | None) -> None:
        """Replace a spare that was taken, and serve its caller; see `Owner`."""
        self.top_up()
        if first is None:
            return
        peer = self._make_peer(spare, first)
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
            logger.exception("on_peer raised", extra={"conn": self._name})

    def changed(self, spare: Spare, state: State) -> None:
        """Learn of a spare's or a pair's state; see `Owner`."""
        if state in (State.IDLE, State.CLOSED):
            self._ended(spare, state)
        elif state is State.OPEN:
            with self._changed:
                self._changed.notify_all()

    def _ended(self, spare: Spare, state: State) -> None:
        with self._changed:
            is_spare, is_pair = spare.number in self._spares, spare.number in self._pairs
        try:
            self._replace(spare, state)
        except BaseException:  # user code (a signal handler) raised
            # It is told of an end for good again, and has to find what it had.
            with self._changed:
                if is_spare and state is State.CLOSED:
                    self._spares[spare.number] = spare
                if is_pair and state is State.CLOSED:
                    self._pairs[spare.number] = (spare, None)
            raise

    def _replace(self, spare: Spare, state: State) -> None:
        error = spare.conn.last_error
        with self._changed:
            was_spare = self._spares.pop(spare.number, None) is not None
            was_pair = self._pairs.pop(spare.number, None) is not None
            if was_spare:
                self._last_error = error or self._last_error
            self._changed.notify_all()
            is_over = self.ending is not None or not (was_spare or was_pair)
        # Outside the lock: each of these dials, ends, or logs.
        if is_over:
            return
        if was_pair:
            self.top_up()
        elif state is State.CLOSED:
            # By `disconnect_all`, or the end of the interpreter: whoever did it means all of us.
            self.tell_end(1.0)
        elif error is not None and retry_verdict(error) is not Retry.AGAIN:
            self._refused(error)
        else:
            self._pause()

    def _refused(self, error: Exception) -> None:
        if isinstance(error, ConnectionClosed):  # in its life, not when it asked
            error = RelayRefused(error.code, error.reason)
        logger.error("provide %s: no further attempt: %s", self._name, error, extra={"conn": self._name})
        for conn in self.end(error, with_pairs=False):
            conn.end_soon(1000)

    # Ending.

    def end(self, why: Exception, *, with_pairs: bool = True) -> list[Connection]:
        """Dial no more; return the connections there are."""
        with self._changed:
            self.ending = self.ending or why
            spares = [spare.conn for spare in self._spares.values() if spare is not None]
            pairs = [spare.conn for spare, _ in self._pairs.values()] if with_pairs else []
            self._changed.notify_all()
        return spares + pairs

    def tell_end(self, timeout: float) -> list[Connection]:
        """Have every connection end, with ``timeout`` seconds for its goodbye; return them. Idempotent."""
        return uncut(lambda: self._tell_end(timeout))

    def _tell_end(self, timeout: float) -> list[Connection]:
        ending = self.end(Ended())
        for conn in ending:
            conn.end_soon(1001, "the provider stops", timeout)
        return ending

    # Waiting and looking.

    def wait(self, predicate: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until ``predicate()`` is true, asked under the lock; False after ``timeout`` seconds."""
        with self._changed:
            return Deadline.after(self._clock, timeout).wait_for(self._changed, predicate)

    def is_known(self) -> bool:
        """Return whether the relay knows of a spare, or a caller has got one."""
        return bool(self.handovers) or any(spare and spare.conn.is_open for spare in self._spares.values())

    def is_gone(self) -> bool:
        """Return whether it has ended, with all of its connections."""
        return self.ending is not None and not self._spares and not self._pairs

    def spares(self) -> tuple[list[Spare], int]:
        """Return the spares, and how many they are with those that are being made."""
        with self._changed:
            return [spare for spare in self._spares.values() if spare is not None], len(self._spares)

    def peers(self) -> tuple[list[Peer], int]:
        """Return the peers of the pairs, and how many they are with those whose peer is being made."""
        with self._changed:
            return [peer for _, peer in self._pairs.values() if peer is not None], len(self._pairs)

    def last_error(self) -> Exception | None:
        """Return the newest failure of a spare, None before the first."""
        spares, _ = self.spares()
        errors = [spare.conn.last_error for spare in spares if spare.conn.last_error is not None]
        return errors[-1] if errors else self._last_error
