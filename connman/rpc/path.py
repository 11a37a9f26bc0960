"""The way to the other side: the session of the transport that is open now, or what calls without one have to expect."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING

from connman.connection.future import ReaderFuture
from connman.errors import ConnectionClosed, ConnmanError, Forked, NoSuchPeer, PeerGone, WouldDeadlock
from connman.records import Message, Reset, State
from connman.rpc.calls import BlockingCall, Call
from connman.rpc.counters import CloseStatus
from connman.rpc.joining import is_no_such_peer
from connman.rpc.session import Parts, Session, gone
from connman.rpc.table import timed_out
from connman.transport.base import Transport

if TYPE_CHECKING:
    from connman.connection.connection import Connection
    from connman.connection.receiver import Receiver

_BROKEN, _NO_CODE = 1006, 1005  # RFC 6455 7.4.1: never on the wire


class Path:
    """What a `Peer` is to its connection, and the connection to it. A `Receiver`.

    Calls that come while an attempt is under way wait for its outcome; between two attempts, and once it is closed, they
    fail at once.

    Threads: any, but for `opened`, `received` and `reset`, which are the reader's.
    """

    def __init__(self, parts: Parts, conn: Connection) -> None:
        self._parts = parts
        self._conn = conn
        self._table = parts.table
        self.closed: ReaderFuture[CloseStatus] = self._new_closed()
        # Guarded by the table's lock: session, _ended (the newest `closed` that is settled or about to be), _is_closed;
        # `session` may be read without it.
        self.session: Session | None = None
        self._ended: ReaderFuture[CloseStatus] | None = None
        self._is_closed = False
        # What a Ctrl-C has cut of an end for good.
        self._cut: _End | None = None

    def _new_closed(self) -> ReaderFuture[CloseStatus]:
        closed: ReaderFuture[CloseStatus] = ReaderFuture(self._parts.is_reader)
        closed.set_running_or_notify_cancel()
        return closed

    def attach(self, first: Sequence[Message], replaces: Receiver | None) -> None:
        """Take over what the connection reads; see `Connection.attach`."""
        self._conn.attach(self, first, replaces=replaces)
        # Ended before: nobody tells of it any more. Ended meanwhile: once too often does no harm, and it may have been told
        # before what has ended was opened here.
        state = self._conn.state
        if state is State.CLOSED or (state is State.IDLE and self.session is not None):
            self.changed(state)

    # For calls.

    def submit(self, call: Call) -> None:
        """Send the request of ``call``, now or as soon as there is a path; it fails if there will be none soon."""
        session = call.session or self.session
        if call.deadline is not None and call.deadline <= call.began:
            call.is_over = True
            call.failed(timed_out(call))
        elif session is not None and session.send(call):
            return
        elif call.session is not None:
            call.is_over = True
            call.failed(call.session.gone())
        else:
            self._wait(call)

    def wait_session(self, deadline: float | None) -> Session:
        """Return the session, waiting for the outcome of an attempt that is under way.

        Raises: as a call would fail without one; WouldDeadlock on the reader thread.
        Threads: any but the reader's.
        """
        if self.session is not None:
            return self.session
        if self._parts.is_reader():
            raise WouldDeadlock("the reader thread cannot wait for the path that only it can open")
        ticket = BlockingCall(self._table, "", "", self._parts.is_reader)
        ticket.deadline = deadline
        self._wait(ticket)
        session: Session = ticket.wait()
        return session

    def _wait(self, call: Call) -> None:
        if self._conn.state is State.IDLE:
            self._conn.connect()
        with self._table.lock:
            session = self.session
            begun: list[Call] = []
            if session is None:
                self._table.waiting[call] = None
            else:
                begun = self._begin_locked(session, (call,))
        if session is not None:
            self._table.watch(call)
            self._begun(session, begun)
            return
        # Behind that: either `changed` finds the call, or this finds what `changed` was told of.
        state = self._conn.state
        is_hopeless = state in (State.IDLE, State.CLOSED) or (state is State.WAITING and call.call_id is None)
        if not is_hopeless:
            self._table.watch(call)
        elif self._table.take_waiting(call):
            call.failed(self._why(call))

    def _why(self, call: Call) -> ConnmanError:
        error = self._conn.closing or self._conn.last_error
        name = self._parts.name
        was_sent = call.has_left
        if error is not None and not was_sent and is_no_such_peer(error):
            return NoSuchPeer(f"{name}: the relay knows no provider of that name")
        ran = "whether it ran is unknown" if was_sent else "it was not sent"
        why = gone(
            f"{name}: the path to the peer is gone; {ran}; {error or 'not connected'}", was_sent=was_sent
        )
        why.__cause__ = error
        return why

    def gone(self) -> PeerGone:
        """Return the error of a request that was not made because there is no path."""
        error = self._conn.closing or self._conn.last_error
        return gone(f"{self._parts.name}: no path to the peer; {error or 'not connected'}", was_sent=False)

    # For the connection.

    def opened(self, transport: Transport) -> None:
        """Let calls go out on ``transport``; see `Receiver`.

        Threads: the reader.
        """
        before = self.session
        if before is not None and before.transport is not transport:
            self.changed(State.WAITING)  # whoever has given that up has not told of it yet
        with self._table.lock:
            if self._is_closed or (self.session is not None and self.session.transport is transport):
                return
            self.session = session = Session(self._parts, transport)
            waiting, self._table.waiting = self._table.waiting, {}
            tickets = self._begin_locked(session, waiting)
            if self.closed is self._ended:
                self.closed = self._new_closed()
            # Under the lock: whoever closes it meanwhile counts the path as ended behind this.
            self._parts.workers.resume()
            self._parts.services.opened()
        if waiting:
            self._begun(session, tickets)

    def _begin_locked(self, session: Session, calls: Iterable[Call]) -> list[Call]:
        """Give ``session`` the requests of ``calls``; return those that have none and only wait for it."""
        tickets = []
        for call in calls:
            if call.text:
                session.put_locked(call)
            else:
                call.is_over = True
                tickets.append(call)
        return tickets

    def _begun(self, session: Session, tickets: list[Call]) -> None:
        for ticket in tickets:
            ticket.settled(session)
        session.flush()

    def received(self, messages: list[Message]) -> bool:
        """Take messages; see `Receiver`.

        Threads: the reader.
        """
        session = self.session
        return session is not None and session.routing.received(messages)

    def reset(self, reset: Reset) -> None:
        """Do nothing: `changed` has told of it; see `Receiver`.

        Threads: the reader.
        """

    def changed(self, state: State) -> None:
        """End what an end of the path, or of an attempt, ends; see `Receiver`.

        Threads: any.
        """
        if state in (State.CONNECTING, State.OPEN):
            return
        for_good = state is not State.WAITING
        end = _End()
        if for_good:
            end, self._cut = self._cut or end, None
        try:
            self._end(state, end, for_good=for_good)
        except BaseException:  # user code (a signal handler) raised
            # Who is told of the end again goes on with it.
            end.is_cut = True
            self._cut = end
            raise

    def _end(self, state: State, end: _End, *, for_good: bool) -> None:
        with self._table.lock:
            if state is State.IDLE and self._conn.state is State.OPEN and not end.is_cut:
                return  # told late: it was asked for meanwhile, and has opened, which ends what there was before
            end.session, self.session = self.session or end.session, None
            session = end.session
            self._is_closed = self._is_closed or state is State.CLOSED
            if session is not None:
                session.is_over = True
            end.in_flight = end.in_flight or (self._table.pending() if for_good else ())
            end.failed += self._table.path_broke_locked(
                session.unsent_ids() if session else (), for_good=for_good
            )
            closed = self.closed
            if for_good:
                self._ended = closed
                # Here, where it is empty: whoever hears below that his call has failed may make the next one at once.
                self._table.stop()
        while end.failed:
            end.failed[0].failed(self._why(end.failed[0]))
            del end.failed[0]
        if session is not None:
            session.end(gone(f"{self._parts.name}: the path to the peer is gone", was_sent=True))
            end.session = None
            self._parts.services.ended()
        if for_good:
            self._settle(closed, end)
        with self._table.lock:
            if self.session is None:  # else it has opened meanwhile
                self._parts.workers.rest()

    def _settle(self, closed: ReaderFuture[CloseStatus], end: _End) -> None:
        error = self._conn.closing or self._conn.last_error
        code, reason = _BROKEN, ""
        if isinstance(error, ConnectionClosed):
            code, reason = error.code or _NO_CODE, error.reason
        status = CloseStatus(code, reason, self._table.snapshot(), end.in_flight)
        if code == 1000:
            # By the reader, and by whoever makes a peer of what has just ended: perhaps at the same moment.
            with suppress(InvalidStateError):
                closed.set_result(status)
        else:
            failure = PeerClosed(code, reason)
            failure.status = status
            closed.fail(failure)
        if end.is_cut:
            closed.finish_cut()

    def after_fork(self) -> Callable[[], None]:
        """Have no path in a child process; return what fails the calls of the parent's.

        Threads: the first one of the child that uses connman.
        """
        failed = self._table.after_fork()
        session, self.session = self.session, None
        if session is not None:
            session.is_over = True  # for the service that has forked, and comes back to answer
        closed, self.closed = self.closed, self._new_closed()

        def tell() -> None:
            for call in failed:
                call.failed(Forked("the call belongs to the parent process"))
            closed.fail_forked()

        return tell


class _End:
    """What one end of the path has still to tell."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.in_flight: tuple[int | str, ...] = ()
        self.failed: deque[Call] = deque()
        self.is_cut = False


class PeerClosed(ConnectionClosed):
    """The connection of a peer ended other than with code 1000; ``status`` tells how."""

    status: CloseStatus | None = None
