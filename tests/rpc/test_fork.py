"""A forked child has a peer of its own: without calls, without threads, and without the parent's answers."""

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from connman import Connection
from connman.errors import Forked
from connman.rpc import Peer
from tests.connection.test_fork import in_child
from tests.loopback import in_thread
from tests.rpc.rig import PATIENCE
from tests.servers import WebSocketProcess, ws_server
from tests.waiting import eventually

# Python 3.12 and later warn of what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="module")
def echo() -> Iterator[WebSocketProcess]:
    with ws_server() as server:
        yield server


def make(echo: WebSocketProcess, **services: Any) -> Peer:
    return Peer(Connection(echo.url(), ping_interval=None), services={"add": lambda a, b: a + b, **services})


def outcome(future: "Future[Any]") -> str:
    with contextlib.suppress(BaseException):
        return repr(future.result(0))
    return type(future.exception(0)).__name__


def test_a_child_calls_and_the_parents_path_is_alive(echo: WebSocketProcess) -> None:
    with make(echo) as peer:
        assert peer.call("add", 1, 2) == 3

        def child() -> str:
            before = peer.stats.calls_in_flight
            answer = peer.call("add", 20, 3, timeout=PATIENCE)
            peer.close()
            return f"{before} {answer}"

        assert in_child(child) == "0 23"
        assert peer.call("add", 4, 5) == 9
        assert peer.conn.generation == 1


def test_the_parents_calls_fail_in_the_child_and_end_in_the_parent(echo: WebSocketProcess) -> None:
    may_return = threading.Event()
    with make(echo, slow=lambda: may_return.wait(PATIENCE)) as peer:
        future = peer.send("slow")
        eventually(lambda: peer.stats.requests_received_total, PATIENCE)

        def child() -> str:
            told = outcome(future)
            in_flight = peer.stats.calls_in_flight
            answer = peer.call("add", 1, 1, timeout=PATIENCE)
            peer.close()
            return f"{told} {in_flight} {answer}"

        assert in_child(child) == f"{Forked.__name__} 0 2"
        may_return.set()
        assert future.result(PATIENCE) is True


def test_closed_is_the_childs_own(echo: WebSocketProcess) -> None:
    with make(echo) as peer:
        closed = peer.closed

        def child() -> str:
            told = outcome(closed)
            peer.close()
            return f"{told} {peer.closed.result(PATIENCE).code}"

        assert in_child(child) == f"{Forked.__name__} 1000"
        assert not closed.done()


def test_a_service_that_forks(echo: WebSocketProcess) -> None:
    """The child of a service does not answer on the parent's path, whose bytes it would mix up; the parent does."""

    def forks() -> int:
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            return os.getpid()
        # The child leaves the service as any code would, and ends behind it.
        threading.Timer(0.2, os._exit, (0,)).start()
        return -1

    with make(echo, forks=forks) as peer:
        assert peer.call("forks", timeout=PATIENCE) == os.getpid()
        assert peer.call("add", 2, 2) == 4


@pytest.mark.slow
def test_forks_while_threads_call(echo: WebSocketProcess) -> None:
    """Each child completes a call, however the fork meets the locks; the parent gets its own answers throughout."""
    with make(echo) as peer:
        is_over = threading.Event()

        def keep_calling(base: int) -> int:
            count = 0
            while not is_over.is_set():
                assert peer.call("add", base, count) == base + count
                count += 1
            return count

        callers = [in_thread(keep_calling, 1000 * number) for number in range(4)]

        def child() -> int:
            answer: int = peer.call("add", 40, 2, timeout=PATIENCE)
            peer.close(timeout=0)
            return answer

        for _ in range(30):
            assert in_child(child) == "42"
        is_over.set()
        assert all(caller.result(PATIENCE) > 0 for caller in callers)
