"""A target whose attempts to open end as the test has written them down."""

from __future__ import annotations

import enum
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from connman.errors import (
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ConnmanError,
    NotConnected,
    ProtocolError,
    WaitTimeout,
)
from connman.records import Message
from connman.threads import Condition, spawn
from connman.transport.base import Dial, Transport
from connman.transport.memory import memory_pair

_PATIENCE = 10.0  # real seconds


class Act(enum.Enum):
    """Name what a scripted dial does, beside failing: the members are attributes of `ScriptedDialer` too."""

    OPEN = "open"
    DEAF = "deaf"
    HANG = "hang"


Outcome = Act | BaseException | type[BaseException] | Callable[["Peer"], object]


class Peer:
    """The far end of a connection that a `ScriptedDialer` has opened: what a server would hold.

    It answers pings and closes by itself, as a server does, unless it is deaf. Every ``timeout`` is in real seconds;
    with 0 or less it only looks.

    ::

        peer = dialer.next_peer()
        peer.send("hello")
        assert peer.recv() == "and hello to you"
        peer.drop()  # the connection is lost and dials again

    Threads: every method from any thread.
    """

    def __init__(self, pipe: Transport) -> None:
        self._pipe = pipe
        self._is_listening = threading.Lock()
        self._ended = threading.Event()
        self._error: ConnmanError | None = None
        # None marks the end.
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

    def listen(self) -> None:
        """Begin to read, and to answer pings and closes: done already unless the peer is deaf. Idempotent.

        Threads: any.
        """
        # Never released: it is the mark that this was done.
        if self._is_listening.acquire(blocking=False):
            spawn("peer", self._read_loop)

    def send(self, data: Message) -> None:
        """Send a message: str as text, bytes as binary.

        While the connection does not read it takes some 200 KiB, then blocks for up to 10 s of the connection's clock.

        Raises: NotConnected or ConnectionLost when the connection has ended; SendTimeout.
        Threads: any.
        """
        self._pipe.send([data], _PATIENCE)

    def recv(self, timeout: float = _PATIENCE) -> Message:
        """Return the next message of the connection.

        Raises: WaitTimeout when none comes within ``timeout`` seconds; behind the last message what ended the
        connection: ConnectionClosed with its code, ConnectionLost.
        Threads: any.
        """
        try:
            message = self._inbox.get(timeout=max(0.0, timeout))
        except queue.Empty:
            raise WaitTimeout(f"the connection sent nothing for {timeout:g} s") from None
        if message is not None:
            return message
        self._inbox.put(None)  # for the next one who asks
        raise self._how_it_ended()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin an orderly close from this side; returns at once. Idempotent.

        Threads: any.
        """
        self._pipe.close(code, reason, _PATIENCE)

    def drop(self) -> None:
        """Break the connection without a word, as a killed server does. Idempotent.

        Threads: any.
        """
        self._pipe.abort(ConnectionLost("dropped by the test"))

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended, from whichever side; a deaf peer does not notice."""
        return self._ended.is_set()

    def wait_closed(self, timeout: float = _PATIENCE) -> ConnmanError:
        """Wait until the connection has ended and return how: ConnectionClosed with its code, ConnectionLost.

        Raises: WaitTimeout when it is still open after ``timeout`` seconds.
        Threads: any.
        """
        if not self._ended.wait(timeout):
            raise WaitTimeout(f"the connection is still open after {timeout:g} s")
        return self._how_it_ended()

    def _how_it_ended(self) -> ConnmanError:
        assert self._error is not None
        # The same error for everyone who asks: its traceback would grow with each.
        return self._error.with_traceback(None)

    def _read_loop(self) -> None:
        try:
            while True:
                for message in self._pipe.receive():
                    self._inbox.put(message)
        except ConnmanError as error:
            self._error = error
        finally:
            self._pipe.dispose()
            # Behind the error: whoever waits for the one reads the other next.
            self._ended.set()
            self._inbox.put(None)


@dataclass(frozen=True, slots=True)
class Dialled:
    """Record one dial: the time on its clock, and the headers it would have sent."""

    at: float
    headers: tuple[tuple[str, str], ...] = field(repr=False)


class ScriptedDialer:
    """A target for a Connection that opens nothing real: each dial takes the next outcome of ``script``.

    ===================  ==============================================================================================
    an exception         the attempt fails with it (an instance, or a class without arguments); an OSError is
                         translated as a real transport would
    ``OPEN``             opens a connection in memory; `next_peer` returns its other end
    ``DEAF``             the same, but the peer reads and answers nothing before its `Peer.listen`
    ``HANG``             blocks until the dial is aborted, or its deadline passes on its clock
    a callable           opens, and plays the server: it is called with the `Peer` on a thread of its own
    ===================  ==============================================================================================

    ::

        dialer = ScriptedDialer([ConnectionRefusedError, ScriptedDialer.OPEN])
        conn = connman.Connection(dialer)
        conn.get_connected()  # refused, and after the first delay open
        peer = dialer.next_peer()

    The script is an iterable, or a callable that is asked for each outcome with the `Dial`, on the dialling thread (it
    may block: so a transport opens late). A dial behind the end of an iterable fails with a ConnectError.

    Threads: every method from any thread; an iterable is asked by one thread at a time.
    """

    OPEN = Act.OPEN
    DEAF = Act.DEAF
    HANG = Act.HANG

    def __init__(self, script: Iterable[Outcome] | Callable[[Dial], Outcome]) -> None:
        self._ask = script if callable(script) else None
        self._script: Iterator[Outcome] = iter(()) if callable(script) else iter(script)
        self._changed = threading.Condition()
        # Guarded by _changed: _script's position, _dials.
        self._dials: list[Dialled] = []
        self._peers: queue.SimpleQueue[Peer] = queue.SimpleQueue()

    def dial(self, dial: Dial) -> Transport:
        """Play the next outcome; what a Connection calls.

        Raises: what the script says; ConnectError when it is exhausted.
        Threads: a reader thread.
        """
        with self._changed:
            self._dials.append(Dialled(dial.clock.now(), tuple(dial.headers)))
            # Under the same lock: who was told of this dial finds its outcome taken, in a forked child as well.
            outcomes = list(itertools.islice(self._script, 1))
            self._changed.notify_all()
        with dial.step("script"):
            return self._play(self._outcome(outcomes, dial), dial)

    @property
    def dials(self) -> list[Dialled]:
        """Every dial so far, those that are under way included."""
        with self._changed:
            return self._dials.copy()

    def wait_until_dialled(self, count: int = 1, timeout: float = _PATIENCE) -> None:
        """Block until at least ``count`` dials have begun.

        Raises: AssertionError after ``timeout`` real seconds; 0 and less: unless they have already.
        Threads: any.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._dials) >= count, timeout):
                raise AssertionError(f"{len(self._dials)} dials in {timeout:g} s, not {count}")

    def next_peer(self, timeout: float = _PATIENCE) -> Peer:
        """Return the other end of the next connection that was opened: each is returned once, in order.

        Raises: AssertionError after ``timeout`` real seconds; 0 and less: unless there is one already.
        Threads: any.
        """
        try:
            return self._peers.get(timeout=max(0.0, timeout))
        except queue.Empty:
            raise AssertionError(f"nothing was opened within {timeout:g} s") from None

    def _outcome(self, outcomes: list[Outcome], dial: Dial) -> Outcome:
        if self._ask is not None:
            return self._ask(dial)
        if not outcomes:
            raise ConnectError(dial.name, dial.log, "script exhausted")
        return outcomes[0]

    def _play(self, outcome: Outcome, dial: Dial) -> Transport:
        if isinstance(outcome, BaseException):
            raise outcome.with_traceback(None)  # the same one may be raised a thousand times
        if isinstance(outcome, type):
            raise outcome
        if outcome is Act.HANG:
            dial.wait_for(Condition(), lambda: False)  # which a Ctrl-C does not leave locked
        return self._open(outcome, dial)

    def _open(self, outcome: Outcome, dial: Dial) -> Transport:
        near, far = memory_pair(dial.clock, dial.options.max_message_size)
        peer = Peer(far)
        if outcome is not Act.DEAF:
            peer.listen()
        if callable(outcome):
            spawn("peer-script", lambda: _serve(peer, outcome))
        self._peers.put(peer)
        return near


def _serve(peer: Peer, script: Callable[[Peer], object]) -> None:
    try:
        script(peer)
    except BaseException as error:  # user code: a server that crashes leaves its client
        peer.drop()
        if not _tells_of_an_end(error):
            raise  # for the thread's excepthook


def _tells_of_an_end(error: BaseException) -> bool:
    """Whether a script may end with it: the connection ended first, which is a common end of a script.

    Told by the error alone: `Peer.is_closed` may not say so yet, since `Peer.send` fails before the peer's reader, a
    thread of its own, has seen the end. A timeout is none: the test has waited for what never came.
    """
    is_end = isinstance(error, NotConnected | ConnectionClosed | ConnectionLost | ProtocolError)
    return is_end and not isinstance(error, TimeoutError)


__all__ = ["Act", "Dialled", "Outcome", "Peer", "ScriptedDialer"]
