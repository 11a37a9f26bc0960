"""A strategy as such: a tree that can be looked at, and a target of a connection like any other."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import connman
from connman import Pool
from connman.errors import ConnectError, InvalidOption, NotConnected
from connman.strategy import (
    BestConnected,
    Cached,
    Delayed,
    FirstConnected,
    If,
    Sequential,
    Strategy,
    Transport,
    pusher_tree,
)
from connman.testing import Peer, ScriptedDialer
from connman.transport.login import Channel
from tests.loopback import PATIENCE, Server, in_thread, refusing_port, silent
from tests.strategy.rig import No, Ok, Rig
from tests.waiting import eventually

OPEN, HANG = ScriptedDialer.OPEN, ScriptedDialer.HANG


def echo(peer: Peer) -> None:
    with contextlib.suppress(connman.ConnmanError):
        while True:
            peer.send(peer.recv(timeout=60))


# Looking at a tree.


def test_a_tree_describes_itself() -> None:
    tree = FirstConnected(
        If(
            lambda: True,
            BestConnected(
                Transport("ws://h.example/secret?token=x"), Delayed(Transport("tls://h.example:1"), 0.5)
            ),
            Transport(("h.example", 2), enabled=False, priority=9),
        )
    )
    text = tree.describe()
    assert "token" not in text
    lines = text.splitlines()
    assert lines[0] == "FirstConnected"
    assert lines[-1] == "   └─ tcp tcp://h.example:2 (priority 9, not enabled)"
    assert "   │  └─ Delayed: 0.5 s" in lines
    assert repr(tree) == "<FirstConnected>"


def test_each_leaf_is_there_once() -> None:
    one, two = Transport("ws://h.example"), Transport("wss://h.example")
    tree = BestConnected(Sequential(one, two), Sequential(two, one), one)
    assert list(tree.leaves()) == [one, two]


def test_it_is_supported_when_any_child_is(rig: Rig) -> None:
    dead, alive = rig.leaf("a", supported=False), rig.leaf("b")
    assert BestConnected(dead, alive).is_supported()
    assert not Sequential(dead, dead).is_supported()
    assert not Delayed(dead, 1).is_supported()
    assert not BestConnected().is_supported()


# By hand.


@pytest.mark.parametrize("child", ["ws://one.example/", None, ("one.example", 1), BestConnected])
@pytest.mark.parametrize(
    "make",
    [
        BestConnected,
        Sequential,
        FirstConnected,
        Cached,
        pusher_tree,
        lambda child: Delayed(child, 1.0),
        lambda child: If(bool, Sequential(), child),
    ],
)
def test_a_child_is_a_strategy(make: Callable[[Any], object], child: Any) -> None:
    with pytest.raises(
        InvalidOption, match=f"{type(child).__name__} is no strategy: a target goes into a Transport"
    ):
        make(child)


def test_a_test_is_a_function() -> None:
    with pytest.raises(InvalidOption, match="test is a function"):
        If(True, Sequential(), Sequential())  # type: ignore[arg-type]


def test_nothing_is_called_back_within_connect(rig: Rig) -> None:
    for leaf in (rig.leaf("a", Ok()), rig.leaf("b", No())):
        rig.connect(leaf)
        assert rig.results == []
        rig.advance(0)
        assert len(rig.results) == 1
        rig.results.clear()


def test_only_the_dial_of_a_leaf_has_a_thread(rig: Rig) -> None:
    dialer = ScriptedDialer([HANG, HANG])
    late = Delayed(FirstConnected(Sequential(Transport(dialer, name="one"), timeout=15.0)), 1.0)
    also = Delayed(If(bool, Sequential(), Transport(dialer, name="two")), 1.0)
    before = set(threading.enumerate())
    runner = Cached(BestConnected(late, also), {}, key="k").connect(rig.results.append, dial=rig.dial())
    rig.advance(999)
    assert set(threading.enumerate()) <= before
    rig.advance(1)
    dialer.wait_until_dialled(2)
    names = sorted(thread.name for thread in set(threading.enumerate()) - before)
    assert [name.rpartition("dial-")[2] for name in names] == ["one", "two"]
    runner.abort()
    eventually(lambda: set(threading.enumerate()) <= before)


def test_without_a_dial_it_takes_the_defaults() -> None:
    results: list[object] = []
    dialer = ScriptedDialer([OPEN])
    runner = Transport(dialer, name="way").connect(results.append)
    opened = eventually(lambda: results and results[0])
    assert isinstance(opened, connman.strategy.Opened)
    assert opened.name == "way"
    runner.abort()
    opened.transport.abort(NotConnected("enough"))
    opened.transport.dispose()


# As a target.


def test_a_connection_comes_back_by_another_way() -> None:
    first, second = ScriptedDialer([OPEN, ConnectionRefusedError]), ScriptedDialer([echo])
    tree = Sequential(Transport(first, name="first"), Transport(second, name="second"))
    with connman.Connection(tree) as conn:
        assert conn.transport_name == "first"
        first.next_peer().drop()
        eventually(lambda: conn.transport_name == "second")
        conn.send("hello")
        assert conn.recv(timeout=PATIENCE) == "hello"
        assert [(step.leaf, step.cause is None) for step in conn.attempts if step.cause] == [("first", False)]


def test_without_a_strategy_a_connection_keeps_no_log() -> None:
    with connman.Connection(ScriptedDialer([OPEN])) as conn:
        assert conn.attempts == ()


def test_a_connection_gives_up_with_the_error_of_the_tree() -> None:
    with refusing_port() as port:
        tree = BestConnected(
            Transport(("127.0.0.1", port), name="a"), Transport(("127.0.0.1", port), name="b")
        )
        conn = connman.Connection(tree, reconnect=False)
        with pytest.raises(ConnectError, match="none of 2 ways opened"):
            conn.wait_open(PATIENCE)
        assert {step.leaf for step in conn.attempts} == {"a", "b"}


def test_a_login_runs_on_the_way_that_wins() -> None:
    def login(channel: Channel) -> None:
        channel.send("hello")
        assert channel.recv() == "hello"

    tree = BestConnected(Transport(ScriptedDialer([HANG])), Transport(ScriptedDialer([echo]), name="good"))
    with connman.Connection(tree, handshake=login) as conn:
        assert conn.transport_name == "good"


@pytest.mark.parametrize("readers", [None, 1])
def test_a_pool_of_trees(readers: int | None) -> None:
    with ScriptedServers() as servers, Pool(readers=readers) as pool:
        tree = BestConnected(servers.leaf("stalled"), Delayed(servers.leaf("good"), 0.01))
        members = [pool.add_connection(tree) for _ in range(3)]
        for member in members:
            member.wait_open(PATIENCE)
        assert [member.transport_name for member in members] == ["good"] * 3
        with pool.connection(timeout=PATIENCE) as conn:
            assert conn.is_open


class ScriptedServers:
    """A server that takes a websocket's bytes and says nothing, and one that is good as it is."""

    def __enter__(self) -> "ScriptedServers":
        self.server = Server(silent)
        self.server.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.server.__exit__(*exc_info)

    def leaf(self, name: str) -> Transport:
        scheme = "ws" if name == "stalled" else "tcp"
        return Transport(f"{scheme}://127.0.0.1:{self.server.port}", name=name)


@pytest.mark.parametrize("shape", [BestConnected, Sequential])
def test_a_connection_ended_in_the_midst_of_a_tree(shape: type[BestConnected | Sequential]) -> None:
    hanging = [ScriptedDialer([HANG, HANG]) for _ in range(2)]
    conn = connman.Connection(shape(*(Transport(dialer) for dialer in hanging)))
    future = conn.get_connected()
    hanging[0].wait_until_dialled()
    conn.disconnect()
    with pytest.raises(connman.ConnmanError):
        future.result(PATIENCE)
    eventually(lambda: not dialling_threads())


def dialling_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "dial-" in thread.name]


def test_one_tree_serves_any_number_of_connections_at_once() -> None:
    with ScriptedServers() as servers:
        tree: Strategy = FirstConnected(BestConnected(servers.leaf("stalled"), servers.leaf("good")))
        with ThreadPoolExecutor(8) as threads:

            def use(_: int) -> str | None:
                with connman.Connection(tree) as conn:
                    return conn.transport_name

            assert list(threads.map(use, range(40))) == ["good"] * 40
        eventually(lambda: not dialling_threads())


# Python 3.12 and later warn of what is tested here.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_of_a_fork_opens_a_tree_of_its_own() -> None:
    with ScriptedServers() as servers:
        tree = BestConnected(servers.leaf("stalled"), servers.leaf("good"))
        conn = connman.Connection(tree)
        conn.wait_open(PATIENCE)
        child = os.fork()
        if not child:
            try:
                signal.alarm(int(PATIENCE))
                conn.wait_open(PATIENCE)
                os._exit(0 if conn.transport_name == "good" else 1)
            finally:
                os._exit(2)
        _, status = in_thread(os.waitpid, child, 0).result(PATIENCE)
        assert os.waitstatus_to_exitcode(status) == 0
        assert conn.is_open
        conn.disconnect(timeout=PATIENCE)
