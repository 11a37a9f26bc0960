"""The registry: what is found under a target or a name, and that everything in it is ended."""

import contextlib
import gc
import random
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import connman
from connman import Connection, Manager, Pool, State
from connman.errors import ConnectError, Fatal, InvalidOption, InvalidTarget
from connman.testing import FakeClock, ScriptedDialer
from connman.transport.memory import MemoryListener
from tests.loopback import in_thread, refusing_port
from tests.waiting import eventually

PATIENCE = 10.0
OPEN, DEAF, HANG = ScriptedDialer.OPEN, ScriptedDialer.DEAF, ScriptedDialer.HANG
QUIET: dict[str, Any] = {"ping_interval": None, "wait": lambda _: 1e6}


def opening() -> ScriptedDialer:
    return ScriptedDialer(lambda _: OPEN)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager() as made:
        yield made


# Finding


def test_connect_starts_and_registers(manager: Manager) -> None:
    dialer = opening()
    conn = manager.connect(dialer, **QUIET)
    assert conn.wait_open(PATIENCE) is conn
    assert manager.get_connection(dialer) is conn


@pytest.mark.parametrize("same", ["WS://127.0.0.1:{port}", "ws://127.0.0.1:{port}/"])
def test_targets_are_compared_normalised(manager: Manager, same: str) -> None:
    with refusing_port() as port:
        conn = manager.connect(f"ws://127.0.0.1:{port}/", **QUIET)
        assert manager.get_connection(same.format(port=port)) is conn
        for other in (f"wss://127.0.0.1:{port}/", f"ws://127.0.0.1:{port}/x", f"ws://u@127.0.0.1:{port}/"):
            assert manager.get_connection(other) is None


def test_a_pair_is_a_tcp_url(manager: Manager) -> None:
    with refusing_port() as port:
        conn = manager.connect(("127.0.0.1", port), **QUIET)
        assert manager.get_connection(f"tcp://127.0.0.1:{port}") is conn


def test_the_newest_wins_among_those_that_live(manager: Manager) -> None:
    dialer = opening()
    first, second, third = (manager.connect(dialer, **QUIET) for _ in range(3))
    assert manager.get_connection(dialer) is third
    third.disconnect()
    assert manager.get_connection(dialer) is second
    second.disconnect()
    first.disconnect()
    assert manager.get_connection(dialer) is None


def test_one_that_waits_or_gave_up_still_lives(manager: Manager) -> None:
    dialer = ScriptedDialer([ConnectError("e"), Fatal("no")])
    conn = manager.connect(dialer, **QUIET)
    eventually(lambda: conn.state is State.WAITING)
    assert manager.get_connection(dialer) is conn
    conn.reconnect_now()
    eventually(lambda: conn.state is State.IDLE)
    assert manager.get_connection(dialer) is conn


def test_a_dialer_is_found_by_identity(manager: Manager) -> None:
    one, other = opening(), opening()
    conn = manager.connect(one, **QUIET)
    assert manager.get_connection(one) is conn
    assert manager.get_connection(other) is None


def test_what_is_unknown_is_none_and_what_is_malformed_an_error(manager: Manager) -> None:
    assert manager.get_connection("ws://nowhere.example/") is None
    assert manager.get_pool("nothing") is None
    for ask in (manager.get_connection, manager.connect):
        with pytest.raises(InvalidTarget):
            ask("http://h/")
    with pytest.raises(InvalidOption):
        manager.connect("ws://h/", open_timeout=0)
    with pytest.raises(TypeError):
        manager.connect("ws://h/", nonsense=1)  # type: ignore[call-arg]


def test_managers_know_nothing_of_each_other(manager: Manager) -> None:
    dialer = opening()
    conn = manager.connect(dialer, **QUIET)
    with Manager() as other:
        assert other.get_connection(dialer) is None
        assert other.create_pool("p") is not manager.create_pool("p")
    assert conn.wait_open(PATIENCE).is_open


def test_what_has_ended_is_forgotten(manager: Manager) -> None:
    kept = manager.connect(opening(), **QUIET)
    ghosts = []
    for _ in range(200):
        conn = manager.connect(opening(), **QUIET)
        conn.disconnect()
        ghosts.append(weakref.ref(conn))
    del conn
    gc.collect()
    assert sum(ghost() is not None for ghost in ghosts) < 140
    assert manager.get_connection(kept.target) is kept


# Pools


def test_a_pool_has_its_name_alone(manager: Manager) -> None:
    pool = manager.create_pool("devices", url=opening(), size=2, **QUIET)
    assert (pool.name, len(pool.get_connections())) == ("devices", 2)
    assert manager.get_pool("devices") is pool
    with pytest.raises(ValueError, match="devices"):
        manager.create_pool("devices")
    assert manager.get_pool("devices") is pool
    assert not pool.is_closed


def test_the_name_of_a_pool_that_has_ended_is_free(manager: Manager) -> None:
    first = manager.create_pool("devices")
    first.disconnect()
    assert manager.get_pool("devices") is None
    second = manager.create_pool("devices")
    assert manager.get_pool("devices") is second


def test_pools_that_have_ended_are_forgotten(manager: Manager) -> None:
    ghosts = []
    for number in range(50):
        pool = manager.create_pool(f"pool {number}", url=opening(), size=1, **QUIET)
        pool.disconnect()
        ghosts.append(weakref.ref(pool))
    del pool
    gc.collect()
    assert sum(ghost() is not None for ghost in ghosts) <= 1


def test_a_pool_that_cannot_be_made_takes_no_name(manager: Manager) -> None:
    with pytest.raises(InvalidOption):
        manager.create_pool("devices", size=3)
    assert manager.get_pool("devices") is None
    assert manager.create_pool("devices").name == "devices"


# Ending


def test_disconnect_all_reaches_everything_in_every_phase(manager: Manager) -> None:
    same = opening()
    phases: list[tuple[Any, State]] = [
        (same, State.OPEN),
        (same, State.OPEN),
        (ScriptedDialer([HANG]), State.CONNECTING),
        (ScriptedDialer([]), State.WAITING),
        (ScriptedDialer([Fatal("no")]), State.IDLE),
    ]
    conns = [manager.connect(target, **QUIET) for target, _ in phases]
    pool = manager.create_pool("one", url=opening(), size=2, **QUIET).wait_open(PATIENCE)
    idle = manager.create_pool("two", url=opening(), size=2, **QUIET)
    mid_open = manager.create_pool("three", url=ScriptedDialer([HANG]), size=1, **QUIET).connect()
    eventually(lambda: [conn.state for conn in conns] == [state for _, state in phases])
    conns += [conn for each in (pool, idle, mid_open) for conn in each.get_connections()]
    for _ in range(2):
        manager.disconnect_all()
        assert {conn.state for conn in conns} == {State.CLOSED}
        assert all(conn.wait_gone(0) for conn in conns)
    assert all(each.is_closed for each in (pool, idle, mid_open))
    assert manager.get_connection(same) is manager.get_pool("one") is None
    assert [len(target.dials) for target, _ in phases] == [2, 2, 1, 1, 1]


def test_a_manager_can_be_used_again_afterwards(manager: Manager) -> None:
    dialer = opening()
    manager.create_pool("devices")
    for _ in range(3):
        conn = manager.connect(dialer, **QUIET).wait_open(PATIENCE)
        assert manager.get_connection(dialer) is conn
        manager.disconnect_all()
        assert manager.get_connection(dialer) is None
        assert not manager.create_pool("devices").is_closed


@pytest.mark.parametrize("among", ["connections", "pool"])
def test_peers_that_never_answer_are_waited_for_together(manager: Manager, among: str) -> None:
    dialer = ScriptedDialer(lambda _: DEAF)
    if among == "pool":
        pool = manager.create_pool("deaf", url=dialer, size=20, **QUIET).wait_open(PATIENCE)
        conns = pool.get_connections()
    else:
        conns = [manager.connect(dialer, **QUIET).wait_open(PATIENCE) for _ in range(20)]
    manager.disconnect_all(timeout=0.05)
    assert all(conn.wait_gone(0) for conn in conns)
    for _ in conns:
        dialer.next_peer().drop()


def test_what_a_callback_adds_meanwhile_is_ended_too(manager: Manager) -> None:
    dialer, late, late_pool = opening(), opening(), opening()
    added: list[Connection | Pool] = []

    def on_reset(*_: object) -> None:
        added.append(manager.connect(late, **QUIET))
        added.append(manager.create_pool("late", url=late_pool, size=1, **QUIET))

    manager.connect(dialer, on_reset=on_reset, **QUIET).wait_open(PATIENCE)
    manager.disconnect_all()
    conn, pool = added
    assert isinstance(conn, Connection)
    assert conn.state is State.CLOSED
    assert isinstance(pool, Pool)
    assert pool.is_closed
    assert late.dials == late_pool.dials == []
    assert isinstance(conn.get_connected().exception(PATIENCE), connman.errors.ConnectionClosed)


@pytest.mark.parametrize("among", ["connections", "pool"])
def test_what_another_thread_adds_while_it_waits_is_ended_too(manager: Manager, among: str) -> None:
    dialer, late, gate = opening(), opening(), threading.Event()

    def on_reset(*_: object) -> None:
        gate.wait(PATIENCE)

    if among == "pool":
        manager.create_pool("holds it up", url=dialer, size=1, on_reset=on_reset, **QUIET).wait_open(PATIENCE)
    else:
        manager.connect(dialer, on_reset=on_reset, **QUIET).wait_open(PATIENCE)
    ender = in_thread(manager.disconnect_all, PATIENCE)
    dialer.next_peer().wait_closed()
    conn = manager.connect(late, **QUIET)
    pool = manager.create_pool("late", url=late, size=1, **QUIET)
    assert conn.state is State.CLOSED
    assert pool.is_closed
    assert not ender.done()
    gate.set()
    ender.result(PATIENCE)
    assert late.dials == []
    assert manager.connect(late, **QUIET).wait_open(PATIENCE).is_open


def test_it_returns_though_a_callback_blocks(manager: Manager) -> None:
    dialer, other, gate = opening(), opening(), threading.Event()
    manager.connect(dialer, on_reset=lambda *_: gate.wait(PATIENCE), **QUIET).wait_open(PATIENCE)
    free = manager.connect(other, **QUIET).wait_open(PATIENCE)
    try:
        in_thread(manager.disconnect_all, 0.01).result(PATIENCE / 2)
        assert not gate.is_set()
        assert free.wait_gone(0)
        assert manager.connect(other, **QUIET).wait_open(PATIENCE).is_open
    finally:
        gate.set()


@pytest.mark.parametrize("on", ["a thread of the user", "the reader"])
def test_it_returns_though_others_never_cease_to_add(manager: Manager, on: str) -> None:
    # It went on for as long as there was something that it had not told yet.
    is_over = threading.Event()

    def add() -> None:
        while not is_over.is_set():
            manager.connect(opening(), **QUIET)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # what is added comes between any two looks
    adders = [in_thread(add) for _ in range(6)]
    returned = threading.Event()

    def end(*_: object) -> None:
        manager.disconnect_all(timeout=0.1)
        returned.set()

    other = Manager()
    try:
        if on == "the reader":
            other.connect(opening(), on_open=end, reconnect=False)
        else:
            in_thread(end)
        assert returned.wait(PATIENCE)
    finally:
        is_over.set()
        sys.setswitchinterval(interval)
        other.disconnect_all()
    for adder in adders:
        adder.result(PATIENCE)


def test_disconnect_all_in_a_callback_returns_at_once_and_ends_all(manager: Manager) -> None:
    dialer = opening()
    returned = threading.Event()

    def on_data(conn: Connection, _: object) -> None:
        manager.disconnect_all(timeout=1000)
        assert conn.state is State.CLOSED
        returned.set()

    conns = [manager.connect(dialer, on_data=on_data, **QUIET).wait_open(PATIENCE) for _ in range(3)]
    dialer.next_peer().send("go")
    assert returned.wait(PATIENCE)
    assert {conn.state for conn in conns} == {State.CLOSED}
    eventually(lambda: all(conn.wait_gone(0) for conn in conns))


def test_two_may_end_everything_at_once(manager: Manager) -> None:
    dialer = opening()
    conns = [manager.connect(dialer, **QUIET) for _ in range(10)]
    enders = [in_thread(manager.disconnect_all) for _ in range(4)]
    for ender in enders:
        ender.result(PATIENCE)
    assert all(conn.state is State.CLOSED and conn.wait_gone(0) for conn in conns)


def test_a_with_block_ends_everything() -> None:
    dialer = opening()
    with Manager() as manager:
        conn = manager.connect(dialer, **QUIET).wait_open(PATIENCE)
        pool = manager.create_pool("p", url=dialer, size=1, **QUIET).wait_open(PATIENCE)
    assert conn.state is State.CLOSED
    assert pool.is_closed


@pytest.mark.parametrize("rounds", [4, pytest.param(15, marks=pytest.mark.slow)])
@pytest.mark.parametrize("into", ["manager", "pool"])
def test_stress_adding_while_everything_ends(manager: Manager, into: str, rounds: int, seed: int) -> None:
    """What was added before an end began has ended, threads and all, when it returns."""
    rng = random.Random(seed)
    for round_ in range(rounds):
        pool = manager.create_pool(f"pool {round_}")
        before: list[Connection] = []
        everything: list[Connection] = []
        go, is_ending = threading.Barrier(5), threading.Event()

        def add(
            pool: Pool = pool,
            before: list[Connection] = before,
            everything: list[Connection] = everything,
            go: threading.Barrier = go,
            is_ending: threading.Event = is_ending,
        ) -> None:
            go.wait(PATIENCE)
            with contextlib.suppress(connman.errors.PoolClosed):
                for _ in range(15):
                    if into == "pool":
                        conn = pool.add_connection(opening(), **QUIET)
                    else:
                        conn = manager.connect(opening(), **QUIET)
                    everything.append(conn)
                    if not is_ending.is_set():
                        before.append(conn)

        adders = [in_thread(add) for _ in range(4)]
        go.wait(PATIENCE)
        for _ in range(rng.randrange(3000)):
            pass
        is_ending.set()
        known = list(before)
        manager.disconnect_all()
        assert all(conn.state is State.CLOSED and conn.wait_gone(0) for conn in known)
        for adder in adders:
            adder.result(PATIENCE)
        manager.disconnect_all()
        assert all(conn.state is State.CLOSED for conn in everything)


# The default one


def test_the_functions_of_the_package_share_one_manager() -> None:
    with MemoryListener("test-manager") as listener:
        try:
            conn = connman.connect("memory://test-manager", **QUIET).wait_open(PATIENCE)
            assert connman.get_connection("memory://test-manager") is conn
            pool = connman.create_pool("test-manager")
            assert connman.get_pool("test-manager") is pool
            with pytest.raises(ValueError, match="test-manager"):
                connman.create_pool("test-manager")
            assert connman.get_connection("memory://other") is connman.get_pool("other") is None
        finally:
            listener.accept(PATIENCE).dispose()
            connman.disconnect_all()
        assert conn.state is State.CLOSED
        assert pool.is_closed
        assert connman.get_connection("memory://test-manager") is None
