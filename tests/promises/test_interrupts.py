"""Ctrl-C may come at any point of a call: what is left behind has to work, and above all to end.

Every point of a call is tried in turn, see ``tests.interrupts``. A last test does it with signals, at random times.

First seen failing: with ``threading.Condition`` in place of ``connman.threads.Condition`` each wait has a point behind which
a Future stays locked for ever, and one that ends in a RuntimeError where a KeyboardInterrupt is due.
"""

import contextlib
import itertools
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from connman import Connection, ConnmanError, Manager, Pool, State
from connman.clock import TimerThread
from connman.errors import ConnectionClosed, NotConnected
from connman.strategy import BestConnected, Delayed, Transport
from connman.testing import Peer, ScriptedDialer
from connman.threads import latch
from connman.transport.base import Dial
from tests.interrupts import CtrlC, every_point, within
from tests.loopback import Server, dialling_sockets, hanging_port, in_thread, silent
from tests.promises.peers import connection
from tests.waiting import eventually

pytestmark = pytest.mark.plain_locks

PATIENCE = 10.0  # seconds that only a failing test reaches


def is_gone(conn: Connection) -> bool:
    return not any(conn.name in thread.name for thread in threading.enumerate())


def echo(peer: Peer) -> None:
    while True:
        peer.send(peer.recv(1000.0))


def make(is_shared: bool) -> Connection:
    """Make a connection to an echo in memory, with a timer thread already, which comes back at once when it is lost."""
    dialer = ScriptedDialer(itertools.repeat(echo))
    return connection(
        is_shared, dialer, ping_interval=1.0, close_timeout=0.02, wait=lambda _: 0.0, stable_after=0
    )


def each_interrupted(
    prepare: Callable[[Connection], Callable[[], object]], is_shared: bool
) -> Iterator[tuple[Connection, str]]:
    """Interrupt the call that `prepare` returns at each of its points, each time on a fresh connection."""
    for point in every_point():
        conn = make(is_shared)
        where = point.interrupt(prepare(conn))
        if where is None:
            conn.disconnect()
        else:
            yield conn, where


def use(conn: Connection) -> None:
    """Have the echo send something back: on the connection that was interrupted, or on the one that follows it."""

    def is_sent() -> bool:
        with contextlib.suppress(NotConnected):  # the transport has ended and its reader does not know yet
            conn.send("again", wait=PATIENCE)
            return True
        return False

    eventually(is_sent, PATIENCE)
    while conn.recv(PATIENCE) != "again":
        pass


# Each makes ready for a call and returns it.


def sending(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    return lambda: conn.send("x")


def sending_many(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    return lambda: conn.send_many(["x", "y"])


def sending_first(conn: Connection) -> Callable[[], object]:
    return lambda: conn.send("x", wait=PATIENCE)


def receiving(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    conn.send("x")
    eventually(lambda: conn.stats.messages_in == 1, PATIENCE)
    return lambda: conn.recv(0)


def receiving_in_vain(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    return lambda: conn.recv(0.005)


def receiving_later(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    conn.send("x")
    return lambda: conn.recv(PATIENCE)


def iterating(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    conn.send("x")
    messages = iter(conn)
    return lambda: next(messages)


def asking(conn: Connection) -> Callable[[], object]:
    return conn.get_connected


def connecting(conn: Connection) -> Callable[[], object]:
    return conn.connect


def waiting_for_the_future(conn: Connection) -> Callable[[], object]:
    return lambda: conn.get_connected().result(PATIENCE)


def asking_the_future(conn: Connection) -> Callable[[], object]:
    return lambda: conn.get_connected().exception(PATIENCE)


def looking_at_the_future(conn: Connection) -> Callable[[], object]:
    return lambda: (conn.get_connected().done(), conn.get_connected().add_done_callback(lambda _: None))


def waiting_open(conn: Connection) -> Callable[[], object]:
    return lambda: conn.wait_open(PATIENCE)


def waiting_closed(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    return lambda: conn.wait_closed(0.005)


def hurrying(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    return conn.reconnect_now


def looking(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    return lambda: (conn.stats, conn.state, repr(conn), conn.transport_name)


def ending(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    return lambda: conn.end_soon(1000)


def disconnecting(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    return conn.disconnect


def disconnecting_a_dial(conn: Connection) -> Callable[[], object]:
    conn.connect()
    return conn.disconnect


def in_a_block(conn: Connection) -> Callable[[], object]:
    def block() -> None:
        with conn:
            conn.send("x")

    return block


USES = [
    sending, sending_many, sending_first, receiving, receiving_in_vain, receiving_later, iterating, asking,
    connecting, waiting_for_the_future, asking_the_future, looking_at_the_future, waiting_open, waiting_closed,
    hurrying, looking,
]  # fmt: skip
ENDS = [ending, disconnecting, disconnecting_a_dial, in_a_block]
QUICK = {sending, asking, waiting_open}


def cases(*prepares: Callable[[Connection], Callable[[], object]]) -> list[Any]:
    return [
        pytest.param(
            prepare,
            is_shared,
            marks=[] if prepare in QUICK and not is_shared else [pytest.mark.slow],
            id=f"{prepare.__name__}-{'shared reader' if is_shared else 'own reader'}",
        )
        for prepare in prepares
        for is_shared in (False, True)
    ]


@pytest.mark.parametrize(("prepare", "is_shared"), cases(*USES))
def test_a_connection_is_of_use_after_an_interrupt_at_any_point(
    prepare: Callable[[Connection], Callable[[], object]], is_shared: bool
) -> None:
    # The send lock, those of the queue, the life, the timers and the Future stayed taken by a main thread that had left;
    # it stayed "connecting" for ever, with no reader to connect it.
    for conn, where in each_interrupted(prepare, is_shared):
        within(lambda conn=conn: use(conn), f"using it after {where}")  # type: ignore[misc]
        within(conn.disconnect, f"disconnect() after {where}")
        assert is_gone(conn), where


@pytest.mark.parametrize(("prepare", "is_shared"), cases(*ENDS))
def test_a_connection_ends_after_an_interrupt_at_any_point(
    prepare: Callable[[Connection], Callable[[], object]], is_shared: bool
) -> None:
    # The peer was not told, or the descriptor stayed, because the first call had been noted and the second did nothing.
    for conn, where in each_interrupted(prepare, is_shared):
        if conn.state is not State.CLOSED:
            within(lambda conn=conn: use(conn), f"using it after {where}")  # type: ignore[misc]
        within(conn.disconnect, f"disconnect() after {where}")
        assert is_gone(conn), where


# What those on other threads hear of an end

FILES = tuple(
    f"connman/{name}.py"
    for name in (
        "clock", "threads", "connection/core", "connection/life", "connection/future", "connection/queue",
        "transport/base", "transport/dial", "transport/pipe", "transport/resolve", "transport/sending", "transport/sockets",
        "strategy/run",
    )
)  # fmt: skip


def waits(condition: threading.Condition | None) -> bool:
    return condition is not None and bool(condition._waiters)  # type: ignore[attr-defined]  # noqa: SLF001


class Heard:
    """A peer that notes with which code it was told goodbye, None for an end without one."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.is_over = threading.Event()

    def __call__(self, peer: Peer) -> None:
        try:
            while True:
                peer.recv(1000.0)
        except ConnectionClosed as closed:
            self.code = closed.code
        finally:
            self.is_over.set()


@pytest.mark.parametrize(
    "is_twice", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["ended once", "ended twice"]
)
@pytest.mark.parametrize("is_shared", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "end",
    [lambda conn: conn.end_soon(1000, "", 3.0), pytest.param(Connection.disconnect, marks=pytest.mark.slow)],
    ids=["end_soon", "disconnect"],
)
def test_everybody_hears_of_an_end_that_was_interrupted_at_any_point(
    end: Callable[[Connection], None], is_shared: bool, is_twice: bool
) -> None:
    # First seen failing: between noting the close and sending it, and behind taking the lock to send it, the peer was never
    # told goodbye; between the change of state and telling of it, `recv` waited on in other threads.
    for point in every_point():
        heard = Heard()
        conn = connection(is_shared, ScriptedDialer([heard]), close_timeout=3.0)
        conn.wait_open(PATIENCE)
        receiving = in_thread(lambda conn=conn: conn.recv(None))  # type: ignore[misc]
        eventually(lambda conn=conn: waits(conn._inbox._not_empty._condition))  # type: ignore[misc]  # noqa: SLF001
        where = point.interrupt(lambda conn=conn: end(conn), files=FILES)  # type: ignore[misc]
        if conn.state is not State.CLOSED or is_twice:
            within(conn.disconnect, f"disconnect() after {where}")
        assert heard.is_over.wait(PATIENCE), where
        assert heard.code == 1000, where
        with pytest.raises(ConnectionClosed):
            receiving.result(PATIENCE)


class Asked:
    """A target that hangs; when its dial is aborted, somebody asks for the connection."""

    def __init__(self) -> None:
        self.conn: Connection | None = None

    def dial(self, dial: Dial) -> Any:
        dial.add_abortable(self._ask)
        return ScriptedDialer([ScriptedDialer.HANG]).dial(dial)

    def _ask(self) -> None:
        assert self.conn is not None
        self.conn.get_connected()


@pytest.mark.parametrize(
    "target",
    [lambda: ScriptedDialer([ScriptedDialer.HANG]), pytest.param(Asked, marks=pytest.mark.slow)],
    ids=["", "asked"],
)
@pytest.mark.parametrize("is_shared", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_who_waits_for_a_dial_hears_of_its_end_that_was_interrupted_at_any_point(
    is_shared: bool, target: Callable[[], Any]
) -> None:
    # First seen failing: the Future was taken and not failed, or failed and nobody was woken or called back; `result()`
    # waited for ever, and so did who asked then and got that Future.
    for point in every_point():
        dialer = target()
        conn = dialer.conn = connection(is_shared, dialer, close_timeout=3.0)
        future = conn.get_connected()
        called = [0, 0]
        for number in (0, 1):
            future.add_done_callback(lambda _, number=number, called=called: add(called, number))  # type: ignore[misc]
        waiting = in_thread(future.result)
        eventually(lambda future=future: waits(future._condition))  # type: ignore[misc]  # noqa: SLF001
        where = point.interrupt(conn.disconnect, files=FILES)
        if conn.state is not State.CLOSED:
            within(conn.disconnect, f"disconnect() after {where}")
        with pytest.raises(ConnectionClosed):
            waiting.result(PATIENCE)
        with pytest.raises(ConnectionClosed):
            conn.get_connected().result(PATIENCE)
        assert max(called) == 1, where
        # What it cut within a callback is that callback.
        assert called == [1, 1] or (str(where).endswith((" <lambda>", " add")) and __file__ in str(where)), (
            where
        )
        within(conn.disconnect, f"disconnect() after {where}")


def add(counts: list[int], number: int) -> None:
    counts[number] += 1


# Dials, in what a dial waits for: a name, a server that answers no SYN, one that answers no request, the ways of a strategy.


@contextlib.contextmanager
def looking_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[object, Callable[[], bool]]]:
    go, asked = threading.Event(), threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        asked.set()
        go.wait(PATIENCE)
        return []

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", getaddrinfo)
        yield "ws://somewhere.example", asked.is_set
        go.set()
        # One that has begun and not asked yet would ask the system's, once this one is taken back.
        eventually(lambda: not any("-dns-" in thread.name for thread in threading.enumerate()))


@contextlib.contextmanager
def connecting_tcp(_: pytest.MonkeyPatch) -> Iterator[tuple[object, Callable[[], bool]]]:
    with hanging_port() as port:
        yield f"ws://127.0.0.1:{port}", lambda: dialling_sockets(port) > 3  # those that fill the backlog


@contextlib.contextmanager
def shaking_hands(_: pytest.MonkeyPatch) -> Iterator[tuple[object, Callable[[], bool]]]:
    with Server(silent) as server:
        yield f"ws://127.0.0.1:{server.port}", lambda: server.accepted == 1


@contextlib.contextmanager
def trying_ways(_: pytest.MonkeyPatch) -> Iterator[tuple[object, Callable[[], bool]]]:
    dialers = [ScriptedDialer([ScriptedDialer.HANG]) for _ in range(2)]
    ways = [Transport(dialer) for dialer in dialers]
    yield BestConnected(ways[0], Delayed(ways[1], 0.0)), lambda: all(dialer.dials for dialer in dialers)


@pytest.mark.slow
@pytest.mark.parametrize("is_shared", [False, True], ids=["own reader", "shared reader"])
@pytest.mark.parametrize("waiting_for", [looking_up, connecting_tcp, shaking_hands, trying_ways])
def test_a_dial_ends_after_an_interrupt_at_any_point_of_its_end(
    waiting_for: Callable[[pytest.MonkeyPatch], Any], is_shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # First seen failing: the lock of the lookup stayed taken by a main thread that had left, and the dial hung for ever.
    for point in every_point():
        with waiting_for(monkeypatch) as (target, is_waiting):
            conn = connection(is_shared, target, close_timeout=0.02)
            conn.connect()
            eventually(is_waiting, PATIENCE)
            where = point.interrupt(conn.disconnect, files=FILES)
            within(conn.disconnect, f"disconnect() after {where}")
            assert is_gone(conn), where


# Timers


def test_timers_ring_after_an_interrupt_at_any_point_of_setting_one() -> None:
    # One that was pushed and not counted yet: the count went below 0 and the thread of all timers broke off. One that was
    # the first and had not woken the thread: those behind it rang when something else did.
    for point in every_point(more_than=3):
        timers = TimerThread()
        first = timers.call_at(time.monotonic() + 60.0, lambda: None)
        where = point.interrupt(lambda timers=timers: timers.call_at(time.monotonic(), lambda: None))  # type: ignore[misc]
        for _ in range(2):
            rung = threading.Event()
            timers.call_at(time.monotonic() + 0.001, rung.set)
            assert rung.wait(PATIENCE), where
        first.cancel()


# Pools and managers


def lending(pool: Pool, _: Manager) -> Callable[[], object]:
    def lend() -> None:
        with pool.connection(PATIENCE) as conn:
            conn.send("x")

    return lend


def lending_in_vain(pool: Pool, _: Manager) -> Callable[[], object]:
    def lend() -> None:
        with pool.connection(PATIENCE), pool.connection(PATIENCE), pool.connection(0.005):
            pass

    return lend


def telling_all(pool: Pool, _: Manager) -> Callable[[], object]:
    pool.wait_open(PATIENCE)
    return lambda: pool.broadcast("x")


def waiting_for_all(pool: Pool, _: Manager) -> Callable[[], object]:
    return lambda: pool.wait_open(PATIENCE)


def counting(pool: Pool, _: Manager) -> Callable[[], object]:
    return lambda: pool.stats


def adding(pool: Pool, _: Manager) -> Callable[[], object]:
    return lambda: pool.add_connection(ScriptedDialer(itertools.repeat(echo)))


def ending_the_pool(pool: Pool, _: Manager) -> Callable[[], object]:
    pool.wait_open(PATIENCE)
    return lambda: pool.disconnect(0.02)


def ending_everything(pool: Pool, manager: Manager) -> Callable[[], object]:
    pool.wait_open(PATIENCE)
    return lambda: manager.disconnect_all(0.02)


def managing(_: Pool, manager: Manager) -> Callable[[], object]:
    target = ScriptedDialer(itertools.repeat(echo))
    return lambda: (manager.connect(target), manager.get_connection(target), manager.get_pool("two"))


@pytest.mark.slow
@pytest.mark.parametrize("readers", [None, 1], ids=["own readers", "shared reader"])
@pytest.mark.parametrize(
    "prepare",
    [lending, lending_in_vain, telling_all, waiting_for_all, counting, adding, ending_the_pool, ending_everything,
     managing],
)  # fmt: skip
def test_a_pool_lends_and_ends_after_an_interrupt_at_any_point(
    prepare: Callable[[Pool, Manager], Callable[[], object]], readers: int | None
) -> None:
    # A lease was never given back, so that the next borrower waited for ever; a lock of the pool stayed taken.
    takes_longer = prepare in (ending_the_pool, ending_everything)
    for point in every_point(step=5 if takes_longer else 1):
        manager = Manager()
        pool = manager.create_pool(
            "two", url=ScriptedDialer(itertools.repeat(echo)), size=2, readers=readers,
            close_timeout=0.02, wait=lambda _: 0.0, stable_after=0,
        )  # fmt: skip
        where = point.interrupt(prepare(pool, manager))

        def borrow(pool: Pool = pool) -> None:
            with pool.connection(PATIENCE) as one, pool.connection(PATIENCE) as other:
                use(one)
                use(other)

        if not pool.is_closed:
            within(borrow, f"borrowing both after {where}")
            assert pool.stats.leased == 0, where
        within(lambda manager=manager: manager.disconnect_all(0.2), f"disconnect_all() after {where}")
        eventually(
            lambda: not [thread for thread in threading.enumerate() if "ScriptedDialer" in thread.name],
            message=f"the threads to end after {where}",
        )


@pytest.mark.slow
@pytest.mark.parametrize("readers", [None, 1], ids=["own readers", "shared reader"])
def test_a_pool_keeps_its_size_after_an_interrupt_at_any_point_of_a_members_end(readers: int | None) -> None:
    # First seen failing: the member was taken for replaced before it was; nobody got a lease any more.
    for point in every_point():
        with Pool(
            "one", url=ScriptedDialer(itertools.repeat(echo)), size=1, readers=readers, close_timeout=0.02,
            wait=lambda _: 0.0,
        ) as pool:  # fmt: skip
            pool.wait_open(PATIENCE)
            [conn] = pool.get_connections()
            where = point.interrupt(conn.disconnect, files=(*FILES, "connman/pool.py", "connman/leases.py"))
            within(conn.disconnect, f"disconnect() after {where}")
            assert len(pool.get_connections()) == 1, where

            def borrow(pool: Pool = pool) -> None:
                with pool.connection(PATIENCE) as other:
                    use(other)

            within(borrow, f"borrowing after {where}")


@pytest.mark.slow
def test_everything_ends_after_an_interrupt_at_any_point_of_ending_everything() -> None:
    # First seen failing: the manager took itself for ending for ever, and ended all that it made from then on; and those
    # behind the one that was being told stayed open.
    for point in every_point():
        manager = Manager()
        target = ScriptedDialer(itertools.repeat(echo))
        options: Any = {"close_timeout": 0.02, "wait": lambda _: 0.0}
        pools = [
            manager.create_pool(name, url=target, size=2, **options).connect() for name in ("one", "two")
        ]
        conns = [manager.connect(target, **options) for _ in range(2)]
        conns += [conn for pool in pools for conn in pool.get_connections()]
        for conn in conns:
            conn.wait_open(PATIENCE)
        where = point.interrupt(
            lambda manager=manager: manager.disconnect_all(0.02), files=("connman/manager.py",)
        )  # type: ignore[misc]
        if any(pool.is_closed for pool in pools):
            assert {conn.state for conn in conns} == {State.CLOSED}, where
            assert all(pool.is_closed for pool in pools), where
        conns.append(manager.connect(target))
        assert conns[-1].state is not State.CLOSED, where
        within(manager.disconnect_all, f"disconnect_all() after {where}")
        eventually(lambda conns=conns: all(map(is_gone, conns)), message=f"the end after {where}")  # type: ignore[misc]


# With signals


@pytest.mark.slow
@pytest.mark.parametrize("is_shared", [False, True], ids=["own reader", "shared reader"])
def test_signals_at_random_times(is_shared: bool, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a signal that comes while Python itself runs the end of a weak reference it says so, and goes on.
    told = sys.unraisablehook
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: lost.exc_type is CtrlC or told(lost))
    chance = random.Random(seed)
    is_armed = False

    def handler(*_: object) -> None:
        if is_armed:
            raise CtrlC

    earlier = signal.signal(signal.SIGUSR1, handler)
    try:
        conn = make(is_shared)
        for number in range(300):
            if conn.state is State.CLOSED:
                within(conn.disconnect, "disconnect()")  # the one that a signal cut may have told nobody
                conn = make(is_shared)
            prepare = chance.choice([*USES, *ENDS])
            call = prepare(conn) if prepare is not receiving else receiving_in_vain(conn)
            main = threading.main_thread().ident
            assert main is not None
            sent = latch()

            def send(main: int = main, sent: Any = sent) -> None:
                signal.pthread_kill(main, signal.SIGUSR1)
                sent.release()

            timer = threading.Timer(chance.uniform(0, 0.002), send)
            timer.start()
            with contextlib.suppress(CtrlC, ConnmanError):
                is_armed = True
                call()
                sent.acquire()  # not join(), which a signal at its end breaks
            is_armed = False
            timer.join()
            what = f"call {number}, {prepare.__name__}"
            if conn.state is not State.CLOSED:
                within(lambda conn=conn: use(conn), f"using it after {what}")  # type: ignore[misc]
        within(conn.disconnect, "disconnect()")
    finally:
        signal.signal(signal.SIGUSR1, earlier)
