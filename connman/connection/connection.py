"""The connection to X: one thread-safe object that dials, comes back, and can be ended in any phase."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Self

from connman.clock import Deadline
from connman.connection import fork
from connman.connection.core import Core
from connman.connection.future import ConnectedFuture
from connman.errors import (
    ORDERLY_CODES,
    ConnectionClosed,
    ConnectTimeout,
    ConnmanError,
    NotConnected,
    WaitTimeout,
    WouldDeadlock,
)
from connman.records import Data, Message, State, Stats, Step
from connman.threads import is_own
from connman.transport.base import Transport


class Connection(Core):
    """The connection to one target: it dials once however many ask, comes back, and ends when told to.

    ``target``: a URL (ws, wss, tcp, tls, unix, memory), a ``(host, port)`` pair (tcp), or an object with
    ``dial(dial)``. ``on_open(conn)``, ``on_data(conn, message)`` and ``on_reset(conn, reset)`` are called in order,
    one at a time; without ``on_data`` use `recv` or iteration. ``handshake(channel)`` logs in on every fresh transport
    before it counts as open. The options are documented in ``connman.options.Options``.

    Inert until `get_connected`, `connect`, a with-block or ``send(wait=…)`` starts it: no thread, no socket.
    In a forked child it is idle again.

    Raises: InvalidTarget; InvalidOption; TypeError for an unknown option.
    Threads: every method from any thread, callbacks included, but for what is said there.
    """

    # Opening.

    def get_connected(self) -> ConnectedFuture:
        """Return the one Future that everybody shares until the present connection is lost; start dialling if idle.

        It resolves to this connection once it is open (handshake included; ``on_open`` runs at about the same time).
        With ``reconnect=True`` it stays pending through failed attempts and fails only when retrying ends: GaveUp, a
        fatal error, ConnectionClosed by `disconnect`. With ``reconnect=False`` a failed attempt fails it. After a
        failure the next call dials anew; after `disconnect` it returns a failed Future. It cannot be cancelled.

        Threads: any; never blocks.
        """
        future = self._ask()
        assert future is not None
        return future

    def connect(self) -> Self:
        """Start dialling if idle and return at once, this connection.

        Threads: any; never blocks.
        """
        self._ask(wants_future=False)
        return self

    def wait_open(self, timeout: float | None = None) -> Self:
        """Wait until it is open and return it; starts dialling if idle.

        ``timeout`` in seconds; None for no limit, 0 and less: only if it is open already.

        Raises: WaitTimeout, whose text holds the newest error; the error with which connecting ended; WouldDeadlock
        on the reader thread.
        Threads: any but the reader's.
        """
        if self.is_open:
            return self
        future = self.get_connected()
        try:
            return self._self(future.result(timeout))
        except TimeoutError as error:
            if future.done():
                # It has settled just now, or connecting ended with an error that is a timeout itself.
                return self._self(future.result())
            raise WaitTimeout(f"{self.name}: not open within {timeout:g} s{self._because()}") from error

    def _self(self, _: Connection) -> Self:
        return self

    def reconnect_now(self) -> None:
        """Cut the wait before the next attempt short: the network is back. Does nothing in any other state.

        Threads: any; never blocks.
        """
        fork.check_process()
        self._life.hurry()

    # Messages.

    def send(self, data: Data, *, wait: float = 0.0) -> None:
        """Send one message: str as text, bytes-like as binary. On return the system has taken all of it.

        ``wait``: seconds to wait for the connection to be open (starts it if idle), and for another one when the present
        one has ended before the message was begun; 0 and less raise at once.

        Raises: NotConnected when it is not open (nothing was sent); ConnectionLost when it broke, and SendTimeout when
        the system has not taken all of it within ``send_timeout``, both of which end the present transport, unless the
        message only waited for others and was not begun; TypeError or ValueError for data that cannot be sent;
        WouldDeadlock for a ``wait`` on the reader thread.
        Threads: any; messages are never mixed, and those of one thread keep their order.
        """
        fork.check_process()
        life = self._life
        transport = life.transport
        if transport is not None and life.closing is None:
            try:
                return transport.send((data,), self._options.send_timeout)
            except NotConnected:
                if not wait > 0:
                    raise
        self._send((data,), wait)

    def send_many(self, messages: Iterable[Data], *, wait: float = 0.0) -> None:
        """Send messages in order, with one system call where the network takes them at once.

        ``wait``: as for `send`; they go out on one connection, all of them.

        Raises: as `send`; ``sent`` of a SendTimeout or ConnectionLost tells how many went out whole. TypeError or
        ValueError before anything is sent.
        Threads: any; no other message comes between these.
        """
        if isinstance(messages, str | bytes | bytearray | memoryview):
            raise TypeError("send_many() takes several messages: use send() for one")
        self._send(tuple(messages), wait)

    def _send(self, batch: tuple[Data, ...], wait: float) -> None:
        until = time.monotonic() + wait
        while True:
            transport = self._transport(wait, until)
            try:
                return transport.send(batch, self._options.send_timeout) if batch else None
            except NotConnected:
                # It has ended, and its reader has not told so yet. Nothing of the batch was begun: it can go out on the
                # next one, and does not go out twice.
                if not self._life.wait_told(transport, until - time.monotonic()):
                    raise

    def _transport(self, wait: float, until: float) -> Transport:
        fork.check_process()
        # What has opened may be lost again before this thread gets to see it.
        while (transport := self._open_transport()) is None:
            left = until - time.monotonic()
            if not left > 0:
                raise NotConnected(f"{self.name} is {self.state.value}, not open{self._because()}")
            try:
                self.wait_open(left)
            except WouldDeadlock:
                raise
            except ConnmanError as error:
                raise NotConnected(f"{self.name} is not open after {wait:g} s: {error}") from error
        return transport

    def _open_transport(self) -> Transport | None:
        # Whoever ends it sets the state before the transport is told, which would take a message in between.
        return None if self._life.closing is not None else self._life.transport

    def recv(self, timeout: float | None = None) -> Message:
        """Return the next message; for connections without ``on_data``. Survives reconnects.

        ``timeout`` in seconds, None for no limit, 0 or less for what is there. While 1,024 messages or
        ``max_message_size`` wait to be taken nothing is read, which holds the peer back; a loss is then only noticed by
        sending.

        Raises: WaitTimeout; ConnectionClosed after `disconnect`, at once; the error with which retrying ended, after
        the messages that came before it; NotConnected when it was never started; TypeError with ``on_data``;
        WouldDeadlock on the reader thread.
        Threads: any but the reader's; each message goes to one caller.
        """
        fork.check_process()
        if self._callbacks.takes_data or self._receiver is not None:
            raise TypeError("recv() is for connections without on_data, and without a Peer")
        if self._life.is_reader():
            raise WouldDeadlock("the reader thread cannot wait for what only it can read")
        return self._inbox.get(Deadline.after(self._clock, timeout), self._why_no_more)

    def _why_no_more(self) -> Exception | None:
        if self._receiver is not None:
            return TypeError("a Peer has taken over what is read")
        state = self.state
        if state is State.CLOSED:
            return self._life.closing or ConnectionClosed()
        if state is State.IDLE:
            return self.last_error or NotConnected(f"{self.name} was not started")
        return None

    def __iter__(self) -> Iterator[Message]:
        """Yield messages through reconnects until `disconnect`, or an orderly close that nothing follows.

        Raises: what `recv` raises when retrying ends otherwise.
        Threads: as `recv`.
        """
        while True:
            try:
                message = self.recv()
            except ConnectionClosed as closed:
                if self.state is State.CLOSED or closed.code in ORDERLY_CODES:
                    return
                raise
            yield message

    # Ending.

    def disconnect(self, code: int = 1000, reason: str = "", *, timeout: float | None = None) -> None:
        """End it for good, in whatever phase it is. Idempotent.

        An attempt is abandoned, a wait cut, no further attempt made. An open WebSocket is closed with ``code`` and
        ``reason`` (cut to 123 bytes) after the sends under way; the peer has ``timeout`` seconds (None:
        ``close_timeout``; 0 and less: no time) to answer. After it has returned no callback runs, unless one was still blocked at
        ``timeout`` + 1 s, which is when this returns at the latest. Messages that were not taken yet are dropped.

        Raises: ValueError for a code that may not be sent.
        Threads: any; called on one of connman's own threads it returns at once and finishes behind.
        """
        bound = self._options.close_timeout if timeout is None else max(0.0, timeout)
        self.end_soon(code, reason, bound)
        if not is_own():
            self.has_ended(bound)

    close = disconnect

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until it was ended by `disconnect`; ``timeout`` in seconds, None for no limit, 0 and less: only look.

        Raises: WaitTimeout; the error with which retrying ended, if that is what ended it; NotConnected when it was
        never started; WouldDeadlock on connman's own threads.
        Threads: any but connman's own.
        """
        fork.check_process()
        if is_own():
            raise WouldDeadlock("one of connman's own threads cannot wait for a connection's end")
        error = self._life.wait_ended(Deadline.after(self._clock, timeout))
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        """Wait until it is open, at most ``open_timeout`` seconds.

        Raises: as `wait_open`, after having ended the connection.
        """
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.disconnect)
            try:
                self.wait_open(self._options.open_timeout)
            except WaitTimeout as error:
                raise ConnectTimeout(self.name, (), str(error)) from error
            on_failure.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.disconnect()

    # Looking.

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent now."""
        return self.state is State.OPEN

    @property
    def transport_name(self) -> str | None:
        """What carries it now ("ws", "tcp", …), None when not open."""
        fork.check_process()
        transport = self._life.transport
        return None if transport is None else transport.name

    @property
    def attempts(self) -> tuple[Step, ...]:
        """What each leaf of a strategy did in the newest dial: how the present transport was chosen, or why none opened.

        Empty for any other target, and before the first dial is over.
        """
        fork.check_process()
        return self._cycle.attempts

    @property
    def subprotocol(self) -> str | None:
        """The WebSocket subprotocol the server chose, None without one."""
        fork.check_process()
        transport = self._life.transport
        return None if transport is None else transport.subprotocol

    @property
    def stats(self) -> Stats:
        """What it has done since it was made: a snapshot.

        Threads: any.
        """
        fork.check_process()
        return self._life.stats(self._callbacks.received, self._callbacks.errors)
