"""Small servers on loopback, and dials to them: what the tests of the transports share."""

import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar

from connman.clock import SystemClock
from connman.endpoint import Endpoint
from connman.errors import ConnmanError
from connman.options import Options
from connman.transport.base import Dial

T = TypeVar("T")

PATIENCE = 10.0  # seconds that only a failing test reaches
SYN_SENT = "02"  # in the state column of /proc/net/tcp


class Aborted(ConnmanError):
    """What the tests abort a dial with."""


def make_dial(target: object, **options: Any) -> Dial:
    return Dial(Endpoint.parse(target), Options(**{"proxy": None, **options}), SystemClock())


def in_thread(function: Callable[..., T], *args: Any) -> "Future[T]":
    """Run `function` on a thread; `.result(PATIENCE)` bounds how long it may take."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:  # noqa: BLE001 - the test gets it from the Future
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class Server:
    """A listener on a free port. `serve(sock)` runs on a thread of its own for every connection.

    Leaving the with-block shuts every socket down and waits for the threads.
    """

    def __init__(self, serve: Callable[[socket.socket], None], *, unix: Path | None = None) -> None:
        self._serve = serve
        self._listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        self._listener.bind(str(unix) if unix else ("127.0.0.1", 0))
        self.port: int = 0 if unix else self._listener.getsockname()[1]
        self._lock = threading.Lock()
        # Guarded by _lock: accepted, _is_closing, _sockets, _threads.
        self.accepted = 0
        self._is_closing = False
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept_loop)]

    def __enter__(self) -> Self:
        self._listener.listen(128)
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._is_closing = True
            # Under the lock under which they are closed: by then no number is somebody else's.
            shut(self._listener, *self._sockets)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()

    def _accept_loop(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = self._listener.accept()[0]
                thread = threading.Thread(target=self._run, args=(sock,))
                with self._lock:
                    self.accepted += 1
                    if self._is_closing:
                        sock.close()
                        return
                    self._sockets.append(sock)
                    self._threads.append(thread)
                    thread.start()

    def _run(self, sock: socket.socket) -> None:
        # Closed in __exit__ only would leave the client waiting; the duplicate keeps the number of `sock` ours.
        with sock.dup() as working, contextlib.suppress(OSError):
            self._serve(working)
        shut(sock)
        with self._lock:
            self._sockets.remove(sock)
            sock.close()


def shut(*sockets: socket.socket) -> None:
    for sock in sockets:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def echo(sock: socket.socket) -> None:
    while chunk := sock.recv(65536):
        sock.sendall(chunk)


def read_to_the_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def silent(sock: socket.socket) -> None:
    read_to_the_end(sock)


def drip(sock: socket.socket, data: bytes) -> None:
    """Send one byte every few milliseconds, round and round, until the client is gone."""
    pace = threading.Event()
    while True:
        for byte in data:
            sock.sendall(bytes([byte]))
            pace.wait(0.005)


@contextlib.contextmanager
def refusing_port(family: socket.AddressFamily = socket.AF_INET) -> Iterator[int]:
    """Hold a port on which nobody listens."""
    with socket.socket(family) as sock:
        sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """Give a port for a server that has to be told one: until the end nobody is given it who asks for any."""
    with socket.socket() as holder:
        # Both with it, and this one never listening, they may have the same port (socket(7)).
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextlib.contextmanager
def hanging_port() -> Iterator[int]:
    """Hold a port whose backlog is full: a SYN to it is never answered."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        stack.enter_context(
            socket.create_connection(listener.getsockname())
        )  # the one that there is room for
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            assert filler.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        yield listener.getsockname()[1]


def tcp_table(name: str = "tcp") -> list[list[str]]:
    """Return the system's rows of TCP sockets, each once.

    Linux shows sockets again when new ones come while the end of its table is read: 3 unanswered SYNs were 6 to 21 rows
    in a third of 1,164 looks beside four processes that opened sockets all the time.
    """
    rows = [line.split() for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return list({(row[1], row[2]): row for row in rows}.values())


def dialling_sockets(port: int) -> int:
    """Count the sockets whose SYN to a port of 127.0.0.1 is unanswered."""
    return sum(row[2] == f"0100007F:{port:04X}" and row[3] == SYN_SENT for row in tcp_table())
