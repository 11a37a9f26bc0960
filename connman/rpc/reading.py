"""Reading a stream: its chunks wait here until somebody takes them, and the sender is told how many may follow."""

from __future__ import annotations

import base64
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

from connman.clock import Clock, Deadline, Signal
from connman.errors import CallTimeout, MessageTooBig, ProtocolError, RemoteError, RpcError
from connman.rpc.sending import size_of

WINDOW = 512 * 1024
"""Bytes that may be under way to a reader, or wait for it."""

MAX_CHUNKS = 4096
"""Chunks that wait one by one; with more of them neighbours are joined, so that tiny ones take no memory of their own."""

Item = Any
"""A chunk: str or bytes. Of a service that does not stream: its result."""


class StreamFailed(RemoteError):
    """The other side could not go on with its stream: what gives its chunks raised.

    ``name``, ``message`` and ``code`` are of what it raised. Where that is not told, as by the model's peers and to a plain
    call, ``code`` is ``"WSRQ-SEH1"``.
    """


class StreamTooFast(RpcError):
    """The stream brought more than its reader took, and the sender is one that cannot be held back. It was cancelled."""


class Chunks:
    """Chunks in their order, all of them of one kind: many small ones are joined.

    Threads: whoever holds the lock of what it belongs to.
    """

    __slots__ = ("_ready", "_tail", "size")

    def __init__(self) -> None:
        self._ready: deque[Item] = deque()
        self._tail: list[Item] = []
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._ready or self._tail)

    def add(self, chunk: Item, size: int) -> None:
        """Append ``chunk``, which takes ``size`` of the window."""
        self.size += size
        if len(self._ready) < MAX_CHUNKS:
            self._ready.append(chunk)
            return
        self._tail.append(chunk)
        if len(self._tail) >= MAX_CHUNKS:
            self._join_tail()

    def _join_tail(self) -> None:
        self._ready.append(joined(self._tail))
        self._tail = []

    def take(self) -> Item:
        """Take the oldest; its size is still to be taken off."""
        if not self._ready:
            self._join_tail()
        chunk = self._ready.popleft()
        if self._tail:
            self._join_tail()  # or what follows would overtake it
        return chunk

    def add_last(self, item: Item) -> None:
        """Append something of any kind, behind which nothing comes."""
        if self._tail:
            self._join_tail()
        self._ready.append(item)

    def take_all(self) -> Item:
        """Take everything, as one: ``b""`` if there was nothing."""
        chunks, self._ready = [*self._ready, *self._tail], deque()
        self._tail = []
        self.size = 0
        return joined(chunks)


def joined(chunks: list[Item]) -> Item:
    """Return ``chunks``, which are of one kind, as one.

    Threads: any.
    """
    return "".join(chunks) if chunks and isinstance(chunks[0], str) else b"".join(chunks)


class Receiving:
    """A stream on its way in, as frames bring it.

    Threads: `text`, `binary`, `start` and `end` on the reader; `fail` and `settle` on any.
    """

    def __init__(self) -> None:
        self._encoding: str | None = None
        self._kind: type | None = None
        self._left_over = ""

    def start(self) -> None:
        """Note that the sender knows of windows."""

    def text(self, chunk: str, encoding: object) -> None:
        """Take a chunk of a text frame; ``encoding`` is that of the first one, which holds for all.

        Raises: ProtocolError for what is no chunk.
        """
        if self._encoding is None:
            if encoding not in (None, "utf8", "utf-8", "base64"):
                raise ProtocolError("a stream in an unknown encoding")
            self._encoding = "base64" if encoding == "base64" else "utf8"
        self._put(self._decoded(chunk) if self._encoding == "base64" else chunk)

    def _decoded(self, chunk: str) -> bytes:
        """Return the bytes that base64 stands for; up to three letters wait for the next chunk."""
        text = self._left_over + chunk
        whole = len(text) - len(text) % 4
        self._left_over = text[whole:]
        try:
            return base64.b64decode(text[:whole], validate=True)
        except ValueError:
            raise ProtocolError("a chunk that is no base64") from None

    def binary(self, chunk: bytes) -> None:
        """Take a chunk of a binary frame.

        Raises: ProtocolError for bytes in a stream of text.
        """
        self._put(chunk)

    def _put(self, chunk: str | bytes) -> None:
        if self._kind is not type(chunk):
            if self._kind is not None:
                raise ProtocolError("a stream of both text and bytes")
            self._kind = type(chunk)
        if chunk:
            self.put(chunk, size_of(chunk))

    def put(self, chunk: str | bytes, size: int) -> None:
        """Take a chunk that takes ``size`` of the window.

        Raises: StreamTooFast, MessageTooBig: the stream is to be cancelled.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Note that all has come.

        Raises: ProtocolError for base64 that is cut off.
        """
        if self._left_over:
            raise ProtocolError("a stream in base64 that ends too soon")
        self.end()

    def end(self) -> None:
        """Let whoever reads come to the end."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Note that no more comes, because of ``error``. Idempotent."""
        raise NotImplementedError


class Collector(Receiving):
    """Put a stream together for a call that waits for one result.

    Threads: the reader.
    """

    def __init__(
        self, limit: int, settle: Callable[[Any], object], fail: Callable[[Exception], object]
    ) -> None:
        super().__init__()
        self._limit = limit
        self._settle = settle
        self._fail = fail
        self._chunks = Chunks()

    def put(self, chunk: str | bytes, size: int) -> None:
        """Keep ``chunk``.

        Raises: MessageTooBig.
        Threads: the reader.
        """
        if self._chunks.size + size > self._limit:
            raise MessageTooBig(f"a result in a stream of more than {self._limit} bytes: read it by stream()")
        self._chunks.add(chunk, size)

    def end(self) -> None:
        """Settle the call with all that has come; no chunk at all is an empty file.

        Threads: the reader.
        """
        self._settle(self._chunks.take_all())

    def fail(self, error: Exception) -> None:
        """Fail the call.

        Threads: the reader.
        """
        self._fail(error)


class Buffer(Receiving):
    """Keep the chunks of a stream for its reader, within its window.

    Threads: what brings chunks is the reader's; `take` and `leave` are any thread's.
    """

    def __init__(self, clock: Clock, window: int, limit: int, acknowledge: Callable[[int], object]) -> None:
        super().__init__()
        self._clock = clock
        self._window = window
        self._acknowledge = acknowledge
        self._lock = threading.RLock()
        self._changed = Signal(self._lock)
        # Guarded by _lock: _limit (what may wait), _is_windowed, _chunks, _taken (and not yet acknowledged), _error,
        # _is_over, _is_left.
        self._limit = limit
        self._is_windowed = False
        self._chunks = Chunks()
        self._taken = 0
        self._error: Exception | None = None
        self._is_over = False
        self._is_left = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self._is_over

    def start(self) -> None:
        """Note that the sender knows of windows: what it may send now is bounded by ours.

        Threads: the reader.
        """
        with self._lock:
            self._is_windowed = True
            self._limit = self._window

    def put(self, chunk: str | bytes, size: int) -> None:
        """Keep ``chunk`` for the reader.

        Raises: StreamTooFast.
        Threads: the reader.
        """
        with self._lock:
            if self._is_over:
                return
            if self._chunks.size + size > self._limit:
                raise StreamTooFast(
                    f"more than {self._limit} bytes of a stream wait to be read, and its sender does not wait"
                )
            self._chunks.add(chunk, size)
            self._changed.notify_all()

    def settle(self, value: Any) -> bool:
        """Take the result of a service that does not stream, as the only item.

        Threads: any.
        """
        with self._lock:
            if self._is_over:
                return False
            self._chunks.add_last(value)
            self.end()
            return True

    def end(self) -> None:
        """Let the reader come to the end.

        Threads: the reader.
        """
        with self._lock:
            self._is_over = True
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Let the reader come to ``error`` behind what has come.

        Threads: any.
        """
        with self._lock:
            if not self._is_over:
                self._error = error
                self.end()

    def leave(self) -> bool:
        """Want no more, and forget what has come; False when nothing more would have come. Idempotent.

        Threads: any.
        """
        with self._lock:
            was_over, self._is_over = self._is_over, True
            self._is_left = True
            self._error = None
            self._chunks = Chunks()
            self._changed.notify_all()
            return not was_over

    def take(self, deadline: Deadline) -> Item:
        """Take the oldest chunk, waiting for one until ``deadline``.

        Raises: StopIteration at the end; what the stream failed with; CallTimeout.
        Threads: any but the reader.
        """
        with self._lock:
            while not self._chunks:
                if self._error is not None:
                    raise self._error
                if self._is_over:
                    raise StopIteration
                if deadline.expired:
                    raise CallTimeout("no chunk of the stream in time")
                self._clock.wait(self._changed.condition, deadline.remaining())
            chunk = self._chunks.take()
            credit = self._note_taken_locked(chunk)
        # Outside the lock: it goes to the network.
        if credit:
            self._acknowledge(credit)
        return chunk

    def _note_taken_locked(self, chunk: Item) -> int:
        """Count ``chunk`` as taken; return what to acknowledge, 0 for nothing yet."""
        size = size_of(chunk) if isinstance(chunk, str | bytes) else 0
        self._chunks.size -= size
        self._taken += size
        # A quarter: rarely enough, and soon enough for a sender that is far away.
        if self._is_over or not self._is_windowed or self._taken < self._window // 4:
            return 0
        credit, self._taken = self._taken, 0
        return credit


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
            begin it; PeerGone when the path broke; CallTimeout, which closes it; WouldDeadlock on the reader thread.
        Threads: any but the connection's own.
        """
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

    def read(self) -> Any:
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


class Begun(NamedTuple):
    """A stream that was asked for: where its chunks wait, and how to tell the sender to stop."""

    buffer: Buffer
    leave: Callable[[], None]
