"""Shared readers: many connections on one thread, none of which holds up, misjudges or harms another."""

import contextlib
import logging
import os
import random
import resource
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

import connman
from connman import Connection, Pool, State
from connman.clock import SystemClock
from connman.connection import member
from connman.connection.sharing import SharedReaders
from connman.errors import (
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ConnmanError,
    NotConnected,
    PingTimeout,
    WouldDeadlock,
)
from connman.testing import FaultProxy, ScriptedDialer
from tests.connection.rig import HANG, OPEN, REFUSED, forever
from tests.interrupts import CtrlC
from tests.loopback import in_thread, read_to_the_end, refusing_port, silent
from tests.promises.peers import PATIENCE, PING, PONG, Peers, accept, deaf_ws, frame, frames, serve_ws, within
from tests.scripted import Guest
from tests.servers import WebSocketProcess, ws_server
from tests.waiting import eventually

INTERVAL = TIMEOUT = 0.2
KEEPALIVE: dict[str, Any] = {"ping_interval": INTERVAL, "ping_timeout": TIMEOUT, "proxy": None}


def reader_threads() -> list[str]:
    """Name the threads that read or dial: not the one that every timer of the process shares."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("connman-readers", "connman-dialler"))]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="module")
def server() -> Iterator[WebSocketProcess]:
    with ws_server() as process:
        yield process


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(readers=1, proxy=None, close_timeout=0.3, ping_interval=None) as pool:
        yield pool


class Heard(list[Any]):
    """An `on_data` that keeps what it gets."""

    def __call__(self, _: Connection, message: object) -> None:
        self.append(message)


# Fairness


def flood(sock: socket.socket) -> None:
    accept(sock)
    chunk = frame("flood" * 10) * 1000
    while True:
        sock.sendall(chunk)


def test_a_flood_on_one_connection_does_not_starve_the_others(pool: Pool) -> None:
    flooded, heard = Heard(), Heard()
    with Peers(flood) as flooding, Peers(serve_ws) as quiet:
        noisy = pool.add_connection(flooding.url(), on_data=flooded)
        conns = [pool.add_connection(quiet.url(), on_data=heard) for _ in range(5)]
        pool.wait_open(PATIENCE)
        eventually(lambda: len(flooded) > 10_000)
        for number in range(20):
            for conn in conns:
                conn.send(str(number))
            eventually(lambda: len(heard) == 5 * (number + 1))  # noqa: B023
        before = len(flooded)
        eventually(lambda: len(flooded) > before)
        noisy.end_soon(timeout=0)
        pool.disconnect(timeout=0.3)


@pytest.mark.parametrize("readers", [1, 3])
def test_the_connections_are_spread_over_the_readers(server: WebSocketProcess, readers: int) -> None:
    threads: set[str] = set()
    with Pool(
        "spread", url=server.url("/echo"), size=12, readers=readers, proxy=None,
        on_open=lambda _: threads.add(threading.current_thread().name),
    ) as pool:  # fmt: skip
        pool.wait_open(PATIENCE)
        eventually(lambda: len(threads) == readers)
        assert threads == {f"connman-readers-spread-{number}" for number in range(1, readers + 1)}
    assert reader_threads() == []


# Messages of every kind


def test_long_messages_come_whole(server: WebSocketProcess, pool: Pool) -> None:
    conns = [pool.add_connection(server.url("/echo"), max_message_size=32 << 20) for _ in range(3)]
    pool.wait_open(PATIENCE)
    messages = [random.Random(number).randbytes(8_000_000) for number in range(3)]
    for conn, message in zip(conns, messages, strict=True):
        conn.send(message)
    assert [conn.recv(PATIENCE) for conn in conns] == messages


def test_framed_streams_and_raw_ones(pool: Pool) -> None:
    def serve(sock: socket.socket) -> None:
        for piece in (b"one\ntw", b"o\n", b"\nlast"):
            sock.sendall(piece)
            sock.recv(10)
        read_to_the_end(sock)

    with Peers(serve) as server:
        framed = pool.add_connection(server.url("tcp"), framing=connman.lines())
        heard = [framed.recv(PATIENCE)]
        framed.send(b"a")
        heard.append(framed.recv(PATIENCE))
        framed.send(b"b")
        heard.append(framed.recv(PATIENCE))
        raw = pool.add_connection(server.url("tcp"))
        assert raw.recv(PATIENCE) == b"one\ntw"
        assert heard == [b"one", b"two", b""]
        pool.disconnect()


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="module")
def tls() -> Contexts:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


class InPieces:
    """A TLS server without a socket, whose records go out in pieces, as the test wants."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._run(self._tls.do_handshake)

    def _run(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(65536)
                if not data:
                    raise ConnectionAbortedError from None
                self._in.write(data)
            finally:
                self.flush()

    def flush(self) -> None:
        if self._out.pending:
            self.sock.sendall(self._out.read())

    def recv(self, size: int) -> bytes:
        return bytes(self._run(lambda: self._tls.read(size)))

    def records(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._out.read()


def test_a_partial_tls_record_does_not_stall_the_reader(tls: Contexts, pool: Pool) -> None:
    go_on = threading.Event()

    def serve(sock: socket.socket) -> None:
        secure = InPieces(sock, tls[0])
        record = secure.records(b"a whole record\n" * 1000)
        sock.sendall(record[:1000])
        go_on.wait(PATIENCE)
        for byte in record[1000:1200]:
            sock.sendall(bytes((byte,)))
        sock.sendall(record[1200:])
        # Several records in one go: what is left inside of OpenSSL no selector tells of.
        sock.sendall(secure.records(b"second\n") + secure.records(b"third\n"))
        read_to_the_end(sock)

    with Peers(serve) as partial, Peers(serve_ws) as other:
        heard, echoed = Heard(), Heard()
        options: Any = {"ssl_context": tls[1], "framing": connman.lines(), "on_data": heard}
        slow = pool.add_connection(partial.url("tls"), **options).wait_open(PATIENCE)
        conn = pool.add_connection(other.url(), on_data=echoed).wait_open(PATIENCE)
        eventually(lambda: slow.stats.bytes_in == 0)
        for number in range(10):
            conn.send(str(number))
        eventually(lambda: len(echoed) == 10)
        assert heard == []
        go_on.set()
        eventually(lambda: len(heard) == 1002)
        assert heard[-2:] == [b"second", b"third"]
        pool.disconnect(timeout=0.3)


def test_what_came_in_one_record_with_the_upgrade_is_read(tls: Contexts, pool: Pool) -> None:
    """The rest of that record is inside of OpenSSL: no selector tells of it."""

    def serve(sock: socket.socket) -> None:
        with tls[0].wrap_socket(sock, server_side=True) as secure:
            guest = Guest(secure)
            guest.read_request()
            guest.send(guest.upgrade_head() + frame(b"x" * 3000) * 5)
            read_to_the_end(secure)

    with Peers(serve) as server:
        heard = Heard()
        pool.add_connection(server.url("wss"), ssl_context=tls[1], on_data=heard)
        eventually(lambda: len(heard) == 5)
        pool.disconnect(timeout=0.1)


def test_many_records_at_once_over_wss(tmp_path: Path, pool: Pool) -> None:
    authority, context = trustme.CA(), ssl.create_default_context()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "pem")
    authority.configure_trust(context)
    with ws_server(tmp_path / "pem", tmp_path / "pem") as secure:
        conns = [
            pool.add_connection(secure.url("/echo"), ssl_context=context, max_message_size=32 << 20)
            for _ in range(3)
        ]
        pool.wait_open(PATIENCE)
        messages = [bytes([number]) * 3_000_000 for number in range(3)]
        for _ in range(2):
            sending = [in_thread(c.send, m) for c, m in zip(conns, messages, strict=True)]
            assert [conn.recv(PATIENCE) for conn in conns] == messages
            for sent in sending:
                sent.result(PATIENCE)
        pool.disconnect()


# What one connection must not do to the others


def test_a_peer_that_does_not_read_our_sends_holds_nobody_up(server: WebSocketProcess, pool: Pool) -> None:
    deaf = pool.add_connection(server.url("/deaf"), ping_interval=0.05, ping_timeout=60.0)
    conn = pool.add_connection(server.url("/echo"))
    pool.wait_open(PATIENCE)
    senders = [in_thread(deaf.send, b"\0" * 20_000_000) for _ in range(3)]
    before = -1
    while before != deaf.stats.bytes_out or before < 0:
        before = deaf.stats.bytes_out
        conn.send("beside it")
        assert conn.recv(PATIENCE) == "beside it"
        if senders[0].done():
            break
    within(0.3 + 1.0, deaf.disconnect)
    for sender in senders:
        assert isinstance(sender.exception(PATIENCE), ConnmanError)
    conn.send("still")
    assert conn.recv(PATIENCE) == "still"


@pytest.mark.slow
def test_a_callback_that_blocks_makes_no_dead_peers_of_the_others(server: WebSocketProcess) -> None:
    resets: list[connman.Reset] = []
    heard = Heard()
    pause = threading.Event()

    def block(*_: object) -> None:
        pause.wait(3 * (INTERVAL + TIMEOUT))

    with Pool(readers=1, on_reset=lambda _, reset: resets.append(reset), **KEEPALIVE) as pool:
        blocking = pool.add_connection(server.url("/echo"), on_data=block)
        others = [pool.add_connection(server.url("/echo"), on_data=heard) for _ in range(20)]
        pool.wait_open(PATIENCE)
        for _ in range(2):
            blocking.send("block")
            for conn in others:
                conn.send("meanwhile")
            eventually(lambda: len(heard) == len(others))
            heard.clear()
        assert resets == []
        assert {conn.generation for conn in pool.get_connections()} == {1}


class NoTimer:
    """What the test fires by hand."""

    def cancel(self) -> None:
        pass


class Leaping(SystemClock):
    """A clock that a test moves on, and on which only the test runs the keepalives."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.ticks: list[Callable[[], None]] = []

    def now(self) -> float:
        return super().now() + self.offset

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        if getattr(callback, "__name__", "") != "_tick":
            return super().call_later(delay, callback)
        self.ticks.append(callback)
        return NoTimer()


def test_a_look_at_the_end_of_a_long_round_finds_nobody_dead() -> None:
    """Peers were judged while what they had sent lay unread behind a callback, or just before it was read."""
    clock = Leaping()
    resets: list[connman.Reset] = []
    inside, has_leapt = threading.Event(), threading.Event()

    def on_data(*_: object) -> None:
        inside.set()
        # What the other peer has to say is there, and nobody has read it.
        eventually(other_pipe.is_readable)
        clock.offset += 1.5 * (INTERVAL + TIMEOUT)
        for tick in clock.ticks[:]:
            tick()
        has_leapt.set()

    options: Any = {"clock": clock, "on_reset": lambda _, reset: resets.append(reset), **KEEPALIVE}
    with Peers(serve_ws) as server, Pool(readers=1, **options) as pool:
        other = pool.add_connection(server.url()).wait_open(PATIENCE)
        blocking = pool.add_connection(server.url(), on_data=on_data).wait_open(PATIENCE)
        other_pipe = other._life.transport  # noqa: SLF001
        assert other_pipe is not None
        blocking.send("go")
        assert inside.wait(PATIENCE)
        other.send("x")
        assert has_leapt.wait(PATIENCE)
        assert other.recv(PATIENCE) == "x"
        assert resets == []


@pytest.mark.slow
def test_members_may_come_while_a_long_round_is_forgiven(server: WebSocketProcess) -> None:
    """The set of them grew while the thread walked it, which ended the thread, and with it every connection."""
    entered, leave = threading.Event(), threading.Event()
    dialer = ScriptedDialer(forever(REFUSED))

    def block(*_: object) -> None:
        entered.set()
        leave.wait(0.15)

    with Pool(readers=1, proxy=None) as pool:
        conn = pool.add_connection(server.url("/echo"), on_data=block).wait_open(PATIENCE)
        for _ in range(300):
            pool.add_connection(dialer, wait=lambda _: 1000.0)
        stop = threading.Event()

        def add() -> None:
            while not stop.is_set():
                pool.add_connection(dialer, wait=lambda _: 1000.0).disconnect(timeout=0)

        adding = [in_thread(add) for _ in range(2)]
        for _ in range(5):
            entered.clear()
            conn.send("block")
            assert entered.wait(PATIENCE)
        stop.set()
        for added in adding:
            added.result(PATIENCE)
        entered.clear()
        conn.send("block")
        assert entered.wait(PATIENCE)


def test_a_frozen_peer_is_noticed_although_the_others_are_busy(server: WebSocketProcess) -> None:
    noticed: list[tuple[float, connman.Reset]] = []

    def note(_: Connection, reset: connman.Reset) -> None:
        noticed.append((time.monotonic(), reset))

    def chatter(sock: socket.socket) -> None:
        accept(sock)
        reading = in_thread(answer, sock)
        while not reading.done():
            sock.sendall(frame("tick") * 50)
            threading.Event().wait(0.001)

    def answer(sock: socket.socket) -> None:
        for opcode, payload in frames(sock):
            if opcode == PING:
                sock.sendall(frame(payload, PONG))

    losses: list[object] = []
    with ws_server() as freezing, Peers(chatter) as busy, Pool(readers=1, **KEEPALIVE) as pool:
        conn = pool.add_connection(freezing.url("/silent"), on_reset=note)
        others = [pool.add_connection(busy.url(), on_data=Heard(), on_reset=lambda *r: losses.append(r)) for _ in range(5)]  # fmt: skip
        pool.wait_open(PATIENCE)
        eventually(lambda: conn.stats.ping_rtt is not None)
        freezing.stop()
        since = time.monotonic()
        eventually(lambda: noticed, INTERVAL + TIMEOUT + 1.0, "SIGSTOP to be noticed")
        print(f"noticed after {noticed[0][0] - since:.2f} s")
        assert isinstance(noticed[0][1].error, PingTimeout)
        assert losses == []
        assert all(other.is_open for other in others)
        pool.disconnect(timeout=0.1)


# Waits that would never end


@pytest.mark.parametrize("whom", ["its own", "an open one", "a dialling one", "a new one"])
def test_a_callback_cannot_wait_for_what_its_own_thread_has_to_do(whom: str) -> None:
    dialer, hanging = ScriptedDialer(forever(OPEN)), ScriptedDialer(forever(HANG))
    outcomes: list[object] = []

    def waits(conn: Connection) -> None:
        for wait in (
            lambda: conn.recv(PATIENCE), lambda: conn.wait_open(PATIENCE), lambda: conn.wait_closed(PATIENCE),
            lambda: conn.get_connected().result(PATIENCE), lambda: conn.send("x", wait=PATIENCE),
        ):  # fmt: skip
            try:
                outcomes.append(wait())
            except WouldDeadlock as error:
                outcomes.append(type(error))

    def on_reset(conn: Connection, _: object) -> None:
        choices = {"its own": conn, "an open one": other, "a dialling one": dialling}
        waits(choices.get(whom) or pool.add_connection(hanging))

    with Pool(readers=1, ping_interval=None) as pool:
        other = pool.add_connection(dialer).wait_open(PATIENCE)
        dialling = pool.add_connection(hanging)
        hanging.wait_until_dialled()
        pool.add_connection(ScriptedDialer([REFUSED]), on_reset=on_reset, wait=lambda _: 1000.0)
        eventually(lambda: len(outcomes) == 5)
        if whom == "an open one":  # what is there already need not be waited for
            assert outcomes == [WouldDeadlock, other, WouldDeadlock, other, None]
        else:
            assert outcomes == [WouldDeadlock] * 5


# Threads: started, ended, counted


def test_nothing_is_left_when_the_pools_end_returns(server: WebSocketProcess) -> None:
    """Also not the thread, which was just about to end."""
    for _ in range(30):
        pool = Pool(url=server.url("/echo"), size=3, readers=2, proxy=None)
        pool.wait_open(PATIENCE)
        assert len([name for name in reader_threads() if "readers" in name]) == 2
        pool.disconnect()
        assert reader_threads() == []


def test_nothing_is_left_when_the_last_ones_end_returns() -> None:
    dialer = ScriptedDialer(forever(OPEN))
    pool = Pool(readers=1, ping_interval=None)
    for _ in range(100):
        conn = pool.add_connection(dialer).wait_open(PATIENCE)
        conn.disconnect()
        assert reader_threads() == []
    pool.disconnect()


def test_the_end_of_one_does_not_wait_for_others_that_come_meanwhile() -> None:
    """It waited out its time for a thread that went on with another connection."""
    dialer = ScriptedDialer(forever(OPEN))
    inside, leave = threading.Event(), threading.Event()

    def on_reset(*_: object) -> None:
        inside.set()
        leave.wait(PATIENCE)

    with Pool(readers=1, ping_interval=None) as pool:
        conn = pool.add_connection(dialer, on_reset=on_reset).wait_open(PATIENCE)
        ending = in_thread(lambda: conn.disconnect(timeout=100.0))
        assert inside.wait(PATIENCE)
        pool.add_connection(dialer)  # before the thread can end
        leave.set()
        ending.result(PATIENCE)
        assert reader_threads() != []


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_the_end_of_one_returns_while_others_come_and_go(number: int) -> None:
    dialer, hanging = ScriptedDialer(forever(OPEN)), ScriptedDialer(forever(HANG))
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            pool.add_connection(hanging).disconnect(timeout=0.0)

    with Pool(readers=1, ping_interval=None) as pool:
        coming = in_thread(come_and_go)
        for _ in range(50):
            conn = pool.add_connection(dialer).wait_open(PATIENCE)
            within(PATIENCE, lambda: conn.disconnect(timeout=60.0))  # noqa: B023
        stop.set()
        coming.result(PATIENCE)


def test_it_is_used_again_after_it_was_idle(server: WebSocketProcess) -> None:
    with Pool(readers=1, proxy=None) as pool:
        conn = pool.add_connection(server.url("/close"), reconnect=False)
        for _ in range(5):
            assert isinstance(conn.wait_open(PATIENCE), Connection)
            eventually(lambda: conn.state == State.IDLE)
            eventually(lambda: reader_threads() == [])
        assert conn.generation == 5


def test_starts_against_the_end_of_the_thread() -> None:
    """Connections that end at once, from several threads: each start meets a thread that is about to end, or not."""
    dialer = ScriptedDialer(forever(OPEN))
    with Pool(readers=1, ping_interval=None) as pool:
        barrier = threading.Barrier(3)

        def come_and_go() -> None:
            for _ in range(60):
                barrier.wait(PATIENCE)
                conn = pool.add_connection(dialer)
                conn.wait_open(PATIENCE)
                conn.disconnect()

        for coming in [in_thread(come_and_go) for _ in range(3)]:
            coming.result(3 * PATIENCE)
        assert reader_threads() == []


def test_without_a_thread_it_is_idle_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    dialer = ScriptedDialer(forever(OPEN))
    before = open_descriptors()
    with Pool(readers=1, ping_interval=None) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            conn = pool.add_connection(dialer)
            error = conn.get_connected().exception(0)
        assert isinstance(error, ConnectError)
        assert "can't start new thread" in str(error)
        assert open_descriptors() == before
        conn.wait_open(PATIENCE)


def test_without_a_descriptor_it_is_idle_with_the_reason() -> None:
    """The error left `get_connected` as an OSError, and the reader was of no use any more."""
    dialer = ScriptedDialer(forever(OPEN))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Pool(readers=1, ping_interval=None) as pool:
        for spare in range(3):  # none for the pipe, one of the two, none for the selector
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            fillers = [os.dup(0) for _ in range(highest + 1)]
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers) + 1, hard))
            for filler in [fillers.pop() for _ in range(spare)]:
                os.close(filler)
            try:
                conn = pool.add_connection(dialer)
                error = conn.get_connected().exception(0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for filler in fillers:
                    os.close(filler)
            assert isinstance(error, ConnectError), spare
            assert "Too many open files" in str(error)
        conn.wait_open(PATIENCE)
        conn.disconnect()
        assert reader_threads() == []


# Everything at once


class Member:
    """One connection of the stress, and what it was told."""

    def __init__(self, pool: Pool, url: str, dice: random.Random) -> None:
        self.events: list[str] = []
        self.conn = pool.add_connection(
            url,
            on_open=lambda _: self.events.append("open"),
            on_data=dice.choice([None, lambda *_: self.events.append("data")]),
            on_reset=lambda _, reset: self.events.append("reset" if reset.opened else "failed"),
            dispatch=dice.choice(["reader", "reader", "thread"]),
            ping_interval=dice.choice([None, 0.02]),
            handshake=dice.choice([None, None, lambda channel: channel.send("pass")]),
            reconnect=dice.random() < 0.8,
        )

    def trouble(self) -> str | None:
        if self.conn.state is not State.CLOSED:
            return f"it is {self.conn.state}"
        is_open = False
        for event in self.events:
            if (event in ("data", "reset")) != is_open:
                return f"{event} is out of order: {self.events[-20:]}"
            is_open = {"open": True, "reset": False}.get(event, is_open)
        return f"an open without its reset: {self.events[-20:]}" if is_open else None


def burst_and_go(sock: socket.socket) -> None:
    accept(sock)
    sock.sendall(frame("tick") * 20)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("acts", [100, pytest.param(3000, marks=pytest.mark.slow)])
def test_open_close_drop_and_hurry_from_several_threads(acts: int, seed: int) -> None:
    members: list[Member] = []
    with contextlib.ExitStack() as stack:
        proxies = []
        for serve in (serve_ws, serve_ws, deaf_ws, silent, burst_and_go):
            peers = stack.enter_context(Peers(serve))
            proxies.append(stack.enter_context(FaultProxy("127.0.0.1", peers.port)))
        urls = [proxy.url("ws") for proxy in proxies] + [
            f"ws://127.0.0.1:{stack.enter_context(refusing_port())}"
        ]
        pool = stack.enter_context(
            Pool(readers=2, proxy=None, wait=lambda _: 0.01, stable_after=0.0, close_timeout=0.05, open_timeout=0.5)
        )  # fmt: skip

        def meddle(number: int) -> None:
            dice = random.Random(seed + number)

            def add() -> None:
                members.append(Member(pool, dice.choice(urls), dice))

            def on_one(act: Callable[[Connection], object]) -> Callable[[], object]:
                return lambda: act(dice.choice(members).conn)

            choices = [
                add, add, dice.choice(proxies).cut, dice.choice(proxies).reset,
                on_one(Connection.disconnect), on_one(lambda conn: conn.end_soon()), on_one(Connection.reconnect_now),
                on_one(Connection.reconnect_now), on_one(Connection.get_connected), on_one(lambda c: c.send("x" * 1000)),
                on_one(lambda conn: conn.recv(0)), on_one(lambda conn: conn.stats),
            ]  # fmt: skip
            add()
            for _ in range(acts):
                act = dice.choice(choices)
                if act == add and len(pool.get_connections()) > 60:
                    act = dice.choice(pool.get_connections()[:30]).disconnect
                with contextlib.suppress(ConnmanError, TypeError):  # recv() beside on_data
                    act()

        with ThreadPoolExecutor(4) as meddlers:
            for meddled in [meddlers.submit(meddle, number) for number in range(4)]:
                meddled.result(200)
        within(PATIENCE, lambda: pool.disconnect(timeout=1.0))
        assert reader_threads() == []
    assert [trouble for member in members if (trouble := member.trouble())] == []
    print(f"{len(members)} connections, {sum(member.conn.generation for member in members)} opens")


def test_a_ctrl_c_behind_the_beginning_of_a_start_leaves_it_beginning(server: WebSocketProcess) -> None:
    """Seen failing: the reader had begun already, and forgot it all the same: it was dialled, and never opened."""
    readers = SharedReaders(1, "interrupted", SystemClock())
    [reader] = readers._readers  # noqa: SLF001
    first, second = (Connection(server.url("/echo"), proxy=None) for _ in range(2))
    for conn in (first, second):
        conn.read_by(readers)

    class Jobs(deque[Any]):
        def append(self, job: Any) -> None:
            super().append(job)
            if job[1] == job[0].begin:
                assert reader._alarm is not None  # noqa: SLF001
                os.write(reader._alarm[1], b"\0")  # noqa: SLF001  as soon as it can
                eventually(lambda: second._life._reader_id)  # noqa: SLF001
                raise CtrlC

    with first:
        first.wait_open(PATIENCE)
        reader._jobs = Jobs(reader._jobs)  # noqa: SLF001
        eventually(lambda: reader._is_asleep)  # noqa: SLF001  and not on its way to a lock that is held meanwhile
        with pytest.raises(CtrlC):
            second.connect()
        second.wait_open(PATIENCE)
        second.disconnect()


def test_a_queue_of_futures_is_settled_by_the_end() -> None:
    """All phases at once, ended by the pool: nobody waits for ever."""
    scripts: list[Any] = [forever(OPEN), forever(HANG), forever(REFUSED)]
    pool = Pool(readers=2, ping_interval=None, wait=lambda _: 1000.0)
    conns = [pool.add_connection(ScriptedDialer(scripts[number % 3])) for number in range(90)]
    futures = [conn.get_connected() for conn in conns]
    within(PATIENCE, pool.disconnect)
    assert all(future.done() for future in futures)
    for conn, future in zip(conns, futures, strict=True):
        assert future.exception(0) is None or isinstance(future.exception(0), ConnectionClosed)
        assert conn.state == State.CLOSED
    assert reader_threads() == []


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_reader_that_fails_leaves_its_connections_idle_and_starts_anew(
    is_closed: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stayed open, read by nobody, for ever; also when somebody had closed a descriptor that was not his."""
    with Peers(serve_ws) as server, Pool(readers=1, ping_interval=None, proxy=None) as pool:
        conns = [pool.add_connection(server.url()).wait_open(PATIENCE) for _ in range(3)]
        reader = pool._readers._readers[0]  # type: ignore[union-attr]  # noqa: SLF001
        select, may_fail = reader._selector.select, threading.Event()  # noqa: SLF001

        def fail(timeout: float | None) -> Any:
            if not may_fail.is_set():
                return select(timeout)
            raise MemoryError("none left")

        monkeypatch.setattr(reader._selector, "select", fail)  # noqa: SLF001
        if is_closed:
            os.close(reader._alarm[0])  # noqa: SLF001
        may_fail.set()
        with contextlib.suppress(NotConnected, ConnectionLost):  # it may not have been asleep
            conns[0].send("wake")
        eventually(lambda: {conn.state for conn in conns} == {connman.State.IDLE})
        assert "none left" in str(conns[1].last_error)
        for conn in conns:
            conn.wait_open(PATIENCE)
    assert "a shared reader failed" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_log_handler_that_raises_keeps_nobody_from_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no space left on device")

    def fail(*_: object) -> Any:
        raise MemoryError("none left")

    handler, logger = Full(logging.ERROR), logging.getLogger("connman.connection")
    with Peers(serve_ws) as server, Pool(readers=1, ping_interval=None, proxy=None) as pool:
        conns = [pool.add_connection(server.url()).wait_open(PATIENCE) for _ in range(3)]
        reader = pool._readers._readers[0]  # type: ignore[union-attr]  # noqa: SLF001
        monkeypatch.setattr(reader._selector, "select", fail)  # noqa: SLF001
        logger.addHandler(handler)
        try:
            reader._wake()  # noqa: SLF001
            eventually(lambda: {conn.state for conn in conns} == {connman.State.IDLE})
            assert reader.wait_gone(PATIENCE)
        finally:
            logger.removeHandler(handler)
        for conn in conns:
            conn.wait_open(PATIENCE)


def test_who_asks_while_a_reader_gives_up_gets_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen failing with the old one's bug: it took whoever came for one more to give up."""
    is_one_idle, may_go_on = threading.Event(), threading.Event()
    abandon = member.Member.abandon

    def abandon_slowly(one: member.Member, bug: BaseException) -> None:
        abandon(one, bug)
        is_one_idle.set()
        assert may_go_on.wait(PATIENCE)

    def fail(*_: object) -> Any:
        raise MemoryError("none left")

    def count() -> int:
        return sum(name.startswith("connman-readers") for name in reader_threads())

    monkeypatch.setattr(member.Member, "abandon", abandon_slowly)
    with Peers(serve_ws) as server, Pool(readers=1, ping_interval=None, proxy=None) as pool:
        conns = [pool.add_connection(server.url()).wait_open(PATIENCE) for _ in range(3)]
        reader = pool._readers._readers[0]  # type: ignore[union-attr]  # noqa: SLF001
        monkeypatch.setattr(reader._selector, "select", fail)  # noqa: SLF001
        reader._wake()  # noqa: SLF001
        assert is_one_idle.wait(PATIENCE)
        [idle] = [conn for conn in conns if conn.state is State.IDLE]
        try:
            idle.wait_open(PATIENCE)
            idle.send("over the other one")
            assert idle.recv(PATIENCE) == "over the other one"
            assert count() == 2
            assert (idle.generation, idle.is_open) == (2, True)
            idle.end_soon(timeout=0)
            eventually(lambda: count() == 1)
            # That one has ended, but whoever waits for all to be gone waits for the first as well.
            assert not reader.wait_gone(0.05)
        finally:
            may_go_on.set()
        assert reader.wait_gone(PATIENCE)
        assert all(conn.state is State.IDLE for conn in conns if conn is not idle)
        for conn in pool.get_connections():
            conn.wait_open(PATIENCE)
    assert reader_threads() == []


def test_what_is_seen_moves_on_from_round_to_round_however_busy() -> None:
    """A dead peer was never noticed while another connection kept every round of their thread long."""
    seen: list[float] = []
    with Peers(serve_ws) as server, Pool(readers=1, ping_interval=None, proxy=None) as pool:
        (reader,) = pool._readers._readers  # type: ignore[union-attr]  # noqa: SLF001

        def on_data(conn: Connection, _: object) -> None:
            seen.append(reader.seen_until(conn._life.transport))  # type: ignore[arg-type]  # noqa: SLF001

        busy = pool.add_connection(server.url(), on_data=on_data).wait_open(PATIENCE)
        for count in (1, 2, 3):
            busy.send("x")
            eventually(lambda count=count: len(seen) == count)
    assert seen[0] < seen[1] < seen[2]
