"""Transports inside one process: the real pipe and the real frames over two byte lanes instead of a network."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from connman.clock import Clock, Deadline, SystemClock
from connman.errors import ConnectError, NotConnected, WaitTimeout
from connman.threads import Condition
from connman.transport.base import Dial
from connman.transport.frames import FrameCodec
from connman.transport.pipe import Pipe
from connman.transport.sockets import READABLE

_CHUNK = 65536
# Bounded like a socket's buffer: who writes to a reader that has stopped has to wait here as well.
_CAPACITY = 4 * _CHUNK


class _Lane:
    """Bytes on their way in one direction: bounded, with an end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Entered itself, not through the condition, whose own `with` is Python code: a Ctrl-C there would leave it locked.
        self._lock = threading.RLock()
        self._condition = Condition(self._lock)
        # Guarded by _lock: _bytes, _is_ended, _is_broken.
        self._bytes = bytearray()
        self._is_ended = False
        self._is_broken = False
        self._watcher: Callable[[], None] | None = None

    def watch(self, watcher: Callable[[], None]) -> None:
        with self._lock:
            self._watcher = watcher
        watcher()

    def _tell(self) -> None:
        # Outside the lock: the reader that is told takes locks of its own.
        if self._watcher is not None:
            self._watcher()

    def put(self, data: bytes | memoryview) -> int:
        with self._lock:
            if self._is_broken or self._is_ended:
                raise BrokenPipeError("the memory transport has ended")
            taken = min(len(data), _CAPACITY - len(self._bytes))
            self._bytes += data[:taken]
            self._condition.notify_all()
        self._tell()
        return taken

    def take(self, deadline: Deadline) -> bytes:
        with self._lock:
            if not deadline.wait_for(self._condition, lambda: self.is_ready):
                raise TimeoutError("timed out")
            chunk = bytes(self._bytes[:_CHUNK])
            del self._bytes[:_CHUNK]
            self._condition.notify_all()
            return chunk

    @property
    def is_ready(self) -> bool:
        return bool(self._bytes) or self._is_ended or self._is_broken

    def wait_room(self, deadline: Deadline) -> None:
        with self._lock:
            deadline.wait_for(
                self._condition, lambda: len(self._bytes) < _CAPACITY or self._is_ended or self._is_broken
            )

    def end(self) -> None:
        with self._lock:
            self._is_ended = True
            self._condition.notify_all()
        self._tell()

    def break_(self, *, empty: bool) -> None:
        with self._lock:
            self._is_broken = True
            if empty:
                self._bytes.clear()
            self._condition.notify_all()
        self._tell()


class MemoryStream:
    """One end of an in-process byte pipe; a ``stream.Stream``, which documents the methods.

    Threads: as for ``stream.Stream``.
    """

    reads_when = READABLE

    def __init__(self, clock: Clock, incoming: _Lane, outgoing: _Lane) -> None:
        self._clock = clock
        self._incoming = incoming
        self._outgoing = outgoing

    def recv(self, deadline: Deadline | None) -> bytes:
        """Block until bytes are there; b"" at the end.

        Raises: TimeoutError when ``deadline`` passes.
        Threads: the reader only.
        """
        return self._incoming.take(deadline or Deadline(self._clock, None))

    def recv_some(self) -> bytes | None:
        """Return what is there; see ``stream.Stream``.

        Threads: the reader only.
        """
        return self._incoming.take(Deadline(self._clock, None)) if self._incoming.is_ready else None

    def is_readable(self) -> bool:
        """Return whether something is there; see ``stream.Stream``.

        Threads: any.
        """
        return self._incoming.is_ready

    def traffic(self) -> None:
        """Return None: no system is under it; see ``stream.Stream``.

        Threads: any.
        """

    def fileno(self) -> int:
        """Return -1: there is no descriptor.

        Threads: the reader only.
        """
        return -1

    def watch(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when there may be something to receive; see ``stream.Stream``.

        Threads: the reader only.
        """
        self._incoming.watch(callback)

    def send_some(self, data: bytes | memoryview) -> int:
        """Hand over what there is room for.

        Raises: BrokenPipeError when the other end is gone.
        Threads: one at a time.
        """
        return self._outgoing.put(data)

    def wait_writable(self, seconds: float | None) -> None:
        """Block until there may be room.

        Threads: one at a time.
        """
        self._outgoing.wait_room(Deadline.after(self._clock, seconds))

    def end_writing(self) -> None:
        """Let the other end read to the end of file.

        Threads: any.
        """
        self._outgoing.end()

    def shutdown(self) -> None:
        """Break both directions: what was not received is dropped, what was sent the other end still gets. Idempotent.

        Threads: any.
        """
        self._incoming.break_(empty=True)
        self._outgoing.break_(empty=False)

    def close(self) -> None:
        """Do what `shutdown` does: there is no descriptor.

        Threads: the reader only.
        """
        self.shutdown()


def memory_streams(clock: Clock) -> tuple[MemoryStream, MemoryStream]:
    """Return the two ends of a byte pipe in this process.

    Threads: any.
    """
    there, back = _Lane(clock), _Lane(clock)
    return MemoryStream(clock, back, there), MemoryStream(clock, there, back)


def memory_pair(clock: Clock, max_message_size: int, name: str = "memory") -> tuple[Pipe, Pipe]:
    """Return two transports that are each other's peer. They speak WebSocket frames without masks.

    Threads: any.
    """
    near, far = memory_streams(clock)
    return (
        Pipe(name, near, FrameCodec(max_message_size, mask=False), clock),
        Pipe(name, far, FrameCodec(max_message_size, mask=False), clock),
    )


# Names that are listened on. Reads and writes of one key are atomic, so no lock is made at import.
_listeners: dict[str, MemoryListener] = {}


class MemoryListener:
    """Accept what dials ``memory://<name>`` in this process; a with-block.

    Raises: ValueError when the name is listened on already.
    Threads: every method from any thread.
    """

    def __init__(self, name: str, *, clock: Clock | None = None, backlog: int = 128) -> None:
        self.name = name
        self._clock = clock or SystemClock()
        self._backlog = backlog
        self._condition = Condition()
        # Guarded by _condition: _waiting, _is_closed.
        self._waiting: deque[Pipe] = deque()
        self._is_closed = False
        if _listeners.setdefault(name, self) is not self:
            raise ValueError(f"memory://{name} is listened on already")

    def accept(self, timeout: float | None = None) -> Pipe:
        """Return our end of the next connection; its reader is the caller.

        Raises: WaitTimeout when none comes within ``timeout`` seconds (None: waits for ever; 0 and less: only looks);
        NotConnected when the listener is closed.
        Threads: any.
        """
        with self._condition:
            if not Deadline.after(self._clock, timeout).wait_for(
                self._condition, lambda: bool(self._waiting) or self._is_closed
            ):
                raise WaitTimeout("nobody dialled")
            if self._is_closed:
                raise NotConnected(f"memory://{self.name} is no longer listened on")
            return self._waiting.popleft()

    def offer(self, dial: Dial) -> Pipe:
        """Make a pair for a dialling client and return its end.

        Raises: ConnectionRefusedError when the backlog is full or the listener closed.
        Threads: any.
        """
        client, server = memory_pair(dial.clock, dial.options.max_message_size)
        with self._condition:
            if self._is_closed or len(self._waiting) >= self._backlog:
                raise ConnectionRefusedError("the backlog is full, or nobody listens any more")
            self._waiting.append(server)
            self._condition.notify_all()
        return client

    def close(self) -> None:
        """Stop listening; what was not accepted is broken. Idempotent.

        Threads: any.
        """
        # Closed a second time it must not take the name from a listener that has it by then.
        if _listeners.get(self.name) is self:
            _listeners.pop(self.name, None)
        with self._condition:
            self._is_closed = True
            waiting, self._waiting = self._waiting, deque()
            self._condition.notify_all()
        # Outside the lock: breaking a pipe takes those of its two lanes.
        for pipe in waiting:
            pipe.dispose()

    def __enter__(self) -> MemoryListener:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def open_memory(dial: Dial) -> Pipe:
    """Dial ``memory://<name>``.

    Raises: ConnectError when nobody listens there; ConnectTimeout; the abort's error.
    Threads: the dialling thread.
    """
    name = dial.endpoint.path if dial.endpoint is not None else ""
    with dial.step("memory", name):
        dial.check()
        listener = _listeners.get(name)
        if listener is None:
            raise ConnectError(dial.name, dial.log, "nobody listens there")
        return listener.offer(dial)
