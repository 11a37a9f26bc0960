"""The leaf: what it is called, which options are its own, its deadline, and what its manager sees."""

import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest

from connman import Channel, Connection
from connman.errors import (
    ConnectError,
    ConnectTimeout,
    InvalidOption,
    InvalidTarget,
    WouldDeadlock,
)
from connman.options import Options
from connman.strategy import BestConnected, Opened, Strategy, Transport
from connman.testing import FakeClock, ScriptedDialer
from connman.transport import base
from tests.strategy.rig import Gated, Ok, Rig
from tests.waiting import eventually

PATIENCE = 10.0
OPEN, DEAF, HANGS = ScriptedDialer.OPEN, ScriptedDialer.DEAF, ScriptedDialer.HANG


# What it is


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("ws://h/", "ws"),
        ("wss://h/", "wss"),
        (("h", 1), "tcp"),
        ("tls://h:1", "tls"),
        ("unix:///s", "unix"),
        ("memory://m", "memory"),
        (ScriptedDialer([]), "ScriptedDialer"),
    ],
)
def test_it_is_named_after_its_target(target: object, name: str) -> None:
    leaf = Transport(target)
    assert (leaf.name, leaf.priority) == (name, 3)
    assert Transport(target, name="mine", priority=0).name == "mine"
    assert Transport(target, priority=0).priority == 0


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("ws://h/", {"framing": "lines"}),
        (("h", 1), {"compression": "deflate"}),
        ("ws://h/", {"open_timeout": 0}),
        ("ws://h/", {"headers": {"A": "b\nc"}}),
        ("ws://h/", {"proxy": 7}),
    ],
)
def test_an_option_that_cannot_work_is_refused_at_once(target: object, options: Any) -> None:
    with pytest.raises(InvalidOption):
        Transport(target, **options)


def test_a_target_that_cannot_work_is_refused_at_once() -> None:
    with pytest.raises(InvalidTarget):
        Transport("nonsense")


@pytest.mark.parametrize("name", ["reconnect", "wait", "ping_interval", "dispatch", "send_timeout"])
def test_an_option_of_the_connection_is_none_of_a_leaf(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        Transport("ws://h/", **{name: None})  # type: ignore[arg-type]


# Being supported


class Manager:
    """A manager that a test switches off, and that counts what it is told."""

    def __init__(self) -> None:
        self.is_alive = True
        self.watched: list[base.Transport] = []
        self.told: list[str] = []

    def watch(self, transport: base.Transport) -> None:
        self.watched.append(transport)
        transport.ping_pace = 7.0
        transport.on_end = lambda ended: self.told.append(f"end: {ended.error}")

    def opened(self) -> None:
        self.told.append("opened")

    def nothing_opened(self) -> None:
        self.told.append("nothing")


@pytest.mark.parametrize(("alive", "enabled"), [(True, True), (True, False), (False, True), (False, False)])
def test_it_is_supported_while_it_is_enabled_and_its_manager_alive(
    rig: Rig, alive: bool, enabled: bool
) -> None:
    manager = Manager()
    manager.is_alive = alive
    dialer = ScriptedDialer([OPEN])
    leaf = Transport(dialer, name="a", manager=manager, enabled=enabled)
    assert leaf.is_supported() is (alive and enabled)
    if leaf.is_supported():
        return
    dial = rig.dial()
    leaf.connect(rig.results.append, dial=dial)
    assert rig.results == []
    rig.advance(0)
    (error,) = rig.results
    assert isinstance(error, ConnectError)
    assert dialer.dials == []
    cause = "not supported" if enabled else "not enabled"
    assert [str(step) for step in dial.log] == [f"a +0.000 s start (0.000 s): {cause}"]


def test_below_the_wanted_priority_it_is_not_tried(rig: Rig) -> None:
    dialer = ScriptedDialer([OPEN])
    dial = rig.dial()
    Transport(dialer, name="a", priority=1).connect(rig.results.append, 2, dial=dial)
    rig.advance(0)
    assert str(rig.results[0]) == "a: priority 1 is below 2"
    assert dialer.dials == []
    assert [step.cause for step in dial.log] == ["priority 1 is below 2"]


class Recording(FakeClock):
    """Keeps the delays of its timers."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[float] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        self.timers.append(delay)
        return super().call_later(delay, callback)


def test_a_manager_watches_from_the_opening_to_the_end() -> None:
    manager = Manager()
    dialer = ScriptedDialer([OPEN])
    clock = Recording()
    with Connection(Transport(dialer, manager=manager), clock=clock, ping_interval=20.0) as conn:
        # The pace that it wishes, since that is less than the connection's.
        eventually(lambda: 7.0 in clock.timers)
        assert len(manager.watched) == 1
        dialer.next_peer().close(4001)
        eventually(lambda: conn.last_error)
        eventually(lambda: len(manager.told) == 2)
        assert manager.told == ["opened", "end: closed with code 4001"]


def test_a_pace_slower_than_the_connections_is_not_used() -> None:
    manager, clock = Manager(), Recording()
    target = Transport(ScriptedDialer([OPEN]), manager=manager)
    with Connection(target, clock=clock, ping_interval=5.0, ping_timeout=5.0):
        eventually(lambda: clock.timers)
        assert clock.timers == [5.0]


# Dialling


def test_it_opens_and_reports(rig: Rig) -> None:
    dialer = ScriptedDialer([OPEN])
    told = threading.Event()

    def called_back(result: object) -> None:
        rig.results.append(result)  # type: ignore[arg-type]
        told.set()

    dial = rig.dial()
    Transport(dialer, name="mine", priority=5).connect(called_back, dial=dial)
    if not told.wait(0.1):
        rig.advance(0)
    assert told.wait(PATIENCE)
    (opened,) = rig.results
    assert isinstance(opened, Opened)
    assert (opened.name, opened.priority, opened.transport.name) == ("mine", 5, "mine")
    assert list(opened.first) == []
    assert opened.refusal is None
    assert [str(step) for step in dial.log] == ["mine +0.000 s script (0.000 s): ok"]
    opened.transport.dispose()


class Noted:
    """A dialer that keeps the dials it was asked for and fails."""

    def __init__(self) -> None:
        self.dials: list[base.Dial] = []

    def dial(self, dial: base.Dial) -> base.Transport:
        self.dials.append(dial)
        raise ConnectError("h", (), "no")


def dialled(rig: Rig, dial: base.Dial | None = None, **options: Any) -> base.Dial:
    """Return the dial that a leaf with these options has made."""
    noted = Noted()
    runner = Transport(noted, **options).connect(rig.results.append, dial=dial or rig.dial())
    eventually(lambda: noted.dials)
    runner.abort()
    return noted.dials[0]


def test_its_own_options_count_more_than_the_connections(rig: Rig) -> None:
    context = ssl.create_default_context()
    parent = base.Dial(None, Options(proxy=None, max_message_size=99), rig.clock)
    parent.headers = [("A", "1")]
    dial = dialled(rig, parent, ssl_context=context, subprotocols=["x"])
    assert dial.options.ssl_context is context
    assert dial.options.subprotocols == ("x",)
    assert (dial.options.proxy, dial.options.max_message_size) == (None, 99)
    # The connection's, which were evaluated once for all leaves.
    assert list(dial.headers) == [("A", "1")]
    assert parent.options.ssl_context is None


def test_headers_of_its_own_are_evaluated_for_each_dial(rig: Rig) -> None:
    numbers = iter("12")
    leaf_headers = lambda: [("Token", next(numbers))]  # noqa: E731
    assert [list(dialled(rig, headers=leaf_headers).headers) for _ in range(2)] == [
        [("Token", "1")],
        [("Token", "2")],
    ]


def test_headers_that_raise_are_a_failure_of_this_leaf(rig: Rig) -> None:
    def broken() -> Any:
        raise KeyError("S3CR3T")

    clock = FakeClock()
    tree = BestConnected(
        Transport(ScriptedDialer([OPEN]), name="a", headers=broken),
        Transport(ScriptedDialer([OPEN]), name="b"),
    )
    with Connection(tree, clock=clock, ping_interval=None) as conn:
        assert conn.transport_name == "b"


def test_it_has_its_own_deadline_within_that_of_the_tree() -> None:
    for own, whole, expected in ((2.0, 10.0, 2.0), (20.0, 10.0, 10.0), (None, 10.0, 10.0)):
        clock, dialer = FakeClock(), ScriptedDialer([HANGS])
        options = {} if own is None else {"open_timeout": own}
        tree = Transport(dialer, **options)  # type: ignore[arg-type]
        conn = Connection(tree, clock=clock, open_timeout=whole, reconnect=False)
        future = conn.get_connected()
        clock.wait_until_waiting(2)
        clock.advance(expected - 0.01)
        assert not future.done()
        clock.advance(0.01)
        assert isinstance(future.exception(PATIENCE), ConnectTimeout)
        conn.disconnect()


def test_by_hand_each_try_has_the_time_of_a_dial(rig: Rig) -> None:
    rig.advance(60_000)
    dial = rig.dial(open_timeout=5.0)
    rig.advance(60_000)
    assert dialled(rig, dial).deadline.remaining() == 5.0


def test_a_dialer_of_the_users_that_raises_anything_is_a_failed_leaf() -> None:
    class Broken:
        def dial(self, dial: base.Dial) -> base.Transport:
            raise ZeroDivisionError

    conn = Connection(BestConnected(Transport(Broken())), reconnect=False)
    error = conn.get_connected().exception(PATIENCE)
    assert "the dial raised ZeroDivisionError" in str(error)


def test_without_a_thread_it_fails(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        rig.connect(BestConnected(Transport(ScriptedDialer([OPEN])), rig.leaf("b", Ok())))
    rig.advance(0)
    assert rig.winner == "b"


# Being ended


def test_a_priority_forced_above_it_ends_it() -> None:
    rig = Rig()
    dialer = ScriptedDialer([HANGS])
    dial = rig.dial()
    runner = Transport(dialer, name="a", priority=1).connect(rig.results.append, dial=dial)
    rig.clock.wait_until_waiting(1)
    runner.force_min_priority(1)
    assert rig.results == []
    runner.force_min_priority(2)
    (error,) = rig.results
    assert "a: given up, since priority 2 is wanted" in str(error)
    assert [step.cause for step in dial.log] == ["given up"]


def test_a_priority_forced_after_its_success_leaves_it_open() -> None:
    rig = Rig()
    told = threading.Event()
    dialer = ScriptedDialer([OPEN])

    def called_back(result: object) -> None:
        rig.results.append(result)  # type: ignore[arg-type]
        told.set()

    runner = Transport(dialer, priority=1).connect(called_back, dial=rig.dial())
    if not told.wait(0.1):
        rig.advance(0)
    assert told.wait(PATIENCE)
    runner.force_min_priority(2)
    runner.abort()
    (opened,) = rig.results
    assert isinstance(opened, Opened)
    opened.transport.send(["still there"], 1.0)
    assert dialer.next_peer().recv() == "still there"
    opened.transport.dispose()


def test_an_abort_in_the_login_ends_the_transport() -> None:
    rig = Rig()
    dial = rig.dial()
    begun = threading.Event()

    def handshake(channel: Channel) -> None:
        begun.set()
        channel.recv()

    dial.handshake = handshake
    dialer = ScriptedDialer([OPEN])
    runner = Transport(dialer, name="a").connect(rig.results.append, dial=dial)
    assert begun.wait(PATIENCE)
    runner.abort()
    # Given back while it was in order: no fault of its own.
    dialer.next_peer().wait_closed()
    assert rig.results == []
    eventually(lambda: not any(t.name == "connman-dial-a" for t in threading.enumerate()))


def test_a_wait_for_the_connection_inside_its_login_is_refused() -> None:
    found: list[BaseException] = []

    def handshake(channel: Channel) -> None:
        try:
            conn.wait_open(PATIENCE)
        except WouldDeadlock as error:
            found.append(error)

    conn = Connection(Transport(ScriptedDialer([OPEN])), handshake=handshake, ping_interval=None)
    with conn:
        assert len(found) == 1


def test_it_is_a_strategy_for_composites_of_the_users_own(rig: Rig) -> None:
    leaf = rig.leaf("a", Ok())

    class Mine(Strategy):
        children = (leaf,)

        def start(self, run: Any, report: Any, min_priority: int) -> Any:
            return run.start(leaf, report, min_priority)

    rig.connect(BestConnected(Mine(), Gated(leaf.start)))
    rig.advance(0)
    assert len(rig.results) == 2
