"""What goes out on one transport: many threads put messages in, whoever finds the transport free sends them all."""

from __future__ import annotations

import re
import threading

from connman.errors import ConnectionLost, ConnmanError
from connman.records import Data
from connman.rpc.counters import Counters
from connman.transport.base import Transport

_FULL = 1 << 20
_EACH = 64
_REQUEST = re.compile(r'\{"requestId":(\d+),"type":"request"')


def size_of(message: Data) -> int:
    """Return the bytes of a message on the wire.

    Threads: any; pure.
    """
    if isinstance(message, str):
        return len(message) if message.isascii() else len(message.encode())
    return len(message)


class Outbox:
    """The messages that wait for one transport, in order.

    Messages that come while others are being sent go out with the next system call, all of them. Who sends may have to
    wait for the network; nobody else does, until `_FULL` bytes wait.

    ``most``: bytes that may wait at most: a peer that makes us answer and does not read the answers is left.

    Threads: any, but for what is said there.
    """

    __slots__ = (
        "_lock",
        "_most",
        "_send_timeout",
        "_sending",
        "_size",
        "_transport",
        "count",
        "unsent",
        "waiting",
    )

    def __init__(self, transport: Transport, lock: threading.RLock, send_timeout: float, most: int) -> None:
        self._transport = transport
        self._send_timeout = send_timeout
        self._most = max(most, 2 * _FULL)
        self._lock = lock
        # Guarded by _lock: waiting, _size.
        self.waiting: list[Data] = []
        self._size = 0
        self._sending = threading.Lock()
        # Guarded by _sending: unsent (what was begun to be sent and did not go out).
        self.unsent: list[Data] = []

    def put_locked(self, message: Data) -> None:
        """Append ``message``; the lock is held."""
        self.waiting.append(message)
        self._size += len(message) + _EACH
        if self._size > self._most:
            self._transport.abort(ConnectionLost("the peer does not read its answers"))

    @property
    def is_full(self) -> bool:
        """Whether so much waits that who brings more should wait as well."""
        return self._size > _FULL

    @property
    def is_busy(self) -> bool:
        """Whether somebody is sending, who will find what waits."""
        return self._sending.locked()

    def flush(self, counters: Counters, *, must_wait: bool = False) -> None:
        """Send what waits, unless somebody is at it, who then sends it next; ``must_wait`` for that one.

        What cannot be sent ends the transport.

        Threads: any but the reader.
        """
        # Append first, then try the lock; let go first, then look again: so nothing is left behind by both sides.
        try:
            while self.waiting and self._sending.acquire(must_wait, self._send_timeout if must_wait else -1):
                try:
                    self._send_all(counters)
                finally:
                    self._sending.release()
                must_wait = False
        except BaseException:  # user code (a signal handler) raised, perhaps just when the lock was taken
            self._transport.abort(ConnectionLost("sending was interrupted"))
            raise

    def _send_all(self, counters: Counters) -> None:
        with self._lock:
            batch, self.waiting = self.waiting, []
            self._size = 0
        if not batch:
            return
        try:
            self._transport.send(batch, self._send_timeout)
        except ConnmanError as error:
            self.unsent += batch[getattr(error, "sent", 0) :]
            self._transport.abort(ConnectionLost(str(error)))
        else:
            counters.bytes_sent += sum(map(size_of, batch))

    def unsent_ids(self) -> set[int]:
        """Return the ids of the requests that did not go out; once nothing is sent any more."""
        texts = (message for message in (*self.unsent, *self.waiting) if isinstance(message, str))
        return {int(found[1]) for text in texts if (found := _REQUEST.match(text))}
