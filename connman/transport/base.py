"""The seams of the transport floor: what a transport promises, and what a dial is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from connman.clock import Clock, Deadline
from connman.endpoint import Endpoint
from connman.errors import CertificateError, ConnectError, ConnectTimeout, ConnmanError
from connman.options import Options
from connman.records import Data, Message, Step
from connman.transport.causes import describe, is_about_our_certificate
from connman.transport.progress import Progress
from connman.transport.traffic import Traffic

if TYPE_CHECKING:
    from connman.transport.login import Channel


class Transport(Protocol):
    """One open pipe to a peer, used once.

    Threads: `receive` and `dispose` belong to one reader; everything else may be called from any thread.
    """

    name: str
    """What was dialled: "ws", "wss", "tcp" and so on."""
    life: float
    """Clock time of the last sign of life; the reader's return to `receive` counts as one."""
    progress: Progress
    """What of a frame that arrives in parts counts as life."""
    reading: bool
    """Whether the reader is inside `receive` (False: it is busy with what it got)."""
    bytes_in: int
    bytes_out: int
    messages_out: int
    lent: int
    """Messages that others than the reader have read, see `take_one`."""
    ping_rtt: float | None
    can_ping: bool
    """Whether the protocol has pings."""
    subprotocol: str | None
    """The WebSocket subprotocol that was agreed on, None without one."""
    error: ConnmanError | None
    """Why it has ended, None while it has not."""
    rest: bytes
    """What has arrived and was not looked at yet: more to receive, whatever the network brings."""
    has_end: bool
    """Whether the end lies behind the messages that were received last: the next call tells it, and answers the peer."""
    on_abort: Callable[[], None] | None
    """Called by `abort`, on its thread: what waits for anything but `receive` then looks at `error`. Must not block."""
    on_end: Callable[[Transport], None] | None
    """Called once, by `dispose`, when it has ended for good: `error` says why. Must not block."""
    ping_pace: float | None
    """Seconds between pings for whoever knows that this path wants them sooner; None for no wish."""

    def receive(self, deadline: Deadline | None = None) -> list[Message]:
        """Block until messages are there and return all of them, at least one.

        What the peer sent behind them to end it is answered by the next call, so what the reader does with these
        messages may still send.

        Raises: ConnectionClosed, ConnectionLost or ProtocolError at the end, after every message that came before it;
        WaitTimeout when ``deadline`` passes first.
        Threads: the reader only.
        """

    def receive_ready(self) -> tuple[list[Message], ConnmanError | None]:
        """Return what one read brings without blocking, and why it has ended once it has; with an end nothing follows.

        Messages come without an end: `has_end` then says that the next call brings it.

        Threads: the reader only.
        """

    def stand_by(self) -> None:
        """Let others read by `take_one`; return when none has for about a millisecond, or at once when that is of no use.

        The next `receive` returns what one of them has left.

        Raises: ConnectionLost when another thread has met it.
        Threads: the reader only.
        """

    def may_take(self) -> bool:
        """Return whether the reader stands by; if not, one that is about to does not, as who asks waits. Threads: any."""

    def take_one(
        self, seconds: float, take: Callable[[str], bool], is_wanted: Callable[[], bool] = ...
    ) -> bool:
        """Wait up to ``seconds`` for the next message, if the reader stands by, and offer it to ``take(text)``.

        True: it has taken it. False: what was read, if anything, is left to the reader, who goes on at once. ``take`` is
        called at most once, for one text that has arrived alone; it must neither block nor raise. Nobody waits on when
        ``is_wanted()`` is False. No signal handler makes it lose a message; one that raises, or takes long, may have the
        reader read what was taken too.

        Raises: what a signal handler raises.
        Threads: any but the reader; one of them waits, the others do not.
        """

    def call_reader(self) -> None:
        """Have a reader that stands by read on, which others know better than it. Threads: any; never blocks."""

    def is_readable(self) -> bool:
        """Return whether `receive_ready` would find something now, without taking it.

        Threads: any.
        """

    def traffic(self) -> Traffic | None:
        """Return what the system knows of the bytes on their way; None where there is no such system.

        Threads: any; never blocks.
        """

    def fileno(self) -> int:
        """Return the descriptor to watch for something to receive; -1 without one: `watch` then.

        Threads: the reader only.
        """

    def watch(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called, on any thread, each time there may be something to receive, at once if there is.

        It must not block. Only for transports without a descriptor.
        Threads: the reader only.
        """

    @property
    def reads_when(self) -> int:
        """What the descriptor has to be for `receive_ready` to go on: READABLE, or WRITABLE where TLS must write first."""

    def send(self, messages: Sequence[Data], timeout: float) -> None:
        """Hand messages to the network in order; on return all have been taken by the system.

        Raises: NotConnected when it is closing or ended (nothing sent); SendTimeout or ConnectionLost, which end it
        (``sent`` tells how many went out whole); a SendTimeout because others were sending all the time, when
        nothing was begun, ends nothing. Whatever else comes out of a wait here (Ctrl-C) ends it as well.
        Threads: any; one message is never mixed with another.
        """

    def send_now(self, messages: Sequence[Data]) -> Callable[[float], None] | None:
        """Hand messages to the network without waiting for it; None when it has taken all of them.

        Else what hands it the rest, called with the seconds it may wait, once, on any thread: until then nobody else can
        send. It raises what `send` does.

        Raises: NotConnected, ConnectionLost as `send`.
        Threads: any; never blocks.
        """

    def ping(self) -> bool:
        """Begin a ping without ever blocking; False where the protocol has none.

        Threads: any.
        """

    def close(self, code: int, reason: str, timeout: float) -> None:
        """Begin an orderly end without blocking: sends under way finish first, then the close goes out.

        The reader sees the end within ``timeout`` seconds. Idempotent.
        Threads: any.
        """

    def abort(self, error: ConnmanError) -> None:
        """End it at once; the reader wakes up with ``error``, senders with a ConnectionLost that tells of it.

        What has arrived and was not received yet is dropped. The first call's error counts.

        Threads: any; never blocks.
        """

    @property
    def is_slow_to_dispose(self) -> bool:
        """Whether `dispose` may block for a moment (up to about 1 s): the peer must read our close, a sender must leave."""

    def dispose(self) -> None:
        """Give the descriptor back. Idempotent.

        Threads: the reader, or one that it charged with it, after the last `receive`.
        """


class Dialer(Protocol):
    """Anything that can be a target: a `connman.strategy` tree, a scripted dialer of ``connman.testing``."""

    def dial(self, dial: Dial) -> Transport:
        """Open one transport within ``dial.deadline``, abortable by ``dial.abort``.

        Raises: ConnectError. Threads: called on a reader thread, one call at a time for each connection.
        """


class Dial:
    """One attempt to open one transport: its deadline, its log, and the way to abort it.

    Threads: `abort` from any thread; the rest belongs to the thread that dials.
    """

    def __init__(self, endpoint: Endpoint | None, options: Options, clock: Clock, *, name: str = "") -> None:
        self.endpoint = endpoint
        self.options = options
        self.clock = clock
        self.headers: Sequence[tuple[str, str]] = ()
        self.name = name or str(endpoint)
        self.began = clock.now()
        self.deadline = Deadline.after(clock, options.open_timeout)
        self.log: list[Step] = []
        self.phase = "dial"  # the step under way, or the last one
        # The login that is due on what opens; a target that holds it itself says so by leaving `first` behind: what
        # came behind the login.
        self.handshake: Callable[[Channel], object] | None = None
        self.first: list[Message] | None = None
        # Of a target that dials several ways, each on a thread of its own: those threads, which count as the dialling one.
        self.has_ways = False
        self.threads: set[int] = set()
        self._lock = threading.Lock()
        # Guarded by _lock: _aborted, _abortables.
        self._aborted: ConnmanError | None = None
        self._abortables: list[Callable[[], None]] = []

    def abort(self, error: ConnmanError) -> None:
        """End the dial in whatever it is doing: the dialling thread raises the first ``error`` soon. Idempotent.

        Threads: any; never blocks.
        """
        with self._lock:
            if self._aborted is None:
                self._aborted = error
            # By each call: a Ctrl-C may have ended the first before it had woken everything.
            abortables = list(self._abortables)
        # Outside the lock: each of them takes a lock of its own.
        for wake in abortables:
            wake()

    @contextlib.contextmanager
    def abortable(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have ``wake`` called by `abort` while the block runs; register *before* anything in it can block.

        Raises: the abort's error when it came before.
        """
        self.add_abortable(wake)
        try:
            yield
        finally:
            self.remove_abortable(wake)

    def add_abortable(self, wake: Callable[[], None]) -> None:
        """Register ``wake`` to be called by each `abort`.

        Raises: the abort's error when it came before (``wake`` is not registered then).
        """
        # Under the lock under which abort() takes its list: whoever comes too late for the list finds the error.
        with self._lock:
            if self._aborted is None:
                self._abortables.append(wake)
                return
        raise self._aborted

    def remove_abortable(self, wake: Callable[[], None]) -> None:
        """Forget ``wake``. Idempotent."""
        with self._lock, contextlib.suppress(ValueError):
            self._abortables.remove(wake)

    def wait_for(
        self, condition: threading.Condition, predicate: Callable[[], bool], seconds: float | None = None
    ) -> None:
        """Wait on ``condition`` until ``predicate()`` is true or ``seconds`` have passed (None: no limit of its own).

        Raises: the abort's error; ConnectTimeout when the dial's deadline has passed.
        """

        def wake() -> None:
            with condition:
                condition.notify_all()

        # An abort sets its error first and wakes then, for which it wants the condition: no wake-up is lost.
        with self.abortable(wake), condition:
            deadline = self.deadline.sooner(seconds)
            deadline.wait_for(condition, lambda: self._aborted is not None or predicate())
        self.check()

    def begin(self, headers: Sequence[tuple[str, str]]) -> None:
        """Take this attempt's headers and start its deadline: what user code took before does not count."""
        self.headers = headers
        self.began = self.clock.now()
        self.deadline = Deadline.after(self.clock, self.options.open_timeout)

    def check_aborted(self) -> None:
        """Raise when the dial was aborted.

        Raises: the abort's error.
        """
        if self._aborted is not None:
            raise self._aborted

    def check(self) -> None:
        """Raise when the dial was aborted or its deadline has passed.

        Raises: the abort's error; ConnectTimeout.
        """
        self.check_aborted()
        if self.deadline.expired:
            raise self.timeout()

    def timeout(self) -> ConnectTimeout:
        """Return the error for a deadline that has passed, with the log so far."""
        return ConnectTimeout(self.name, self.log, f"no connection within {self.options.open_timeout:g} s")

    def note(self, phase: str, address: str, began: float, cause: str | None = None) -> None:
        """Log a step that began at ``began`` and has ended just now."""
        self.log.append(Step(phase, address, self.clock.now() - began, cause, start=began - self.began))

    @contextlib.contextmanager
    def step(self, phase: str, address: str = "") -> Iterator[None]:
        """Log the block as a step, and translate what escapes from it.

        Raises: the abort's error if the dial was aborted; ConnectTimeout when the deadline has passed, and for a
        TimeoutError of the system; CertificateError when the peer refused our certificate; ConnectError for any other
        OSError; errors of connman as they are.
        """
        began, self.phase = self.clock.now(), phase
        try:
            yield
        except (OSError, ConnmanError) as error:
            # A call whose socket is shut down under it fails with anything: EPIPE, ENOTCONN, an end of file.
            if self._aborted is not None and error is not self._aborted:
                raise self._aborted from error
            self.note(phase, address, began, describe(error))
            if isinstance(error, ConnectError):
                error.with_log(self.log)
            if isinstance(error, ConnmanError):
                raise
            raise self._translated(error, phase) from error
        self.note(phase, address, began)

    def _translated(self, error: OSError, phase: str) -> ConnectError:
        if self.deadline.expired:
            return self.timeout()
        if is_about_our_certificate(error):
            return CertificateError(
                self.name, self.log, f"the peer refused our certificate: {describe(error)}"
            )
        kind = ConnectTimeout if isinstance(error, TimeoutError) else ConnectError
        return kind(self.name, self.log, f"{phase}: {describe(error)}")
