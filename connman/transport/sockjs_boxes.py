"""What lies between a pipe and the threads that make HTTP requests for it: both bounded, so that each side holds back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from connman.clock import Clock, Deadline
from connman.errors import ConnectionLost, ConnmanError
from connman.threads import Condition
from connman.transport.sockjs_frames import HEAD, MESSAGE, Told
from connman.transport.stream import StreamEnded

CAPACITY = 262144
"""Bytes that lie in a box; like a socket's buffer, but also the most that goes into one request."""
_PIECE = 65536


class _Box:
    """A lock, a condition, and whether it is broken."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Entered itself, not through the condition, whose own `with` is Python code: a Ctrl-C there would leave it locked.
        self._lock = threading.RLock()
        self._changed = Condition(self._lock)
        # Guarded by _lock, like all of the boxes' own: is_broken.
        self.is_broken = False

    def _wait_locked(self, predicate: Callable[[], bool], seconds: float | None = None) -> bool:
        return Deadline.after(self._clock, seconds).wait_for(self._changed, predicate)


class Inbox(_Box):
    """What has arrived and was not read yet.

    Threads: `take` belongs to the reader, `put` to whoever asks the server for more; the rest from any thread.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        # Guarded by _lock: _chunks, _size, _pong, _end (told when all that came before has been taken), _watcher.
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._pong: Told | None = None
        self._end: Told | None = None
        self._watcher: Callable[[], None] | None = None

    def put(self, chunk: bytes) -> None:
        """Add what has arrived, when there is room.

        Raises: BrokenPipeError when nobody wants it any more.
        """
        with self._lock:
            self._wait_locked(lambda: self._size < CAPACITY or self.is_over)
            if self.is_over:
                raise BrokenPipeError("nobody reads any more")
            self._chunks.append(chunk)
            self._size += len(chunk)
            self._changed.notify_all()
        self._tell()

    def put_pong(self, payload: bytes) -> None:
        """Have the reader told that a ping was answered; of several that it has not taken, the newest."""
        with self._lock:
            self._pong = Told(payload)
            self._changed.notify_all()
        self._tell()

    def end(self, error: ConnmanError | None = None) -> None:
        """Let the reader come to the end, of file or because of ``error``, behind what is here. The first call counts."""
        with self._lock:
            if self._end is None:
                self._end = Told(b"", error)
            self._changed.notify_all()
        self._tell()

    def break_(self) -> None:
        """Drop everything: the reader finds the end of file. Idempotent."""
        with self._lock:
            self.is_broken = True
            self._chunks.clear()
            self._size = 0
            self._changed.notify_all()
        self._tell()

    @property
    def is_over(self) -> bool:
        """Whether nothing more is taken in."""
        return self.is_broken or self._end is not None

    @property
    def is_ready(self) -> bool:
        """Whether `take` returns at once."""
        return bool(self._chunks) or self._pong is not None or self.is_over

    def wait_over(self, seconds: float) -> bool:
        """Wait until nothing more is taken in; False when ``seconds`` have passed first."""
        with self._lock:
            return self._wait_locked(lambda: self.is_over, seconds)

    def take(self, deadline: Deadline | None) -> bytes:
        """Wait for something and return it: bytes, `Told`, or b"" for the end of file.

        Raises: TimeoutError when ``deadline`` passes.
        """
        with self._lock:
            patience = deadline or Deadline(self._clock, None)
            if not patience.wait_for(self._changed, lambda: self.is_ready):
                raise TimeoutError("timed out")
            if self.is_broken:
                return b""
            if self._pong is not None:
                told, self._pong = self._pong, None
                return told
            if self._chunks:
                chunk = b"".join(self._chunks)
                self._chunks.clear()
                self._size = 0
                self._changed.notify_all()
                return chunk
            told = self._end or Told()
            self._end = Told()
            return told if told.error is not None else b""

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have ``watcher`` called whenever there may be something to take, at once as well."""
        with self._lock:
            self._watcher = watcher
        watcher()

    def _tell(self) -> None:
        # Outside the lock: the reader that is told takes locks of its own.
        watcher = self._watcher
        if watcher is not None:
            watcher()


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes into one request."""

    size: int
    """Of the body."""
    body: Iterator[bytes]
    ping: bytes | None
    """Payload of the ping that its answer answers; None for none."""


class Outbox(_Box):
    """What was sent and no request has taken yet: messages and pings as `SockjsCodec` writes them, cut anywhere.

    Threads: `put` and `wait_room` one at a time (the send lock), `take` and the bodies of batches one at a time;
    the rest from any thread.
    """

    def __init__(self, clock: Clock, start: Callable[[], None]) -> None:
        super().__init__(clock)
        self._start = start
        # Guarded by _lock: _bytes, _cause, _is_ended, has_sender.
        self._bytes = bytearray()
        self._cause: ConnmanError | None = None
        self._is_ended = False
        self.has_sender = False

    def put(self, data: bytes | memoryview) -> int:
        """Take what there is room for; the first has ``start()`` called, which is to have somebody take it.

        Raises: StreamEnded when nothing is sent any more; OSError from ``start``.
        """
        with self._lock:
            if self.is_broken or self._is_ended:
                raise StreamEnded(self._cause or ConnectionLost("nothing is sent any more"))
            taken = min(len(data), CAPACITY - len(self._bytes))
            self._bytes += data[:taken]
            must_start, self.has_sender = not self.has_sender, True
            self._changed.notify_all()
        if must_start:
            try:
                self._start()
            except BaseException:  # user code (a signal handler), or there is no thread
                self.break_(ConnectionLost("nothing could be sent"))
                raise
        return taken

    def wait_room(self, seconds: float | None) -> None:
        """Wait until there may be room."""
        with self._lock:
            self._wait_locked(lambda: len(self._bytes) < CAPACITY or self.is_broken, seconds)

    def end(self) -> bool:
        """Have what is here sent, and nothing more; return whether that is done already."""
        with self._lock:
            self._is_ended = True
            self._changed.notify_all()
            return not self.has_sender

    @property
    def is_ended(self) -> bool:
        """Whether nothing more comes."""
        return self._is_ended

    def break_(self, cause: ConnmanError | None = None) -> None:
        """Drop everything; senders are told of ``cause``, the first one. Idempotent."""
        with self._lock:
            self.is_broken = True
            self._cause = self._cause or cause
            self._bytes.clear()
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._bytes)

    def take(self, patience: float) -> Batch | None:
        """Wait for something to send and return it; None when nothing came within ``patience`` seconds, or will.

        After None somebody else has to be started for what comes then.
        """
        with self._lock:
            while not self.is_broken:
                batch = self._batch_locked()
                if batch is not None:
                    self._changed.notify_all()
                    return batch
                if self._is_ended or not self._wait_more_locked(patience):
                    break
            self.has_sender = False
            return None

    def _wait_more_locked(self, patience: float) -> bool:
        size = len(self._bytes)
        # Half a message is followed by the rest: whoever sends it breaks it all off otherwise.
        return self._wait_locked(
            lambda: self._is_ended or self.is_broken or len(self._bytes) > size, None if size else patience
        )

    def _batch_locked(self) -> Batch | None:
        """Take all whole messages, or begin the one that is larger than the box."""
        messages: list[bytes] = []
        ping: bytes | None = None
        pos, end = 0, len(self._bytes)
        while end - pos >= HEAD.size:
            kind, size = HEAD.unpack_from(self._bytes, pos)
            begin = pos + HEAD.size
            if begin + size > end:
                if HEAD.size + size > CAPACITY and not pos:
                    del self._bytes[:begin]
                    return Batch(size + 2, self._big(size), None)
                break
            pos = begin + size
            if kind == MESSAGE:
                messages.append(bytes(self._bytes[begin:pos]))
            else:
                ping = bytes(self._bytes[begin:pos]) or ping or b""
        if not pos:
            return None
        del self._bytes[:pos]
        body = b"[" + b",".join(messages) + b"]"
        return Batch(len(body), iter((body,)), ping)

    def _big(self, size: int) -> Iterator[bytes]:
        """Pass on, as it comes, what was begun.

        Raises: BrokenPipeError when it is broken off.
        """
        yield b"["
        while size:
            with self._lock:
                self._wait_locked(lambda: bool(self._bytes) or self.is_broken)
                if self.is_broken:
                    raise BrokenPipeError("broken off")
                piece = bytes(self._bytes[: min(size, _PIECE)])
                del self._bytes[: len(piece)]
                self._changed.notify_all()
            size -= len(piece)
            yield piece
        yield b"]"
