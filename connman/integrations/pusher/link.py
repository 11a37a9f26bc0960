"""One connection's worth of a client: from `connect` to its end, through however many losses."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from connman.clock import Clock
from connman.connection.connection import Connection
from connman.errors import (
    ORDERLY_CODES,
    ConnectionClosed,
    ConnectionLost,
    ConnmanError,
    HandshakeFailed,
    NotConnected,
    ProtocolError,
)
from connman.integrations.pusher.activity import Activity
from connman.integrations.pusher.channels import PusherChannel
from connman.integrations.pusher.listeners import Listeners
from connman.integrations.pusher.mailbox import Call, Mailbox
from connman.integrations.pusher.route import Route
from connman.integrations.pusher.status import PusherConnection, PusherState
from connman.integrations.pusher.subscriptions import Session, Subscriptions
from connman.integrations.pusher.wire import (
    Action,
    Event,
    PusherError,
    action_of,
    decode,
    encode,
    error_of,
    read_greeting,
)
from connman.manager import Manager
from connman.options import OptionArguments
from connman.records import Message, Reset, State, Step
from connman.transport.base import Dial, Transport
from connman.transport.login import Channel

OPEN_TIMEOUT = 30.0
"""Seconds for one attempt by all ways together: the default tree tries HTTP only after some."""

# Pusher's number for whoever has to back off. It is stretched by up to a tenth at random, and what follows doubles and
# is half random: a restarted fleet does not come back as one.
_FIRST_PAUSE = 1.0
_SPREAD = 0.1
_LONGEST_PAUSE = 32.0
# A pause this short is none: connman's own shortest is less.
_NO_PAUSE = 0.05
# From the system: the state of a generator of ours would be the same in every worker forked from one master.
_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Parts:
    """What a client is made of, and what its user has said; the same for all of its links."""

    name: str
    clock: Clock
    route: Route
    mailbox: Mailbox
    connection: PusherConnection
    listeners: Listeners
    subscriptions: Subscriptions
    activity_timeout: float
    pong_timeout: float
    send_timeout: float
    retry_if: Callable[[BaseException], bool | None] | None


class Link:
    """The target and the callbacks of one `Connection`. Once the status has another, or none, what it says is dropped.

    Threads: callbacks and `dial` belong to the connection's threads, the rest to any.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._status = parts.connection.status
        self._conn: Connection | None = None
        self._is_silent = False
        # The reader's own; `_activity` is replaced, never changed, for whoever checks.
        self._transport: Transport | None = None
        self._session: Session | None = None
        self._activity: Activity | None = None

    # For the client.

    def start(self, manager: Manager, options: OptionArguments) -> None:
        """Make the connection and start it; the client may have given this up meanwhile.

        Raises: InvalidOption.
        """
        conn = self._conn = self.make(options)
        conn.watch(self._watch)
        manager.add(conn)
        if not self.is_current():
            conn.disconnect(timeout=0)

    def make(self, options: OptionArguments) -> Connection:
        """Return a connection with these callbacks, inert.

        Raises: InvalidOption; TypeError for an unknown option.
        """
        chosen: OptionArguments = {"open_timeout": OPEN_TIMEOUT, "wait": pause}
        chosen.update(options)
        chosen["retry_if"] = self._is_worth_it
        return Connection(
            self,
            on_data=self._on_data,
            on_reset=self._on_reset,
            handshake=self._greet,
            name=self._parts.name,
            clock=self._parts.clock,
            **chosen,
        )

    def is_current(self) -> bool:
        """Return whether the client has not given this up."""
        return self._status.is_current(self)

    def hurry(self) -> None:
        """Cut the wait before the next attempt short."""
        if self._conn is not None:
            self._conn.reconnect_now()

    def check(self) -> None:
        """Have the server answer within the pong timeout, or be left."""
        if (activity := self._activity) is not None:
            activity.check()

    def stop(self, timeout: float | None) -> None:
        """Tell nobody of anything any more, and end the connection, which takes as long as its `disconnect` does."""
        self._is_silent = True
        if self._conn is not None:
            self._conn.disconnect(timeout=timeout)

    @property
    def transport_name(self) -> str | None:
        """What carries it now, None when not open."""
        return None if self._conn is None else self._conn.transport_name

    @property
    def attempts(self) -> tuple[Step, ...]:
        """What each way did in the newest dial."""
        return () if self._conn is None else self._conn.attempts

    # For the connection.

    def dial(self, dial: Dial) -> Transport:
        """Open one transport on the client's route, and keep it in mind: what is said on it must go out on it alone."""
        self._transport = self._parts.route.dial(dial)
        return self._transport

    def _greet(self, channel: Channel) -> None:
        # Looked at and left: of several ways that race each has a greeting, and only the winner's counts.
        read_greeting(channel.peek())

    def _is_worth_it(self, error: BaseException) -> bool | None:
        said = None if self._parts.retry_if is None else self._parts.retry_if(error)
        if said is not None:
            return said
        match action_of(error):
            case Action.TLS_ONLY:
                return self._parts.route.turn_to_tls()
            case Action.REFUSED:
                return False
            case Action.NONE:
                return None  # connman's own table
        return True

    def _on_data(self, conn: Connection, frame: Message) -> None:
        self._parts.mailbox.wait_room(lambda: not self.is_current())
        if self._session is None:
            self._begin(frame)
        else:
            self._take(frame)
        self._parts.mailbox.drain()

    def _begin(self, frame: Message) -> None:
        greeting, transport, parts = read_greeting(frame), self._transport, self._parts
        assert transport is not None
        self._session = Session(transport, parts.send_timeout, self.is_current, greeting.socket_id)
        quiet = min(
            parts.activity_timeout, greeting.activity_timeout, transport.ping_pace or parts.activity_timeout
        )
        self._activity = Activity(
            transport,
            parts.clock,
            lambda: self._send("pusher:ping", transport),
            quiet=quiet,
            patience=parts.pong_timeout,
        )
        if self._status.change(self, PusherState.CONNECTED, socket_id=greeting.socket_id):
            self._activity.start()
            parts.subscriptions.begin(self._session)

    def _send(self, event: str, transport: Transport) -> None:
        transport.send((encode(event, {}),), self._parts.send_timeout)

    def _take(self, frame: Message) -> None:
        if self._activity is not None:
            self._activity.heard()
        try:
            event = decode(frame)
        except ProtocolError as error:
            # One bad frame says nothing of the next: each is whole.
            self._tell("error", error)
            return
        if event.name == "pusher:ping" and self._transport is not None:
            with contextlib.suppress(NotConnected, ConnectionLost):  # of which the reader hears next
                self._send("pusher:pong", self._transport)
        if event.name == "pusher:error":
            self._tell("error", error_of(event))
        assert self._session is not None
        taken = None if event.channel is None else self._parts.subscriptions.take(self._session, event)
        channel, seen = taken or (None, None)
        self._parts.mailbox.post(lambda: self._calls(event, channel, seen))

    def _calls(self, event: Event, channel: PusherChannel | None, seen: Event | None) -> Iterator[Call]:
        """Yield the calls of one event, until this is given up or the channel left, by one of them or meanwhile."""
        parts = self._parts
        whom: list[tuple[Listeners, Event]] = [(parts.connection, Event("message", event))]
        if channel is not None and seen is not None:
            whom += [(channel, seen), (parts.listeners, seen)]
        elif event.channel is None and not event.name.startswith("pusher_internal:"):
            whom.append((parts.listeners, event))
        for listeners, told in whom:
            for call in listeners.calls(told):
                if not self.is_current() or (
                    channel and parts.subscriptions.get(channel.name) is not channel
                ):
                    return
                yield call

    def _tell(self, name: str, data: Any) -> None:
        self._parts.mailbox.post(
            lambda: () if self._is_silent else self._parts.connection.calls(Event(name, data))
        )

    # Its end.

    def _on_reset(self, conn: Connection, reset: Reset) -> None:
        activity, self._activity = self._activity, None
        session, self._session = self._session, None
        self._transport = None
        if activity is not None:
            activity.stop()
        if session is not None:
            self._parts.subscriptions.end(session)
        if self.is_current():
            self._tell_end(conn, reset)
        self._parts.mailbox.drain()

    def _tell_end(self, conn: Connection, reset: Reset) -> None:
        error = blamed(reset.error)
        if not (isinstance(error, ConnectionClosed) and error.code in ORDERLY_CODES):
            self._tell("error", error)
        if reset.retry_in is not None:
            if reset.retry_in > _NO_PAUSE:
                self._tell("connecting_in", reset.retry_in)
            # From UNAVAILABLE it goes back to CONNECTED only: attempts that fail do not make it flicker.
            self._status.change(self, PusherState.CONNECTING, only_from=(PusherState.CONNECTED,))
            return
        is_turned_away = action_of(error) in (Action.REFUSED, Action.TLS_ONLY) or reset.opened
        self._give_up(PusherState.DISCONNECTED if is_turned_away else PusherState.FAILED, error)
        conn.disconnect(timeout=0)

    def _give_up(self, state: PusherState, error: Exception | None) -> bool:
        is_mine = self._status.finish(state, link=self, error=error) is self
        self._parts.mailbox.wake()
        return is_mine

    def _watch(self, conn: Connection, state: State) -> None:
        """Notice that others have ended the connection: `disconnect_all`, or the end of the interpreter."""
        if state is State.CLOSED and self._give_up(PusherState.DISCONNECTED, None):
            # Whoever did it must not be held up by listeners.
            self._parts.mailbox.drain_apart()


def blamed(error: Exception) -> Exception:
    """Return what the server said, if that is what failed the handshake.

    Threads: any; pure.
    """
    cause = error.__cause__
    said = isinstance(error, HandshakeFailed) and isinstance(cause, PusherError | ConnectionClosed)
    return cause if said and isinstance(cause, ConnmanError) else error


def pause(state: Any) -> float:
    """Return the seconds before the next attempt, as Pusher's bands say: a wait strategy of tenacity's.

    Threads: any.
    """
    at_once = action_of(state.outcome.exception()) in (Action.RETRY, Action.TLS_ONLY)
    if state.attempt_number == 1:
        return 0.0 if at_once else _FIRST_PAUSE * _random.uniform(1, 1 + _SPREAD)
    full = min(_FIRST_PAUSE * 2.0 ** min(int(state.attempt_number) - 1, 16), _LONGEST_PAUSE)
    return full / 2 + _random.uniform(0, full / 2)
