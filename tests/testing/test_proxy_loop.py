"""The proxy's one thread: commands from anywhere, many links, nothing left."""

import contextlib
import errno
import itertools
import random
import socket
import threading
from collections.abc import Iterator

import pytest

from connman.testing import FaultProxy
from connman.testing.proxy_loop import ProxyLoop
from tests.loopback import PATIENCE, Server, echo
from tests.waiting import eventually


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with Server(echo) as server, FaultProxy("127.0.0.1", server.port, seed=1) as made:
        yield made


def is_echoed(sock: socket.socket) -> bool:
    sock.sendall(b"x")
    return sock.recv(1) == b"x"


def test_a_command_without_a_loop_is_done_by_the_caller() -> None:
    loop = ProxyLoop(("127.0.0.1", 1), "127.0.0.1", None)
    done: list[threading.Thread] = []
    loop.call(lambda: done.append(threading.current_thread()))
    assert done == [threading.current_thread()]


def test_a_command_is_done_by_the_loop_before_the_call_returns() -> None:
    loop = ProxyLoop(("127.0.0.1", 1), "127.0.0.1", None)
    loop.start()
    done: list[str] = []
    loop.call(lambda: done.append(threading.current_thread().name))
    assert done == ["connman-fault-proxy"]
    loop.stop()
    loop.call(lambda: done.append("again"))
    assert done[1:] == ["again"]


def test_an_error_of_a_command_comes_out_at_the_caller(proxy: FaultProxy) -> None:
    def fail() -> None:
        raise PermissionError("no")

    loop = ProxyLoop(("127.0.0.1", 1), "127.0.0.1", None)
    loop.start()
    with pytest.raises(PermissionError):
        loop.call(fail)
    loop.stop()


def test_commands_under_way_at_the_end_come_back() -> None:
    for _ in range(50):
        loop = ProxyLoop(("127.0.0.1", 1), "127.0.0.1", None)
        loop.start()
        callers = [threading.Thread(target=loop.call, args=(lambda: None,)) for _ in range(4)]
        for caller in callers:
            caller.start()
        loop.stop()
        for caller in callers:
            caller.join(PATIENCE)
            assert not caller.is_alive()


def test_one_thread_serves_all(proxy: FaultProxy) -> None:
    with contextlib.ExitStack() as clients:
        socks = [clients.enter_context(socket.create_connection(proxy.address, PATIENCE)) for _ in range(60)]
        assert all(is_echoed(sock) for sock in socks)
        own = [thread for thread in threading.enumerate() if thread.name.startswith("connman-")]
        assert [thread.name for thread in own] == ["connman-fault-proxy"]
        assert proxy.open_links == proxy.accepted == 60
    eventually(lambda: proxy.open_links == 0)


def test_accepts_and_drops_many_quickly(proxy: FaultProxy) -> None:
    for _ in itertools.repeat(None, 100):
        with socket.socket() as sock:
            assert sock.connect_ex(proxy.address) in (0, errno.EINPROGRESS)
    eventually(lambda: proxy.accepted == 100)
    eventually(lambda: proxy.open_links == 0)


def meddle(proxy: FaultProxy, chance: random.Random) -> None:
    """Switch faults at random, with a client in between."""
    for _ in range(100):
        choice = chance.choice(["cut", "reset", "deaf", "refuse", "latency", "slice", "rate", "limit"])
        match choice:
            case "cut" | "reset":
                getattr(proxy, choice)()
            case "deaf" | "refuse":
                getattr(proxy, choice)(chance.random() < 0.5)
            case "limit":
                proxy.cut_after(chance.choice([None, 1, 3]))
            case "latency":
                proxy.latency = chance.random() / 100
            case _:
                setattr(proxy, choice, chance.choice([1, 1000]))
        with contextlib.suppress(OSError), socket.create_connection(proxy.address, 0.05) as sock:
            is_echoed(sock)


@pytest.mark.slow
def test_faults_from_many_threads_at_once(proxy: FaultProxy, seed: int) -> None:
    """Links come and go while four threads switch every fault: afterwards the proxy works and nothing is left."""
    meddlers = [
        threading.Thread(target=meddle, args=(proxy, random.Random(seed + number))) for number in range(4)
    ]
    for thread in meddlers:
        thread.start()
    for thread in meddlers:
        thread.join()
    proxy.deaf(False)
    proxy.refuse(False)
    proxy.cut_after(None)
    proxy.latency, proxy.slice, proxy.rate = 0, None, None
    proxy.cut()
    with socket.create_connection(proxy.address, PATIENCE) as sock:
        assert is_echoed(sock)
