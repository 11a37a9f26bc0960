"""The one thread of a `connman.testing.FaultProxy`: it owns the sockets and does what it is told by other threads."""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import math
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from connman.testing.links import WAYS, Faults, Flow, Link, Way
from connman.threads import spawn

_BACKLOG = 1024
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class ProxyLoop:
    """Pass bytes between clients and an upstream, as ``faults`` say.

    Threads: `start`, `stop` and `call` from any thread; what `call` is given runs on the loop's own thread, the only one
    that touches the rest.
    """

    def __init__(self, upstream: tuple[str, int], host: str, seed: int | None) -> None:
        self.faults = Faults()
        self.links: set[Link] = set()
        self.address = (host, 0)
        self.accepted = 0
        self.passed = {"up": 0, "down": 0}
        self._upstream = upstream
        self._random = random.Random(seed)
        self._alarms: list[tuple[float, int, Link]] = []
        self._order = itertools.count()
        self._listener: socket.socket | None = None
        self._selector: selectors.BaseSelector | None = None
        self._lock = threading.Lock()
        # Guarded by _lock: _is_running, _is_ending, _commands, and the use of _waker against its close.
        self._is_running = False
        self._is_ending = False
        self._commands: list[tuple[Callable[[], None], Future[None]]] = []
        self._thread: threading.Thread | None = None

    # From other threads

    def start(self) -> None:
        """Take a port and start the thread.

        Raises: OSError; RuntimeError when it ran before.
        Threads: any.
        """
        family, *_, upstream = socket.getaddrinfo(*self._upstream, type=socket.SOCK_STREAM)[0]
        with self._lock:
            if self._is_running or self._is_ending:
                raise RuntimeError("a FaultProxy is started once")
            self._family, self._upstream_address = family, upstream
            # Bound but never listening: it keeps the port ours while the listener is closed.
            self._reservation = _bound_socket(self.address)
            self.address = (self.address[0], self._reservation.getsockname()[1])
            self._waker, self._woken = socket.socketpair()
            self._waker.setblocking(False)
            self._woken.setblocking(False)
            self._selector = selectors.DefaultSelector()
            self._watch(self._woken, _READ, self._on_wake)
            self._open_or_close_listener()
            self._is_running = True
            self._thread = spawn("fault-proxy", self._loop)

    def stop(self) -> None:
        """Close everything and wait for the thread. Idempotent.

        Threads: any.
        """
        with self._lock:
            self._is_ending = True
            self._wake_locked()
            thread = self._thread
        if thread is not None:
            thread.join()

    def call(self, action: Callable[[], None]) -> None:
        """Have ``action`` run by the loop, and return when it has; at once where no loop runs.

        Raises: OSError that ``action`` raised.
        Threads: any.
        """
        with self._lock:
            if not self._is_running:
                action()
                return
            done: Future[None] = Future()
            self._commands.append((action, done))
            self._wake_locked()
        done.result()

    def _wake_locked(self) -> None:
        if self._is_running:
            with contextlib.suppress(BlockingIOError):  # full: it is about to wake anyway
                self._waker.send(b"!")

    # What others ask for, on the loop

    def change(self, name: str, value: Any) -> None:
        """Set one of the faults."""
        setattr(self.faults, name, value)
        for link in list(self.links):
            self._update(link)

    def deafen(self, on: bool, way: Way) -> None:
        """Begin or end to pass nothing on in that direction."""
        ways = WAYS if way == "both" else frozenset((way,))
        deaf = self.faults.deaf_ways
        self.change("deaf_ways", deaf | ways if on else deaf - ways)

    def refuse(self, on: bool) -> None:
        """Close the listener, or open it again on the same port.

        Raises: OSError.
        """
        self.faults.is_refusing = on
        self._open_or_close_listener()

    def cut_after(self, count: int | None, way: Way) -> None:
        """Give every link, present or to come, so many bytes before it is cut."""
        self.faults.limit, self.faults.limited_way = count, way
        for link in self.links:
            link.limit = count

    def end_all(self, *, reset: bool) -> None:
        """Close every link, those included that the system has accepted and we have not yet."""
        self._accept_all()
        for link in list(self.links):
            self._end(link, reset=reset)

    # The loop

    def _loop(self) -> None:
        selector = self._selector
        assert selector is not None
        try:
            while not self._is_ending:
                timeout = self._alarms[0][0] - time.monotonic() if self._alarms else None
                for key, events in selector.select(timeout):
                    key.data(events)
                self._ring_alarms()
        finally:
            self._close_all(selector)

    def _close_all(self, selector: selectors.BaseSelector) -> None:
        self.end_all(reset=False)
        with self._lock:
            self._is_running, self._is_ending = False, True
            commands, self._commands = self._commands, []
            self._selector = None
            for sock in (self._listener, self._reservation, self._waker, self._woken):
                if sock is not None:
                    sock.close()
            self._listener = None
            selector.close()
        for _, done in commands:
            done.set_result(None)

    def _on_wake(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        with self._lock:
            commands, self._commands = self._commands, []
        for action, done in commands:
            try:
                action()
            except OSError as error:
                done.set_exception(error)
            else:
                done.set_result(None)

    def _ring_alarms(self) -> None:
        now = time.monotonic()
        while self._alarms and self._alarms[0][0] <= now:
            link = heapq.heappop(self._alarms)[2]
            link.alarm = math.inf
            if link in self.links:
                self._update(link)

    # Clients

    def _open_or_close_listener(self) -> None:
        if self._selector is None:
            return
        if self._listener is not None and self.faults.is_refusing:
            self._watch(self._listener, 0)
            self._listener.close()
            self._listener = None
        elif self._listener is None and not self.faults.is_refusing:
            self._listener = _bound_socket(self.address)
            self._listener.listen(_BACKLOG)
            self._watch(self._listener, _READ, self._accept_all)

    def _accept_all(self, _events: int = 0) -> None:
        while self._listener is not None:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            self._add(client)

    def _add(self, client: socket.socket) -> None:
        self.accepted += 1
        link = Link(client, socket.socket(self._family, socket.SOCK_STREAM), self.faults.limit)
        self.links.add(link)
        if self.faults.kill_every is not None and self.accepted % self.faults.kill_every == 0:
            self._end(link, reset=True)
        else:
            self._update(link)

    def _end(self, link: Link, *, reset: bool) -> None:
        self.links.discard(link)
        self._watch(link.client, 0)
        self._watch(link.upstream, 0)
        link.end(reset=reset)

    # Bytes

    def _on_client_event(self, link: Link, events: int) -> None:
        self._on_event(link, events, link.up, link.down)

    def _on_upstream_event(self, link: Link, events: int) -> None:
        self._on_event(link, events, link.down, link.up)

    def _on_event(self, link: Link, events: int, incoming: Flow, outgoing: Flow) -> None:
        if link not in self.links or self.faults.is_deaf:
            return  # ended, or deafened, by an earlier event of the same round
        try:
            if incoming is link.down:
                link.settle()
            if events & _READ and incoming.way not in self.faults.deaf_ways:
                incoming.read(
                    time.monotonic(), self.faults.latency + self._random.uniform(0, self.faults.jitter)
                )
            if events & _WRITE:
                self._write(link, outgoing)
        except OSError:
            # One side is broken: the other is told the same way.
            self._end(link, reset=True)
            return
        if link.is_over or link.limit == 0:
            self._end(link, reset=False)
        else:
            self._update(link)

    def _write(self, link: Link, flow: Flow) -> None:
        now = time.monotonic()
        if self._due_at(flow) > now:
            return
        is_limited = self.faults.limited_way in (flow.way, "both")
        count = flow.write(now, self.faults, link.limit if is_limited else None)
        self.passed[flow.way] += count
        if is_limited and link.limit is not None:
            link.limit -= count

    def _due_at(self, flow: Flow) -> float:
        return math.inf if flow.way in self.faults.deaf_ways else flow.due_at

    def _wants_more(self, flow: Flow) -> bool:
        return flow.wants_more and flow.way not in self.faults.deaf_ways

    def _update(self, link: Link) -> None:
        """Watch for what the link can do next, and set an alarm for what is not due yet."""
        if self.faults.is_deaf:
            self._watch(link.client, 0)
            self._watch(link.upstream, 0)
            return
        try:
            if not link.is_begun:
                link.begin(self._upstream_address)
        except OSError:
            self._end(link, reset=True)
            return
        link.judge(self.faults.websockets)
        now = time.monotonic()
        up, down = self._due_at(link.up), self._due_at(link.down)
        on_client = _READ * self._wants_more(link.up) | _WRITE * (down <= now)
        on_upstream = _READ * self._wants_more(link.down) | _WRITE * (up <= now)
        if not link.is_connected:
            on_upstream = _WRITE
        self._watch(link.client, on_client, functools.partial(self._on_client_event, link))
        self._watch(link.upstream, on_upstream, functools.partial(self._on_upstream_event, link))
        alarm = min((at for at in (up, down) if at > now), default=math.inf)
        if alarm < link.alarm:
            link.alarm = alarm
            heapq.heappush(self._alarms, (alarm, next(self._order), link))

    def _watch(self, sock: socket.socket, events: int, handler: Callable[[int], None] | None = None) -> None:
        assert self._selector is not None
        key = self._selector.get_map().get(sock)
        if key is None:
            if events:
                self._selector.register(sock, events, handler)
        elif not events:
            self._selector.unregister(sock)
        elif key.events != events:
            self._selector.modify(sock, events, handler)


def _bound_socket(address: tuple[str, int]) -> socket.socket:
    """Return a socket bound to ``address`` that lets others bind to it too, as long as only one listens."""
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
