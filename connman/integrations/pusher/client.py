"""A client for Pusher Channels, and for the servers that speak the same protocol."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from types import EllipsisType
from typing import NoReturn, Self, Unpack

from connman.clock import Clock, Deadline, SystemClock
from connman.connection import fork
from connman.errors import InvalidOption, WouldDeadlock, printable
from connman.integrations.pusher.auth import Authorise
from connman.integrations.pusher.channels import PusherChannel
from connman.integrations.pusher.link import OPEN_TIMEOUT, Link, Parts
from connman.integrations.pusher.listeners import EventListener, Listener, Listeners
from connman.integrations.pusher.mailbox import Call, Mailbox
from connman.integrations.pusher.route import Route, addresses, make_route
from connman.integrations.pusher.status import PusherConnection, PusherState
from connman.integrations.pusher.subscriptions import Subscriptions
from connman.integrations.pusher.wire import Event
from connman.manager import Manager, default_manager
from connman.options import OptionArguments, Options, check_seconds, make_options
from connman.records import Step
from connman.strategy.store import Store
from connman.threads import is_own
from connman.transport.base import Dialer


class Pusher:
    """A client for one Pusher application: it connects, stays connected, and keeps its channels subscribed.

    ``key``: of the application. ``cluster``: of Pusher's own service, such as "eu"; or ``host``, ``port`` (None: 443,
    without ``tls`` 80) and ``tls`` of a server that speaks the same protocol; ``tls_port`` is where such a server has
    TLS when it asks for it (code 4000), None for 443, ``path`` what stands before its ``/app``. ``http``: the URL of its SockJS endpoint, for networks that
    block websockets (needs ``connman[http]``); None for none, left out for that of the ``cluster``. Where there are
    several ways they are tried as `connman.strategy.pusher_default` does, the one that worked last first: ``cache`` is
    where that is kept, see `connman.strategy.Cached`; None for this object's memory. ``strategy``: a target to dial
    instead of all these.

    ``secret_auth(socket_id, channel)`` signs for private and presence channels, anew after each reconnect: it returns
    the signature, or a mapping with ``auth`` and, for presence, ``channel_data``. It may block, and runs on a thread of
    its own, one channel after the other. `SecretAuth` and `HttpAuth` are ready ones.

    ``activity_timeout``: seconds without an event before the server is asked for a sign of life (the server may say
    less), ``pong_timeout``: for the answer. ``unavailable_timeout``: seconds of trying before the state says so.
    ``options``: those of `connman.Connection` but ``dispatch`` and ``framing``; ``open_timeout`` is 30.

    Inert until `connect`, `wait_connected` or a with-block. In a forked child it is as if just made, its channels kept.
    Listeners run one at a time and in order, on the thread that reads the connection, or for what another thread
    causes (`connect`, `disconnect`, a timer, ``secret_auth``) on that one or another of connman's own.

    Raises: InvalidOption; TypeError for an unknown option.
    Threads: every method from any thread, listeners included, but for what is said there.
    """

    def __init__(
        self,
        key: str,
        *,
        host: str | None = None,
        cluster: str | None = None,
        port: int | None = None,
        tls: bool = True,
        tls_port: int | None = None,
        path: str = "",
        http: str | EllipsisType | None = ...,
        cache: Store | str | os.PathLike[str] | None = None,
        secret_auth: Authorise | None = None,
        strategy: Dialer | None = None,
        activity_timeout: float = 120.0,
        pong_timeout: float = 30.0,
        unavailable_timeout: float = 10.0,
        name: str = "pusher",
        clock: Clock | None = None,
        manager: Manager | None = None,
        **options: Unpack[OptionArguments],
    ) -> None:
        check_seconds("activity_timeout", activity_timeout)
        check_seconds("pong_timeout", pong_timeout)
        check_seconds("unavailable_timeout", unavailable_timeout)
        if secret_auth is not None and not callable(secret_auth):
            raise InvalidOption("secret_auth is a callable or None")
        checked = _checked(options)
        clock = clock or SystemClock()
        if strategy is None:
            where = addresses(
                key, host=host, cluster=cluster, port=port, tls=tls, tls_port=tls_port, http=http, path=path
            )
            store = {} if cache is None else cache
            route = make_route(where, store, activity_timeout=activity_timeout, clock=clock)
        else:
            route = Route(strategy)
        name = printable(name)
        mailbox = Mailbox(name, clock)
        self.connection = PusherConnection(mailbox, clock, unavailable_timeout)
        self._everything = Listeners()
        self._subscriptions = Subscriptions(name, secret_auth, self._tell)
        self._clock = clock
        self._manager = manager
        self._options = options
        self._open_timeout = options.get("open_timeout", OPEN_TIMEOUT)
        self._close_timeout = checked.close_timeout
        self._parts = Parts(
            name, clock, route, mailbox, self.connection, self._everything, self._subscriptions,
            activity_timeout, pong_timeout, checked.send_timeout, checked.retry_if,
        )  # fmt: skip
        # The newest link that was begun; the present one is the status's.
        self._latest: Link | None = None
        # Checked now, before any I/O, with the target that it will have: nothing of it is kept.
        Link(self._parts).make(options)

    def __reduce__(self) -> NoReturn:
        # Without it copy.copy() makes a twin that shares the connection of this one, and ends it.
        raise TypeError("a Pusher client cannot be copied or pickled")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._parts.name} {self.state.value}>"

    # Connecting.

    def connect(self) -> Self:
        """Begin to connect and return at once, this client; cut the wait short if it waits for its next attempt.

        Threads: any; never blocks.
        """
        fork.check_process()
        status = self.connection.status
        fresh = Link(self._parts)
        link = status.begin(fresh)
        if link is fresh:
            self._latest = fresh
            self._start(fresh)
        elif isinstance(link, Link):
            link.hurry()
        return self

    def _start(self, link: Link) -> None:
        try:
            self._parts.mailbox.drain()
            link.start(self._manager or default_manager(), self._options)
        except BaseException as error:  # user code (a signal handler) raised: nobody would ever start it
            cause = error if isinstance(error, Exception) else None
            self.connection.status.finish(PusherState.FAILED, link=link, error=cause)
            link.stop(0)
            self._parts.mailbox.drain_apart()
            raise

    def wait_connected(self, timeout: float | None = None) -> Self:
        """Wait until it is connected and return it; connects unless that was begun.

        ``timeout`` in seconds; None for no limit, 0 and less: only if it is connected already.

        Raises: WaitTimeout; the error with which connecting ended; NotConnected when it was disconnected meanwhile;
        WouldDeadlock on connman's own threads, listeners included, unless it is connected.
        Threads: any but connman's own.
        """
        if self.state is PusherState.CONNECTED:
            return self
        if is_own():
            raise WouldDeadlock("one of connman's own threads cannot wait for the connection")
        if self.state is PusherState.INITIALIZED:
            self.connect()
        self.connection.status.wait(Deadline.after(self._clock, timeout))
        return self

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until it was ended by `disconnect`; ``timeout`` in seconds, None for no limit, 0 and less: only look.

        Raises: WaitTimeout; the error that ended it, if there was one; WouldDeadlock on connman's own threads.
        Threads: any but connman's own.
        """
        fork.check_process()
        if is_own():
            raise WouldDeadlock("one of connman's own threads cannot wait for the end")
        self.connection.status.wait_ended(Deadline.after(self._clock, timeout))

    def __enter__(self) -> Self:
        """Connect and wait for it, at most ``open_timeout`` seconds.

        Raises: as `wait_connected`, after having disconnected.
        """
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.disconnect)
            self.connect().wait_connected(self._open_timeout)
            on_failure.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.disconnect()

    def disconnect(self, *, timeout: float | None = None) -> None:
        """End the connection, in whatever phase it is; the channels are kept for the next `connect`. Idempotent.

        What was sent is flushed first. ``timeout``: seconds for the server to answer the close (None:
        ``close_timeout``). After it has returned no listener runs, unless one was still blocked at ``timeout`` + 1 s,
        which is when this returns at the latest.

        Threads: any; called on one of connman's own, listeners included, it returns at once and finishes behind.
        """
        fork.check_process()
        within = self._close_timeout if timeout is None else max(0.0, timeout)
        until = time.monotonic() + within + 1.0
        mailbox = self._parts.mailbox
        present, latest = self.connection.status.finish(PusherState.DISCONNECTED), self._latest
        mailbox.wake()
        for link in (present, latest):
            # The latest as well, unless another thread has connected again: a Ctrl-C may have cut an earlier call short.
            if isinstance(link, Link) and not link.is_current():
                link.stop(within)
        self._subscriptions.end()
        mailbox.drain()
        if not is_own():
            self._subscriptions.wait_idle(max(0.0, until - time.monotonic()))
            mailbox.wait_idle(max(0.0, until - time.monotonic()))

    def reconnect_now(self) -> None:
        """Cut the wait before the next attempt short: the network is back. Nothing in any other state.

        Threads: any; never blocks.
        """
        link = self._link()
        if link is not None:
            link.hurry()

    def check_now(self) -> None:
        """Ask the server for a sign of life now: the machine has slept, or the network changed. Nothing unless connected.

        Without an answer within ``pong_timeout`` it reconnects.

        Threads: any; never blocks.
        """
        link = self._link()
        if link is not None:
            link.check()

    def _link(self) -> Link | None:
        fork.check_process()
        link = self.connection.status.link
        return link if isinstance(link, Link) else None

    @property
    def state(self) -> PusherState:
        """The state it is in, as ``connection.state``."""
        return self.connection.state

    @property
    def transport_name(self) -> str | None:
        """What carries it now ("wss", "xhr_streaming", …), None when not open."""
        link = self._link()
        return None if link is None else link.transport_name

    @property
    def attempts(self) -> tuple[Step, ...]:
        """What each way did in the newest dial, as `Connection.attempts`: why HTTP was chosen."""
        link = self._link()
        return () if link is None else link.attempts

    # Channels.

    def subscribe(self, name: str) -> PusherChannel:
        """Return the channel of that name; it is subscribed soon when connected, and after each reconnect.

        Asked again it is the same, until it is unsubscribed; if it was refused, that is tried again now.

        Raises: ValueError for no name, for an encrypted channel, and for a private or presence one without
        ``secret_auth``.
        Threads: any; never blocks.
        """
        fork.check_process()
        return self._subscriptions.add(name)

    def unsubscribe(self, name: str) -> None:
        """Leave the channel of that name: no listener of it is called any more. Idempotent.

        Threads: any; never blocks.
        """
        fork.check_process()
        self._subscriptions.remove(name)

    def channel(self, name: str) -> PusherChannel | None:
        """Return the channel of that name, None unless it was subscribed.

        Threads: any.
        """
        fork.check_process()
        return self._subscriptions.get(name)

    @property
    def channels(self) -> tuple[PusherChannel, ...]:
        """The channels that were subscribed and not left, in order, whether or not the server has them now."""
        fork.check_process()
        return self._subscriptions.all()

    def bind(self, event: str, listener: Listener) -> Self:
        """Have ``listener(data)`` called for each event of that name, on whichever channel; return this client.

        Threads: any; never blocks.
        """
        self._everything.bind(event, listener)
        return self

    def unbind(self, event: str | None = None, listener: Listener | None = None) -> Self:
        """Forget what `bind` has bound; see `PusherChannel.unbind`.

        Threads: any; never blocks.
        """
        self._everything.unbind(event, listener)
        return self

    def bind_all(self, listener: EventListener) -> Self:
        """Have ``listener(event)`` called for each event on whichever channel; return this client.

        Threads: any; never blocks.
        """
        self._everything.bind_all(listener)
        return self

    def unbind_all(self, listener: EventListener | None = None) -> Self:
        """Forget what `bind_all` has bound; see `PusherChannel.unbind_all`.

        Threads: any; never blocks.
        """
        self._everything.unbind_all(listener)
        return self

    def _tell(self, channel: PusherChannel, event: Event) -> None:
        """Tell of an event that is not the server's, on a worker's thread."""
        mailbox = self._parts.mailbox
        mailbox.wait_room(lambda: self._subscriptions.get(channel.name) is not channel)
        mailbox.post(lambda: self._calls(channel, event))
        # Not here: a listener that takes its time, or all that is told meanwhile, would hold up the other channels.
        mailbox.drain_apart()

    def _calls(self, channel: PusherChannel, event: Event) -> Iterator[Call]:
        for listeners in (channel, self._everything):
            for call in listeners.calls(event):
                if self._subscriptions.get(channel.name) is not channel or self._link() is None:
                    return
                yield call


def _checked(options: OptionArguments) -> Options:
    if unwanted := {"dispatch", "framing"} & set(options):
        raise InvalidOption(f"{min(unwanted)} is not for a Pusher client")
    return make_options(options)
