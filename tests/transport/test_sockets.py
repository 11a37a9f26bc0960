"""Sockets that any thread may shut down and only one closes, and waits that end."""

import os
import random
import resource
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from connman.clock import Deadline, SystemClock
from connman.testing import FakeClock
from connman.transport.sockets import (
    READABLE,
    WRITABLE,
    DialSocket,
    SocketGuard,
    below_tls,
    drop_sockets_after_fork,
    is_cooperative,
    is_readable,
    milliseconds,
    poll_ready,
    wait_ready,
)
from tests.loopback import in_thread
from tests.waiting import eventually

PATIENCE = 10.0
CLOCK = SystemClock()


@pytest.fixture
def pair() -> Iterator[tuple[SocketGuard, socket.socket]]:
    ours, theirs = socket.socketpair()
    guard = SocketGuard(ours)
    yield guard, theirs
    guard.close()
    theirs.close()


def soon() -> Deadline:
    return Deadline.after(CLOCK, 0.01)


def late() -> Deadline:
    return Deadline.after(CLOCK, PATIENCE)


def test_shutdown_wakes_a_blocked_reader_and_keeps_the_descriptor(
    pair: tuple[SocketGuard, socket.socket],
) -> None:
    guard, _ = pair
    reader = in_thread(guard.sock.recv, 1)
    number = guard.sock.fileno()
    guard.shutdown()
    guard.shutdown()
    assert reader.result(PATIENCE) == b""
    assert guard.is_shut
    assert guard.sock.fileno() == number
    os.fstat(number)


def test_shutdown_wakes_a_blocked_writer(pair: tuple[SocketGuard, socket.socket]) -> None:
    guard, _ = pair
    writer = in_thread(guard.sock.sendall, b"x" * 10_000_000)
    eventually(lambda: not poll_ready(guard.sock.fileno(), WRITABLE, 0))
    guard.shutdown()
    assert isinstance(writer.exception(PATIENCE), OSError)


def test_close_gives_the_descriptor_back_once(pair: tuple[SocketGuard, socket.socket]) -> None:
    guard, theirs = pair
    number = guard.sock.fileno()
    guard.close()
    guard.close()
    guard.shutdown()
    assert theirs.recv(1) == b""
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


def test_a_shutdown_that_comes_late_hits_nobody_else(seed: int) -> None:
    """The number of a closed descriptor is taken again at once: a late shutdown must not reach its new owner."""
    rng = random.Random(seed)
    for _ in range(200):
        ours, theirs = socket.socketpair()
        guard = SocketGuard(ours)
        number = ours.fileno()
        barrier = threading.Barrier(2)
        stranger_thread = in_thread(lambda b=barrier, g=guard: (b.wait(PATIENCE), g.shutdown()))
        barrier.wait(PATIENCE)
        for _ in range(rng.randrange(30)):
            pass
        guard.close()
        one, other = socket.socketpair()
        assert number in (one.fileno(), other.fileno())
        stranger_thread.result(PATIENCE)
        one.sendall(b"x")
        assert other.recv(1) == b"x"
        for sock in (theirs, one, other):
            sock.close()


def test_what_takes_the_place_of_a_shut_socket_is_shut_too(pair: tuple[SocketGuard, socket.socket]) -> None:
    guard, _ = pair
    before = guard.sock
    one, other = socket.socketpair()
    guard.shutdown()
    guard.replace(one)
    assert other.recv(1) == b""
    before.close()
    other.close()


# Python 3.12 and later warn of forking beside threads; faulthandler's is one.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_process_drops_its_copy_and_the_parent_keeps_its_connection(
    pair: tuple[SocketGuard, socket.socket],
) -> None:
    guard, theirs = pair
    child = os.fork()
    if child == 0:
        drop_sockets_after_fork()
        os._exit(0 if guard.sock.fileno() == -1 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    guard.sock.sendall(b"x")
    assert theirs.recv(1) == b"x"
    theirs.sendall(b"y")
    assert guard.sock.recv(1) == b"y"


def test_waiting_for_what_is_ready_returns(pair: tuple[SocketGuard, socket.socket]) -> None:
    guard, theirs = pair
    assert wait_ready(guard.sock.fileno(), WRITABLE, None)
    theirs.sendall(b"x")
    assert wait_ready(guard.sock.fileno(), READABLE, None)
    assert wait_ready(guard.sock.fileno(), READABLE, late())


def test_waiting_for_what_is_not_ready_ends_with_the_deadline(
    pair: tuple[SocketGuard, socket.socket],
) -> None:
    guard, _ = pair
    assert not wait_ready(guard.sock.fileno(), READABLE, soon())
    assert not poll_ready(guard.sock.fileno(), READABLE, 0)


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_THREAD"), reason="needs to count the waits of one thread")
def test_looking_whether_something_is_here_does_not_wait(pair: tuple[SocketGuard, socket.socket]) -> None:
    """It is asked before each request: a millisecond there was most of a round trip's time."""
    guard, theirs = pair
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    assert not any(is_readable(guard.sock) for _ in range(200))
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before < 100
    theirs.sendall(b"x")
    assert is_readable(guard.sock)
    guard.close()
    assert not is_readable(guard.sock)


@pytest.mark.parametrize("end", ["shutdown", "peer"])
def test_waiting_ends_when_the_socket_does(pair: tuple[SocketGuard, socket.socket], end: str) -> None:
    guard, theirs = pair
    waiter = in_thread(wait_ready, guard.sock.fileno(), READABLE, None)
    if end == "peer":
        theirs.close()
    else:
        guard.shutdown()
    assert waiter.result(PATIENCE) is True


def test_a_descriptor_above_1023_can_be_waited_for() -> None:
    # select.select() cannot.
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < 1100 and most != resource.RLIM_INFINITY and most < 1100:
        pytest.skip("no such descriptor on this system")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, 1100), most))
    ours, theirs = socket.socketpair()
    os.dup2(ours.fileno(), 1050)
    high = socket.socket(fileno=1050)
    theirs.sendall(b"x")
    assert wait_ready(high.fileno(), READABLE, late())
    for sock in (ours, theirs, high):
        sock.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, None), (-5, 1), (0, 1), (0.0001, 1), (1, 1001), (1e9, 2**31 - 1), (1e300, 2**31 - 1)],
)
def test_seconds_as_poll_takes_them(seconds: float | None, expected: int | None) -> None:
    assert milliseconds(seconds) == expected


# DialSocket


def dial_socket(guard: SocketGuard, deadline: Deadline) -> DialSocket:
    guard.sock.setblocking(False)
    return DialSocket(guard, deadline)


def test_a_dial_socket_passes_bytes(pair: tuple[SocketGuard, socket.socket]) -> None:
    guard, theirs = pair
    wire = dial_socket(guard, late())
    received = in_thread(lambda: b"".join(iter(lambda: theirs.recv(65536), b"")))
    assert wire.send(b"x" * 1_000_000) == 1_000_000
    wire.sendall(b"")
    theirs.sendall(b"answer")
    assert wire.recv(3) + wire.recv(100) == b"answer"
    guard.shutdown()
    assert len(received.result(PATIENCE)) == 1_000_000


def test_a_dial_socket_tells_the_end_of_file(pair: tuple[SocketGuard, socket.socket]) -> None:
    guard, theirs = pair
    theirs.close()
    assert dial_socket(guard, late()).recv(1) == b""


def test_a_dial_socket_waits_no_longer_than_its_deadline(pair: tuple[SocketGuard, socket.socket]) -> None:
    guard, _ = pair
    with pytest.raises(TimeoutError):
        dial_socket(guard, soon()).recv(1)
    with pytest.raises(TimeoutError):
        dial_socket(guard, soon()).sendall(b"x" * 10_000_000)


def test_bytes_that_drip_do_not_outlast_the_deadline(pair: tuple[SocketGuard, socket.socket]) -> None:
    guard, theirs = pair
    clock = FakeClock()
    wire = dial_socket(guard, Deadline.after(clock, 5))
    theirs.sendall(b"x" * 10)
    for _ in range(5):
        wire.recv(1)
        clock.advance(1)
    with pytest.raises(TimeoutError):
        wire.recv(1)


def test_a_dial_socket_leaves_closing_and_timeouts_to_the_dial(
    pair: tuple[SocketGuard, socket.socket],
) -> None:
    guard, theirs = pair
    wire = DialSocket(guard, Deadline.after(FakeClock(), 5))
    wire.settimeout(1)
    assert wire.gettimeout() == 5
    wire.close()
    theirs.sendall(b"x")
    assert guard.sock.recv(1) == b"x"


def test_the_class_below_tls_is_the_sockets_own() -> None:
    """And not that which `socket.socket` names by now."""

    class Older(socket.socket):
        pass

    class Secured(Older):
        def do_handshake(self) -> None:
            pass

    for kind, below in ((Older, Older), (Secured, Older), (ssl.SSLSocket, socket.socket)):
        assert below_tls(kind.__new__(kind)) is below


def test_a_socket_whose_calls_are_written_in_python_is_a_cooperative_one() -> None:
    class Green(socket.socket):
        def recv(self, *arguments: int) -> bytes:
            return super().recv(*arguments)

    assert is_cooperative(Green.__new__(Green))
    assert not is_cooperative(socket.socket.__new__(socket.socket))
    assert not is_cooperative(ssl.SSLSocket.__new__(ssl.SSLSocket))  # whose own recv() is in Python
    assert not is_cooperative(socket.socket.__new__(type("Mine", (socket.socket,), {})))
