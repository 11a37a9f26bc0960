"""The user's callbacks: in order, one at a time, none of them able to harm the connection."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from connman.clock import Clock, Deadline
from connman.connection.life import Life
from connman.connection.queue import BoundedQueue
from connman.errors import ConnectionLost, ConnmanError
from connman.records import Message, Reset
from connman.threads import is_kill, spawn

if TYPE_CHECKING:
    from connman.connection.connection import Connection

logger = logging.getLogger("connman.callbacks")

OnOpen = Callable[["Connection"], object]
OnData = Callable[["Connection", Message], object]
OnReset = Callable[["Connection", Reset], Any]


class Callbacks:
    """Call the user back on the calling thread. Without ``on_data``, messages go to a queue for ``recv``.

    Once ``disconnect`` was called only the last ``on_reset`` still comes. What gevent kills a thread with goes through.

    Threads: one at a time, whichever runs the dispatch.
    """

    __slots__ = (
        "_inbox", "_is_open_told", "_life", "_on_data", "_on_reset", "_pid", "errors", "on_open", "received",
    )  # fmt: skip

    def __init__(
        self, life: Life, inbox: BoundedQueue[Message], on_open: OnOpen | None, on_data: OnData | None,
        on_reset: OnReset | None,
    ) -> None:  # fmt: skip
        self._life = life
        self._inbox = inbox
        self.on_open = on_open
        self._on_data = on_data
        self._on_reset = on_reset
        self._is_open_told = False
        self._pid = os.getpid()
        self.received = 0
        self.errors = 0

    @property
    def takes_data(self) -> bool:
        """Whether there is an ``on_data``; without one ``recv`` and iteration serve."""
        return self._on_data is not None

    def opened(self, conn: Connection) -> None:
        """Call ``on_open``, unless `disconnect` came meanwhile."""
        self._is_open_told = self._life.closing is None
        if self.on_open is not None and self._is_open_told:
            self._guarded("on_open", conn, self.on_open, conn)

    def data(self, conn: Connection, messages: list[Message], *, is_counted: bool = False) -> None:
        """Count messages, unless they are, and deliver them until all are, or `disconnect` was called."""
        on_data, life = self._on_data, self._life
        if life.closing is not None:
            return
        if not is_counted:
            self.received += len(messages)
        if on_data is None:
            self._inbox.extend(messages)
            return
        for message in messages:
            if life.closing is not None:
                return
            try:
                on_data(conn, message)
            except BaseException as error:  # user callback: it must not end the connection
                self._failed("on_data", conn, error)

    def wait_room(self, is_over: Callable[[], bool]) -> bool:
        """Wait while as many messages as may wait for ``recv`` do; False when ``is_over()`` came first."""
        return self._on_data is not None or self._inbox.wait_room(is_over)

    @property
    def has_room(self) -> bool:
        """Whether more messages may wait for ``recv``."""
        return self._on_data is not None or self._inbox.has_room

    def on_room(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when there is room again."""
        self._inbox.on_room(callback)

    def wake(self) -> None:
        """Have a blocked `wait_room` look again. Any thread."""
        self._inbox.wake()

    def reset(self, conn: Connection, reset: Reset) -> None:
        """Call ``on_reset``; a callable that it returns is the new ``on_open`` from now on."""
        # One that nobody saw open has not ended as an open one: resets pair with opens.
        reset = dataclasses.replace(reset, opened=reset.opened and self._is_open_told)
        self._is_open_told = False
        # In a forked child what is the parent's has not ended; a thread that forked, or gevent's copy, only comes by here.
        if self._on_reset is None or os.getpid() != self._pid:
            return
        answer = self._guarded("on_reset", conn, self._on_reset, conn, reset)
        if callable(answer):
            self.on_open = answer
        elif answer is not None:
            self.errors += 1
            error = TypeError(
                f"on_reset returned {type(answer).__name__}, neither None nor a callable; ignored"
            )
            logger.error("%s", error, exc_info=error, extra={"conn": conn.name})

    def _guarded(self, what: str, conn: Connection, callback: Callable[..., Any], *args: object) -> Any:
        try:
            return callback(*args)
        except BaseException as error:  # user callback: it must not end the connection
            self._failed(what, conn, error)
            return None

    def _failed(self, what: str, conn: Connection, error: BaseException) -> None:
        if is_kill(error):
            raise error  # it is this thread that has to end
        self.errors += 1
        logger.error("%s raised", what, exc_info=error, extra={"conn": conn.name})


class Dispatcher(Protocol):
    """Where the callbacks run."""

    is_immediate: bool
    """Whether `run` is a plain call."""

    def run(self, event: Callable[[], None], size: int) -> None:
        """Have ``event`` run after all earlier ones; ``size``: the bytes it holds.

        Threads: the reader only.
        """

    def wait_room(self, is_over: Callable[[], bool]) -> bool:
        """Wait until not too many events wait; False when ``is_over()`` came first (`wake` has it asked again).

        Threads: the reader only.
        """

    @property
    def has_room(self) -> bool:
        """Whether not too many events wait."""

    def on_room(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when there is room again; it must not block.

        Threads: before the first event.
        """

    def wake(self) -> None:
        """Have a blocked `wait_room` look again.

        Threads: any.
        """

    def finish(self) -> None:
        """Say that no event comes for now: a thread of the dispatcher's own ends when it has run what waits.

        Threads: the reader only.
        """

    def hasten(self) -> None:
        """Let a reader that is blocked in `wait_room` go on: the connection is ending.

        Threads: any.
        """


class ReaderDispatcher:
    """Run events on the reader thread, at once: the lowest latency. A `Dispatcher`."""

    is_immediate = True
    has_room = True

    def run(self, event: Callable[[], None], size: int) -> None:
        """Run ``event``.

        Threads: the reader only.
        """
        event()

    def wait_room(self, is_over: Callable[[], bool]) -> bool:
        """Return True: nothing ever waits.

        Threads: the reader only.
        """
        return True

    def on_room(self, callback: Callable[[], None]) -> None:
        """Do nothing.

        Threads: any.
        """

    def wake(self) -> None:
        """Do nothing.

        Threads: any.
        """

    def finish(self) -> None:
        """Do nothing.

        Threads: the reader only.
        """

    def hasten(self) -> None:
        """Do nothing.

        Threads: any.
        """


class _Done(ConnmanError):
    """Nothing waits and nothing comes."""


class _Event(NamedTuple):
    """One call to make, and the bytes of the messages that it holds."""

    run: Callable[[], None]
    size: int


class ThreadDispatcher:
    """Run events on one thread of their own behind a bounded queue: for callbacks that block long. A `Dispatcher`.

    The thread lives while the reader does; one that is started again before it has ended stays: no callbacks overlap.
    """

    is_immediate = False

    def __init__(self, life: Life, clock: Clock, name: str, max_size: int) -> None:
        self._life = life
        self._forever = Deadline(clock, None)
        self._name = f"callbacks-{name}"
        self._queue: BoundedQueue[_Event] = BoundedQueue(clock, max_size, attrgetter("size"))
        self._lock = threading.Lock()
        # Guarded by _lock: _is_finishing, _has_thread.
        self._is_finishing = False
        self._has_thread = False

    def run(self, event: Callable[[], None], size: int) -> None:
        """Queue ``event``.

        Threads: the reader only.
        """
        with self._lock:
            self._is_finishing = False
            must_start = not self._has_thread
            self._has_thread = True
        if must_start and not self._start():
            event()
            return
        self._queue.extend((_Event(event, size),))

    def wait_room(self, is_over: Callable[[], bool]) -> bool:
        """Wait while the queue is full, which is backpressure on the peer; False when ``is_over()`` came first.

        Threads: the reader only.
        """
        return self._queue.wait_room(is_over)

    @property
    def has_room(self) -> bool:
        """Whether the queue has room."""
        return self._queue.has_room

    def on_room(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when the queue has room again.

        Threads: before the first event.
        """
        self._queue.on_room(callback)

    def wake(self) -> None:
        """Have a blocked `wait_room` look again.

        Threads: any.
        """
        self._queue.wake()

    def _start(self) -> bool:
        try:
            self._life.note_thread(spawn(self._name, self._loop))
        except RuntimeError:
            # An ending interpreter grants no thread: the last events run where they are.
            with self._lock:
                self._has_thread = False
            return False
        return True

    def finish(self) -> None:
        """Have the thread end once it has run what waits.

        Threads: the reader only.
        """
        with self._lock:
            self._is_finishing = True
        self._queue.wake()

    def hasten(self) -> None:
        """Let a blocked `wait_room` go on.

        Threads: any.
        """
        self._queue.lift_bound()

    def _loop(self) -> None:
        try:
            self._run_events()
        except BaseException as killed:  # top of a thread: what waits must be dispatched all the same
            # What was read together with the message that it was in is lost, so the transport is.
            if (transport := self._life.transport) is not None:
                transport.abort(ConnectionLost("its callbacks were killed"))
            self._start()
            if not is_kill(killed):
                raise

    def _run_events(self) -> None:
        while True:
            try:
                event = self._queue.get(self._forever, self._why_done)
            except _Done:
                with self._lock:
                    if self._is_finishing:
                        self._has_thread = False
                        return
                continue
            try:
                event.run()
            except BaseException as error:  # top of a thread: without it nothing would be dispatched any more
                if is_kill(error):
                    raise
                logger.exception("%s failed", self._name)

    def _why_done(self) -> ConnmanError | None:
        return _Done() if self._is_finishing else None
