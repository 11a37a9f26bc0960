"""The state that a Pusher client is in, as the protocol names them, and who is told of it."""

from __future__ import annotations

import enum
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from connman.clock import Clock, Deadline, Signal, Timer, maybe_call_later
from connman.connection import fork
from connman.errors import NotConnected, WaitTimeout
from connman.integrations.pusher.listeners import Listeners
from connman.integrations.pusher.mailbox import Call, Mailbox
from connman.integrations.pusher.wire import Event


class PusherState(enum.StrEnum):
    """Name the state of a client; each member equals its lower-case name.

    INITIALIZED: made, never connected. CONNECTING: on the way, or on the way back. CONNECTED: events flow. UNAVAILABLE:
    on the way for longer than ``unavailable_timeout``; it goes on trying. FAILED: no way to the server, not tried again.
    DISCONNECTED: ended by ``disconnect()``, or turned away by the server.
    """

    INITIALIZED = "initialized"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    DISCONNECTED = "disconnected"


_ENDED = (PusherState.FAILED, PusherState.DISCONNECTED)


@dataclass(frozen=True, slots=True)
class StateChange:
    """Tell ``state_change`` what was and what is."""

    previous: PusherState
    current: PusherState


@dataclass(frozen=True, slots=True)
class _Now:
    """What holds together: a state, the server's id while connected, and why it came."""

    state: PusherState = PusherState.INITIALIZED
    socket_id: str | None = field(default=None, repr=False)
    error: Exception | None = None


class Status:
    """The state of one client and its changes, each of which is told in order; whoever changes it drains the mailbox.

    It also knows which link, if any, is the client's present one: what a link that was given up says changes nothing.

    Threads: every method from any thread; none blocks but `wait`.
    """

    def __init__(
        self, listeners: Listeners, mailbox: Mailbox, clock: Clock, unavailable_timeout: float
    ) -> None:
        self._listeners = listeners
        self._mailbox = mailbox
        self._clock = clock
        self._unavailable_timeout = unavailable_timeout
        self._fresh()
        fork.register(self)

    def _fresh(self) -> None:
        self._lock = threading.RLock()
        self._changed = Signal(self._lock)
        # Guarded by _lock: _now (replaced, never changed) and _link, which may be read without; _timer, _turn (counts
        # changes).
        self._now = _Now()
        self._link: object | None = None
        self._timer: Timer | None = None
        self._turn = 0

    @property
    def state(self) -> PusherState:
        """The state it is in."""
        return self._now.state

    @property
    def socket_id(self) -> str | None:
        """The server's id for this connection, None when not connected."""
        return self._now.socket_id

    @property
    def link(self) -> object | None:
        """The present link, None when there is none."""
        return self._link

    def is_current(self, link: object) -> bool:
        """Return whether ``link`` is the client's present one."""
        return self._link is link

    def begin(self, link: object) -> object:
        """Have ``link`` be the present one and be connecting, unless there is one already; return the present one."""
        with self._lock:
            if self._link is None:
                self._link = link
                self._change_locked(PusherState.CONNECTING)
            return self._link

    def change(
        self,
        link: object,
        state: PusherState,
        *,
        only_from: Collection[PusherState] = tuple(PusherState),
        socket_id: str | None = None,
    ) -> bool:
        """Go over to ``state``; False, and nothing is told, when ``link`` was given up or the state does not fit."""
        with self._lock:
            if self._link is not link or self._now.state not in only_from:
                return False
            return self._change_locked(state, socket_id)

    def finish(
        self, state: PusherState, *, link: object | None = None, error: Exception | None = None
    ) -> object | None:
        """Have no link any more, if it is still ``link`` (None: whichever it is); return the one it was."""
        with self._lock:
            if link is not None and self._link is not link:
                return None
            was, self._link = self._link, None
            self._change_locked(state, error=error)
            return was

    def _change_locked(
        self, state: PusherState, socket_id: str | None = None, error: Exception | None = None
    ) -> bool:
        previous = self._now.state
        if previous is state:
            return False
        self._turn += 1
        self._now = _Now(state, socket_id, error)
        self._watch_locked(state)
        # Posted under the lock under which it was decided: it is told in the order in which it came about.
        self._mailbox.post(lambda: self._calls(StateChange(previous, state), socket_id))
        self._changed.notify_all()
        return True

    def _watch_locked(self, state: PusherState) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if state is PusherState.CONNECTING:
            turn = self._turn
            self._timer = maybe_call_later(
                self._clock, self._unavailable_timeout, lambda: self._overdue(turn)
            )

    def _overdue(self, turn: int) -> None:
        with self._lock:
            # Otherwise it was cancelled while it began to run.
            if turn == self._turn:
                self._change_locked(PusherState.UNAVAILABLE)
        # The thread that this runs on serves every timer of the process: it calls no listener.
        self._mailbox.drain_apart()

    def _calls(self, change: StateChange, socket_id: str | None) -> Iterator[Call]:
        yield from self._listeners.calls(Event("state_change", change))
        data = {} if socket_id is None else {"socket_id": socket_id}
        yield from self._listeners.calls(Event(change.current.value, data))

    def wait(self, deadline: Deadline) -> None:
        """Wait until it is connected.

        Raises: WaitTimeout at the deadline; what ended connecting.
        Threads: any but connman's own.
        """
        now = self._wait_for(deadline, (PusherState.CONNECTED, *_ENDED))
        if now.state is not PusherState.CONNECTED:
            raise now.error or NotConnected("the client was disconnected")

    def wait_ended(self, deadline: Deadline) -> None:
        """Wait until it has ended.

        Raises: WaitTimeout at the deadline; what ended it, unless that was the user.
        Threads: any but connman's own.
        """
        now = self._wait_for(deadline, _ENDED)
        if now.error is not None:
            raise now.error

    def _wait_for(self, deadline: Deadline, states: Collection[PusherState]) -> _Now:
        with self._lock:
            if not deadline.wait_for(self._changed.condition, lambda: self._now.state in states):
                raise WaitTimeout(f"the client is {self._now.state.value}")
            return self._now

    def after_fork(self) -> None:
        """Be as if just made in a child process: the connection is the parent's.

        Threads: the first one of the child that uses connman.
        """
        self._fresh()


class PusherConnection(Listeners):
    """The connection of a client as its user sees it: the state, and the events of it.

    ``state_change`` comes with a `StateChange`, then the new state's own name with a mapping, which has the
    ``socket_id`` for ``connected``. ``error`` comes with the exception, ``connecting_in`` with the seconds before the
    next attempt, ``message`` with each `Event` that arrives.

    Threads: every method from any thread, listeners included.
    """

    def __init__(self, mailbox: Mailbox, clock: Clock, unavailable_timeout: float) -> None:
        super().__init__()
        self.status = Status(self, mailbox, clock, unavailable_timeout)

    @property
    def state(self) -> PusherState:
        """The state it is in."""
        fork.check_process()
        return self.status.state

    @property
    def socket_id(self) -> str | None:
        """The server's id for this connection, for requests that are to leave it out; None when not connected."""
        fork.check_process()
        return self.status.socket_id
