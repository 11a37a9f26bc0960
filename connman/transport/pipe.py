"""The one transport there is: a codec over a byte stream, safe for one reader and any number of senders."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NoReturn

from connman.clock import Clock, Deadline, Timer
from connman.errors import (
    ConnectionClosed,
    ConnectionLost,
    ConnmanError,
    NotConnected,
    SendTimeout,
    WaitTimeout,
)
from connman.records import Message
from connman.transport.base import Codec, Stream, describe

# A frame that arrives in parts is a sign of life only while it grows by this much each ping_timeout (DESIGN 5).
_PROGRESS = 1024
# How often a close that the network did not take yet is tried again.
_CLOSE_RETRY = 0.05
# How long the peer may go on sending after we refused what it sent, so that our close frame is not lost to a reset.
_LINGER = 0.5
# In the queue of control frames: end the stream's sending side.
_END_WRITING = b""


class Pipe:
    """A transport (see ``base.Transport``, which documents the methods) made of a stream and a codec.

    Three locks, never held two at a time but for `_lock` inside `_send_lock`: `_lock` for a few lines of state,
    `_send_lock` for a whole message (the only lock that spans I/O; `close`, `ping` and pongs never wait for it, they
    queue a control frame that whoever holds it will send), and the stream's own.

    Threads: `receive` and `dispose` belong to one reader; everything else may be called from any thread.
    """

    def __init__(self, name: str, stream: Stream, codec: Codec, clock: Clock, leftover: bytes = b"") -> None:
        self.name = name
        self.subprotocol: str | None = None
        self.can_ping = codec.encode_ping(b"") is not None
        self.reading = False
        self.life = clock.now()
        self.bytes_in = self.bytes_out = self.messages_out = 0
        self.ping_rtt: float | None = None
        self._stream = stream
        self._codec = codec
        self._clock = clock
        self._leftover = leftover
        self._partial = 0
        self._ping: tuple[bytes, float] = (b"", 0.0)
        self._lock = threading.Lock()
        # Guarded by _lock: _accepted, _close_request, _error, _close_timer, _is_retrying.
        self._accepted = 0
        self._close_request: tuple[int, str] | None = None
        self._error: ConnmanError | None = None
        self._close_timer: Timer | None = None
        self._is_retrying = False
        self._is_close_sent = False
        # Appended to by anyone, taken only under _send_lock.
        self._control: deque[bytes] = deque(maxlen=128)
        self._send_lock = threading.Lock()
        # Guarded by _send_lock: _unsent (control bytes that the network took in part), bytes_out, messages_out.
        self._unsent = b""

    # Receiving: the reader's side.

    def receive(self, deadline: Deadline | None = None) -> list[Message]:
        """Block until messages are there and return them all; see ``base.Transport``.

        Threads: the reader only.
        """
        codec = self._codec
        self.life = self._clock.now()
        self.reading = True
        try:
            while codec.end is None:
                messages = codec.feed(self._next_chunk(deadline))
                if codec.replies:
                    self._reply()
                if messages:
                    return messages
            self._finish(codec.end)
        finally:
            self.reading = False

    def _next_chunk(self, deadline: Deadline | None) -> bytes:
        if self._leftover:
            chunk, self._leftover = self._leftover, b""
        else:
            self._note_progress()
            chunk = self._recv(deadline)
        self.bytes_in += len(chunk)
        self._partial += len(chunk)
        return chunk

    def _recv(self, deadline: Deadline | None) -> bytes:
        try:
            chunk = self._stream.recv(deadline)
        except OSError as error:
            # A dead link's ETIMEDOUT is a TimeoutError too: only the clock tells the two apart.
            if deadline is not None and deadline.expired and isinstance(error, TimeoutError):
                raise WaitTimeout("nothing arrived in time") from error
            raise self._ended(ConnectionLost(describe(error))) from error
        if not chunk:
            raise self._ended(self._eof())
        return chunk

    def _note_progress(self) -> None:
        """Take what the last chunk brought as a sign of life, if it was one."""
        codec = self._codec
        if codec.frames:
            codec.frames = 0
            self._partial = 0
            self.life = self._clock.now()
        elif self._partial >= _PROGRESS:
            self._partial = 0
            self.life = self._clock.now()
        if codec.pong is not None:
            payload, sent_at = self._ping
            if codec.pong == payload:
                self.ping_rtt = self._clock.now() - sent_at
            codec.pong = None

    def _reply(self) -> None:
        replies, self._codec.replies = self._codec.replies, []
        if not self._is_close_sent:  # nothing may follow a close frame (RFC 6455 5.5.1)
            self._control.extend(replies)
            self._flush_control()

    def _eof(self) -> ConnmanError:
        if self._close_request is not None:
            return ConnectionClosed(*self._close_request)
        return self._codec.eof()

    def _ended(self, error: ConnmanError) -> ConnmanError:
        """Return why it ended: what `abort` said first, else ``error``."""
        with self._lock:
            if self._error is None:
                self._error = error
            return self._error

    def _finish(self, end: ConnmanError) -> NoReturn:
        """End as the peer's bytes demand. What the peer said counts more than what broke here meanwhile."""
        with self._lock:
            self._error = end
        self._control.append(_END_WRITING)
        self._flush_control()
        if not isinstance(end, ConnectionClosed):
            self._linger()
        raise end

    def _linger(self) -> None:
        # Closing with unread data makes the system send a reset, which may overtake our close frame.
        deadline = Deadline.after(self._clock, _LINGER)
        with contextlib.suppress(OSError):
            while not deadline.expired and self._stream.recv(deadline):
                pass

    # Sending: any thread.

    def send(self, messages: Sequence[Message], timeout: float) -> None:
        """Hand messages to the network in order; see ``base.Transport``.

        Threads: any.
        """
        encode = self._codec.encode
        frames = [encode(message) for message in messages]
        with self._lock:
            if self._error is not None or self._close_request is not None:
                raise NotConnected("the connection is ending")
            self._accepted += 1
        try:
            if not self._send_lock.acquire(timeout=timeout):
                raise SendTimeout(
                    f"other messages held the connection for {timeout:g} s; this one was not begun"
                )
            try:
                self._write_locked(frames, timeout)
            finally:
                self._send_lock.release()
        finally:
            self._sender_left()

    def _write_locked(self, frames: list[bytes], timeout: float) -> None:
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if self._unsent:
            data, self._unsent = self._unsent + data, b""
        view = memoryview(data)
        try:
            taken = self._stream.send_some(view)
            if taken < len(data):
                taken = self._write_rest_locked(view, taken, Deadline.after(self._clock, timeout))
        except OSError as error:
            raise self._lost(ConnectionLost(describe(error))) from error
        self.bytes_out += taken
        if taken < len(data):
            late = SendTimeout(
                f"the peer took no more for {timeout:g} s", sent=_whole(frames, len(data) - taken)
            )
            self.messages_out += late.sent
            raise self._lost(late)
        self.messages_out += len(frames)

    def _write_rest_locked(self, view: memoryview, taken: int, deadline: Deadline) -> int:
        """Write on until all is taken or time runs out; return how many bytes were."""
        while taken < len(view) and not deadline.expired:
            self._stream.wait_writable(deadline.remaining())
            count = self._stream.send_some(view[taken:])
            taken += count
            if count and self._control:
                # A ping waits behind this message. That the peer still takes bytes is its sign of life until then.
                self.life = self._clock.now()
        return taken

    def _lost(self, error: ConnectionLost) -> ConnectionLost:
        """End the connection, since half a frame may be on the wire; return the error for the sender."""
        with self._lock:
            first = self._error
        self.abort(error)
        return error if first is None else ConnectionLost(str(first), sent=error.sent)

    def _sender_left(self) -> None:
        with self._lock:
            self._accepted -= 1
            is_last = self._accepted == 0 and self._close_request is not None
        if is_last:
            self._send_close()
        elif self._control:
            self._flush_control()

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
        self._control.append(frame)
        self._flush_control()
        return True

    def _flush_control(self) -> None:
        # Append first, then try the lock; release first, then look again: so no frame is left behind by both sides.
        while self._control and self._send_lock.acquire(blocking=False):
            try:
                is_stuck = not self._flush_control_locked()
            finally:
                self._send_lock.release()
            if is_stuck:
                break
        if self._control or self._unsent:
            self._maybe_retry_close()

    def _flush_control_locked(self) -> bool:
        """Send what is queued as far as the network takes it at once; False when it takes no more."""
        with contextlib.suppress(OSError):  # a broken pipe is found, and told, by the reader
            while self._unsent or self._control:
                if not self._unsent:
                    frame = self._control.popleft()
                    if frame is _END_WRITING:
                        self._stream.end_writing()
                        continue
                    self._unsent = frame
                count = self._stream.send_some(memoryview(self._unsent))
                self._unsent = self._unsent[count:]
                self.bytes_out += count
                if self._unsent:
                    return False
        return True

    def _maybe_retry_close(self) -> None:
        with self._lock:
            if self._close_request is None or self._error is not None or self._is_retrying:
                return
            self._is_retrying = True
        self._call_later(_CLOSE_RETRY, self._retry_close)

    def _retry_close(self) -> None:
        with self._lock:
            self._is_retrying = False
        self._flush_control()

    def _call_later(self, delay: float, callback: Callable[[], None]) -> Timer | None:
        # An ending interpreter grants no timer thread; then the exit hook bounds the close.
        with contextlib.suppress(RuntimeError):
            return self._clock.call_later(delay, callback)
        return None

    # Ending.

    def close(self, code: int, reason: str, timeout: float) -> None:
        """Begin an orderly end without blocking; see ``base.Transport``.

        Threads: any.
        """
        with self._lock:
            if self._error is not None or self._close_request is not None:
                return
            self._close_request = (code, reason)
            is_idle = self._accepted == 0
        timer = self._call_later(timeout, lambda: self.abort(ConnectionClosed(code, reason)))
        with self._lock:
            self._close_timer = timer
            is_over = self._error is not None
        if is_over and timer is not None:
            timer.cancel()
        if is_idle:
            self._send_close()

    def _send_close(self) -> None:
        assert self._close_request is not None
        self._is_close_sent = True
        self._control.append(self._codec.encode_close(*self._close_request) or _END_WRITING)
        self._flush_control()

    def abort(self, error: ConnmanError) -> None:
        """End it at once; see ``base.Transport``.

        Threads: any; never blocks.
        """
        with self._lock:
            if self._error is None:
                self._error = error
            timer, self._close_timer = self._close_timer, None
        if timer is not None:
            timer.cancel()
        self._stream.shutdown()

    def dispose(self) -> None:
        """Give the descriptor back; see ``base.Transport``.

        Threads: the reader only.
        """
        self.abort(ConnectionLost("the connection has ended"))
        # Senders that were inside woke up at the shutdown; none comes in any more.
        with self._send_lock:
            self._stream.close()


def _whole(frames: list[bytes], missing: int) -> int:
    """Return how many of ``frames`` went out whole when the last ``missing`` bytes did not."""
    whole = len(frames)
    while missing > 0:
        whole -= 1
        missing -= len(frames[whole])
    return whole
