"""Sending a stream: a generator, an iterator or a file becomes frames, no faster than they are read."""

from __future__ import annotations

import contextvars
import logging
import math
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

from connman.errors import PeerGone
from connman.rpc.chunks import cut
from connman.rpc.codec import encode, pack_chunk
from connman.rpc.wire import size_of, told
from connman.threads import is_kill

logger = logging.getLogger("connman.rpc")

PIECE = 60 * 1024
"""Bytes of a stream in one frame at most: other messages go in between, and a relay need not split it."""

FAILED = "Error while reading the file stream"
"""The text of the model: it is the same whatever went wrong."""


def is_stream(value: object) -> bool:
    """Return whether ``value`` is sent as a stream: a generator, another iterator, or a file that can be read.

    Threads: any.
    """
    return callable(getattr(value, "read", None)) or (
        hasattr(value, "__next__") and callable(getattr(value, "__iter__", None))
    )


class Source:
    """The chunks of a value that streams.

    Threads: one at a time.
    """

    def __init__(self, value: Any, *, is_ours: bool) -> None:
        self._value = value
        self._is_ours = is_ours
        self._chunks: Iterator[Any] | None = None
        self._kind: type[str] | type[bytes] | None = None

    def next(self) -> str | bytes | None:
        """Return the next chunk that is not empty, or None at the end.

        Raises: whatever the value raises; TypeError for a chunk that is neither text nor bytes, or both by turns.
        """
        if self._chunks is None:
            read = getattr(self._value, "read", None)
            self._chunks = iter(self._value) if read is None else _chunks_of(read)
        for chunk in self._chunks:
            data = chunk if isinstance(chunk, str) else _bytes_of(chunk)
            kind: type[str] | type[bytes] = str if isinstance(data, str) else bytes
            if self._kind is not None and kind is not self._kind:
                raise TypeError("a stream gives either text or bytes, not both")
            self._kind = kind
            if data:
                return data
        return None

    def close(self) -> None:
        """Close the value: a service's own, or a generator, of which nobody else can be waiting for more."""
        close = getattr(self._value, "close", None)
        if close is not None and (self._is_ours or isinstance(self._value, types.GeneratorType)):
            close()


def _chunks_of(read: Callable[[int], Any]) -> Iterator[Any]:
    while chunk := read(PIECE):
        yield chunk


def _bytes_of(chunk: object) -> bytes:
    if not isinstance(chunk, bytes | bytearray | memoryview):
        raise TypeError(f"a stream gives text or bytes, not {type(chunk).__name__}")
    return bytes(chunk)


def discard(value: object) -> None:
    """Close what a service streams and nobody wants.

    Raises: whatever closing it raises.
    Threads: any.
    """
    Source(value, is_ours=True).close()


class Sending:
    """One stream on its way out. It is run by a thread while there is something to do, and parked without one.

    ``write`` may wait for the network, and raises PeerGone; ``post`` does neither. ``resume`` is told to have it run again,
    ``over``, perhaps twice, that it ends, before the other side is told. ``most``: bytes of a piece.

    Threads: every method from any thread; `run` by one at a time.
    """

    def __init__(
        self, write: Callable[[str | bytes], None], post: Callable[[str | bytes], object], request_id: int,
        window: int | None, source: Source, *, most: int = PIECE, context: contextvars.Context, resume: Callable[[Sending], None],
        over: Callable[[Sending], None],
    ) -> None:  # fmt: skip
        self.request_id = request_id
        self._write = write
        self._post = post
        self._source = source
        self._context = context
        self._resume = resume
        self._over = over
        self._most = most
        self._is_windowed = window is not None
        self._is_begun = False
        # The chunk that is being sent, and how much of it has gone out.
        self._chunk: str | bytes = b""
        self._sent = 0
        self._is_first = True
        self._lock = threading.Lock()
        # With less than 4 a character might never fit.
        self._window: float = math.inf if window is None else max(window, 4)
        # Guarded by _lock: _credit, _needed (credit to go on with), _is_parked, _is_cancelled.
        self._credit = self._window
        self._needed: float = 1
        self._is_parked = False
        self._is_cancelled = False

    def add_credit(self, size: int) -> None:
        """Let ``size`` more bytes go out.

        Threads: any; it does not block.
        """
        with self._lock:
            self._credit += size
        self._unpark()

    def cancel(self) -> None:
        """Send no more, and close what is sent from. Idempotent.

        Threads: any; it does not block.
        """
        with self._lock:
            self._is_cancelled = True
        self._unpark()

    def drop(self) -> None:
        """Close what is sent from: there is no thread for it.

        Threads: any, when it does not run.
        """
        self._finish()

    def _unpark(self) -> None:
        with self._lock:
            if not (self._is_parked and self._may_go_locked()):
                return
            self._is_parked = False
        self._resume(self)

    def _may_go_locked(self) -> bool:
        return self._is_cancelled or self._credit >= self._needed

    def run(self) -> None:
        """Send until the end, or until there is no credit: then it is parked, and `resume` is called when there is more.

        Threads: one at a time, not the reader.
        """
        # Code of the user runs in the context of the service that it comes from.
        while not self._context.run(self._advance):
            # Only here, behind the context: whoever resumes it enters that again, which no two may at a time.
            with self._lock:
                if not self._may_go_locked():
                    self._is_parked = True
                    return
        self._context.run(self._finish)

    def _advance(self) -> bool:
        """Send what can be sent now; whether that was all."""
        try:
            return self._send_all()
        except PeerGone:
            return True
        except BaseException as error:  # user code: what gives the chunks
            if is_kill(error):
                self._finish()
                raise
            logger.warning("a stream broke off: what gives its chunks raised", exc_info=error)
            self._fail(error)
            return True

    def _send_all(self) -> bool:
        if self._is_windowed and not self._is_begun:
            self._write(f'{{"responseId":{self.request_id},"type":"stream-start"}}')
        self._is_begun = True
        while True:
            with self._lock:
                if self._is_cancelled:
                    break
                # Before the next chunk is asked for: nobody would take it.
                if not self._may_go_locked():
                    return False
                credit = self._credit
            if self._sent == len(self._chunk) and not self._fetch():
                # Before it is told: whoever hears it may ask for the next stream at once.
                self._over(self)
                self._write(f'{{"responseId":{self.request_id},"type":"stream-end"}}')
                return True
            self._send_piece(credit)
        self._fail(None)
        return True

    def _fetch(self) -> bool:
        chunk = self._source.next()
        self._chunk, self._sent = chunk or b"", 0
        return chunk is not None

    def _send_piece(self, credit: float) -> None:
        """Send a piece of the chunk, or note how much credit to wait for."""
        piece = cut(self._chunk, self._sent, self._most)
        size = size_of(piece)
        if size > credit:
            # A chunk stays whole where it can. But who reads need not give back all of the window before the rest comes.
            enough = min(size, max(self._window // 2, 4))
            if credit < enough:
                with self._lock:
                    self._needed = enough
                return
            piece = cut(self._chunk, self._sent, int(credit))
            size = size_of(piece)
        with self._lock:
            self._needed = 1
            self._credit -= size
        self._sent += len(piece)
        self._write(self._frame_of(piece))

    def _frame_of(self, piece: str | bytes) -> str | bytes:
        if isinstance(piece, bytes):
            return pack_chunk(self.request_id, piece)
        encoding = ',"encoding":"utf8"' if self._is_first else ""
        self._is_first = False
        return f'{{"responseId":{self.request_id},"type":"stream","chunk":{encode(piece)}{encoding}}}'

    def _fail(self, error: BaseException | None) -> None:
        """Tell the reader that there is no more: the model's keeps its entry until it is told, also when it left."""
        # The cause is not on the model's wire: only to one that is known to be no model.
        cause = f',"cause":{told(error)}' if error is not None and self._is_windowed else ""
        self._over(self)  # before it is told, as above
        self._post(f'{{"responseId":{self.request_id},"type":"stream-error","error":"{FAILED}"{cause}}}')

    def _finish(self) -> None:
        self._over(self)
        self._chunk = b""
        try:
            self._source.close()
        except BaseException as error:  # user code: its end must not be ours
            if is_kill(error):
                raise
            logger.warning("what gave the chunks of a stream raised when it was closed", exc_info=error)
