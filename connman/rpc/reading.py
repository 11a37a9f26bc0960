"""Reading a stream: an iterator over what the service of a peer sends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

from connman.clock import Clock, Deadline
from connman.connection import fork
from connman.errors import CallTimeout, RemoteError
from connman.rpc.chunks import joined
from connman.rpc.receiving import Buffer


class StreamFailed(RemoteError):
    """The other side could not go on with its stream: what gives its chunks raised.

    ``name``, ``message`` and ``code`` are of what it raised. Where that is not told, as by the model's peers and to a plain
    call, ``code`` is ``"WSRQ-SEH1"``.
    """


class Begun(NamedTuple):
    """A stream that was asked for: where its chunks wait, and how to tell the sender to stop."""

    buffer: Buffer
    leave: Callable[[], None]


class Stream:
    """The chunks that a service of the peer sends, as an iterator: bytes, or text.

    Chunks are those of the service, except that large ones come in pieces, and tiny ones joined when many wait. Use it in
    a with-block, or close it: that tells the sender to stop. So does forgetting it, a second later. A service that does
    not stream gives its result as the only item.

    Threads: every method from any thread; of several readers each chunk comes to one.
    """

    def __init__(
        self, begin: Callable[[Stream], Begun], *, clock: Clock, timeout: float | None, refuse_reader: Callable[[], None]
    ) -> None:  # fmt: skip
        self._begin = begin
        self._clock = clock
        self._timeout = timeout
        self._refuse_reader = refuse_reader
        self._lock = threading.Lock()
        fork.register(self)
        # Guarded by _lock: _begun, _is_closed.
        self._begun: Begun | None = None
        self._is_closed = False

    def __iter__(self) -> Self:
        """Return itself.

        Threads: any.
        """
        return self

    def __next__(self) -> Any:
        """Return the next chunk, waiting ``timeout`` seconds for it at most.

        Raises: StreamFailed when the service's stream broke off; RemoteError, NoSuchService when the service did not
            begin it; PeerGone when the path broke; CallTimeout, which closes it; WouldDeadlock on the reader thread; Forked in a child process.
        Threads: any but the connection's own.
        """
        fork.check_process()
        self._refuse_reader()
        begun = self.begin()
        if begun is None:
            raise StopIteration
        try:
            return begun.buffer.take(Deadline.after(self._clock, self._timeout))
        except CallTimeout:
            self.close()
            raise

    def begin(self) -> Begun | None:
        """Ask for the stream, if that was not done yet; None when it is closed.

        Raises: PeerGone.
        Threads: any.
        """
        with self._lock:
            if self._begun is None and not self._is_closed:
                self._begun = self._begin(self)
            return None if self._is_closed else self._begun

    def read_all(self) -> Any:
        """Return all that is still to come, as one: ``b""`` when that is nothing.

        Threads: any but the connection's own.
        """
        items = list(self)
        return items[0] if len(items) == 1 else joined(items)

    def close(self) -> None:
        """Want no more, and tell the sender to stop. Idempotent; whoever waits for a chunk comes to the end.

        Threads: any.
        """
        with self._lock:
            self._is_closed = True
            begun = self._begun
        if begun is not None and begun.buffer.leave():
            begun.leave()

    def after_fork(self) -> None:
        """Be the parent's in a child process: reading it raises Forked there.

        Threads: the first one of the child that uses connman.
        """
        self._lock = threading.Lock()
        if self._begun is not None:
            self._begun.buffer.after_fork()

    def __enter__(self) -> Self:
        """Return itself.

        Threads: any.
        """
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it.

        Threads: any.
        """
        self.close()
