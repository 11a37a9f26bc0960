"""The reading half of a pipe: chunks of a stream in, messages out, and what of them is a sign of life."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from connman.clock import Clock, Deadline
from connman.errors import ConnectionLost, ConnmanError, WaitTimeout
from connman.records import Message
from connman.transport.causes import describe
from connman.transport.progress import Progress
from connman.transport.stream import Codec, Stream
from connman.transport.traffic import Traffic


class Receiving:
    """What `Pipe` is to its reader; ``base.Transport`` documents the methods. `Pipe` has the rest, and says how it ends.

    Threads: the reader's.
    """

    __slots__ = (
        "_clock", "_codec", "_pid", "_ping", "_stream", "bytes_in", "has_end", "life", "ping_rtt", "progress",
        "reading", "rest",
    )  # fmt: skip

    error: ConnmanError | None

    def __init__(self, stream: Stream, codec: Codec, clock: Clock, leftover: bytes) -> None:
        self._stream = stream
        self._codec = codec
        self._clock = clock
        self._pid = os.getpid()
        self.rest = leftover
        self.has_end = False
        self.reading = False
        self.life = clock.now()
        self.progress = Progress()
        self.bytes_in = len(leftover)
        self.ping_rtt: float | None = None
        self._ping: tuple[bytes, float] = (b"", 0.0)  # the newest: its payload and when it was begun

    def receive(self, deadline: Deadline | None = None) -> list[Message]:
        """Block until messages are there and return them all; see ``base.Transport``.

        Threads: the reader only.
        """
        if os.getpid() != self._pid:
            raise ConnectionLost("this transport belongs to the parent process")
        codec = self._codec
        self.life = self._clock.now()
        self.reading = True
        try:
            while codec.end is None:
                if messages := self._take((self.error is None and self.rest) or self._recv(deadline)):
                    return messages
            raise self._finish(codec.end)
        finally:
            self.reading = False

    def _recv(self, deadline: Deadline | None) -> bytes:
        try:
            chunk = self._stream.recv(deadline)
        except OSError as error:
            # A dead link's ETIMEDOUT is a TimeoutError too: only the clock tells the two apart.
            if deadline is not None and deadline.expired and isinstance(error, TimeoutError):
                raise WaitTimeout("nothing arrived in time") from error
            raise self._broken(error) from error
        if not chunk:
            raise self._eof()
        self.bytes_in += len(chunk)
        return chunk

    def receive_ready(self) -> tuple[list[Message], ConnmanError | None]:
        """Return what one read brings without blocking; see ``base.Transport``.

        Threads: the reader only.
        """
        if self.has_end:
            assert self._codec.end is not None
            return [], self._finish(self._codec.end)
        if self.error is not None:
            return [], self.error  # aborted: what has arrived and was not received yet is dropped
        chunk: bytes | None = self.rest
        if not chunk:
            try:
                chunk = self._stream.recv_some()
            except OSError as error:
                return [], self._broken(error)
            if not chunk:
                return [], None if chunk is None else self._eof()
            self.bytes_in += len(chunk)
        messages = self._take(chunk)
        end = self._codec.end
        return messages, None if messages or end is None else self._finish(end)

    def _take(self, chunk: bytes) -> list[Message]:
        codec = self._codec
        messages = codec.feed(chunk)
        self.rest = codec.rest
        now = self._clock.now()
        if codec.frames:
            codec.frames = 0
            self.life = now
            self.progress.part = 0
        elif self.progress.is_life(len(chunk), now):
            self.life = now
        if codec.pong is not None:
            self._take_pong(codec.pong)
        if codec.end is not None:
            # Not answered before the reader has done with the messages: nothing can be sent behind a close (5.5.1).
            self.has_end = bool(messages)
        elif codec.replies:
            replies, codec.replies = codec.replies, []
            self._queue(replies)
        return messages

    def _take_pong(self, payload: bytes) -> None:
        self._codec.pong = None
        if payload == self._ping[0]:
            self.ping_rtt = self._clock.now() - self._ping[1]

    def _broken(self, error: OSError) -> ConnmanError:
        lost = ConnectionLost(describe(error))
        lost.__cause__ = error
        return self._ended(lost)

    @property
    def reads_when(self) -> int:
        """What the descriptor has to be; see ``base.Transport``."""
        return self._stream.reads_when

    def is_readable(self) -> bool:
        """Return whether `receive_ready` would find something; see ``base.Transport``.

        Threads: any.
        """
        return bool(self.rest) or self._stream.is_readable()

    def traffic(self) -> Traffic | None:
        """Return what the system knows of the bytes on their way; see ``base.Transport``.

        Threads: any.
        """
        return self._stream.traffic()

    def fileno(self) -> int:
        """Return the descriptor to watch; see ``base.Transport``.

        Threads: the reader only.
        """
        return self._stream.fileno()

    def watch(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when there may be something to receive; see ``base.Transport``.

        Threads: the reader only.
        """
        self._stream.watch(callback)

    # What the other half does.

    def _queue(self, frames: Sequence[bytes], *, is_close: bool = False) -> None:
        raise NotImplementedError

    def _ended(self, error: ConnmanError) -> ConnmanError:
        raise NotImplementedError

    def _eof(self) -> ConnmanError:
        raise NotImplementedError

    def _finish(self, end: ConnmanError) -> ConnmanError:
        raise NotImplementedError
