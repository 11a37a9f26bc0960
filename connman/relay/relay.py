"""The relay as an object: a with-block that runs a server on a loop and a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from connman.errors import ConnmanError, InvalidOption
from connman.relay.addresses import is_loopback, networks
from connman.relay.broker import Broker, NoBroker
from connman.relay.counts import Snapshot
from connman.relay.limits import Limits
from connman.relay.server import Rules, Server
from connman.relay.tokens import NoTokens, Tokens
from connman.threads import Condition, join, spawn

if TYPE_CHECKING:
    from connman.relay.admin import Admin

logger = logging.getLogger("connman.relay")

_START_TIMEOUT = 30.0
_BACKLOG = 1024


class RelayFailed(ConnmanError):
    """The relay could not begin to listen; the text says where and why."""


class Relay:
    """A relay between providers and callers, both of which can only dial out. Inert until started.

    ``port`` 0: any that is free. ``tokens``: what knows who may do what; without it, ``host`` is a loopback address,
    and only clients that name the relay by an address, as localhost or as one of ``hosts`` are let in. ``origins``:
    the pages that may come, such as ``"https://example.com"``, or ``"*"``; None for those of the relay's own host.
    Programs send no Origin and are not asked for one. ``trusted_proxies``: addresses and networks whose
    X-Forwarded-For is believed. ``tls``: a context, or the paths of certificate chain and key. ``broker``: what joins
    it with other relays. ``admin``: host and port of the page, the health and the metrics for whoever runs it;
    ``admin_names``: with the names on the page.

    Raises: InvalidOption; also where an extra that is asked for is not installed.
    Threads: any; its loop runs on a thread of its own.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8765,
        *,
        tokens: Tokens | None = None,
        limits: Limits | None = None,
        tls: ssl.SSLContext | tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
        origins: Iterable[str] | None = None,
        hosts: Iterable[str] = (),
        trusted_proxies: Iterable[str] = (),
        broker: Broker | None = None,
        admin: tuple[str, int] | None = None,
        admin_names: bool = False,
    ) -> None:
        if tokens is None and not is_loopback(host):
            raise InvalidOption("without tokens a relay listens on a loopback address only")
        for name, value in {"origins": origins, "hosts": hosts, "trusted_proxies": trusted_proxies}.items():
            if isinstance(value, str):  # each of its characters would be one, and nobody be let in
                raise InvalidOption(f"{name}: a list is wanted, also for a single one")
        self._host = host
        self._wanted_port = port
        self._limits = limits or Limits()
        self._rules = Rules(
            tokens if tokens is not None else NoTokens(),
            None if origins is None else tuple(origins),
            tuple(hosts),
            networks(trusted_proxies),
        )
        self._tls = _context(tls)
        self._broker = broker or NoBroker()
        self._admin = _admin(self, admin, admin_names)
        self._changed = Condition()
        # Guarded by _changed: _is_started, _has_ended. A join of the thread would not do: interrupted by a signal
        # handler that raises, it takes the thread for ended (CPython 3.11).
        self._is_started = False
        self._has_ended = False
        # Set by the thread before `start` returns, or by `start`.
        self._thread: threading.Thread | None = None
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._grace = 0.0
        self.port = 0

    def __repr__(self) -> str:
        return f"<Relay {self._host}:{self.port or self._wanted_port}>"

    @property
    def url(self) -> str:
        """Where it is to be reached; once it has started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'wss' if self._tls else 'ws'}://{host}:{self.port}/"

    def start(self) -> Self:
        """Begin to listen and return when it does; it can be started once.

        Raises: RelayFailed; ConnmanError where the broker refuses, or the admin's port cannot be had.
        Threads: any.
        """
        with self._changed:
            if self._is_started:
                raise RelayFailed("a relay is started once")
            self._is_started = True
        sockets = _listen(self._host, self._wanted_port)
        self.port = sockets[0].getsockname()[1]
        started: Future[None] = Future()
        try:
            self._thread = spawn("relay", lambda: self._serve_loop(sockets, started))
        except RuntimeError as error:
            _close_all(sockets)
            raise RelayFailed("the system grants no thread") from error
        started.result(_START_TIMEOUT)
        if self._admin is not None:
            try:
                self._admin.start()
            except ConnmanError:
                self.stop()
                raise
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(0.0)

    def stop(self, grace: float = 0.0, *, timeout: float | None = None) -> bool:
        """Refuse new pairs, give those there are ``grace`` seconds to end, close them with 1001, and wait for the end.

        A second call may shorten the grace. Returns whether it has ended within ``timeout``; None: grace and 10 s.
        Idempotent.

        Threads: any but its own.
        """
        loop = self._loop
        if loop is None:
            return True
        try:
            loop.call_soon_threadsafe(self._begin_stop, grace)
        except RuntimeError:
            pass  # its loop is closed: it has ended
        has_ended = self.wait(grace + 10.0 if timeout is None else timeout)
        if self._admin is not None:
            # Behind the grace: until then it says that the relay is stopping.
            self._admin.stop()
        return has_ended

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; None: without limit. Returns whether it has.

        Threads: any but its own.
        """
        thread = self._thread
        if thread is None:
            return True
        with self._changed:
            has_ended = self._changed.wait_for(lambda: self._has_ended, timeout)
        if has_ended:
            join(thread, 1.0)  # it has nothing to do any more
        return has_ended

    def run(self) -> None:
        """Start, and wait until somebody stops it.

        Raises: RelayFailed.
        Threads: any but its own.
        """
        self.start()
        self.wait()

    def snapshot(self) -> Snapshot:
        """Return what it is doing and has done; the numbers may be some microseconds apart.

        Threads: any.
        """
        server = self._server
        if server is None or self._loop is None:
            return Snapshot()
        return server.counts.snapshot(
            self._loop.time(),
            names=server.board.names,
            relays=self._broker.relays(),
            broker=self._broker.state,
            is_stopping=server.switch.is_stopping,
        )

    @property
    def admin_url(self) -> str | None:
        """Where the page for whoever runs it is; None without one."""
        return None if self._admin is None else self._admin.url

    def names(self) -> list[tuple[str, int, int]]:
        """Return the names in use, each with the number of its spares and of its pairs.

        Threads: any.
        """
        server = self._server
        return [] if server is None else server.board.counted_names()

    # The thread

    def _serve_loop(self, sockets: list[socket.socket], started: Future[None]) -> None:
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(self._serve(sockets, started))
        except Exception as error:  # top of a thread
            if started.done():
                logger.exception("the relay has failed")
            else:
                started.set_exception(error)
        finally:
            _close_all(sockets)
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    async def _serve(self, sockets: list[socket.socket], started: Future[None]) -> None:
        self._stopping = asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(_log_failure)
        server = Server(self._limits, self._rules, self._broker, self._tls)
        await server.start(sockets)
        self._server, self._loop = server, server.loop
        started.set_result(None)
        await self._stopping.wait()
        await server.stop(self._grace)

    def _begin_stop(self, grace: float) -> None:
        assert self._stopping is not None
        assert self._server is not None
        self._grace = grace
        self._server.shorten(grace)
        self._stopping.set()


def _log_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what went wrong in a callback of the loop; the context's own words may hold what a client has sent."""
    logger.error("failed in the relay's loop", exc_info=context.get("exception"))


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # lazy: a relay does without, at about two thirds of the speed
    except ImportError:
        return asyncio.SelectorEventLoop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _listen(host: str, port: int) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise RelayFailed(f"cannot listen on {host}: {error}") from error
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            # The second family gets the port that the first was given.
            wanted = (address[0], sockets[0].getsockname()[1] if sockets and not port else port)
            sock = socket.create_server(wanted, family=family, backlog=_BACKLOG)
            sock.setblocking(False)
            sockets.append(sock)
    except OSError as error:
        _close_all(sockets)
        raise RelayFailed(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return sockets


def _close_all(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _admin(relay: Relay, where: tuple[str, int] | None, names: bool) -> Admin | None:
    if where is None:
        return None
    from connman.relay.admin import Admin  # lazy: it needs prometheus_client
    from connman.relay.page import NameLine  # lazy: with it

    def lines() -> list[NameLine]:
        return [NameLine(*line) for line in relay.names()]

    return Admin(relay.snapshot, *where, names=lines if names else None)


def _context(tls: Any) -> ssl.SSLContext | None:
    if tls is None or isinstance(tls, ssl.SSLContext):
        return tls
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate, key = tls
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidOption(f"cannot use the certificate or its key: {error}") from error
    return context
