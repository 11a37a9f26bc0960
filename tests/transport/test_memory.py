"""Transports inside one process: the listener and its names. What a pipe does is in test_pipe.py and the suite."""

import itertools
import threading

import pytest

from connman.clock import Deadline, SystemClock
from connman.endpoint import Endpoint
from connman.errors import ConnectError, ConnectionClosed, ConnectionLost, NotConnected, WaitTimeout
from connman.options import Options
from connman.testing import FakeClock
from connman.transport.base import Dial, Transport
from connman.transport.memory import MemoryListener, memory_pair, open_memory
from tests.loopback import Aborted, in_thread, make_dial

PATIENCE = 10.0
LIMIT = 1 << 20
_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    return f"test-{next(_numbers)}"


def soon() -> Deadline:
    return Deadline.after(SystemClock(), 0.01)


def patient() -> Deadline:
    return Deadline.after(SystemClock(), PATIENCE)


def dial(name: str) -> Transport:
    return open_memory(make_dial(f"memory://{name}"))


def test_a_dial_meets_the_listener(name: str) -> None:
    with MemoryListener(name) as listener:
        client = dial(name)
        server = listener.accept(PATIENCE)
        client.send(["hello", b"\0"], 1)
        assert server.receive(patient()) == ["hello", b"\0"]
        server.send(["and you"], 1)
        assert client.receive(patient()) == ["and you"]
        assert (client.name, server.name) == ("memory", "memory")
        client.dispose()
        with pytest.raises(ConnectionLost):
            server.receive(patient())
        server.dispose()


def test_an_accept_that_came_first_gets_the_next_dial(name: str) -> None:
    with MemoryListener(name) as listener:
        accepted = in_thread(listener.accept, PATIENCE)
        client = dial(name)
        server = accepted.result(PATIENCE)
        client.dispose()
        server.dispose()


def test_dials_are_accepted_in_order(name: str) -> None:
    with MemoryListener(name) as listener:
        clients = [dial(name) for _ in range(3)]
        for number, client in enumerate(clients):
            client.send([str(number)], 1)
        servers = [listener.accept(PATIENCE) for _ in range(3)]
        assert [server.receive(patient()) for server in servers] == [["0"], ["1"], ["2"]]
        for pipe in (*clients, *servers):
            pipe.dispose()


def test_a_name_is_listened_on_once_and_free_afterwards(name: str) -> None:
    first = MemoryListener(name)
    with pytest.raises(ValueError, match="already"):
        MemoryListener(name)
    first.close()
    first.close()
    with MemoryListener(name):
        first.close()  # not the new one's business
        dial(name).dispose()


@pytest.mark.parametrize("was_there", [True, False])
def test_nobody_listens(name: str, was_there: bool) -> None:
    if was_there:
        MemoryListener(name).close()
    with pytest.raises(ConnectError, match=f"memory://{name}: nobody listens"):
        dial(name)


def test_a_full_backlog_refuses(name: str) -> None:
    with MemoryListener(name, backlog=1) as listener:
        first = dial(name)
        with pytest.raises(ConnectError, match="backlog"):
            dial(name)
        server = listener.accept(PATIENCE)
        second = dial(name)
        for pipe in (first, second, server):
            pipe.dispose()


def test_an_accept_in_vain_is_a_wait_timeout(name: str) -> None:
    with MemoryListener(name) as listener, pytest.raises(WaitTimeout):
        listener.accept(0)
    clock = FakeClock()
    with MemoryListener(name, clock=clock) as listener:
        accepted = in_thread(listener.accept, 5)
        clock.wait_until_waiting()
        clock.advance(5)
        assert isinstance(accepted.exception(PATIENCE), WaitTimeout)


def test_closing_breaks_what_was_not_accepted_and_wakes_who_accepts(name: str) -> None:
    listener = MemoryListener(name)
    client = dial(name)
    listener.close()
    with pytest.raises(ConnectionLost):
        client.receive(patient())
    client.dispose()
    with pytest.raises(NotConnected):
        listener.accept()
    listener = MemoryListener(name)
    accepted = in_thread(listener.accept)
    listener.close()
    assert isinstance(accepted.exception(PATIENCE), NotConnected)


def test_a_dial_that_meets_a_closing_listener_is_not_left_alone(name: str) -> None:
    # One that had found the listener before it closed was queued where nobody accepts, and waited for ever.
    listener = MemoryListener(name)
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        listener.offer(make_dial(f"memory://{name}"))
    for _ in range(100):
        listener = MemoryListener(name)
        barrier = threading.Barrier(2)
        dialled = in_thread(lambda b=barrier: (b.wait(PATIENCE), dial(name))[1])
        barrier.wait(PATIENCE)
        listener.close()
        try:
            client = dialled.result(PATIENCE)
        except ConnectError:
            continue
        with pytest.raises(ConnectionLost):
            client.receive(patient())
        client.dispose()


def test_a_dial_out_of_time_or_aborted_opens_nothing(name: str) -> None:
    clock = FakeClock()
    with MemoryListener(name) as listener:
        late = Dial(Endpoint.parse(f"memory://{name}"), Options(open_timeout=1), clock)
        clock.advance(1)
        with pytest.raises(ConnectError, match="no connection within 1 s"):
            open_memory(late)
        aborted = make_dial(f"memory://{name}")
        aborted.abort(Aborted("enough"))
        with pytest.raises(Aborted):
            open_memory(aborted)
        with pytest.raises(WaitTimeout):
            listener.accept(0)


def test_what_was_sent_before_an_end_still_arrives() -> None:
    for end in (lambda pipe: pipe.dispose(), lambda pipe: pipe.abort(Aborted("x"))):
        near, far = memory_pair(SystemClock(), LIMIT)
        near.send(["last words"], 1)
        end(near)
        assert far.receive(patient()) == ["last words"]
        with pytest.raises(ConnectionLost):
            far.receive(patient())
        near.dispose()
        far.dispose()


def test_a_pair_knows_its_size_limit_and_its_clock() -> None:
    clock = FakeClock()
    near, far = memory_pair(clock, 10)
    near.send(["x" * 11], 1)
    ended = in_thread(far.receive, Deadline.after(clock, 5))
    with pytest.raises(ConnectionClosed) as caught:
        near.receive(patient())
    assert caught.value.code == 1009
    near.dispose()
    assert "more than 10 bytes" in str(ended.exception(PATIENCE))
    far.dispose()


def test_reading_waits_on_the_clock_of_its_deadline() -> None:
    near, far = memory_pair(SystemClock(), LIMIT)
    with pytest.raises(WaitTimeout):
        near.receive(soon())
    near.dispose()
    far.dispose()
