"""The reader thread: it dials, logs in, reads, and waits between attempts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from connman.clock import Clock
from connman.connection.attempt import Channel, open_once
from connman.connection.backoff import Backoff
from connman.connection.callbacks import Callbacks, Dispatcher
from connman.connection.keepalive import Keepalive
from connman.connection.life import Ended, Life
from connman.endpoint import Endpoint
from connman.errors import ConnectionClosed, ConnectionLost, ConnmanError, ProtocolError
from connman.options import Options
from connman.records import Message, Reset
from connman.transport.base import Dial, Dialer, Transport

if TYPE_CHECKING:
    from connman.connection.connection import Connection

logger = logging.getLogger("connman.connection")


class Reader:
    """Drive one connection's life from its first attempt until nothing is left to do.

    Threads: `run_loop` is the body of the reader thread; one at a time for each connection.
    """

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
        self._conn = conn
        self._life = life
        self._options = options
        self._clock = clock
        self._dialer = dialer
        self._endpoint = endpoint
        self._handshake = handshake
        self._callbacks = callbacks
        self._dispatcher = dispatcher
        self._backoff = Backoff(options, clock)

    def run_loop(self) -> None:
        """Dial, read and come back until the connection is closed or idle."""
        if not self._life.claim_reader():
            return
        try:
            self._loop()
        except BaseException as bug:  # top of a thread: it must not end in silence
            logger.exception("the reader failed", extra={"conn": self._conn.name})
            self._life.reader_failed(_internal(bug))
        finally:
            # A reader that was started meanwhile is not disturbed: a callback thread that ends is started again.
            self._dispatcher.finish()

    def _loop(self) -> None:
        self._backoff.reset()
        while self._life.take_dial(
            dial := Dial(self._endpoint, self._options, self._clock, name=self._conn.name)
        ):
            self._after(self._live(dial))
            # What callbacks on a thread of their own still have to be told is bounded too.
            self._dispatcher.wait_room(lambda: False)

    def _live(self, dial: Dial) -> ConnmanError:
        """Open one transport, read it to its end, and return why it ended."""
        try:
            transport, first = open_once(dial, self._dialer, self._options, self._handshake)
        except ConnmanError as error:
            return error
        try:
            if not self._life.opened(transport):
                return self._life.closing or ConnectionClosed()
            return self._read(transport, first)
        except BaseException as bug:  # top of a thread: what opened must be told as lost, and may come back
            logger.exception("reading failed", extra={"conn": self._conn.name})
            return _internal(bug)
        finally:
            transport.dispose()

    def _read(self, transport: Transport, first: list[Message]) -> ConnmanError:
        transport.on_abort = self._wake
        keepalive = self._start_keepalive(transport)
        try:
            self._log(logging.INFO, "open", transport=transport.name)
            self._life.resolve(self._conn)
            self._dispatcher.run(lambda: self._callbacks.opened(self._conn), 0)
            if first:
                self._deliver(first)
            while self._has_room(transport):
                self._deliver(transport.receive())
            raise transport.error or ConnectionLost("ended while nobody took what had arrived")
        except ConnmanError as error:
            return error
        finally:
            if keepalive is not None:
                keepalive.stop()

    def _has_room(self, transport: Transport) -> bool:
        """Wait until more may be read; False when the transport was aborted while nobody took what had arrived.

        Nothing else would tell: the peer's end is behind what is not read.
        """

        def is_over() -> bool:
            return transport.error is not None

        return self._callbacks.wait_room(is_over) and self._dispatcher.wait_room(is_over)

    def _wake(self) -> None:
        self._callbacks.wake()
        self._dispatcher.wake()

    def _deliver(self, messages: list[Message]) -> None:
        if self._life.closing is not None:
            return  # nobody would get them, and behind a callback that blocks they would pile up without a bound
        self._conn.note_received(len(messages))
        if self._callbacks.takes_data:
            self._dispatcher.run(lambda: self._callbacks.data(self._conn, messages), sum(map(len, messages)))
        else:
            # Not behind the callbacks: one of them may wait in `recv`, and the inbox is bounded itself.
            self._callbacks.data(self._conn, messages)

    def _start_keepalive(self, transport: Transport) -> Keepalive | None:
        interval = self._options.ping_interval
        if interval is None or not transport.can_ping:
            return None
        keepalive = Keepalive(transport, self._clock, interval, self._options.ping_timeout)
        try:
            keepalive.start()
        except RuntimeError as error:
            # The system, or an ending interpreter, grants no timer thread: better a connection without than none.
            self._log(logging.WARNING, f"no pings: {error}")
        return keepalive

    def _after(self, error: ConnmanError) -> None:
        """Decide what follows ``error``, tell the user, and wait if another attempt is due."""
        if self._life.was_stable(self._options.stable_after):
            self._backoff.reset()
        attempt = self._backoff.attempt
        ended = self._life.ended(error, self._decide(error))
        self._log_end(ended, attempt)
        reset = _reset(ended, attempt)
        self._dispatcher.run(lambda: self._callbacks.reset(self._conn, reset), 0)
        if ended.retry_in is not None:
            self._life.wait_retry(ended.retry_in)
        else:
            self._backoff.reset()

    def _decide(self, error: ConnmanError) -> float | ConnmanError:
        if not self._options.reconnect or self._life.closing is not None:
            return error
        return self._backoff.failed(error)

    def _log_end(self, ended: Ended, attempt: int) -> None:
        if ended.is_closing:
            return  # told by whoever called `disconnect`
        what = "lost" if ended.was_open else "attempt failed"
        follows = "no retry" if ended.retry_in is None else f"next attempt in {ended.retry_in:.2f} s"
        self._log(logging.WARNING, f"{what}: {ended.error}; {follows}", attempt=attempt)

    def _log(self, level: int, text: str, **fields: object) -> None:
        name = self._conn.name
        logger.log(
            level, "%s: %s", name, text, extra={"conn": name, "generation": self._life.generation, **fields}
        )


def _internal(bug: BaseException) -> ConnmanError:
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
