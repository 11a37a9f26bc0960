"""The leaf: one dial on a thread of its own, on real sockets and with scripted targets."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from connman.clock import Deadline, SystemClock
from connman.errors import (
    ConnectError,
    ConnectionClosed,
    ConnectTimeout,
    ConnmanError,
    Fatal,
    HandshakeFailed,
    HandshakeTimeout,
    InvalidOption,
    NotConnected,
)
from connman.options import Options
from connman.strategy import BestConnected, Delayed, Opened, Sequential, Strategy, Transport
from connman.strategy.base import discard
from connman.strategy.run import Run
from connman.testing import Peer, ScriptedDialer
from connman.transport.base import Dial
from connman.transport.login import Channel
from tests.loopback import PATIENCE, Server, in_thread, refusing_port, silent
from tests.waiting import eventually


class Watching:
    """A watcher that may be dead, and that keeps what it is told."""

    def __init__(self, is_alive: bool = True) -> None:
        self.is_alive = is_alive
        self.told: list[str] = []

    def watch(self, transport: Any) -> None:
        self.told.append(f"watch {transport.name}")

    def opened(self) -> None:
        self.told.append("opened")

    def nothing_opened(self) -> None:
        self.told.append("nothing opened")


def tree_dial(handshake: Callable[[Channel], object] | None = None, **options: Any) -> Dial:
    dial = Dial(None, Options(**{"proxy": None, **options}), SystemClock(), name="tree")
    dial.handshake = handshake
    return dial


def opened_name(tree: Strategy, dial: Dial) -> str:
    transport = tree.dial(dial)
    try:
        return transport.name
    finally:
        transport.abort(ConnectionClosed(1000))
        transport.dispose()


@pytest.mark.parametrize(
    ("target", "name", "priority"),
    [
        ("ws://h.example", "ws", 3),
        ("wss://h.example", "wss", 3),
        (("h.example", 1), "tcp", 3),
        ("tls://h.example:1", "tls", 3),
        ("unix:///tmp/s", "unix", 3),
        (ScriptedDialer([]), "ScriptedDialer", 3),
    ],
)
def test_its_name_and_priority_come_from_the_target(target: object, name: str, priority: int) -> None:
    leaf = Transport(target)
    assert (leaf.name, leaf.priority) == (name, priority)
    named = Transport(target, name="mine", priority=7)
    assert (named.name, named.priority) == ("mine", 7)


@pytest.mark.parametrize(
    ("target", "options", "error"),
    [
        ("ws://h.example", {"ping_interval": 3}, TypeError),
        ("ws://h.example", {"framing": "lines"}, InvalidOption),
        ("tcp://h.example:1", {"compression": "deflate"}, InvalidOption),
        ("ws://h.example", {"open_timeout": -1}, InvalidOption),
        ("ws://h.example", {"proxy": "nonsense://x"}, InvalidOption),
    ],
)
def test_what_is_no_option_of_a_leaf_is_refused_when_it_is_made(
    target: str, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Transport(target, **options)


def test_it_opens_and_its_steps_carry_its_name() -> None:
    with Server(silent) as server:
        dial = tree_dial()
        assert opened_name(Transport(("127.0.0.1", server.port), name="first"), dial) == "first"
    assert {step.leaf for step in dial.log} == {"first"}
    assert all(step.start >= 0 for step in dial.log)


def test_a_refused_way_gives_way_to_the_next_and_the_log_shows_both() -> None:
    with refusing_port() as port, Server(silent) as server:
        dial = tree_dial()
        tree = Sequential(
            Transport(("127.0.0.1", port), name="bad"), Transport(("127.0.0.1", server.port), name="good")
        )
        assert opened_name(tree, dial) == "good"
    assert [step.leaf for step in dial.log if step.cause] == ["bad"]


def test_a_stalled_websocket_is_ended_when_another_way_opens() -> None:
    with Server(silent) as stalled, Server(silent) as server:
        dial = tree_dial()
        tree = BestConnected(
            Transport(f"ws://127.0.0.1:{stalled.port}", name="stalled"),
            Delayed(Transport(("127.0.0.1", server.port), name="later"), 0.05),
        )
        assert opened_name(tree, dial) == "later"
        eventually(lambda: not [t for t in threading.enumerate() if "dial-stalled" in t.name])
    assert any(step.leaf == "stalled" and step.cause == "given up" for step in dial.log)


def test_all_refused_is_one_error_that_tells_of_each() -> None:
    with refusing_port() as one, refusing_port() as two:
        tree = BestConnected(Transport(("127.0.0.1", one), name="a"), Transport(("127.0.0.1", two), name="b"))
        with pytest.raises(ConnectError, match="none of 2 ways opened") as caught:
            tree.dial(tree_dial())
    assert {step.leaf for step in caught.value.attempts} == {"a", "b"}


def test_open_timeout_bounds_the_whole_tree() -> None:
    with Server(silent) as server:
        tree = Sequential(Transport(f"ws://127.0.0.1:{server.port}"), loop=True, timeout=0.05)
        with pytest.raises(ConnectTimeout, match=r"no connection within 0\.2 s"):
            tree.dial(tree_dial(open_timeout=0.2))


def test_a_leaf_may_have_less_time_than_the_tree() -> None:
    with Server(silent) as server:
        tree = Transport(f"ws://127.0.0.1:{server.port}", open_timeout=0.05)
        with pytest.raises(ConnectTimeout):
            tree.dial(tree_dial(open_timeout=PATIENCE))


def test_an_abort_ends_every_leaf_at_once() -> None:
    with Server(silent) as server:
        url = f"ws://127.0.0.1:{server.port}"
        dial = tree_dial()
        ending = in_thread(
            BestConnected(Transport(url), Transport(url), Delayed(Transport(url), 60)).dial, dial
        )
        eventually(lambda: server.accepted == 2)
        error = NotConnected("enough")
        dial.abort(error)
        with pytest.raises(NotConnected, match="enough"):
            ending.result(PATIENCE)


def test_a_leaf_that_is_not_enabled_or_has_no_lives_left_is_not_tried() -> None:
    dead = Watching(is_alive=False)
    tree = BestConnected(
        Transport("ws://h.example", enabled=False), Transport("ws://h.example", manager=dead)
    )
    assert not tree.is_supported()
    with pytest.raises(ConnectError, match="nothing of the strategy can be tried now"):
        tree.dial(tree_dial())
    assert dead.told == ["nothing opened"]


def test_a_watcher_sees_the_transport_and_that_the_tree_has_opened() -> None:
    watching, other = Watching(), Watching()
    with Server(silent) as server:
        tree = BestConnected(
            Transport(("127.0.0.1", server.port), name="won", manager=watching),
            Delayed(Transport(("127.0.0.1", server.port), manager=other), 60),
        )
        opened_name(tree, tree_dial())
    assert watching.told == ["watch won", "opened"]
    assert other.told == ["opened"]


def test_nothing_opened_is_told_once_when_all_ways_fail() -> None:
    watching = Watching()
    with refusing_port() as port, pytest.raises(ConnectError):
        BestConnected(
            Transport(("127.0.0.1", port), manager=watching), Transport(("127.0.0.1", port), manager=watching)
        ).dial(tree_dial())
    assert watching.told == ["nothing opened"]


# The login.


def greet(peer: Peer) -> None:
    """Greet who says hello, and send something more."""
    assert peer.recv() == "hello"
    for message in ("welcome", "news", "weather"):
        peer.send(message)


def say_hello(channel: Channel) -> None:
    channel.send("hello")
    assert channel.recv() == "welcome"


def test_the_first_messages_behind_the_login_are_kept() -> None:
    dial = tree_dial(say_hello)
    transport = Transport(ScriptedDialer([greet])).dial(dial)
    messages = list(dial.first or [])
    while len(messages) < 2:
        messages += transport.receive(Deadline.after(dial.clock, PATIENCE))
    discard(transport)
    assert messages == ["news", "weather"]


def test_a_path_that_swallows_the_login_is_left_for_another() -> None:
    tree = Sequential(
        Transport(ScriptedDialer([ScriptedDialer.OPEN]), name="deaf", handshake_timeout=0.1),
        Transport(ScriptedDialer([greet]), name="good"),
    )
    assert opened_name(tree, tree_dial(say_hello)) == "good"


def test_a_login_that_takes_too_long_everywhere_is_a_timeout() -> None:
    tree = Transport(ScriptedDialer([ScriptedDialer.OPEN]))
    with pytest.raises(HandshakeTimeout):
        tree.dial(tree_dial(Channel.recv, handshake_timeout=0.1))


@pytest.mark.parametrize("refusal", [Fatal("no such user"), ValueError("not me")])
def test_a_refused_login_ends_all_other_ways(refusal: Exception) -> None:
    def login(channel: Channel) -> None:
        raise refusal

    with Server(silent) as stalled:
        tree = BestConnected(
            Transport(f"ws://127.0.0.1:{stalled.port}"), Transport(ScriptedDialer([ScriptedDialer.OPEN]))
        )
        with pytest.raises((Fatal, HandshakeFailed)) as caught:
            tree.dial(tree_dial(login))
    assert isinstance(caught.value, ConnmanError)
    eventually(lambda: not [t for t in threading.enumerate() if "connman-dial-" in t.name])


def test_an_abort_in_the_midst_of_a_login_ends_it() -> None:
    inside = threading.Event()

    def login(channel: Channel) -> None:
        inside.set()
        channel.recv()

    dial = tree_dial(login)
    ending = in_thread(Transport(ScriptedDialer([ScriptedDialer.OPEN])).dial, dial)
    assert inside.wait(PATIENCE)
    dial.abort(NotConnected("enough"))
    with pytest.raises(NotConnected, match="enough"):
        ending.result(PATIENCE)


def test_a_target_that_raises_is_a_failed_way(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def dial(self, dial: Dial) -> Any:
            raise ValueError("mine")

    with pytest.raises(ConnectError, match="the dial raised ValueError"):
        Transport(Broken()).dial(tree_dial())


def test_a_login_is_over_only_when_its_result_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen failing while it was over first: behind the time for opening the tree then ended without its result."""
    events: list[object] = []
    count_login = Run.count_login

    def count(run: Run, change: int) -> None:
        events.append(change)
        count_login(run, change)

    monkeypatch.setattr(Run, "count_login", count)
    dial = tree_dial(lambda _: None)
    runner = Transport(ScriptedDialer([ScriptedDialer.OPEN]), name="a").connect(events.append, dial=dial)
    eventually(lambda: len(events) == 3)
    assert events[0] == 1
    assert isinstance(events[1], Opened)
    assert events[2] == -1
    events[1].transport.abort(NotConnected("over"))
    runner.abort()
