"""Which channels are wanted, and what the server was told of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from connman.connection import fork
from connman.errors import ConnectionLost, NotConnected
from connman.integrations.pusher.auth import AuthError, Authorise, Signature, checked_signature
from connman.integrations.pusher.channels import PusherChannel, make_channel
from connman.integrations.pusher.wire import Event, encode
from connman.integrations.pusher.worker import Worker
from connman.threads import is_kill
from connman.transport.base import Transport

logger = logging.getLogger("connman.pusher")

Teller = Callable[[PusherChannel, Event], None]

# How many of the names that were left in a session are kept in mind: what a server still says of one comes soon.
_KEPT_IN_MIND = 1024
_ANSWERS = ("pusher_internal:subscription_succeeded", "pusher:subscription_error")


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One greeting's worth: the transport it came by, and the id that channels are signed for.

    ``is_current``: whether it is still the client's own that it belongs to.

    Threads: any.
    """

    transport: Transport
    send_timeout: float
    is_current: Callable[[], bool]
    socket_id: str = field(repr=False)

    def send(self, event: str, data: object, channel: str | None = None) -> None:
        """Send an event on this transport and on no later one, to which a signature does not belong.

        Raises: as ``Connection.send``; TypeError or ValueError for data that JSON cannot hold.
        Threads: any.
        """
        self.transport.send((encode(event, data, channel),), self.send_timeout)


@dataclass(slots=True)
class _Told:
    """What the server was asked for under one name, for which channel.

    ``was_sent``: False when it was not asked, since nobody signed. ``is_refused``: by the one or the other. ``is_again``: another channel of that name was left before, of which the server may still speak.
    """

    channel: PusherChannel
    was_sent: bool
    is_refused: bool
    is_again: bool


class Subscriptions:
    """The channels of one client: what its user wants, made so at the server by two workers.

    Whoever subscribes or leaves notes that here, and a worker looks at the name and does what is missing: so no two
    threads can contradict each other at the server. Channels that are signed for have a worker of their own, since the
    user's ``secret_auth`` may take its time.

    Threads: every method from any thread, but for what is said there.
    """

    def __init__(self, name: str, authorise: Authorise | None, tell: Teller) -> None:
        self._authorise = authorise
        self._tell = tell
        self._open = Worker(f"join-{name}", self._settle)
        self._signed = Worker(f"auth-{name}", self._settle)
        self._fresh({})
        fork.register(self)

    def _fresh(self, wanted: dict[str, PusherChannel]) -> None:
        # Reentrant: a signal handler may disconnect, or subscribe, while the main thread is in here.
        self._lock = threading.RLock()
        # Guarded by _lock: _wanted, _session and what was said in it (_told, and the names in _left, the newest last),
        # and what the channels know, so that nothing of an old session or channel is taken for a new one's.
        self._wanted = wanted
        self._told: dict[str, _Told] = {}
        self._left: dict[str, None] = {}
        self._session: Session | None = None

    def add(self, name: str) -> PusherChannel:
        """Return the channel of that name, which is subscribed as soon as there is a session, and in each one after.

        One that was refused in this session is asked for again.

        Raises: ValueError for a name that is none, or for which nobody signs.
        """
        with self._lock:
            known, told = self._wanted.get(name), self._told.get(name)
            is_refused = told is not None and told.channel is known and told.is_refused
            if is_refused:
                del self._told[name]
        if known is not None:
            if is_refused:
                self._ask([known])
            return known
        fresh = make_channel(name, self)
        if fresh.is_private and self._authorise is None:
            raise ValueError("private and presence channels take a secret_auth=")
        with self._lock:
            channel = self._wanted.setdefault(name, fresh)
        self._ask([channel])
        return channel

    def remove(self, name: str) -> None:
        """Want that channel no more. Idempotent."""
        with self._lock:
            channel = self._wanted.pop(name, None)
            if channel is not None:
                channel.left()
        if channel is not None:
            self._ask([channel])

    def trigger(self, channel: PusherChannel, event: str, data: object) -> None:
        """Send an event to a channel.

        Raises: NotConnected when it is not subscribed; as `Session.send`.
        """
        session = self._session
        if session is None or not channel.is_subscribed or self._wanted.get(channel.name) is not channel:
            raise NotConnected(f"{channel.name} is not subscribed")
        session.send(event, data, channel.name)

    def get(self, name: str) -> PusherChannel | None:
        """Return the channel of that name, None when it is not wanted."""
        return self._wanted.get(name)

    def all(self) -> tuple[PusherChannel, ...]:
        """Return the channels that are wanted."""
        return tuple(self._wanted.values())

    def begin(self, session: Session) -> None:
        """Subscribe everything in a fresh session.

        Threads: the reader.
        """
        with self._lock:
            # Looked at under the lock: one of a link that was given up must not replace that of the next.
            if not session.is_current():
                return
            self._session, self._told, self._left = session, {}, {}
            everything = list(self._wanted.values())
        self._ask(everything)

    def end(self, session: Session | None = None) -> None:
        """Note that ``session`` is over; the channels stay wanted. Idempotent.

        None: whichever was given up, since by now another thread may have connected again.
        """
        with self._lock:
            present = self._session
            if present is None or (present.is_current() if session is None else present is not session):
                return
            self._session, self._told, self._left = None, {}, {}
            # A copy: a signal handler may change it in the middle of this.
            for channel in list(self._wanted.values()):
                channel.left()

    def take(self, session: Session, event: Event) -> tuple[PusherChannel, Event | None] | None:
        """Return the wanted channel that ``event`` is for, and the event as its listeners see it; None without one.

        Threads: the reader.
        """
        name = event.channel or ""
        with self._lock:
            told = self._told.get(name)
            if self._session is not session or told is None or not told.was_sent:
                return None
            if self._wanted.get(name) is not told.channel or (told.is_again and event.name not in _ANSWERS):
                return None
            told.is_again = False
            if event.name in _ANSWERS:
                told.is_refused = event.name == "pusher:subscription_error"
            return told.channel, told.channel.take(event)

    def wait_idle(self, within: float) -> bool:
        """Wait up to ``within`` real seconds for each of the workers; they end soon once no session is there.

        Threads: any but connman's own.
        """
        return self._open.wait_idle(within) and self._signed.wait_idle(within)

    def _ask(self, channels: list[PusherChannel]) -> None:
        if self._session is not None:
            self._open.ask(channel.name for channel in channels if not channel.is_private)
            self._signed.ask(channel.name for channel in channels if channel.is_private)

    # The worker that a name belongs to.

    def _settle(self, name: str) -> None:
        """Do for one name what is missing at the server."""
        with self._lock:
            session, wanted = self._session, self._wanted.get(name)
            told = self._told.get(name)
            if session is None or (told.channel if told else None) is wanted:
                return
            self._told.pop(name, None)
            has_to_leave = told is not None and told.was_sent
            if has_to_leave:
                self._keep_in_mind_locked(name)
        try:
            if has_to_leave:
                session.send("pusher:unsubscribe", {"channel": name})
            if wanted is not None:
                self._join(session, wanted)
        except NotConnected:
            # It is ending: by us in good order, which must not be cut short, or by the server. The next session begins anew.
            return
        except ConnectionLost as error:
            # Nothing, when it has ended anyway; else others were sending all the time, and the next session begins anew.
            session.transport.abort(ConnectionLost(f"a subscription could not be sent: {error}"))

    def _keep_in_mind_locked(self, name: str) -> None:
        self._left.pop(name, None)
        self._left[name] = None
        if len(self._left) > _KEPT_IN_MIND:
            del self._left[next(iter(self._left))]

    def _join(self, session: Session, channel: PusherChannel) -> None:
        data: dict[str, str] = {"channel": channel.name}
        failure: AuthError | None = None
        if channel.is_private:
            try:
                signature = self._signature(session, channel)
            except AuthError as error:
                failure = error
            else:
                data |= {"auth": signature.auth}
                if signature.channel_data is not None:
                    data |= {"channel_data": signature.channel_data}
        with self._lock:
            # Signing takes its time: meanwhile it may have been left, or the session, to which it belongs, have ended.
            if self._session is not session or self._wanted.get(channel.name) is not channel:
                return
            is_signed, is_again = failure is None, channel.name in self._left
            self._told[channel.name] = _Told(channel, is_signed, not is_signed, is_again)
            if is_signed:
                channel.joining(data.get("channel_data"))
        if failure is not None:
            self._tell_failure(channel, failure)
            return
        session.send("pusher:subscribe", data)

    def _signature(self, session: Session, channel: PusherChannel) -> Signature:
        assert self._authorise is not None
        try:
            return checked_signature(self._authorise(session.socket_id, channel.name), channel.name)
        except AuthError:
            raise
        except BaseException as error:  # user callback: its failure is told as that of this channel
            if is_kill(error):
                raise
            logger.exception("secret_auth raised for %s", channel.name)
            raise AuthError(f"secret_auth raised {type(error).__name__}") from error

    def _tell_failure(self, channel: PusherChannel, error: AuthError) -> None:
        # As a server says it that refuses a signature; the whole error is in the log, if it was the user's.
        data = {"type": "AuthError", "error": str(error), "status": error.status}
        self._tell(channel, Event("pusher:subscription_error", data, channel.name))

    def after_fork(self) -> None:
        """Have no session in a child process; the channels are wanted there as well.

        Threads: the first one of the child that uses connman.
        """
        self._fresh(self._wanted)
        for channel in self._wanted.values():
            channel.left()
