"""The streams that come in over a session: their frames find them, and who leaves one tells its sender."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from connman.clock import Timer, maybe_call_later
from connman.errors import ProtocolError, RpcError
from connman.rpc.codec import unpack_chunk
from connman.rpc.reading import Begun, Stream, StreamFailed
from connman.rpc.receiving import Buffer, Collector, Receiving
from connman.rpc.wire import whole

if TYPE_CHECKING:
    from connman.rpc.calls import Call
    from connman.rpc.session import Session

MAX_LEFT = 1024
"""Ids of streams that were left whose last frames are still awaited."""
LOOK_FOR_FORGOTTEN = 1.0
"""Seconds after which a stream that nobody holds any more is cancelled."""


class StreamsIn:
    """The streams that come in over one session.

    Threads: as each method says; those of the reader neither block nor raise.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.make_lock()
        # Guarded by _lock: _begun (by request id), _left (ids whose last frames come for
        # nobody, and whether there were frames when it was left), _timer, _end.
        self._begun: dict[int, Begun] = {}
        self._left: dict[int, bool] = {}
        self._timer: Timer | None = None
        self._end: Exception | None = None
        # Ids of streams whose reader was forgotten. Appended to by the garbage collector, when any lock may be held.
        self._forgotten: deque[int] = deque()

    def make_lock(self) -> None:
        """Have a lock that nobody holds: at first, and in a forked child."""
        self._lock = threading.Lock()

    # Frames

    def response(self, message: dict[str, Any]) -> None:
        """Take a frame of type stream, stream-start, stream-end or stream-error.

        Threads: the reader.
        """
        kind = message["type"]
        call = self._call_of(message.get("responseId"), is_over=kind in ("stream-end", "stream-error"))
        if call is None:
            return
        receiving = self._receiving_of(call)
        try:
            self._take(call, receiving, kind, message)
        except (RpcError, ProtocolError) as error:
            self._give_up(call, receiving, error)

    def _take(self, call: Call, receiving: Receiving, kind: str, message: dict[str, Any]) -> None:
        if kind == "stream":
            chunk = message.get("chunk")
            if isinstance(chunk, str):
                receiving.text(chunk, message.get("encoding"))
            else:
                self._session.count_invalid()
        elif kind == "stream-start":
            receiving.start()
        else:
            if isinstance(receiving, Buffer):
                self._session.cancel(call)
            if kind == "stream-end":
                receiving.finish()
            else:
                receiving.fail(_failure_of(message))

    def binary(self, frame: bytes) -> None:
        """Take a binary frame.

        Threads: the reader.
        """
        try:
            request_id, chunk = unpack_chunk(frame)
        except ProtocolError:
            self._session.count_invalid()
            return
        call = self._call_of(request_id, is_over=False)
        if call is None:
            return
        receiving = self._receiving_of(call)
        try:
            receiving.binary(chunk)
        except (RpcError, ProtocolError) as error:
            self._give_up(call, receiving, error)

    def _receiving_of(self, call: Call) -> Receiving:
        if call.stream is None:
            call.stream = Collector(self._session.max_message_size, call, self.leave)
        receiving: Receiving = call.stream
        receiving.has_begun = True
        return receiving

    def _give_up(self, call: Call, receiving: Receiving, error: Exception) -> None:
        """Want no more of a stream that we cannot take."""
        self.leave(call)
        receiving.fail(error)
        self._session.cancel(call)

    def _call_of(self, number: object, *, is_over: bool) -> Call | None:
        """Return the call that a frame belongs to; the sender of a stream to a call that is over is told to stop, once."""
        request_id = whole(number)
        with self._lock:
            had_begun = None if request_id is None else self._left.get(request_id)
            if is_over and request_id is not None:
                self._left.pop(request_id, None)
        if had_begun is not None and request_id is not None:
            if not had_begun and not is_over:
                # What it was told when there was no stream yet it may not have understood.
                self._tell_to_stop(request_id)
            return None
        call = self._session.find(number)
        if call is None and request_id is not None and not is_over and self._session.was_sent(request_id):
            self._tell_to_stop(request_id)
        return call

    def leave(self, call: Call) -> None:
        """Tell the sender that nobody reads the stream that answers ``call`` any more.

        Threads: any; it does not block.
        """
        if call.id is not None:
            self._tell_to_stop(call.id, has_begun=call.stream.has_begun)

    def _tell_to_stop(self, request_id: int, *, has_begun: bool = True) -> None:
        with self._lock:
            self._left[request_id] = has_begun
            if len(self._left) > MAX_LEFT:
                del self._left[next(iter(self._left))]
        self._session.post(f'{{"requestId":{request_id},"type":"write-stream-error"}}')

    # Readers

    def stream(self, begin: Callable[[Buffer], Call], timeout: float | None) -> Stream:
        """Return the reader of a stream that ``begin`` asks for once it is begun.

        Threads: any.
        """
        session = self._session
        return Stream(
            lambda stream: self._begin(stream, begin),
            clock=session.clock, timeout=timeout, refuse_reader=session.refuse_reader,
        )  # fmt: skip

    def _begin(self, stream: Stream, begin: Callable[[Buffer], Call]) -> Begun:
        session = self._session
        buffer = Buffer(session.clock, session.max_message_size, self.leave)
        call = begin(buffer)
        number = -1 if call.id is None else call.id  # the path may be gone already

        def acknowledge(size: int) -> None:
            session.post(f'{{"requestId":{number},"type":"stream-credit","bytes":{size}}}')

        def leave() -> None:
            self.leave(call)
            session.cancel(call)

        buffer.acknowledge = acknowledge
        begun = Begun(buffer, leave)
        # The id, not the buffer: its error may lead to the frame of who has caught it, and so to the stream, which would
        # never be forgotten. At exit there is nobody left to tell.
        weakref.finalize(stream, self._forgotten.append, number).atexit = False
        with self._lock:
            self._begun[number] = begun
            end = self._end
            self._look_later_locked()
        if end is not None:
            buffer.fail(end)
        return begun

    def _look_later_locked(self) -> None:
        if self._timer is None and self._end is None:
            self._timer = maybe_call_later(self._session.clock, LOOK_FOR_FORGOTTEN, self._look)

    def _look(self) -> None:
        """Leave what nobody holds any more; look again while there are streams."""
        while self._forgotten:
            begun = self._begun.get(self._forgotten.popleft())
            if begun is not None and begun.buffer.leave():
                begun.leave()
        with self._lock:
            self._timer = None
            self._begun = {number: begun for number, begun in self._begun.items() if not begun.buffer.is_over}
            if self._begun:
                self._look_later_locked()

    def end(self, error: Exception) -> None:
        """Let every reader come to ``error``, behind what has come.

        Threads: any; it does not block.
        """
        with self._lock:
            self._end = error
            timer, self._timer = self._timer, None
            streams, self._begun = list(self._begun.values()), {}
        if timer is not None:
            timer.cancel()
        for begun in streams:
            begun.buffer.fail(error)


def _failure_of(message: dict[str, Any]) -> StreamFailed:
    cause = message.get("cause")
    if isinstance(cause, dict):
        code = cause.get("code")
        return StreamFailed(
            str(cause.get("name", "Error")), str(cause.get("message", "")),
            code if isinstance(code, int | str) else None,
        )  # fmt: skip
    # The words of the model.
    return StreamFailed(
        "Error",
        "WSRQ-SEH1: Remote ReadStream failed. While receiving a stream we received an error from the sender. "
        f"Message: {message.get('error')}",
        "WSRQ-SEH1",
    )
