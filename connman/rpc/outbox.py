"""What goes out on one transport: many threads put messages in, whoever finds the transport free sends them all."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from functools import partial

from connman.clock import Deadline, Signal
from connman.errors import ConnectionLost, ConnmanError
from connman.records import Data
from connman.rpc.counters import Counters
from connman.rpc.wire import size_of
from connman.transport.base import Transport

FULL = 1 << 20
"""Bytes that may wait before those who bring more have to wait as well."""
_EACH = 64
_REQUEST = re.compile(r'\{"requestId":(\d+),"type":"request"')


class _Turn:
    """The turn of whoever sends, which ends once: a Ctrl-C while it is handed on leaves two who would end it."""

    __slots__ = ("_locks",)

    def __init__(self, lock: threading.Lock) -> None:
        self._locks = [lock]

    def end(self) -> None:
        with contextlib.suppress(IndexError):
            self._locks.pop().release()


class Outbox:
    """The messages that wait for one transport, in order.

    Messages that come while others are being sent go out with the next system call, all of them. Nobody waits for the
    network here: what it does not take at once is handed to ``run_apart``, which has a thread wait.

    ``most``: bytes of one answer. When more than two such wait, the peer makes us answer and does not read: it is left.

    Threads: any, but for what is said there.
    """

    __slots__ = (
        "_counters", "_lock", "_most", "_owed", "_room", "_run_apart", "_send_timeout", "_sending", "_size",
        "_transport", "unsent", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        transport: Transport,
        lock: threading.RLock,
        counters: Counters,
        run_apart: Callable[[Callable[[], None]], bool],
        *,
        send_timeout: float,
        most: int,
    ) -> None:
        self._transport = transport
        self._counters = counters
        self._run_apart = run_apart
        self._send_timeout = send_timeout
        self._most = 2 * (most + FULL)
        self._lock = lock
        self._room = Signal(lock)
        # Guarded by _lock: waiting, _size, _owed (of these, answers).
        self.waiting: list[Data] = []
        self._size = self._owed = 0
        self._sending = threading.Lock()
        # Guarded by _sending: unsent (what was begun to be sent and did not go out).
        self.unsent: list[Data] = []

    def put_locked(self, message: Data) -> None:
        """Append ``message``; the lock is held."""
        self.waiting.append(message)
        self._size += len(message) + _EACH

    def owe_locked(self, answer: Data) -> None:
        """Append what the other side has made us say; the lock is held."""
        self.put_locked(answer)
        self._owed += len(answer) + _EACH
        if self._owed > self._most:
            self._transport.abort(ConnectionLost("the peer does not read its answers"))

    @property
    def is_full(self) -> bool:
        """Whether so much waits that who brings more should wait as well."""
        return self._size > FULL

    def wait_room(self, deadline: Deadline, is_over: Callable[[], bool]) -> bool:
        """Wait while so much waits; False at ``deadline``, or when ``is_over()`` came first (`wake` has it asked again).

        Threads: any but the reader.
        """
        with self._lock:
            deadline.wait_for(self._room.condition, lambda: not self.is_full or is_over())
            return not self.is_full

    def wake(self) -> None:
        """Have everyone in `wait_room` look again."""
        with self._lock:
            self._room.notify_all()

    def flush(self) -> None:
        """Send what waits, unless somebody is at it, who then sends it next. What cannot be sent ends the transport.

        Threads: any; never blocks.
        """
        # Append first, then try the lock; let go first, then look again: so nothing is left behind by both sides.
        try:
            while self.waiting and self._sending.acquire(False):
                turn, is_left = _Turn(self._sending), False
                try:
                    is_left = self._send_all(turn)
                finally:
                    if not is_left:
                        turn.end()
                if is_left:
                    return
        except BaseException:  # user code (a signal handler) raised, perhaps just when the lock was taken
            self._transport.abort(ConnectionLost("sending was interrupted"))
            raise

    def _send_all(self, turn: _Turn) -> bool:
        """Send everything; whether a thread is waiting for the network to take the rest, and lets go of the turn then."""
        batch = self._take()
        if not batch:
            return False
        try:
            finish = self._transport.send_now(batch)
        except ConnmanError as error:
            self._failed(batch, error)
            return False
        if finish is None:
            self._counters.bytes_sent += sum(map(size_of, batch))
            return False
        if self._run_apart(partial(self._finish, batch, finish, turn)):
            return True
        # No thread is granted: the interpreter is ending.
        self._failed(batch, ConnectionLost("no thread to send with"))
        return False

    def _take(self) -> list[Data]:
        with self._lock:
            batch, self.waiting = self.waiting, []
            was_full = self.is_full
            self._size = self._owed = 0
            if was_full:
                self._room.notify_all()
        return batch

    def _finish(self, batch: list[Data], finish: Callable[[float], None], turn: _Turn) -> None:
        try:
            finish(self._send_timeout)
        except ConnmanError as error:
            self._failed(batch, error)
        else:
            self._counters.bytes_sent += sum(map(size_of, batch))
        finally:
            turn.end()
        self.flush()

    def _failed(self, batch: list[Data], error: ConnmanError) -> None:
        self.unsent += batch[getattr(error, "sent", 0) :]
        self._transport.abort(ConnectionLost(str(error)))

    def unsent_ids(self) -> set[int]:
        """Return the ids of the requests that did not go out; once nothing is sent any more."""
        texts = (message for message in (*self.unsent, *self.waiting) if isinstance(message, str))
        return {int(found[1]) for text in texts if (found := _REQUEST.match(text))}
