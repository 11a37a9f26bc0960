"""The seams under a pipe: what a byte stream and a codec promise."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

from connman.clock import Deadline
from connman.errors import ConnectionLost, ConnmanError
from connman.records import Data, Message
from connman.threads import at_once
from connman.transport.traffic import Traffic


class StreamEnded(BrokenPipeError):
    """A stream that knows better than the system why nothing can be sent any more: ``cause``."""

    def __init__(self, cause: ConnmanError) -> None:
        super().__init__(str(cause))
        self.cause = cause

    def lost(self) -> ConnectionLost:
        """Return an error of the sender's own: what of it was sent is told in it."""
        lost = copy.copy(self.cause) if isinstance(self.cause, ConnectionLost) else ConnectionLost(str(self))
        lost.__cause__ = self.cause
        return lost


class Stream(Protocol):
    """A byte pipe under a transport."""

    reads_when: int
    """What the descriptor has to be after `recv_some` returned None: READABLE, or WRITABLE where TLS must write."""

    def recv(self, deadline: Deadline | None) -> bytes:
        """Block until bytes are there; b"" at the peer's end of file or after `shutdown`.

        Raises: OSError; TimeoutError when ``deadline`` passes.
        Threads: the reader only.
        """

    def recv_some(self) -> bytes | None:
        """Return what is there without blocking: b"" at the end of file or after `shutdown`, None for nothing yet.

        Raises: OSError.
        Threads: the reader only.
        """

    def is_readable(self) -> bool:
        """Return whether `recv_some` would find something now, without taking it.

        Threads: any.
        """

    def traffic(self) -> Traffic | None:
        """Return what the system knows of the bytes on their way; None where there is no such system.

        Threads: any; never blocks.
        """

    def fileno(self) -> int:
        """Return the descriptor; -1 without one.

        Threads: the reader only.
        """

    def watch(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when `recv_some` may return something, at once if it may now; without a descriptor.

        Threads: the reader only; ``callback`` runs on any thread and must not block.
        """

    def send_some(self, data: bytes | memoryview) -> int:
        """Hand over as much as is taken without blocking; 0 when nothing is just now.

        Raises: OSError when the pipe is broken.
        Threads: one at a time (the send lock).
        """

    def wait_writable(self, seconds: float | None) -> None:
        """Block until `send_some` may succeed, the pipe is shut down, or the time has passed.

        Threads: one at a time (the send lock).
        """

    def end_writing(self) -> None:
        """Tell the peer that nothing more comes (FIN, TLS close_notify), best effort, without blocking.

        Threads: one at a time (the send lock).
        """

    def shutdown(self) -> None:
        """Break the pipe: everyone blocked in it wakes. Keeps the descriptor. Idempotent; never blocks.

        Threads: any.
        """

    def close(self) -> None:
        """Give the descriptor back. Idempotent.

        Threads: the reader only, when no one else reads or sends; one may still wait for something to read.
        """


@runtime_checkable
class LendingStream(Protocol):
    """A stream of which others than the reader may read, one at a time; whose turn it is they see to."""

    can_lend: bool
    lends_to_main: bool
    """Whether `read_lent` does all it does in one call of C: a signal handler comes before or behind it."""

    def wait(self, seconds: float) -> bool:
        """Wait until there may be bytes, or the end, for ``seconds`` at most; whether there may. True too once it is closed.

        Threads: any, one at a time.
        """

    def read_lent(self, token: list[int]) -> Iterator[bytes]:
        """Return an iterator that gives once what is there, b"" at the end: as many bytes as ``token`` says, which it empties.

        It raises IndexError without a token, and having taken it BlockingIOError when there is nothing, or another OSError.

        Threads: any; the iterator one at a time, Python's main thread only with `lends_to_main`.
        """


class Codec(Protocol):
    """Bytes in, messages out, and the other way: pure, no I/O. One for each transport.

    Threads: `feed`, `eof` and the attributes from the reader only; the encoders from any thread.
    """

    frames: int
    """Complete messages and control frames seen so far: a rise is a sign of life."""
    replies: list[bytes]
    """Frames to send because of what was fed (pongs, the answer to a close, a close for a violation)."""
    pong: bytes | None
    """Payload of the newest pong, until the reader takes it."""
    end: ConnmanError | None
    """Why nothing more will come out; set once. Messages returned before stand."""
    rest: bytes
    """What of the last chunk is to be fed again, before anything else: all of it would have been too much at once."""
    is_ordered: bool
    """Whether a message depends on those encoded before it: then `finish` completes what `encode` began."""

    def feed(self, chunk: bytes) -> list[Message]:
        """Take what arrived and return the messages that are now complete. Never raises: a violation sets `end`."""

    def eof(self) -> ConnmanError:
        """Return the error for the peer's end of file at this point of the stream."""

    def encode(self, message: Data) -> bytes:
        """Return the bytes that carry ``message``, or with `is_ordered` what `finish` makes them of.

        Raises: ValueError or TypeError for a message that the protocol cannot carry.
        """

    def finish(self, frames: list[bytes]) -> list[bytes]:
        """Return the bytes that carry messages that were encoded; they go out next, in this order, or nothing does.

        Threads: one at a time (the send lock).
        """

    def encode_ping(self, payload: bytes) -> bytes | None:
        """Return a ping, None where the protocol has none."""

    def encode_close(self, code: int, reason: str) -> bytes | None:
        """Return a close frame, None where the protocol ends by the stream's end of file."""


@runtime_checkable
class LendingCodec(Protocol):
    """A codec that can look without touching."""

    def only_text(self, chunk: bytes) -> str | None:
        """Return the text if ``chunk`` is one whole message of text and nothing else, and none is under way; else None.

        Nothing is changed: ``chunk`` may still be fed.

        Threads: whoever has the turn to read.
        """


def drain(stream: Stream, deadline: Deadline) -> None:
    """Throw away what arrives, up to the end of file or the deadline.

    Threads: the reader only.
    """
    with contextlib.suppress(OSError):
        while not deadline.expired and stream.recv(deadline):
            pass


def write_rest(stream: Stream, data: memoryview, deadline: Deadline) -> Iterator[int]:
    """Write until all is taken or the deadline has passed; yield how many bytes were taken each time.

    Raises: OSError when the pipe is broken.
    Threads: one at a time (the send lock).
    """
    while data and not deadline.expired:
        stream.wait_writable(at_once(deadline.remaining()))
        count = stream.send_some(data)
        data = data[count:]
        yield count
