"""One call under way, and who waits for its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from connman.connection.future import ReaderFuture
from connman.threads import LOOK, latch

if TYPE_CHECKING:
    from connman.rpc.session import Session
    from connman.rpc.streams_out import Upload
    from connman.rpc.table import Table


class Call:
    """A request, its place in the table, and whoever waits for the answer.

    It is over once, by whatever comes first of the answer, the deadline, a cancel and the end of its path: `settle` and
    `fail` return False when something else has come before.

    Threads: any.
    """

    __slots__ = (
        "began", "call_id", "deadline", "has_left", "id", "is_over", "service", "session", "stream", "table", "text", "upload",
    )  # fmt: skip

    calls_users = False
    """Whether its end may run code of the user's, as the callbacks of a Future."""

    def __init__(self, table: Table, service: int | str, text: str, is_reader: Callable[[], bool]) -> None:
        self.table = table
        self.service = service
        self.text = text  # of the request, behind its id
        self.deadline: float | None = None
        self.began = 0.0
        # Guarded by the table's lock: id (None while it has no path), is_over, has_left (on a path that has ended).
        self.id: int | None = None
        self.is_over = self.has_left = False
        self.call_id: str | None = None  # of a call that may go out again
        self.stream: Any = None  # of a call that is answered by a stream: the streams' own
        self.upload: Upload | None = None
        self.session: Session | None = None  # the only one that it can go out on, because of its upload

    def settle(self, value: object) -> bool:
        """Answer it with ``value``."""
        if not self.table.take(self):
            return False
        self.settled(value)
        return True

    def fail(self, error: BaseException) -> bool:
        """Have it end with ``error``."""
        if not self.table.take(self):
            return False
        self.failed(error)
        return True

    def settled(self, value: object) -> None:
        """Tell whoever waits of ``value``; by the one who took it out of the table."""
        raise NotImplementedError

    def failed(self, error: BaseException) -> None:
        """Tell whoever waits of ``error``; by the one who took it out of the table."""
        raise NotImplementedError

    def _take_down(self) -> None:
        if self.upload is not None:
            self.upload.close()


class BlockingCall(Call):
    """A call whose caller waits for it and for nothing else: a lock tells him, which is cheaper than a Future."""

    __slots__ = ("_answered", "_error", "_value")

    def __init__(self, table: Table, service: int | str, text: str, is_reader: Callable[[], bool]) -> None:
        super().__init__(table, service, text, is_reader)
        self._value: object = None
        self._error: BaseException | None = None
        self._answered = latch()

    def settled(self, value: object) -> None:
        """See `Call`."""
        self._value = value
        self._answered.release()
        self._take_down()

    def failed(self, error: BaseException) -> None:
        """See `Call`."""
        self._error = error
        if self._answered.locked():  # else a Ctrl-C has cut it, and it is done again
            self._answered.release()
        self._take_down()

    def wait(self, read: Callable[[BlockingCall], None] | None = None) -> Any:
        """Wait for the answer and return it; first of all ``read(self)`` may settle it.

        Raises: what it ended with; what a signal handler raised, after having given it up.
        Threads: the caller's.
        """
        try:
            if read is not None:
                read(self)
            if self._answered.locked():
                self._wait()
        except BaseException:  # user code (a signal handler) raised
            self.table.drop(self)
            self._take_down()
            raise
        if self._error is not None:
            raise self._error
        return self._value

    def _wait(self) -> None:
        if threading.current_thread() is threading.main_thread():
            while not self._answered.acquire(timeout=LOOK):  # in steps, see `threads.at_once`
                pass
        else:
            self._answered.acquire()


class CallFuture(ReaderFuture[Any]):
    """The Future of one call. Cancelling it drops the answer; the service may run all the same.

    Threads: every method from any thread.
    """

    _deadlock = "the reader thread cannot wait for the answer that only it can read"

    def __init__(self, is_reader: Callable[[], bool], drop: Callable[[], None]) -> None:
        super().__init__(is_reader)
        self._drop = drop

    def cancel(self) -> bool:
        """Give the call up; False when it is over already.

        Threads: any.
        """
        if not super().cancel():
            return False
        self._drop()
        return True


class FutureCall(Call):
    """A call whose caller holds a Future."""

    __slots__ = ("future",)
    calls_users = True

    def __init__(self, table: Table, service: int | str, text: str, is_reader: Callable[[], bool]) -> None:
        super().__init__(table, service, text, is_reader)
        self.future = CallFuture(is_reader, self._given_up)

    def _given_up(self) -> None:
        if self.table.drop(self):
            self._cancelled()
        self._take_down()

    def _cancelled(self) -> None:
        # Who waits for several Futures at once is told by this alone. Once: by whoever took it out of the table, unless a
        # Ctrl-C has cut that and it is done again.
        with suppress(RuntimeError):
            self.future.set_running_or_notify_cancel()

    def settled(self, value: object) -> None:
        """See `Call`."""
        try:
            self.future.set_result(value)
        except InvalidStateError:
            self._cancelled()
        self._take_down()

    def failed(self, error: BaseException) -> None:
        """See `Call`."""
        try:
            self.future.set_exception(error)
        except InvalidStateError:
            if self.future.cancelled():
                self._cancelled()
            else:
                self.future.finish_cut()  # a Ctrl-C has cut it, and it is done again
        self._take_down()


class StreamCall(Call):
    """A call whose answers go to a stream, which has its own idea of how long to wait."""

    __slots__ = ()

    def settled(self, value: object) -> None:
        """See `Call`."""
        self.stream.settle(value)

    def failed(self, error: BaseException) -> None:
        """See `Call`."""
        self.stream.fail(error)
