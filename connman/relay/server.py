"""The listening half of a relay: sockets, who comes in at all, and the end of everything. Runs on the relay's loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import resource
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from connman.relay.addresses import Network, client_address, is_within, parse, rate_key
from connman.relay.board import Board
from connman.relay.broker import Broker
from connman.relay.counts import Counts
from connman.relay.door import Door
from connman.relay.head import HttpRefused, Request, check_host, check_origin, refuse
from connman.relay.limits import Limits
from connman.relay.rates import Rates
from connman.relay.side import Side
from connman.relay.switch import Switchboard
from connman.relay.tokens import EVERYTHING, Grant, NoTokens, TokenRefused, Tokens, TokensFailed, granted
from connman.relay.wire import GOING_AWAY, REASONS

logger = logging.getLogger("connman.relay")

# Accepted in one go: the sides that are there wait meanwhile.
_AT_ONCE = 32
# Sockets before their upgrade, in all. One more, and the oldest of them goes: an honest client is through in
# milliseconds, those that hold sockets open to keep others out are the oldest ones. Fewer where the process may have few
# descriptors: a quarter of them, another one for what else it does, and the rest for sides.
_MOST_DOORS = 512
# How long the broker may take to stop.
_GOODBYE = 3.0
# How long to accept nothing when the system has no descriptor left.
_PAUSE = 0.1
# What a client is told to wait at most: with a rate near nothing the true time has no end.
_LONGEST_RETRY = 86_400.0
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# Descriptors that the process needs for other things than clients.
_OTHER_DESCRIPTORS = 64


def _descriptors() -> float:
    """Return how many descriptors the process may have: without one left, nobody's connection can be accepted."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return math.inf if soft == resource.RLIM_INFINITY else soft


def _too_often(delay: float) -> HttpRefused:
    return HttpRefused(
        429, "too many attempts", "rate", {"Retry-After": str(int(min(delay, _LONGEST_RETRY)) + 1)}
    )


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may come in: by token, page, host name, and through which proxies."""

    tokens: Tokens
    origins: tuple[str, ...] | None = None
    hosts: tuple[str, ...] = ()
    trusted: tuple[Network, ...] = ()


class Server:
    """Everything of a relay that lives on its loop.

    Threads: the relay's.
    """

    def __init__(self, limits: Limits, rules: Rules, broker: Broker, tls: ssl.SSLContext | None) -> None:
        self.limits = limits
        self.rules = rules
        self.loop = asyncio.get_running_loop()
        self.counts = Counts(self.loop.time())
        # Set whenever a pair has parted or a socket is gone.
        self._parted = asyncio.Event()
        self.switch = Switchboard(limits, rules.tokens, broker, self.counts, self._side_gone)
        descriptors = _descriptors()
        self._most_doors = max(1, min(_MOST_DOORS, descriptors / 4))
        others = min(_OTHER_DESCRIPTORS, descriptors / 4)
        self._room = max(1, min(limits.max_connections, descriptors - self._most_doors - others))
        self._broker = broker
        self._tls = tls
        self._listeners: list[socket.socket] = []
        self._doors: dict[Door, None] = {}
        self._addresses: dict[str, int] = {}
        self._rates = Rates(limits.attempts_per_second, limits.burst)
        self._grace_ends = math.inf
        self._ticking: asyncio.TimerHandle | None = None

    @property
    def board(self) -> Board[Side]:
        """The names and groups."""
        return self.switch.board

    async def start(self, sockets: list[socket.socket]) -> None:
        """Listen on ``sockets``, which it closes in the end."""
        self._listeners = sockets
        await self._broker.start(self.switch)
        self._resume_accepting()
        self._tick()

    def _tick(self) -> None:
        self.counts.tick(self.loop.time())
        self._ticking = self.loop.call_later(1.0, self._tick)

    # Accepting

    def _resume_accepting(self) -> None:
        for listener in self._listeners:
            self.loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _FULL:
                    self._wait_for_descriptors()
                return
            sock.setblocking(False)
            self._set_user_timeout(sock)
            peer = str(address[0])
            if self._is_behind_proxy(peer) or not (
                delay := self._rates.delay(rate_key(peer), self.loop.time())
            ):
                self._open_door(sock, peer)
            else:
                self._turn_away(sock, delay)

    def _set_user_timeout(self, sock: socket.socket) -> None:
        # What is sent to a host that is gone and is not acknowledged ends the connection, also where no ping can be
        # heard because nothing is read for the time being.
        limits = self.limits
        if limits.ping_interval is not None and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            # As much as a C int takes, which is 24 days.
            milliseconds = min(1000 * (limits.ping_interval + limits.ping_timeout + 1), 2**31 - 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(milliseconds))

    def _is_behind_proxy(self, peer: str) -> bool:
        """Return whether whose attempt it is can only be told when its head is there."""
        trusted = self.rules.trusted
        return bool(trusted) and (found := parse(peer)) is not None and is_within(found, trusted)

    def _turn_away(self, sock: socket.socket, delay: float) -> None:
        """Refuse an address that tries too often, as cheaply as can be."""
        self.refused("rate")
        with sock, contextlib.suppress(OSError):  # it may be gone again
            if self._tls is None:
                sock.send(refuse(_too_often(delay)))

    def _open_door(self, sock: socket.socket, peer: str) -> None:
        if len(self._doors) >= self._most_doors:
            oldest = next(iter(self._doors))
            del self._doors[oldest]  # at once: its socket may take another round of the loop to be gone
            self.refused("flood")
            oldest.abort()
        door = Door(self, peer)
        self._doors[door] = None
        self.counts.connections += 1
        self.counts.connections_total += 1
        door.opening = self.loop.create_task(self._open(door, sock))
        door.opening.add_done_callback(lambda task: self._opened(door, sock, task))

    async def _open(self, door: Door, sock: socket.socket) -> None:
        timeout = self.limits.handshake_timeout if self._tls is not None else None
        door.has_begun = True
        await self.loop.connect_accepted_socket(
            lambda: door, sock, ssl=self._tls, ssl_handshake_timeout=timeout
        )

    def _opened(self, door: Door, sock: socket.socket, opening: asyncio.Task[None]) -> None:
        door.opening = None
        if not door.has_begun:
            sock.close()  # cancelled before the loop had it
        if opening.cancelled() or (error := opening.exception()) is not None:
            # No protocol was told of it: TLS came to nothing, or the door was closed meanwhile.
            kind = "cancelled" if opening.cancelled() else type(error).__name__
            logger.debug("no connection from a client: %s", kind)
            door.connection_lost(None)

    def _wait_for_descriptors(self) -> None:
        self.refused("descriptors")
        for listener in self._listeners:
            self.loop.remove_reader(listener)
        # The older half: one at a time would let in ten a second, behind all those that wait already.
        for door in tuple(self._doors)[: (len(self._doors) + 1) // 2]:
            door.abort()
        self.loop.call_later(_PAUSE, self._resume_accepting)

    # What doors ask

    def admit(self, request: Request, peer: str, transport: asyncio.Transport) -> Side:
        """Return the side that this client is from now on.

        Raises: HttpRefused.
        """
        rules = self.rules
        address = client_address(peer, request.headers, rules.trusted)
        key = rate_key(address)
        if self.switch.is_stopping:
            raise HttpRefused(503, REASONS[GOING_AWAY], "stopping", {"Retry-After": "1"})
        if self._is_behind_proxy(peer) and (delay := self._rates.delay(key, self.loop.time())):
            raise _too_often(delay)
        if len(self.switch.sides) >= self._room:
            raise HttpRefused(503, "the relay is full", "full", {"Retry-After": "5"})
        if self._addresses.get(key, 0) >= self.limits.max_per_address:
            raise HttpRefused(429, "too many connections", "full", {"Retry-After": "5"})
        check_origin(request, rules.origins)
        grant: Grant | None = EVERYTHING
        if isinstance(rules.tokens, NoTokens):
            check_host(request, rules.hosts)
        else:
            grant = None
            if (token := request.bearer) is not None:
                try:
                    grant = granted(rules.tokens, token)
                except TokenRefused as refused:
                    raise HttpRefused(401, str(refused), "token", {"WWW-Authenticate": "Bearer"}) from None
                except TokensFailed as failed:
                    raise HttpRefused(503, str(failed), "tokens-failed", {"Retry-After": "5"}) from None
        side = Side(self.switch, transport, address, grant)
        self.switch.sides.add(side)
        self._addresses[key] = self._addresses.get(key, 0) + 1
        return side

    def refused(self, why: str) -> None:
        """Count a client that was not let in."""
        self.counts.count_refused(why)

    def door_gone(self, door: Door) -> None:
        """Forget a door whose socket is closed."""
        self._parted.set()
        self._doors.pop(door, None)
        self.counts.connections -= 1

    def door_passed(self, door: Door) -> None:
        """Forget a door that has become a side."""
        self._doors.pop(door, None)

    def _side_gone(self, side: Side) -> None:
        self._parted.set()
        key = rate_key(side.address)
        left = self._addresses.get(key, 0) - 1
        if left > 0:
            self._addresses[key] = left
        else:
            self._addresses.pop(key, None)

    # The end

    def shorten(self, grace: float) -> None:
        """Let the grace of a stop end in ``grace`` seconds at the latest."""
        self._grace_ends = min(self._grace_ends, self.loop.time() + grace)

    async def stop(self, grace: float) -> None:
        """Refuse whoever is new, let go those that wait, give pairs ``grace`` seconds to end, and then close all.

        While pairs go on it still listens, so that clients are told to try elsewhere.
        """
        self.shorten(grace)
        self.switch.is_stopping = True
        for side in tuple(self.switch.sides):
            if side.other is None:
                side.close(GOING_AWAY, REASONS[GOING_AWAY])
        while self.counts.pairs and (left := self._grace_ends - self.loop.time()) > 0:
            # In steps: the grace may be shortened meanwhile.
            await self._until(lambda: not self.counts.pairs, min(left, 0.1))
        await self._stop_broker()
        for listener in self._listeners:
            self.loop.remove_reader(listener)
            listener.close()
        self._listeners = []
        for side in tuple(self.switch.sides):
            side.close(GOING_AWAY, REASONS[GOING_AWAY])
        # Each side ends within close_timeout by itself; half a second more for the system.
        await self._until(lambda: not self.switch.sides, self.limits.close_timeout + 0.5)
        for door in tuple(self._doors):
            door.abort()
        for side in tuple(self.switch.sides):
            side.abort()
        await self._until(lambda: not self._doors and not self.switch.sides, 1.0)
        if self._ticking is not None:
            self._ticking.cancel()

    async def _stop_broker(self) -> None:
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._broker.stop()
        except TimeoutError:
            logger.warning("the broker did not take this relay's names away in time")
        except Exception:  # user code
            logger.exception("the broker has failed while it was stopped")

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until ``condition`` holds, for ``seconds`` at most; it is looked at when a side has left or is gone."""
        end = self.loop.time() + seconds
        while not condition() and (left := end - self.loop.time()) > 0:
            self._parted.clear()
            try:
                async with asyncio.timeout(left):
                    await self._parted.wait()
            except TimeoutError:
                return
