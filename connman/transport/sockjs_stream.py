"""A byte stream made of HTTP requests: one asks for more all the time, others carry what is sent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from connman.clock import Deadline
from connman.errors import ConnectionLost, ConnmanError, ProtocolError
from connman.threads import is_kill, join, spawn
from connman.transport.causes import describe
from connman.transport.http import HttpAnswer, HttpWire
from connman.transport.sockets import READABLE
from connman.transport.sockjs_boxes import Batch, Inbox, Outbox
from connman.transport.sockjs_session import Session
from connman.transport.traffic import Traffic
from connman.transport.upgrade import BadAnswer

logger = logging.getLogger("connman.transport")

# An answer that has ended sooner and without a message was in vain. Requests for more then wait, each longer than before.
_SHORT = 1.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
# How long a refused request may wait for the close frame, which the server may have sent on the other connection.
_GRACE = 0.25
# How long `close` waits for the threads, which were woken.
_LEAVE = 0.5
_IDLE = 2.0
_BODY_PATIENCE = 1.0


class SockjsStream:
    """A ``stream.Stream``, which documents the methods, over one SockJS session.

    A thread asks for what the server sends, as long as the stream lives; another one sends, while there is something
    to send and a little longer. What is sent counts as taken once it lies in the outbox: it goes out with the next
    request, in order, all that waits in one.

    ``leftover``: what of ``answer`` was read already.

    Threads: as for ``stream.Stream``.
    """

    reads_when = READABLE

    def __init__(
        self, session: Session, what: str, wire: HttpWire, answer: HttpAnswer, leftover: bytes = b""
    ) -> None:
        self._session = session
        self._what = what
        self._is_polling = what == "xhr"
        self._first = wire, answer
        self._inbox = Inbox(session.clock)
        self._outbox = Outbox(session.clock, self._start_sender)
        # Read without a lock: each is set once before its thread begins.
        self._receiver: threading.Thread | None = None
        self._sender: threading.Thread | None = None
        # The receiving thread's own: where in the lines it is, and what the present answer has brought.
        self._is_line_whole = True
        self._line_kind = b""
        self._has_content = True  # the opening frame
        self._asked_at = session.clock.now()
        self._in_vain = 0
        if leftover:  # of the chunk with the opening frame, which nobody reads here
            self._look_at(leftover)

    def start(self) -> None:
        """Begin to read the first answer.

        Raises: RuntimeError when no thread is granted.
        """
        self._receiver = spawn(f"receive-{self._session.name}", self._receive_loop)

    # Receiving: a thread.

    def _receive_loop(self) -> None:
        wire, answer = self._first
        del self._first
        try:
            while self._read_out(answer):
                self._maybe_pause()
                wire = self._session.reconnect(wire)
                answer = self._ask_again(wire)
        except BaseException as error:  # top of a thread: the reader would wait for ever
            self._failed(error)
        finally:
            self._session.drop(wire)
            self._inbox.end()

    def _read_out(self, answer: HttpAnswer) -> bool:
        """Pass on a whole answer; False when the server has said in it that it is the last."""
        while chunk := answer.read():
            self._look_at(chunk)
            self._inbox.put(chunk)
        if not self._is_line_whole:
            raise ConnectionLost("an answer has ended within a frame")
        is_in_vain = not self._has_content and self._session.clock.now() - self._asked_at < _SHORT
        self._in_vain = self._in_vain + 1 if is_in_vain else 0
        self._has_content = False
        return self._line_kind != b"c"

    def _look_at(self, chunk: bytes) -> None:
        """Note where in the lines the chunk ends, without taking it apart."""
        begin = chunk.rfind(b"\n", 0, -1) + 1
        if begin or self._is_line_whole:
            self._line_kind = chunk[begin : begin + 1]
        self._is_line_whole = chunk.endswith(b"\n")
        self._has_content = self._has_content or bool(chunk.strip(b"h\r\n"))

    def _maybe_pause(self) -> None:
        if self._in_vain > 1:
            pause = min(_FIRST_PAUSE * 2 ** min(self._in_vain - 2, 10), _LONGEST_PAUSE)
            self._inbox.wait_over(pause)

    def _ask_again(self, wire: HttpWire) -> HttpAnswer:
        """Ask for more, with the same session, since the server has ended an answer in order."""
        session = self._session
        self._asked_at = session.clock.now()
        # A poll is answered when there is something; whether the server lives is for the pings to find out.
        within = None if self._is_polling else session.options.open_timeout
        answer = session.post(wire, self._what, answer_within=within)
        if answer.status != 200:
            raise session.refusal(answer.status)
        check_coding(answer)
        return answer

    def _failed(self, error: BaseException) -> None:
        """End the stream because of ``error``, unless it has ended already."""
        if isinstance(error, BadAnswer):
            lost: ConnmanError = ProtocolError(str(error))
        elif isinstance(error, ConnmanError):
            lost = error
        elif isinstance(error, OSError):
            lost = ConnectionLost(describe(error))
        else:
            lost = ConnectionLost(f"internal error: {type(error).__name__}")
            if not is_kill(error):
                logger.error("a request failed", exc_info=error, extra={"conn": self._session.name})
        lost.__cause__ = None if lost is error else error
        self._inbox.end(lost)
        self._outbox.break_(lost)
        self._session.shutdown()

    # Sending: a thread, while there is something to send.

    def _start_sender(self) -> None:
        try:
            self._sender = spawn(f"send-{self._session.name}", self._send_loop)
        except RuntimeError as error:
            raise OSError(f"no thread to send with: {error}") from error

    def _send_loop(self) -> None:
        wire: HttpWire | None = None
        try:
            while (batch := self._outbox.take(_IDLE if wire is None else wire.idle_for)) is not None:
                wire = self._session.reconnect(wire)
                self._send(wire, batch)
        except BaseException as error:  # top of a thread: what is sent would never leave
            self._failed(error)
        finally:
            if wire is not None:
                self._session.drop(wire)
        if self._outbox.is_ended:
            self._end()

    def _send(self, wire: HttpWire, batch: Batch) -> None:
        session = self._session
        within = session.options.send_timeout
        try:
            answer = session.post(wire, "xhr_send", batch.body, batch.size, answer_within=within)
        except TimeoutError as error:
            raise ConnectionLost(f"a request was not taken or answered within {within:g} s") from error
        if not 200 <= answer.status < 300:
            self._inbox.wait_over(_GRACE)
            raise session.refusal(answer.status)
        if answer.is_early:
            # Of a message larger than the box the rest still lies there, and would be taken for messages.
            raise ConnectionLost("the server has answered before it took all of a request")
        # Of no interest, but the connection can be used again behind it only. It must not hold up what waits to be sent.
        answer.read_all(Deadline.after(session.clock, min(within, _BODY_PATIENCE)))
        if batch.ping is not None:
            self._inbox.put_pong(batch.ping)

    def _end(self) -> None:
        """End the stream in order: all has been sent. The server learns it by the end of its connection to us."""
        self._inbox.end()
        self._session.shutdown()

    # What the pipe calls.

    def recv(self, deadline: Deadline | None) -> bytes:
        """Block until bytes are there; see ``stream.Stream``.

        Raises: TimeoutError when ``deadline`` passes.
        Threads: the reader only.
        """
        return self._inbox.take(deadline)

    def recv_some(self) -> bytes | None:
        """Return what is there; see ``stream.Stream``.

        Threads: the reader only.
        """
        return self._inbox.take(None) if self._inbox.is_ready else None

    def is_readable(self) -> bool:
        """Return whether something is there; see ``stream.Stream``.

        Threads: any.
        """
        return self._inbox.is_ready

    def traffic(self) -> Traffic | None:
        """Return what the system knows of the bytes on their way; see ``stream.Stream``.

        Threads: any.
        """
        return self._session.traffic(len(self._outbox))

    def fileno(self) -> int:
        """Return -1: its descriptors come and go.

        Threads: the reader only.
        """
        return -1

    def watch(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when there may be something to receive; see ``stream.Stream``.

        Threads: the reader only.
        """
        self._inbox.watch(callback)

    def send_some(self, data: bytes | memoryview) -> int:
        """Hand over what there is room for; see ``stream.Stream``."""
        return self._outbox.put(data)

    def wait_writable(self, seconds: float | None) -> None:
        """Block until there may be room; see ``stream.Stream``."""
        self._outbox.wait_room(seconds)

    def end_writing(self) -> None:
        """Have all that was sent leave, and end it then; see ``stream.Stream``."""
        if self._outbox.end():
            self._end()

    def shutdown(self) -> None:
        """Break the pipe; see ``stream.Stream``."""
        self._inbox.break_()
        self._outbox.break_()
        self._session.shutdown()

    def close(self) -> None:
        """Do what `shutdown` does, and wait a moment for the threads, which give their descriptors back."""
        self.shutdown()
        for thread in (self._receiver, self._sender):
            if thread is not None and thread is not threading.current_thread():
                join(thread, _LEAVE)


def check_coding(answer: HttpAnswer) -> None:
    """Refuse an answer that is compressed, which we have not asked for.

    Raises: BadAnswer.
    Threads: any; pure.
    """
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise BadAnswer("the answer is compressed, which was not asked for")
