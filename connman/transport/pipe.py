"""The one transport there is: a codec over a byte stream, safe for one reader and any number of senders."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from connman.clock import Clock, Deadline, Timer, maybe_call_later
from connman.errors import (
    ConnectionClosed,
    ConnmanError,
    NotConnected,
)
from connman.threads import if_free
from connman.transport.base import Transport
from connman.transport.sending import Sending
from connman.transport.stream import Codec, Stream, drain

# How often control frames that the network did not take yet are tried again.
_RETRY = 0.05
# How long the peer may go on sending after we refused what it sent, so that our close frame is not lost to a reset.
_LINGER = 0.5
# How long senders have to leave once the stream is shut down, before its descriptor is given back.
_LEAVE = 0.5
# In the queue of control frames: end the stream's sending side.
_END_WRITING = b""


class Pipe(Sending):
    """A transport (see ``base.Transport``, which documents the methods) made of a stream and a codec.

    Two locks: `_lock` for a few lines of state, and `_send_lock`, around it, for a whole message: the only one that
    spans I/O. `close`, `ping` and pongs never wait for it, they queue a control frame that whoever holds it will send.

    Threads: `receive` and `dispose` belong to one reader; everything else may be called from any thread.
    """

    __slots__ = (
        "_close_timer", "_is_retrying", "_must_linger", "can_ping", "name", "on_abort", "on_end", "ping_pace",
        "subprotocol",
    )  # fmt: skip

    def __init__(self, name: str, stream: Stream, codec: Codec, clock: Clock, leftover: bytes = b"") -> None:
        super().__init__(stream, codec, clock, leftover)
        self.name = name
        self.subprotocol: str | None = None
        self.can_ping = codec.encode_ping(b"") is not None
        self.on_abort: Callable[[], None] | None = None
        self.on_end: Callable[[Transport], None] | None = None
        self.ping_pace: float | None = None
        self._must_linger = False
        # Guarded by _lock, beside what `Sending` says: _close_timer, _is_retrying.
        self._close_timer: Timer | None = None
        self._is_retrying = False

    # How reading ends.

    def _ended(self, error: ConnmanError) -> ConnmanError:
        """Return why it ended: what `abort` said first, else ``error``."""
        with self._lock:
            if self.error is None:
                self.error = error
            return self.error

    def _eof(self) -> ConnmanError:
        own = self._close_request
        return self._ended(self._codec.eof() if own is None else ConnectionClosed(*own))

    def _finish(self, end: ConnmanError) -> ConnmanError:
        """End as the peer's bytes demand. What the peer said counts more than what broke here meanwhile."""
        self.has_end = False
        replies, self._codec.replies = self._codec.replies, []
        if replies:
            self._queue(replies, is_close=True)
        with self._lock:
            self.error = end
            self._control.append(_END_WRITING)
        self._flush_control()
        self._must_linger = not isinstance(end, ConnectionClosed)
        return end

    # Control frames: queued by anyone, sent by whoever can take the send lock without waiting.

    def ping(self) -> bool:
        """Begin a ping without blocking; see ``base.Transport``.

        Threads: any.
        """
        payload = (int.from_bytes(self._ping[0] or b"\0") + 1 & 0xFFFFFFFF).to_bytes(4)
        frame = self._codec.encode_ping(payload)
        if frame is None:
            return False
        self._ping = (payload, self._clock.now())
        self._queue([frame])
        return True

    def _queue(self, frames: Sequence[bytes], *, is_close: bool = False) -> None:
        """Queue control frames, the last of them a close, unless a close is queued: nothing may follow it (5.5.1)."""
        with self._lock:
            if not self._is_close_queued:
                # First: behind the call a Ctrl-C may come, and no second close may follow this one.
                self._is_close_queued = is_close
                self._control.extend(frames)
                del self._control[:-128]  # of a flood the newest
        self._flush_control()

    def _flush_control(self) -> None:
        # Append first, then try the lock; release first, then look again: so no frame is left behind by both sides.
        while self._control or self._unsent:
            for _ in if_free(self._send_lock):
                try:
                    is_stuck = not self._flush_control_locked()
                finally:
                    self._send_lock.release()
                if is_stuck:
                    return self._maybe_retry()
                break
            else:
                return  # who holds it looks again

    def _flush_control_locked(self) -> bool:
        """Send what is queued as far as the network takes it at once; False when it takes no more."""
        try:
            while self._unsent or self._control:
                # Not pop(): behind the call a Ctrl-C may come, and what was popped would be gone.
                if not self._unsent:
                    with self._lock:
                        if self._control[0] is not _END_WRITING:
                            self._unsent = self._control[0]
                            del self._control[0]
                if not self._unsent:
                    self._stream.end_writing()
                    with self._lock:
                        del self._control[0]
                    continue
                # Behind this one as well: what it took goes out again then, which beats a goodbye that nobody hears.
                count = self._stream.send_some(self._unsent)
                self._unsent = self._unsent[count:]
                self.bytes_out += count
                if self._unsent:
                    return False
        except OSError:  # a broken pipe is found, and told, by the reader
            self._control.clear()
            self._unsent = b""
        return True

    def _maybe_retry(self) -> None:
        with self._lock:
            is_due = self.error is None and not self._is_retrying
            self._is_retrying = self._is_retrying or is_due
        if is_due:
            maybe_call_later(self._clock, _RETRY, self._retry)

    def _retry(self) -> None:
        with self._lock:
            self._is_retrying = False
        self._flush_control()

    # Ending.

    def close(self, code: int, reason: str, timeout: float) -> None:
        """Begin an orderly end without blocking; see ``base.Transport``.

        Threads: any.
        """
        timer = maybe_call_later(self._clock, timeout, lambda: self.abort(ConnectionClosed(code, reason)))
        with self._lock:
            is_first = self.error is None and self._close_request is None
            if is_first:
                self._close_request, self._close_timer = (code, reason), timer
        if not is_first and timer is not None:
            timer.cancel()
        # By each call: a Ctrl-C may have come before the first had sent it.
        self._maybe_send_close()

    def _maybe_send_close(self) -> None:
        # Who is last does it, `close` or a sender: once a close is requested no further sender is accepted.
        request = self._close_request
        if request is not None and not self._accepted:
            self._queue([self._codec.encode_close(*request) or _END_WRITING], is_close=True)

    def abort(self, error: ConnmanError) -> None:
        """End it at once; see ``base.Transport``.

        Threads: any; never blocks.
        """
        with self._lock:
            if self.error is None:
                self.error = error
            timer, self._close_timer = self._close_timer, None
        if timer is not None:
            timer.cancel()
        self._stream.shutdown()
        if self.on_abort is not None:
            self.on_abort()

    @property
    def is_slow_to_dispose(self) -> bool:
        """Whether `dispose` may block; see ``base.Transport``."""
        return self._must_linger or self._send_lock.locked()

    def dispose(self) -> None:
        """Give the descriptor back; see ``base.Transport``.

        Threads: the reader only.
        """
        if os.getpid() != self._pid:
            return  # forked inside a callback: the descriptor is dropped, and a lock may be held by a thread left behind
        if self._must_linger:
            self._must_linger = False
            # Closing with unread data makes the system send a reset, which may overtake our close frame.
            drain(self._stream, Deadline.after(self._clock, _LINGER))
        self.abort(NotConnected("the connection has ended"))
        # Senders that were inside woke up at the shutdown; none comes in any more. One that a signal handler threw out
        # may have left the lock taken, hence the limit.
        is_free = self._send_lock.acquire(timeout=_LEAVE)
        try:
            self._stream.close()
        finally:
            if is_free:
                self._send_lock.release()
            on_end, self.on_end = self.on_end, None
            if on_end is not None:
                on_end(self)
