"""From an endpoint to a connected socket: every address tried, in time, and any thread may end it at any point."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import select
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from connman.clock import Deadline
from connman.errors import ConnectError
from connman.options import Options
from connman.threads import Condition
from connman.transport.base import Dial
from connman.transport.causes import describe
from connman.transport.proxy import choose_proxy, open_tunnel
from connman.transport.resolve import Address, resolve
from connman.transport.sockets import SocketGuard, milliseconds

# RFC 8305 section 5, "Connection Attempt Delay".
_STAGGER = 0.25
# How often a unix socket with a full backlog is tried again.
_UNIX_RETRY = 0.02
# Keepalive probes that go unanswered before the system gives a connection up; they share `ping_timeout`.
_PROBES = 3
# Linux refuses more for TCP_KEEPIDLE and TCP_KEEPINTVL.
_MAX_KEEPALIVE = 32767


def open_socket(dial: Dial) -> SocketGuard:
    """Connect to the dial's endpoint, through a proxy where the options or the environment name one.

    On return the socket is connected and non-blocking, and its ``shutdown`` is registered with the dial: whoever takes
    it over removes it. On an error nothing is left.

    Raises: ConnectError, ConnectTimeout, ProxyRefused; InvalidOption for a malformed proxy URL; the abort's error.
    Threads: the dialling thread.
    """
    endpoint = dial.endpoint
    assert endpoint is not None, "only a dial to an endpoint needs a socket"
    if endpoint.scheme == "unix":
        return connect_unix(dial, endpoint.path)
    proxy = choose_proxy(dial)
    if proxy is None:
        return connect_tcp(dial, endpoint.host, endpoint.port)
    guard = connect_tcp(dial, proxy.host, proxy.port)
    with discard_on_error(dial, guard):
        open_tunnel(dial, guard, proxy, endpoint.host, endpoint.port)
    return guard


def connect_tcp(dial: Dial, host: str, port: int) -> SocketGuard:
    """Connect to the first address of ``host`` that answers (Happy Eyeballs, RFC 8305); see `open_socket`.

    Raises: ConnectError, whose log names every address tried and why it failed; ConnectTimeout; the abort's error.
    Threads: the dialling thread.
    """
    return _Race(dial, _interleave(resolve(dial, host, port))).run()


def connect_unix(dial: Dial, path: str) -> SocketGuard:
    """Connect to a unix socket; see `open_socket`.

    Raises: ConnectError, ConnectTimeout, the abort's error.
    Threads: the dialling thread.
    """
    with dial.step("unix", path):
        guard = _registered_socket(dial, socket.AF_UNIX)
        with discard_on_error(dial, guard):
            # A full backlog is EAGAIN here, and no poll tells when there is room again.
            while (error := guard.sock.connect_ex(path)) == errno.EAGAIN:
                dial.wait_for(Condition(), lambda: False, _UNIX_RETRY)
            if error:
                raise OSError(error, os.strerror(error))
            dial.check()
        return guard


@contextlib.contextmanager
def discard_on_error(dial: Dial, guard: SocketGuard) -> Iterator[None]:
    """Close the socket, and take it off the dial, when the block raises.

    Threads: the dialling thread.
    """
    try:
        yield
    except BaseException:  # user code: an SSL context of the user's may raise anything
        _discard(dial, guard)
        raise


def apply_keepalive(sock: socket.socket, ping_interval: float | None, ping_timeout: float) -> None:
    """Have the system watch an idle or unanswered connection with the numbers of our own keepalive.

    It sees a dead path where the protocol has no ping, and under a write that nobody acknowledges. A peer that lives
    but has not read for both times together, while data waits for it, is given up as well. Nothing is set when
    ``ping_interval`` is None; what the platform does not know is left out.

    Raises: OSError. Threads: the socket's owner.
    """
    if ping_interval is None:
        return
    settings = {
        "TCP_KEEPIDLE": _whole_seconds(ping_interval),
        "TCP_KEEPINTVL": _whole_seconds(ping_timeout / _PROBES),
        "TCP_KEEPCNT": _PROBES,
        # The system sends no keepalive probe while data waits for its acknowledgement: this ends that wait, which would
        # take a quarter of an hour by default.
        "TCP_USER_TIMEOUT": max(1, min(int((ping_interval + ping_timeout) * 1000), 2**31 - 1)),
    }
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in settings.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@dataclass(frozen=True, slots=True)
class _Runner:
    """One address being tried."""

    guard: SocketGuard
    address: str
    began: float


class _Race:
    """Try addresses side by side, each a little after the one before, or at once after a failure; the first wins.

    Threads: the dialling thread; an abort shuts the sockets down, which wakes the poll.
    """

    def __init__(self, dial: Dial, addresses: Sequence[Address]) -> None:
        self._dial = dial
        self._untried = list(addresses)
        self._count = len(addresses)
        # By descriptor, which is what poll() answers with.
        self._running: dict[int, _Runner] = {}
        self._next = Deadline.after(dial.clock, 0.0)
        self._failure: OSError | None = None

    def run(self) -> SocketGuard:
        """Return the connected socket of the winner; the others are closed."""
        self._dial.phase = "tcp"
        try:
            while self._untried or self._running:
                if self._untried and (self._next.expired or not self._running):
                    self._start_next()
                # After connect() was issued: an abort before that found a socket that cannot be shut down yet.
                self._check()
                for descriptor in self._wait():
                    self._check()
                    guard = self._judge(descriptor)
                    if guard is not None:
                        return guard
            # An abort may have come between the poll and the look at what it found: it is the cause, not the address.
            self._check()
            raise self._error() from self._failure
        finally:
            self._abandon("given up")

    def _start_next(self) -> None:
        family, address = self._untried.pop(0)
        began, text = self._dial.clock.now(), format_address(address)
        self._next = Deadline.after(self._dial.clock, _STAGGER)
        try:
            # Registered before connect() begins, so that an abort finds it in every phase.
            guard = _registered_socket(self._dial, family)
        except OSError as error:
            # Such as a family that this machine does not have: the end of this address, not of the dial.
            self._lost(text, began, error)
            return
        descriptor = guard.sock.fileno()
        self._running[descriptor] = _Runner(guard, text, began)
        error_number = guard.sock.connect_ex(address)
        if error_number not in (0, errno.EINPROGRESS):
            self._drop(descriptor, OSError(error_number, os.strerror(error_number)))

    def _wait(self) -> list[int]:
        """Wait until sockets have an answer, the next address is due, or time has run out."""
        if not self._running:
            return []
        poll = select.poll()
        for descriptor in self._running:
            poll.register(descriptor, select.POLLOUT)
        limits = [self._dial.deadline.remaining(), self._next.remaining() if self._untried else None]
        seconds = min((limit for limit in limits if limit is not None), default=None)
        return [descriptor for descriptor, _ in poll.poll(milliseconds(seconds))]

    def _judge(self, descriptor: int) -> SocketGuard | None:
        """Return the socket if it is connected, else note why not."""
        runner = self._running[descriptor]
        sock = runner.guard.sock
        try:
            _raise_pending(sock)
            _tune(sock, self._dial.options)
        except OSError as error:
            self._drop(descriptor, error)
            return None
        del self._running[descriptor]
        self._log(runner.address, runner.began, None)
        return runner.guard

    def _drop(self, descriptor: int, error: OSError) -> None:
        runner = self._running.pop(descriptor)
        _discard(self._dial, runner.guard)
        self._lost(runner.address, runner.began, error)

    def _lost(self, address: str, began: float, error: OSError) -> None:
        self._failure = error
        # RFC 8305 section 5: a failure lets the next address begin at once.
        self._next = Deadline.after(self._dial.clock, 0.0)
        self._log(address, began, describe(error))

    def _check(self) -> None:
        if self._dial.deadline.expired:
            # Before the error is made, which shows the log.
            self._abandon("no answer")
        self._dial.check()

    def _abandon(self, cause: str) -> None:
        while self._running:
            _, runner = self._running.popitem()
            _discard(self._dial, runner.guard)
            self._log(runner.address, runner.began, cause)

    def _log(self, address: str, began: float, cause: str | None) -> None:
        self._dial.note("tcp", address, began, cause)

    def _error(self) -> ConnectError:
        cause = "tcp: " + (describe(self._failure) if self._failure else "no address")
        message = cause if self._count == 1 else f"none of {self._count} addresses could be connected"
        return ConnectError(self._dial.name, self._dial.log, message)


def format_address(address: Sequence[object]) -> str:
    """Return an address as ``host:port``, an IPv6 host in brackets.

    Threads: any; pure.
    """
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _interleave(addresses: Sequence[Address]) -> list[Address]:
    """Alternate between the families, beginning with the resolver's first choice (RFC 8305 section 4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    pairs = itertools.zip_longest(first, others)
    return [address for pair in pairs for address in pair if address is not None]


def _registered_socket(dial: Dial, family: socket.AddressFamily) -> SocketGuard:
    """Return a new non-blocking socket that an abort of the dial will shut down."""
    guard = SocketGuard(socket.socket(family, socket.SOCK_STREAM))
    with discard_on_error(dial, guard):
        guard.sock.setblocking(False)
        dial.add_abortable(guard.shutdown)
    return guard


def _discard(dial: Dial, guard: SocketGuard) -> None:
    dial.remove_abortable(guard.shutdown)
    guard.close()


def _raise_pending(sock: socket.socket) -> None:
    """Raise what connecting ended with, if it failed."""
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    # On loopback the system may choose the very port that is dialled, while nobody listens there, as ours: the socket
    # is then connected to itself and would look open. Who dials a dead local server again and again meets it.
    try:
        if not error and sock.getsockname() == sock.getpeername():
            error = errno.ECONNREFUSED
    except OSError as gone:
        # Reset since that look, which is told by another one; "not connected" would explain nothing.
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or gone.errno or errno.ECONNRESET
    if error:
        raise OSError(error, os.strerror(error))


def _tune(sock: socket.socket, options: Options) -> None:
    # Nagle would hold a small message back until the one before is acknowledged, which a peer may delay by 40 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    apply_keepalive(sock, options.ping_interval, options.ping_timeout)


def _whole_seconds(seconds: float) -> int:
    return max(1, min(math.ceil(seconds), _MAX_KEEPALIVE))
