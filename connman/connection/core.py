"""The machinery of one connection: what it is made of, how it starts, ends and survives a fork."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, Unpack, cast

from connman.clock import LONGEST_WAIT, Clock, SystemClock
from connman.connection import fork
from connman.connection.callbacks import (
    Callbacks,
    Dispatcher,
    OnData,
    OnOpen,
    OnReset,
    ReaderDispatcher,
    ThreadDispatcher,
)
from connman.connection.cycle import Cycle, Readers
from connman.connection.future import ConnectedFuture
from connman.connection.life import Life
from connman.connection.queue import BoundedQueue
from connman.connection.reader import ThreadReaders
from connman.connection.receiver import Handover, Receiver
from connman.endpoint import Endpoint
from connman.errors import ConnectError, ConnectionClosed, InvalidOption, printable
from connman.options import OptionArguments, Options, make_options, shows_options
from connman.records import Message, State
from connman.transport.base import Dialer
from connman.transport.login import Channel
from connman.transport.openers import EndpointDialer, prepare
from connman.transport.proxy import usable_proxy

if TYPE_CHECKING:
    from connman.connection.connection import Connection

logger = logging.getLogger("connman.connection")

_ids = itertools.count(1)
# RFC 6455 7.4: what an application may put into a close frame.
_CLOSE_CODES = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))


# One of each for all: they hold no state.
_endpoint_dialer, _thread_readers, _at_once, _system_clock = (
    EndpointDialer(),
    ThreadReaders(),
    ReaderDispatcher(),
    SystemClock(),
)


class SharedArguments(OptionArguments, total=False):
    """The keyword arguments of `Connection` that many connections can have in common."""

    on_open: OnOpen | None
    on_data: OnData | None
    on_reset: OnReset | None
    handshake: Callable[[Channel], object] | None
    clock: Clock | None


class ConnectionArguments(SharedArguments, total=False):
    """The keyword arguments of `Connection`, for those who only pass them on."""

    name: str | None


class Core:
    """What `Connection` stands on; its public part is what pools, managers and the exit hook need.

    Threads: every method from any thread, but for what is said there.
    """

    @shows_options
    def __init__(
        self,
        target: object,
        *,
        on_open: OnOpen | None = None,
        on_data: OnData | None = None,
        on_reset: OnReset | None = None,
        handshake: Callable[[Channel], object] | None = None,
        name: str | None = None,
        clock: Clock | None = None,
        **options: Unpack[OptionArguments],
    ) -> None:
        self.target = target
        self._options = make_options(options)
        is_dialer = hasattr(target, "dial")
        self.endpoint = None if is_dialer else Endpoint.parse(target)
        self._on = (on_open, on_data, on_reset)
        self._handshake = handshake
        self._check_options()
        if not isinstance(name, str | None):
            raise InvalidOption("name is a text or None")
        self.id = next(_ids)
        self.name = printable(name) if name else f"{self.endpoint or type(target).__name__}#{self.id}"
        self._dialer = cast(Dialer, target) if is_dialer else _endpoint_dialer
        self._clock = clock or _system_clock
        self._readers: Readers = _thread_readers
        self._watchers: tuple[Callable[[Connection, State], None], ...] = ()
        self._receiver: Receiver | None = None
        self._build()
        fork.register(self)
        fork.end_at_exit(self)

    def _check_options(self) -> None:
        is_stream = self.endpoint is None or self.endpoint.scheme in ("tcp", "tls", "unix")
        if self._options.framing is not None and not is_stream:
            raise InvalidOption("framing is for byte streams: tcp, tls and unix")
        if self._options.compression and self.endpoint and self.endpoint.scheme not in ("ws", "wss"):
            raise InvalidOption("compression is for ws and wss")
        if self._options.subprotocols and self.endpoint and self.endpoint.is_http:
            raise InvalidOption("subprotocols are for ws and wss")
        for what, value in zip(
            ("on_open", "on_data", "on_reset", "handshake"), (*self._on, self._handshake), strict=True
        ):
            if value is not None and not callable(value):
                raise InvalidOption(f"{what} is a callable or None")
        if isinstance(self._options.proxy, str):
            usable_proxy(self._options.proxy)
        if self.endpoint is not None:
            prepare(self.endpoint)

    def _build(self, closing: ConnectionClosed | None = None) -> None:
        """Make everything that holds a lock; a forked child does it again."""
        on_open, on_data, on_reset = self._on
        options, clock = self._options, self._clock
        self._life = Life(clock, self._state_changed, closing)
        self._inbox: BoundedQueue[Message] = BoundedQueue(clock, options.max_message_size, len)
        self._callbacks = Callbacks(self._life, self._inbox, on_open, on_data, on_reset)
        self._dispatcher: Dispatcher = _at_once
        if options.dispatch == "thread":
            self._dispatcher = ThreadDispatcher(self._life, clock, self.name, options.max_message_size)
        self._cycle = Cycle(
            cast("Connection", self),
            self._life,
            options,
            clock,
            dialer=self._dialer,
            endpoint=self.endpoint,
            handshake=self._handshake,
            callbacks=self._callbacks,
            dispatcher=self._dispatcher,
        )
        if self._receiver is not None:
            self._cycle.receive_by(self._receiver)

    def _ask(self, *, wants_future: bool = True) -> ConnectedFuture | None:
        """Start the reader if idle; return the shared Future if wanted."""
        fork.check_process()
        try:
            future, must_start = self._life.ask(wants_future=wants_future)
            if must_start:
                self._start_reader()
        except BaseException:  # user code (a signal handler) raised: nobody else would start the reader
            self._life.start_interrupted()
            raise
        return future

    def _start_reader(self) -> None:
        try:
            self._readers.start(self._cycle)
        except RuntimeError as error:
            self._life.reader_failed(ConnectError(self.name, (), f"no reader thread: {error}"))

    @property
    def state(self) -> State:
        """The phase it is in."""
        fork.check_process()
        return self._life.state

    @property
    def generation(self) -> int:
        """Successful opens so far."""
        fork.check_process()
        return self._life.generation

    @property
    def last_error(self) -> Exception | None:
        """The newest failure or loss, None before the first."""
        fork.check_process()
        return self._life.last_error

    @property
    def closing(self) -> ConnectionClosed | None:
        """What `disconnect` was told, None before."""
        return self._life.closing

    @property
    def options(self) -> Options:
        """The options that it was made with."""
        return self._options

    @property
    def clock(self) -> Clock:
        """The clock that it was made with."""
        return self._clock

    def is_reader(self) -> bool:
        """Return whether the calling thread is the one that dials and reads, on which no wait for it can end.

        Threads: any.
        """
        return self._life.is_reader()

    def end_soon(self, code: int = 1001, reason: str = "", timeout: float = 1.0) -> None:
        """Begin what `disconnect` does and return at once; `has_ended` waits for it.

        Raises: ValueError for a code or a reason that may not be sent.
        Threads: any; never blocks.
        """
        fork.check_process()
        if isinstance(code, float) or code not in _CLOSE_CODES:
            raise ValueError(f"{code} is no close code that may be sent (RFC 6455 7.4)")
        str.encode(reason)  # raises for no text and for a lone surrogate, while nothing has been done yet
        self._life.disconnect(ConnectionClosed(code, reason), timeout)

    def has_ended(self, within: float) -> bool:
        """Wait up to ``within`` seconds for its threads to be gone, then break what is left, with up to 1 s more.

        Threads: any but connman's own.
        """
        if self.wait_gone(within):
            return True
        self.abort()
        return self.wait_gone(1.0)

    def wait_gone(self, within: float) -> bool:
        """Wait up to ``within`` real seconds for its threads to be gone; return whether they are.

        Threads: any but connman's own.
        """
        until = time.monotonic() + min(within, LONGEST_WAIT)
        return self._life.wait_gone(within) and self._readers.wait_gone(max(0.0, until - time.monotonic()))

    def abort(self) -> None:
        """Break what was told to end and has not; nothing before that.

        Threads: any; never blocks.
        """
        self._life.abort()

    def __reduce__(self) -> NoReturn:
        # Without it copy.copy() makes a twin that shares the threads of this one, and ends with it.
        raise TypeError("a connection cannot be copied or pickled: it is the one to its target")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self._life.state.value} generation={self.generation}>"

    def _because(self) -> str:
        return "" if self.last_error is None else f"; last error: {self.last_error}"

    def watch(self, watcher: Callable[[Connection, State], None]) -> None:
        """Have ``watcher(connection, state)`` called after every change of state, on the thread that made it.

        It must not block and not raise. When two threads change the state at once, as `disconnect` while it opens, or
        who asks for it while its reader has just become idle, it may be told in the other order: CLOSED is always the
        last state.

        Threads: before the connection is started.
        """
        self._watchers = (*self._watchers, watcher)

    def _state_changed(self, state: State) -> None:
        if state is State.CLOSED:
            self._inbox.close()
            self._dispatcher.hasten()
            logger.info(
                "%s: closed", self.name, extra={"conn": self.name, "generation": self._life.generation}
            )
        elif state is State.IDLE:
            self._inbox.wake()
        if (receiver := self._cycle.receiver) is not None:
            receiver.changed(state)
        for watcher in self._watchers:
            watcher(cast("Connection", self), state)

    def attach(
        self, receiver: Receiver, first: Sequence[Message] = (), *, replaces: Receiver | None = None
    ) -> None:
        """Have ``receiver`` take what is read, instead of `recv`; first of all what `recv` has not taken yet.

        ``replaces``: the present one, which calls this inside its own `received`; ``first`` are messages that it got and
        that are for its successor.

        Raises: TypeError for a connection with ``on_data``; ValueError when it has another receiver.
        Threads: any; a running one holds its reader back until ``receiver`` knows of the open transport.
        """
        fork.check_process()
        if self._on[1] is not None:
            raise TypeError("a connection with on_data takes no other receiver")
        if self._receiver is not replaces:
            raise ValueError(f"{self.name} has a receiver already")
        self._receiver = receiver
        handover = Handover(lambda: self._receiver)
        handover.run(lambda: self._hand_over(receiver, handover, first))

    def _hand_over(self, receiver: Receiver, handover: Handover, first: Sequence[Message]) -> None:
        # Before the look at what is open: either the reader finds the receiver, or this finds what the reader has opened.
        self._cycle.receive_by(handover)
        transport = self._life.transport
        if transport is not None and self._life.closing is None:
            receiver.opened(transport)
        messages = [*self._inbox.divert(lambda items: handover.received(list(items))), *first]
        if messages:
            receiver.received(messages)
        if self._receiver is receiver:  # it may have been replaced by what it has received
            self._cycle.receive_by(receiver)

    def read_by(self, readers: Readers) -> None:
        """Be read by ``readers`` instead of by a thread of its own.

        Threads: before the connection is started.
        """
        self._readers = readers

    def after_fork(self) -> Callable[[], None] | None:
        """Become idle in a child process: new locks, no transport; return what fails the inherited Future.

        Threads: the first one of the child that uses connman.
        """
        life, closing = self._life, self._life.closing
        self._on = (self._callbacks.on_open, *self._on[1:])
        self._build(closing)
        return life.abandon_after_fork()
