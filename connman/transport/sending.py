"""The sending half of a pipe: messages of any thread, one after another, whole or the end of the connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

from connman.clock import Clock, Deadline
from connman.errors import ConnectionLost, ConnmanError, NotConnected, SendTimeout
from connman.records import Data
from connman.threads import at_once
from connman.transport.causes import describe
from connman.transport.lending import Lending
from connman.transport.progress import whole_frames
from connman.transport.stream import Codec, Stream, StreamEnded, write_rest


class Sending(Lending):
    """What `Pipe` is to those who send; ``base.Transport`` documents the methods. `Pipe` has the locks, and the rest.

    Threads: any.
    """

    __slots__ = (
        "_accepted", "_close_request", "_control", "_is_close_queued", "_lock", "_send_lock", "_unsent", "bytes_out",
        "error", "messages_out",
    )  # fmt: skip

    def __init__(self, stream: Stream, codec: Codec, clock: Clock, leftover: bytes) -> None:
        super().__init__(stream, codec, clock, leftover)
        self._lock = threading.Lock()
        # Guarded by _lock: _accepted, _close_request, _is_close_queued (ours, or the answer to the peer's), error, and
        # appending to _control, which is taken from under _send_lock as well.
        self._accepted = 0
        self._close_request: tuple[int, str] | None = None
        self._is_close_queued = False
        self.error: ConnmanError | None = None
        self._control: list[bytes] = []  # an empty deque takes 760 bytes
        self._send_lock = threading.Lock()
        # Guarded by _send_lock: _unsent (control bytes that the network took in part), bytes_out, messages_out.
        self._unsent = b""
        self.bytes_out = self.messages_out = 0

    def send(self, messages: Sequence[Data], timeout: float) -> None:
        """Hand messages to the network in order; see ``base.Transport``.

        Threads: any.
        """
        encode = self._codec.encode
        frames = [encode(messages[0])] if len(messages) == 1 else [encode(message) for message in messages]
        try:
            # Who finds the lock free need not be counted: a close goes out under the same lock, before this or after.
            is_counted = not self._send_lock.acquire(False)
            if is_counted:
                timeout = self._wait_for_turn(timeout)
            try:
                if self._control:
                    self._flush_control_locked()
                # After the control frames: nothing may follow a close, ours or our answer (RFC 6455 5.5.1).
                is_ending = self.error is not None or self._close_request is not None
                if self._is_close_queued or (is_ending and not is_counted):
                    raise NotConnected("the connection is ending")
                self._write_locked(self._codec.finish(frames) if self._codec.is_ordered else frames, timeout)
            finally:
                self._send_lock.release()
                if is_counted:
                    self._end_turn()
                if self._control or self._unsent:
                    self._flush_control()
        except ConnmanError:
            raise
        except BaseException:  # user code
            # A signal handler raised, perhaps just when a lock was taken or let go: nobody can trust this pipe any more.
            self.abort(ConnectionLost("sending was interrupted"))
            raise

    def _wait_for_turn(self, timeout: float) -> float:
        """Take the send lock, counted among those a close waits for; return what is left of the time."""
        with self._lock:
            if self._is_close_queued or self.error is not None or self._close_request is not None:
                raise NotConnected("the connection is ending")
            self._accepted += 1
        began = self._clock.now()
        left = timeout
        while not self._send_lock.acquire(timeout=(step := at_once(left) or 0.0)):
            left -= step
            if left <= 0:
                self._end_turn()
                raise SendTimeout(f"not begun: other messages held the connection for {timeout:g} s")
        return max(0.0, timeout - (self._clock.now() - began))

    def _end_turn(self) -> None:
        with self._lock:
            self._accepted -= 1
        if self._close_request is not None:
            self._maybe_send_close()

    def send_now(self, messages: Sequence[Data]) -> Callable[[float], None] | None:
        """Hand messages to the network without waiting for it; see ``base.Transport``.

        Threads: any.
        """
        frames = [self._codec.encode(message) for message in messages]
        rest: memoryview | None = None
        try:
            if not self._send_lock.acquire(False):
                return partial(self.send, messages)
            try:
                if self._control:
                    self._flush_control_locked()
                if self._is_close_queued or self.error is not None or self._close_request is not None:
                    raise NotConnected("the connection is ending")
                frames = self._codec.finish(frames) if self._codec.is_ordered else frames
                rest = self._write_locked(frames, None)
            finally:
                if rest is None:
                    self._let_go()
            return None if rest is None else partial(self._send_rest, frames, rest)
        except ConnmanError:
            raise
        except BaseException:  # user code (a signal handler) raised; see `send`
            self.abort(ConnectionLost("sending was interrupted"))
            raise

    def _send_rest(self, frames: list[bytes], rest: memoryview, timeout: float) -> None:
        try:
            self._push_locked(frames, rest, timeout)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._send_lock.release()
        if self._control or self._unsent:
            self._flush_control()

    def _write_locked(self, frames: list[bytes], timeout: float | None) -> memoryview | None:
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if self._unsent:
            data, self._unsent = self._unsent + data, b""
        return self._push_locked(frames, data, timeout)

    def _push_locked(
        self, frames: list[bytes], data: bytes | memoryview, timeout: float | None
    ) -> memoryview | None:
        """Write ``data``, the end of ``frames``; without a ``timeout`` return what the network does not take at once."""
        taken = 0
        is_left = False
        error: ConnectionLost | None = None
        try:
            taken = self._stream.send_some(data)
            is_left = taken < len(data) and timeout is None
            if taken < len(data) and timeout is not None:
                rest = memoryview(data)[taken:]
                for count in write_rest(self._stream, rest, Deadline.after(self._clock, timeout)):
                    taken += count
                    if count and self._control:
                        # A ping waits behind this message. That the peer still takes bytes is its life until then.
                        self.life = self._clock.now()
        except OSError as broken:
            error = broken.lost() if isinstance(broken, StreamEnded) else ConnectionLost(describe(broken))
            error.__cause__ = broken
        else:
            if taken < len(data) and not is_left:
                error = SendTimeout("the peer had not taken all of it within the time for sending")
        finally:
            missing = len(data) - taken
            self.bytes_out += taken
            if not missing:
                self.messages_out += len(frames)
            elif not is_left:  # also when a signal handler raised: nothing may follow half a message
                error = self._lost(error or ConnectionLost("sending was interrupted"), frames, missing)
        if error is not None:
            raise error
        return memoryview(data)[taken:] if is_left else None

    def _lost(self, error: ConnectionLost, frames: list[bytes], missing: int) -> ConnectionLost:
        """End the connection, since half a frame may be on the wire; return the error for the sender."""
        if self.error is not None:
            error = ConnectionLost(str(self.error))
        error.sent = whole_frames(frames, missing)
        self.messages_out += error.sent
        self.abort(error)
        return error

    def abort(self, error: ConnmanError) -> None:
        """End it at once; see ``base.Transport``.

        Threads: any; never blocks.
        """
        raise NotImplementedError

    def _flush_control(self) -> None:
        raise NotImplementedError

    def _flush_control_locked(self) -> bool:
        raise NotImplementedError

    def _maybe_send_close(self) -> None:
        raise NotImplementedError
