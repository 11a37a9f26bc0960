"""What a connection does over and over: dial, log in, be read, end, wait. Whoever reads it says when and on which thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from connman.clock import Clock
from connman.connection.attempt import open_once
from connman.connection.backoff import Backoff
from connman.connection.callbacks import Callbacks, Dispatcher
from connman.connection.keepalive import Keepalive
from connman.connection.life import Ended, Life
from connman.connection.receiver import Receiver
from connman.endpoint import Endpoint
from connman.errors import ORDERLY_CODES, ConnectionClosed, ConnectionLost, ConnmanError, ProtocolError
from connman.options import Options
from connman.records import Message, Reset, State, Step
from connman.threads import is_kill
from connman.transport.base import Dial, Dialer, Transport
from connman.transport.login import Channel

if TYPE_CHECKING:
    from connman.connection.connection import Connection

logger = logging.getLogger("connman.connection")

# What a message takes beside its bytes while it waits for a callback: those of one byte, or none, must not pile up.
_EACH = 64


class Readers(Protocol):
    """Who reads connections: a thread for each, or a few threads for many."""

    def start(self, cycle: Cycle) -> None:
        """Drive ``cycle`` from its first attempt until nothing is left to do.

        Raises: RuntimeError when the system, or an ending interpreter, grants no thread.
        Threads: any; never blocks.
        """

    def wait_gone(self, within: float) -> bool:
        """Wait up to ``within`` seconds for those threads to end that have no connection to read any more.

        Threads: any but connman's own.
        """


class Cycle:
    """The steps of one connection's life, each of which decides, tells the user, and logs.

    Threads: one at a time, the reader's; `dial` alone may be run by a thread that the reader charged with it.
    """

    __slots__ = (
        "_backoff", "_callbacks", "_clock", "_conn", "_dialer", "_dispatcher", "_endpoint", "_handshake",
        "_is_queued", "_keepalive", "_options", "attempts", "life", "name", "receiver", "takes_all",
    )  # fmt: skip

    def __init__(
        self,
        conn: Connection,
        life: Life,
        options: Options,
        clock: Clock,
        *,
        dialer: Dialer,
        endpoint: Endpoint | None,
        handshake: Callable[[Channel], object] | None,
        callbacks: Callbacks,
        dispatcher: Dispatcher,
    ) -> None:
        self.life = life
        self.name = conn.name
        self._conn = conn
        self._options = options
        self._clock = clock
        self._dialer = dialer
        self._endpoint = endpoint
        self._handshake = handshake
        self._callbacks = callbacks
        self._dispatcher = dispatcher
        self._backoff = Backoff(options, clock, conn.name)
        self._keepalive: Keepalive | None = None
        # Of a target that knows several ways; an idle connection to anything else must not hold a log.
        self.attempts: tuple[Step, ...] = ()
        # Callbacks on the reader thread take what is read at once: nothing waits, so room need not be looked for.
        self.takes_all = callbacks.takes_data and dispatcher.is_immediate
        self._is_queued = callbacks.takes_data and not dispatcher.is_immediate
        self.receiver: Receiver | None = None

    def receive_by(self, receiver: Receiver) -> None:
        """Tell ``receiver`` of everything from now on, and have it take what is read.

        Threads: any.
        """
        self.receiver = receiver
        self.takes_all = True

    def restart(self) -> None:
        """Begin a new series of attempts."""
        self._backoff.reset()

    def begin(self) -> Dial | None:
        """Return the dial of the next attempt; None when nothing is left to do: the reader has to leave it then."""
        dial = Dial(self._endpoint, self._options, self._clock, name=self.name)
        if not self.life.take_dial(dial):
            # A reader that was started meanwhile is not disturbed: a callback thread that ends is started again.
            self._dispatcher.finish()
            return None
        self._log(logging.DEBUG, "dialling", attempt=self._backoff.attempt)
        return dial

    def dial(self, dial: Dial) -> tuple[Transport, list[Message]] | ConnmanError:
        """Open one transport and log in; return it with what arrived behind the login, or why it failed."""
        try:
            return open_once(dial, self._dialer, self._options, self._handshake)
        except ConnmanError as error:
            return error
        finally:
            if dial.has_ways:
                self.attempts = tuple(dial.log)

    def opened(
        self, transport: Transport, first: list[Message], seen_until: Callable[[], float] | None = None
    ) -> bool:
        """Count ``transport`` as open and tell everybody; False when the connection was ended meanwhile.

        ``seen_until``: see `Keepalive`.
        """
        if not self.life.opened(transport):
            return False
        self._start_keepalive(transport, seen_until)
        self._log(logging.INFO, "open", transport=transport.name)
        if self.receiver is not None:
            self.receiver.opened(transport)
        self.life.resolve(self._conn)
        self._dispatcher.run(lambda: self._callbacks.opened(self._conn), 0)
        if first:
            self.deliver(first)
        return True

    def _start_keepalive(self, transport: Transport, seen_until: Callable[[], float] | None) -> None:
        interval = self._options.ping_interval
        if interval is None or not transport.can_ping:
            return
        if transport.ping_pace is not None:
            interval = min(interval, transport.ping_pace)
        self._keepalive = Keepalive(
            transport, self._clock, interval, self._options.ping_timeout, seen_until=seen_until
        )
        try:
            self._keepalive.start()
        except RuntimeError as error:
            # The system, or an ending interpreter, grants no timer thread: better a connection without than none.
            self._log(logging.WARNING, f"no pings: {error}")

    def deliver(self, messages: list[Message]) -> bool:
        """Count messages, and hand them to ``on_data``, to ``recv`` or to the receiver, which says whether to stand by."""
        if self.receiver is not None:
            if self.life.closing is not None:
                return False
            self._callbacks.received += len(messages)
            return self.receiver.received(messages)
        if not self._is_queued:
            # Not behind the callbacks without an `on_data`: one of them may wait in `recv`.
            self._callbacks.data(self._conn, messages)
        elif self.life.closing is None:  # behind a callback that blocks they would pile up without a bound
            self._callbacks.received += len(messages)
            size = sum(map(len, messages)) + _EACH * len(messages)
            self._dispatcher.run(lambda: self._callbacks.data(self._conn, messages, is_counted=True), size)
        return False

    # Room: what was read and not taken yet is bounded.

    def wait_room(self, is_over: Callable[[], bool]) -> bool:
        """Wait until more may be read; False when ``is_over()`` came first (`wake` has it asked again)."""
        return self._callbacks.wait_room(is_over) and self._dispatcher.wait_room(is_over)

    def wait_told(self) -> None:
        """Wait until another attempt may begin: what callbacks on a thread of their own have to be told is bounded."""
        self._dispatcher.wait_room(lambda: False)

    def wake(self) -> None:
        """Have a blocked `wait_room` look again. Any thread."""
        self._callbacks.wake()
        self._dispatcher.wake()

    @property
    def has_room(self) -> bool:
        """Whether more may be read."""
        return self._callbacks.has_room and self._dispatcher.has_room

    @property
    def is_told(self) -> bool:
        """Whether another attempt may begin, see `wait_told`."""
        return self._dispatcher.has_room

    def on_room(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called, on any thread, when there is room again; it must not block."""
        self._callbacks.on_room(callback)
        self._dispatcher.on_room(callback)

    # Ending.

    def stop_keepalive(self) -> None:
        """Have the transport not pinged any more. Idempotent."""
        keepalive, self._keepalive = self._keepalive, None
        if keepalive is not None:
            keepalive.stop()

    def ended(self, error: ConnmanError) -> float | None:
        """Decide what follows ``error`` and tell the user; return the seconds before the next attempt, None for none."""
        if self.life.was_stable(self._options.stable_after):
            self._backoff.reset()
        attempt = self._backoff.attempt
        return self._tell_end(error, attempt, self._decide(error))

    def _tell_end(self, error: ConnmanError, attempt: int, decide: float | ConnmanError) -> float | None:
        ended = self.life.ended(error, decide)
        self._log_end(ended, attempt)
        reset = _reset(ended, attempt)
        if self.receiver is not None:
            self.receiver.reset(reset)
        self._dispatcher.run(lambda: self._callbacks.reset(self._conn, reset), 0)
        if ended.retry_in is None:
            self._backoff.reset()
        return ended.retry_in

    def _decide(self, error: ConnmanError) -> float | ConnmanError:
        if not self._options.reconnect or self.life.closing is not None:
            return error
        return self._backoff.failed(error)

    def failed(self, bug: BaseException) -> None:
        """Be idle after a bug of ours that nobody foresaw, or because the reader was killed."""
        self.stop_keepalive()
        error = internal(bug)
        try:
            if is_kill(bug):
                error = ConnectionLost("its reader was killed")
                self._killed(error)
            else:
                logger.error("the reader failed", exc_info=bug, extra={"conn": self.name})
        finally:
            # Who has asked for it meanwhile is told as well: this reader cannot go on.
            self.life.reader_failed(error)
            self._dispatcher.finish()

    def _killed(self, error: ConnectionLost) -> None:
        if self.life.transport is not None or self.life.state is State.CONNECTING:
            self._tell_end(error, self._backoff.attempt, error)

    def _log_end(self, ended: Ended, attempt: int) -> None:
        if ended.is_closing:
            return  # told by whoever called `disconnect`
        what = "lost" if ended.was_open else "attempt failed"
        follows = "no retry" if ended.retry_in is None else f"next attempt in {ended.retry_in:.2f} s"
        is_orderly = isinstance(ended.error, ConnectionClosed) and ended.error.code in ORDERLY_CODES
        # The peer has said goodbye to a connection that is not to come back: nothing to warn of.
        level = logging.INFO if ended.was_open and is_orderly and ended.retry_in is None else logging.WARNING
        self._log(level, f"{what}: {ended.error}; {follows}", attempt=attempt)

    def _log(self, level: int, text: str, **fields: object) -> None:
        logger.log(
            level,
            "%s: %s",
            self.name,
            text,
            extra={"conn": self.name, "generation": self.life.generation, **fields},
        )


def internal(bug: BaseException) -> ConnmanError:
    """Return the error that tells of a bug of ours.

    Threads: any; pure.
    """
    return ConnectionLost(f"internal error: {type(bug).__name__}: {bug}")


def _reset(ended: Ended, attempt: int) -> Reset:
    error = ended.error
    code = error.code if isinstance(error, ConnectionClosed | ProtocolError) else None
    reason = error.reason if isinstance(error, ConnectionClosed) else ""
    return Reset(
        opened=ended.was_open,
        error=error,
        code=code,
        reason=reason,
        attempt=attempt,
        retry_in=ended.retry_in,
        generation=ended.generation,
    )
