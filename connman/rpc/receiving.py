"""A stream on its way in: the chunks that frames bring, put together for a call or kept for a reader."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from connman.clock import Clock, Deadline, Signal
from connman.errors import CallTimeout, MessageTooBig, ProtocolError, RpcError
from connman.rpc.chunks import Chunks
from connman.rpc.wire import size_of

if TYPE_CHECKING:
    from connman.rpc.calls import Call
    from connman.rpc.streams_out import Upload

WINDOW = 512 * 1024
"""Bytes that may be under way to a reader, or wait for it."""


class StreamTooFast(RpcError):
    """The stream brought more than its reader took, and its sender is one that cannot be held back. It was cancelled."""


class Receiving:
    """A stream on its way in, as frames bring it.

    Threads: the reader, but for what is said there.
    """

    def __init__(self, leave: Callable[[Call], None]) -> None:
        self._leave = leave
        self.has_begun = False
        """Whether frames of it have come."""
        self._encoding: str | None = None
        self._kind: type | None = None
        self._left_over = ""

    def start(self) -> None:
        """Note that the sender knows of windows."""

    def dropped(self, call: Call) -> None:
        """Tell the sender to stop: ``call`` ended before its stream did.

        Threads: any; it does not block.
        """
        self._leave(call)

    def text(self, chunk: str, encoding: object) -> None:
        """Take a chunk of a text frame; ``encoding`` is that of the first one, which holds for all.

        Raises: ProtocolError for what is no chunk; what `put` raises.
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

        Raises: ProtocolError for bytes in a stream of text; what `put` raises.
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

    def fail(self, error: BaseException) -> None:
        """Note that no more comes, because of ``error``. Idempotent.

        Threads: any; it does not block.
        """
        raise NotImplementedError


class Collector(Receiving):
    """Put a stream together for a call that waits for one result.

    Threads: the reader.
    """

    def __init__(self, limit: int, call: Call, leave: Callable[[Call], None]) -> None:
        super().__init__(leave)
        self._limit = limit
        self._call = call
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
        self._call.settle(self._chunks.take_all())

    def fail(self, error: BaseException) -> None:
        """Fail the call.

        Threads: any.
        """
        self._call.fail(error)


class Buffer(Receiving):
    """Keep the chunks of a stream for its reader, within its window.

    Threads: what brings chunks is the reader's; `take` and `leave` are any thread's.
    """

    def __init__(self, clock: Clock, limit: int, leave: Callable[[Call], None]) -> None:
        super().__init__(leave)
        self._clock = clock
        self.acknowledge: Callable[[int], object] = _nothing
        """Told how many bytes more may come. Set before anybody takes."""
        self._make_lock()
        # Guarded by _lock: _limit (bytes that may wait), _is_windowed, _chunks, _taken (and not yet acknowledged), _error,
        # is_over (nothing more comes), _upload (what the call sends, until it is over).
        self._limit = limit
        self._is_windowed = False
        self._chunks = Chunks()
        self._taken = 0
        self._error: BaseException | None = None
        self.is_over = False
        self._upload: Upload | None = None

    def _make_lock(self) -> None:
        self._lock = threading.RLock()
        self._changed = Signal(self._lock)

    def after_fork(self) -> None:
        """Have a lock that nobody holds: who held it runs in the parent only. The call fails by itself.

        Threads: the first one of the child that uses connman.
        """
        self._make_lock()
        self._chunks = Chunks()

    def keep_upload(self, upload: Upload) -> None:
        """Have ``upload`` closed when no more comes.

        Threads: any.
        """
        with self._lock:
            is_over = self.is_over
            if not is_over:
                self._upload = upload
        if is_over:
            upload.close()

    def start(self) -> None:
        """Note that the sender knows of windows: what it may send now is bounded by ours.

        Threads: the reader.
        """
        with self._lock:
            self._is_windowed = True
            self._limit = WINDOW

    def put(self, chunk: str | bytes, size: int) -> None:
        """Keep ``chunk`` for the reader.

        Raises: StreamTooFast.
        Threads: the reader.
        """
        with self._lock:
            if self.is_over:
                return
            if self._chunks.size + size > self._limit:
                raise StreamTooFast(f"more than {self._limit} bytes wait to be read, and the sender does not")
            self._chunks.add(chunk, size)
            self._changed.notify_all()

    def settle(self, value: object) -> None:
        """Take the result of a service that does not stream, as the only item.

        Threads: any.
        """
        with self._lock:
            if not self.is_over:
                self._chunks.add_last(value)
        self._finish()

    def end(self) -> None:
        """Let the reader come to the end.

        Threads: the reader.
        """
        self._finish()

    def fail(self, error: BaseException) -> None:
        """Let the reader come to ``error`` behind what has come.

        Threads: any.
        """
        self._finish(error)

    def leave(self) -> bool:
        """Want no more, and forget what has come; False when nothing more would have come. Idempotent.

        Threads: any.
        """
        with self._lock:
            self._chunks = Chunks()
            self._error = None
        return self._finish()

    def _finish(self, error: BaseException | None = None) -> bool:
        """Let nothing more come; False when nothing would have come any more."""
        with self._lock:
            was_over, self.is_over = self.is_over, True
            if not was_over:
                self._error = error
            self._changed.notify_all()
            upload, self._upload = self._upload, None
        # Outside the lock: it has locks of its own.
        if upload is not None:
            upload.close()
        return not was_over

    def take(self, deadline: Deadline) -> Any:
        """Take the oldest chunk, waiting for one until ``deadline``.

        Raises: StopIteration at the end; what the stream failed with; CallTimeout.
        Threads: any but the reader.
        """
        with self._lock:
            while not self._chunks:
                if self._error is not None:
                    raise self._error
                if self.is_over:
                    raise StopIteration
                if deadline.expired:
                    raise CallTimeout("no chunk of the stream in time")
                self._clock.wait(self._changed.condition, deadline.remaining())
            before = self._chunks.size
            chunk = self._chunks.take()
            credit = self._note_taken_locked(before - self._chunks.size)
        # Outside the lock: it goes to the network.
        if credit:
            self.acknowledge(credit)
        return chunk

    def _note_taken_locked(self, size: int) -> int:
        """Count what was taken; return what to acknowledge, 0 for nothing yet."""
        self._taken += size
        # A quarter: rarely enough, and soon enough for a sender that is far away.
        if self.is_over or not self._is_windowed or self._taken < WINDOW // 4:
            return 0
        credit, self._taken = self._taken, 0
        return credit


def _nothing(size: int) -> None:
    pass
