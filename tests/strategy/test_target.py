"""A tree as the target of a connection: what opens, what the log tells, what a login decides, what late things meet."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from connman import Channel, Connection, Fatal
from connman.errors import (
    CertificateError,
    ConnectError,
    ConnectionClosed,
    ConnectTimeout,
    HandshakeFailed,
)
from connman.records import State
from connman.strategy import (
    BestConnected,
    Delayed,
    FirstConnected,
    If,
    Runner,
    Sequential,
    Strategy,
    Transport,
)
from connman.testing import FakeClock, Peer, ScriptedDialer
from connman.transport.base import Dial
from tests.loopback import in_thread
from tests.strategy.rig import HANG, Gated, No, Ok, Outcome, Rig
from tests.waiting import eventually

PATIENCE = 10.0
OPEN, DEAF, HANGS = ScriptedDialer.OPEN, ScriptedDialer.DEAF, ScriptedDialer.HANG


class Tree:
    """A connection to a tree of scripted leaves, on a fake clock."""

    def __init__(self, make: Callable[..., Strategy], *scripts: Any, **options: Any) -> None:
        self.clock = FakeClock()
        self.dialers = [ScriptedDialer(script) for script in scripts]
        leaves = [
            Transport(dialer, name=name, priority=1 if name.startswith("low") else 3)
            for dialer, name in zip(self.dialers, options.pop("names", ("a", "b", "c")), strict=False)
        ]
        self.tree = make(*leaves)
        defaults = {"clock": self.clock, "ping_interval": None, "reconnect": False}
        self.conn = Connection(self.tree, **{**defaults, **options})

    def __enter__(self) -> "Tree":
        # At once: asked for behind a failure it would be that of another attempt.
        self.future = self.conn.get_connected()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.conn.disconnect(timeout=1.0)

    def wait_error(self) -> BaseException:
        error = self.future.exception(PATIENCE)
        assert error is not None
        return error


def first_of(*leaves: Strategy) -> Strategy:
    return FirstConnected(BestConnected(*leaves))


# Looking


def test_the_tree_is_told_as_text(rig: Rig) -> None:
    ws = Transport("wss://u:S3CR3T@h/app?token=S3CR3T", name="ws")
    slow = Sequential(Transport(("h", 5000), enabled=False), loop=True, timeout=15, timeout_limit=60)
    tree = FirstConnected(
        If(ws.is_supported, BestConnected(Sequential(ws, fail_fast=True), Delayed(slow, 2)), rig.leaf("b"))
    )
    assert tree.describe().splitlines() == [
        "FirstConnected",
        "└─ If ws is supported: the first, else the second",
        "   ├─ BestConnected",
        "   │  ├─ Sequential: fail fast",
        "   │  │  └─ ws wss://h/app?… (priority 3)",
        "   │  └─ Delayed: 2 s",
        "   │     └─ Sequential: loop, 15 s each, doubling up to 60 s",
        "   │        └─ tcp tcp://h:5000 (priority 3, not enabled)",
        "   └─ b",
    ]
    assert repr(tree) == "<FirstConnected>"
    assert "S3CR3T" not in repr(ws)


def test_leaves_are_named_once_in_order(rig: Rig) -> None:
    a, b = rig.leaves("a", "b")
    tree = BestConnected(Sequential(a, b), If(a.is_supported, Delayed(b, 1), a))
    assert [leaf.name for leaf in tree.leaves()] == ["a", "b"]
    assert [leaf.name for leaf in a.leaves()] == ["a"]


# As a target


def test_a_tree_is_a_target_like_any_other() -> None:
    with Tree(first_of, [ConnectionRefusedError], [OPEN]) as tree:
        tree.conn.wait_open(PATIENCE)
        assert tree.conn.transport_name == "b"
        peer = tree.dialers[1].next_peer()
        peer.send("hello")
        assert tree.conn.recv(PATIENCE) == "hello"
        tree.conn.send("back")
        assert peer.recv() == "back"


def test_the_log_tells_of_each_leaf() -> None:
    def play(peer: Peer) -> None:
        peer.wait_closed()

    with Tree(
        lambda a, b, c: first_of(a, b, Delayed(c, 2)), [HANGS], [ConnectionRefusedError], [play]
    ) as tree:
        tree.dialers[0].wait_until_dialled()
        tree.dialers[1].wait_until_dialled()
        assert tree.conn.attempts == ()
        eventually(lambda: not threads_named("connman-dial-b"))
        wait_for_delay(tree)
        tree.clock.advance(2)
        tree.conn.wait_open(PATIENCE)
        told = [(step.leaf, step.phase, step.start, step.seconds, step.cause) for step in tree.conn.attempts]
        assert told == [
            ("b", "script", 0.0, 0.0, "ConnectionRefusedError"),
            ("c", "script", 2.0, 0.0, None),
            ("a", "script", 0.0, 2.0, "given up"),
        ]


def wait_for_delay(tree: Tree) -> None:
    # The first leaf may be quicker than the start of the last.
    eventually(lambda: tree.clock.pending)


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_of_other_targets_no_log_is_kept() -> None:
    with Connection(ScriptedDialer([OPEN]), ping_interval=None) as conn:
        assert conn.attempts == ()


def test_the_error_shows_every_leaf() -> None:
    with Tree(first_of, [ConnectionRefusedError], [ConnectError("h", (), "no way")]) as tree:
        error = tree.wait_error()
        assert isinstance(error, ConnectError)
        assert {step.leaf for step in error.attempts} == {"a", "b"}
        assert "none of 2 ways opened" in str(error)
        assert tree.conn.attempts == error.attempts


def test_an_error_that_is_final_on_every_way_is_final() -> None:
    with Tree(first_of, [CertificateError("h")], [CertificateError("h")], reconnect=True) as tree:
        assert isinstance(tree.wait_error(), CertificateError)
        assert tree.conn.state is State.IDLE


def test_the_whole_tree_has_the_time_for_opening() -> None:
    with Tree(first_of, [HANGS], [HANGS], open_timeout=10.0) as tree:
        for dialer in tree.dialers:
            dialer.wait_until_dialled()
        tree.clock.advance(9.9)
        assert tree.conn.state is State.CONNECTING
        tree.clock.advance(0.1)
        error = tree.wait_error()
        assert isinstance(error, ConnectTimeout)
        assert {step.leaf for step in error.attempts} == {"a", "b"}


def test_what_opens_late_is_closed() -> None:
    go_on = threading.Event()

    def late(dial: Dial) -> Any:
        assert go_on.wait(PATIENCE)
        return DEAF

    clock = FakeClock()
    slow, quick = ScriptedDialer(late), ScriptedDialer([OPEN])
    tree = FirstConnected(BestConnected(Transport(slow, name="slow"), Transport(quick, name="quick")))
    with Connection(tree, clock=clock, ping_interval=None) as conn:
        assert conn.transport_name == "quick"
        go_on.set()
        slow.next_peer().listen()
        peer = quick.next_peer()
        eventually(lambda: not threads_named("connman-dial-slow"))
        assert not peer.is_closed


def test_a_tree_of_which_nothing_can_be_tried_fails_at_once(rig: Rig) -> None:
    tree = FirstConnected(Sequential(rig.leaf("a", supported=False), loop=True, timeout=15))
    with pytest.raises(ConnectError, match="nothing of the strategy can be tried"):
        tree.dial(rig.dial())
    assert rig.journal == []


def test_an_abort_ends_the_tree_and_its_threads(rig: Rig) -> None:
    dialers = [ScriptedDialer([HANGS]) for _ in range(3)]
    tree = BestConnected(
        *(Transport(dialer, name="leaf") for dialer in dialers), Delayed(rig.leaf("late"), 60)
    )
    dial = Dial(None, rig.dial().options, rig.clock, name="rig")
    future = in_thread(tree.dial, dial)
    for dialer in dialers:
        dialer.wait_until_dialled()
    closed = ConnectionClosed(1000)
    dial.abort(closed)
    assert future.exception(PATIENCE) is closed
    # Its own threads are gone when it raises, and no timer is left.
    assert not threads_named("connman-dial-leaf")
    assert rig.clock.pending == 0
    assert [step.cause for step in dial.log] == ["given up"] * 3


def test_an_abort_that_came_before_is_found(rig: Rig) -> None:
    dial = rig.dial()
    closed = ConnectionClosed(1000)
    dial.abort(closed)
    leaf = rig.leaf("a")
    with pytest.raises(ConnectionClosed):
        leaf.dial(dial)
    assert [what for _, what in rig.journal] == ["a started", "a aborted"]


# Logging in


def answering(text: str) -> Callable[[Peer], None]:
    def play(peer: Peer) -> None:
        assert peer.recv() == "login"
        peer.send(text)
        peer.send("news")
        peer.wait_closed()

    return play


def log_in(channel: Channel) -> None:
    channel.send("login")
    answer = channel.recv()
    if answer == "go away":
        raise Fatal("refused by the server")
    if answer != "welcome":
        raise ValueError(f"cannot read {answer!r}")


def test_the_login_is_held_on_each_way() -> None:
    """A way that opens and swallows what follows loses against one that works."""
    with Tree(
        lambda a, b: first_of(a, Delayed(b, 2)), [DEAF], [answering("welcome")], handshake=log_in
    ) as tree:
        tree.dialers[0].next_peer().listen()
        wait_for_delay(tree)
        tree.clock.wait_until_waiting(2)  # who dials, and the login of the first way
        tree.clock.advance(1.9)
        assert tree.conn.state is State.CONNECTING
        tree.clock.advance(0.1)
        tree.conn.wait_open(PATIENCE)
        assert tree.conn.transport_name == "b"
        # What came behind the login is not lost.
        assert tree.conn.recv(PATIENCE) == "news"
        assert [(s.leaf, s.phase, s.cause) for s in tree.conn.attempts] == [
            ("a", "script", None),
            ("b", "script", None),
            ("b", "handshake", None),
            ("a", "handshake", "given up"),
        ]


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [("go away", Fatal, "refused by the server"), ("?", HandshakeFailed, "ValueError: cannot read '?'")],
)
def test_a_refusal_ends_the_rivals_and_is_raised(answer: str, kind: type[Exception], text: str) -> None:
    with Tree(first_of, [HANGS], [answering(answer)], handshake=log_in) as tree:
        error = tree.wait_error()
        assert isinstance(error, kind)
        assert text in str(error)
        assert [s.cause for s in tree.conn.attempts if s.leaf == "a"] == ["given up"]
        tree.dialers[1].next_peer().wait_closed()


def test_a_close_in_the_midst_of_the_login_is_a_refusal() -> None:
    with Tree(first_of, [HANGS], [lambda peer: peer.close(4001, "who are you")], handshake=log_in) as tree:
        error = tree.wait_error()
        assert isinstance(error, HandshakeFailed)
        assert isinstance(error.__cause__, ConnectionClosed)


def test_a_loss_in_the_midst_of_the_login_is_a_failure_of_the_way() -> None:
    with Tree(first_of, [lambda peer: peer.drop()], [answering("welcome")], handshake=log_in) as tree:
        tree.conn.wait_open(PATIENCE)
        assert tree.conn.transport_name == "b"


def test_a_login_may_end_after_the_time_for_opening() -> None:
    go_on = threading.Event()

    def slow(peer: Peer) -> None:
        assert go_on.wait(PATIENCE)
        answering("welcome")(peer)

    with Tree(first_of, [HANGS], [slow], handshake=log_in, open_timeout=5.0, handshake_timeout=10.0) as tree:
        tree.dialers[1].next_peer()
        wait_for_login(tree)
        tree.clock.advance(6)
        assert tree.conn.state is State.CONNECTING
        go_on.set()
        tree.conn.wait_open(PATIENCE)
        assert tree.conn.transport_name == "b"


def wait_for_login(tree: Tree) -> None:
    # A receive with the whole time of the login ahead: nobody else asks for so much.
    eventually(lambda: 10.0 in tree.clock.delays)


def test_when_the_last_login_fails_after_the_time_for_opening_so_does_the_tree() -> None:
    with Tree(first_of, [HANGS], [DEAF], handshake=log_in, open_timeout=5.0, handshake_timeout=10.0) as tree:
        tree.dialers[1].next_peer().listen()
        wait_for_login(tree)
        tree.clock.advance(5)
        assert tree.conn.state is State.CONNECTING
        tree.clock.advance(5)
        # Which of the two deadlines is seen first does not matter.
        assert isinstance(tree.wait_error(), ConnectError)
        assert tree.clock.now() == 10


# By hand


@pytest.mark.parametrize("outcome", [Ok(), No()])
def test_connect_calls_back_on_the_clock_of_the_system(outcome: Outcome) -> None:
    rig = Rig()
    told = threading.Event()
    runner = rig.leaf("a", outcome).connect(lambda _: told.set())
    assert told.wait(PATIENCE)
    runner.abort()


def test_a_tree_can_be_run_many_times_at_once(rig: Rig) -> None:
    tree = FirstConnected(BestConnected(rig.leaf("a", Ok(10)), Delayed(rig.leaf("b", HANG), 0.005)))
    runners = [rig.connect(tree) for _ in range(5)]
    rig.advance(10)
    assert len(rig.results) == len(runners)
    assert rig.clock.pending == 0


def test_the_transport_is_given_back_when_the_dialling_thread_is_stopped_at_the_end(rig: Rig) -> None:
    """An abort that comes just when it has opened finds the transport, and closes it."""
    dial = rig.dial()
    closed = ConnectionClosed(1000)

    leaf = rig.leaf("a", Ok())
    tree = FirstConnected(leaf)
    original = leaf.start

    def start(*args: Any) -> Any:
        runner = original(*args)
        dial.abort(closed)
        return runner

    leaf.start = start  # type: ignore[method-assign]
    with pytest.raises(ConnectionClosed):
        tree.dial(dial)
    assert rig.open_pipes == []


def test_what_opens_beside_a_strategy_that_leaves_for_good_is_closed(rig: Rig) -> None:
    def begin(*_: object) -> Runner:
        raise SystemExit

    with pytest.raises(SystemExit):
        BestConnected(rig.leaf("a", Ok()), Gated(begin)).dial(rig.dial())
    assert [pipe.name for pipe in rig.pipes] == ["a"]
    assert rig.open_pipes == []
