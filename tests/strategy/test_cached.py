"""What worked last time is tried first, for as long as it counts and no longer than it took."""

import json
import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connman.clock import Deadline
from connman.errors import ConnectionClosed, ConnectTimeout, ConnmanError, HandshakeFailed, InvalidOption
from connman.strategy import (
    BestConnected,
    Delayed,
    FirstConnected,
    Opened,
    Run,
    Sequential,
    Strategy,
    Transport,
)
from connman.strategy.cached import Cached
from connman.strategy.store import FileStore, Store
from tests.strategy.rig import HANG, Leaf, No, Ok, Rig
from tests.waiting import eventually

KEY = "key"
TTL = 1800.0
NOON = 1_700_000_000.0  # the time of the day when the rig's clock shows 0


class Stage:
    """A `Cached` tree of a websocket and of HTTP, with a mapping as its store."""

    def __init__(self, rig: Rig, store: Store | None = None) -> None:
        self.rig = rig
        self.mapping: dict[str, str] = {}
        self.store = self.mapping if store is None else store
        self.ws = rig.leaf("ws", Ok(100))
        self.http = rig.leaf("xhr_streaming", Ok(100), priority=1)

    def tree(self, child: Strategy | None = None, **options: Any) -> Cached:
        child = child or FirstConnected(BestConnected(self.ws, Delayed(self.http, 2.0)))
        return Cached(child, self.store, TTL, key=KEY, now=self.now, **options)

    def now(self) -> float:
        return NOON + self.rig.clock.now()

    def store_record(self, transport: str = "ws", *, age: float = 0.0, **more: Any) -> None:
        record = {"timestamp": self.now() - age, "transport": transport, "latency": 0.5, "skips": 0} | more
        self.mapping[KEY] = json.dumps(record)

    @property
    def record(self) -> dict[str, Any] | None:
        return json.loads(self.mapping[KEY]) if KEY in self.mapping else None

    def wait_stored(self, **expected: Any) -> None:
        eventually(lambda: expected.items() <= (self.record or {}).items(), message=lambda: str(self.record))

    def wait_empty(self) -> None:
        eventually(lambda: self.record is None)

    def started(self) -> list[str]:
        return [what.removesuffix(" started") for _, what in self.rig.journal if what.endswith(" started")]


@pytest.fixture(name="stage")
def fixture_stage(rig: Rig) -> Stage:
    return Stage(rig)


# What is stored


def test_a_success_is_stored_with_its_latency(rig: Rig, stage: Stage) -> None:
    rig.connect(stage.tree())
    rig.until(150)
    assert rig.winner == "ws"
    stage.wait_stored(transport="ws", latency=0.1, skips=0, timestamp=NOON + 0.1)


def test_latency_counts_from_the_start_of_the_tree_delays_included(rig: Rig, stage: Stage) -> None:
    rig.connect(stage.tree(FirstConnected(BestConnected(rig.leaf("ws"), Delayed(stage.http, 2.4)))))
    rig.until(3000)
    assert rig.winner == "xhr_streaming"
    stage.wait_stored(transport="xhr_streaming", latency=2.5, timestamp=NOON + 2.5)


def test_every_success_renews_it(rig: Rig, stage: Stage) -> None:
    rig.connect(
        Cached(BestConnected(stage.ws, rig.leaf("wss", Ok(300))), stage.mapping, key=KEY, now=stage.now)
    )
    rig.until(200)
    stage.wait_stored(transport="ws", latency=0.1)
    rig.until(400)
    stage.wait_stored(transport="wss", latency=0.3)
    assert [result.name for result in rig.results if isinstance(result, Opened)] == ["ws", "wss"]


def test_a_refused_login_is_stored_as_well(rig: Rig, stage: Stage) -> None:
    """The way to the peer works; that it does not let us in is no matter of the way."""
    refusal = HandshakeFailed("rig", (), "closed with 4001")
    rig.connect(stage.tree(FirstConnected(rig.leaf("ws", Ok(100, refusal)))))
    rig.until(150)
    stage.wait_stored(transport="ws")
    (result,) = rig.results
    assert isinstance(result, Opened)
    assert result.refusal is refusal


# The attempt with what is stored


def test_a_fresh_leaf_is_tried_alone(rig: Rig, stage: Stage) -> None:
    stage.store_record("ws")
    rig.connect(stage.tree())
    rig.until(5000)
    assert stage.started() == ["ws"]
    assert rig.winner == "ws"
    stage.wait_stored(timestamp=NOON + 0.1, latency=0.1)


@pytest.mark.parametrize(
    ("age", "is_used"),
    [(0.0, True), (TTL - 0.001, True), (TTL, True), (TTL + 0.001, False), (TTL + 1, False), (-TTL, True), (-TTL - 1, False)],
)  # fmt: skip
def test_it_counts_until_it_is_exactly_as_old_as_allowed(
    rig: Rig, stage: Stage, age: float, is_used: bool
) -> None:
    stage.store_record("wss", age=age)
    wss = rig.leaf("wss", Ok(100))
    rig.connect(stage.tree(FirstConnected(BestConnected(stage.ws, wss))))
    rig.until(1)
    assert stage.started() == (["wss"] if is_used else ["ws", "wss"])


def test_a_failure_starts_the_whole_tree_at_once_and_forgets(rig: Rig, stage: Stage) -> None:
    stage.store_record("ws", skips=4)
    stage.ws = rig.leaf("ws", No(300), HANG)
    rig.connect(stage.tree())
    rig.until(300)
    assert rig.took()[-1] == (300, "ws started")
    stage.wait_empty()
    rig.until(3000)
    # HTTP 2 s after that; the latency counts from there, and the count that was read is kept.
    assert (2300, "xhr_streaming started") in rig.took()
    assert rig.winner == "xhr_streaming"
    stage.wait_stored(transport="xhr_streaming", latency=2.1, skips=4)


def test_it_gets_twice_its_latency_and_a_second(rig: Rig, stage: Stage) -> None:
    stage.store_record("ws", latency=0.35)
    stage.ws = rig.leaf("ws", HANG, Ok(50))
    rig.connect(stage.tree())
    rig.until(1699)
    assert stage.started() == ["ws"]
    rig.until(1700)
    assert rig.took() == [(0, "ws started"), (1700, "ws aborted"), (1700, "ws started")]
    rig.until(1800)
    assert rig.winner == "ws"
    stage.wait_stored(latency=0.05)


def test_when_the_tree_fails_too_that_is_the_result(rig: Rig, stage: Stage) -> None:
    stage.store_record("ws")
    rig.connect(stage.tree(Sequential(rig.leaf("ws", No(10)), rig.leaf("wss", No(10)))))
    rig.until(100)
    assert [what for _, what in rig.took()] == [
        "ws started", "ws failed", "ws started", "ws failed", "wss started", "wss failed", "root failed",
    ]  # fmt: skip
    stage.wait_empty()


def test_a_failure_of_the_tree_forgets_what_was_not_used(rig: Rig, stage: Stage) -> None:
    stage.store_record("ws", age=TTL + 1)
    rig.connect(stage.tree(rig.leaf("ws", No(10))))
    rig.until(20)
    stage.wait_empty()


def test_what_others_stored_meanwhile_is_not_forgotten(rig: Rig, stage: Stage) -> None:
    rig.connect(stage.tree(rig.leaf("ws", No(10))))
    stage.store_record("wss")
    rig.until(20)
    assert len(rig.results) == 1
    assert "connman-cache" not in {thread.name for thread in threading.enumerate()}
    assert stage.record is not None


def test_an_unknown_name_is_kept_and_not_used(rig: Rig, stage: Stage) -> None:
    stage.store_record("carrier_pigeon", skips=3)
    rig.connect(stage.tree())
    rig.until(50)
    assert stage.started() == ["ws"]
    assert stage.record is not None
    rig.until(150)
    stage.wait_stored(transport="ws", skips=3)


def test_a_leaf_that_is_out_of_order_by_now_is_passed(rig: Rig, stage: Stage) -> None:
    stage.store_record("wss")
    wss = Transport("wss://127.0.0.1:1", enabled=False)
    rig.connect(stage.tree(FirstConnected(BestConnected(stage.ws, wss))))
    rig.until(150)
    assert rig.winner == "ws"
    stage.wait_stored(transport="ws")


# The skip count


def test_http_is_passed_over_four_times(rig: Rig, stage: Stage) -> None:
    """A network that let no websocket through may do so by now."""
    stage.ws = rig.leaf("ws")
    stage.store_record("xhr_streaming")
    used = []
    for skips in (1, 2, 3, 4, 4, 4):
        rig.took()
        began = rig.now
        runner = rig.connect(stage.tree())
        rig.advance(1)
        used.append(stage.started())
        rig.until(began + 3000)
        runner.abort()
        stage.wait_stored(transport="xhr_streaming", skips=skips)
    # With 0, 1, 2 and 3 not, with 4 and more at once.
    assert used == [["ws"]] * 4 + [["xhr_streaming"]] * 2


@pytest.mark.parametrize(("skips", "is_used"), [(0, False), (1, False), (2, False), (3, False), (4, True), (5, True)])  # fmt: skip
def test_each_count(rig: Rig, stage: Stage, skips: int, is_used: bool) -> None:
    stage.store_record("xhr_streaming", skips=skips)
    rig.connect(stage.tree())
    rig.until(1)
    assert stage.started() == (["xhr_streaming"] if is_used else ["ws"])


def test_a_record_without_a_count_has_none(rig: Rig, stage: Stage) -> None:
    stage.mapping[KEY] = json.dumps({"timestamp": NOON, "transport": "xhr_streaming", "latency": 0.5})
    rig.connect(stage.tree())
    rig.until(150)
    stage.wait_stored(transport="ws", skips=1)


def test_a_success_of_a_websocket_keeps_the_count(rig: Rig, stage: Stage) -> None:
    stage.store_record("ws", skips=4)
    rig.connect(stage.tree())
    rig.until(150)
    stage.wait_stored(transport="ws", timestamp=NOON + 0.1, skips=4)


def test_a_stale_record_keeps_the_count(rig: Rig, stage: Stage) -> None:
    stage.store_record("xhr_streaming", age=TTL + 1, skips=2)
    rig.connect(stage.tree())
    rig.until(150)
    stage.wait_stored(transport="ws", skips=2)


def test_what_is_forgotten_takes_the_count_with_it(rig: Rig, stage: Stage) -> None:
    stage.store_record("ws", skips=4)
    stage.ws = rig.leaf("ws", No(10), No(10), Ok(10))
    rig.connect(stage.tree(stage.ws))
    rig.until(50)
    stage.wait_empty()
    rig.connect(stage.tree(stage.ws))
    rig.until(100)
    stage.wait_stored(transport="ws", skips=0)


# Ending it, and priorities


def test_an_abort_reaches_what_is_under_way(rig: Rig, stage: Stage) -> None:
    stage.store_record("ws")
    stage.ws = rig.leaf("ws")
    runner = rig.connect(stage.tree())
    rig.until(10)
    runner.abort()
    rig.until(60_000)
    assert rig.journal == [(0, "ws started"), (10, "ws aborted")]
    assert stage.record is not None
    assert not rig.clock.pending


def test_a_forced_priority_is_kept_for_the_tree(rig: Rig, stage: Stage) -> None:
    stage.store_record("ws")
    stage.ws = rig.leaf("ws", HANG, priority=3)
    runner = rig.connect(stage.tree(stage.ws))
    rig.until(10)
    runner.force_min_priority(666)
    rig.until(20)
    assert rig.journal == [
        (0, "ws started"), (10, "ws forced to 666"), (10, "ws failed"), (10, "ws started with 666"), (10, "ws failed"),
        (10, "root failed"),
    ]  # fmt: skip


def test_a_priority_is_there_from_the_start(rig: Rig, stage: Stage) -> None:
    stage.store_record("xhr_streaming", skips=4)
    rig.connect(stage.tree(), 3)
    rig.until(150)
    assert rig.winner == "ws"
    assert rig.journal[0] == (0, "xhr_streaming started with 3")


class Dialling:
    """A thread that dials, as that of a connection does."""

    def __init__(self, rig: Rig, tree: Strategy, **options: Any) -> None:
        self.outcome: Any = None
        self.log: list[str] = []
        dial = self.dial = rig.dial(**options)

        def run() -> None:
            try:
                self.outcome = tree.dial(dial)
            except ConnmanError as error:
                self.outcome = error
            self.log = [f"{step.leaf} {step.phase}" for step in dial.log]

        self.thread = threading.Thread(target=run)
        self.thread.start()
        rig.clock.wait_until_waiting()

    def join(self) -> Any:
        self.thread.join(10)
        return self.outcome


def test_a_leaf_that_has_more_time_than_the_tree_is_tried_alone_once(rig: Rig, stage: Stage) -> None:
    """Else each dial would end before it is found out that this way does not work any more."""
    stage.store_record("ws", latency=8.0)
    stage.ws = rig.leaf("ws")
    dialling = Dialling(rig, stage.tree(), open_timeout=10.0)
    rig.until(10_000)
    assert isinstance(dialling.join(), ConnectTimeout)
    stage.wait_empty()
    dialling = Dialling(rig, stage.tree(), open_timeout=10.0)
    rig.until(12_100)
    transport = dialling.join()
    assert transport.name == "xhr_streaming"
    transport.dispose()


def test_a_tree_that_is_ended_in_time_forgets_nothing(rig: Rig, stage: Stage) -> None:
    stage.store_record("ws", latency=8.0)
    stage.ws = rig.leaf("ws")
    dialling = Dialling(rig, stage.tree(), open_timeout=10.0)
    rig.until(9_999)
    dialling.dial.abort(ConnectionClosed(1000))
    assert isinstance(dialling.join(), ConnectionClosed)
    assert stage.record is not None


def test_a_success_that_is_ended_after_the_time_of_the_tree_is_not_forgotten(rig: Rig, stage: Stage) -> None:
    """A login that was under way at the deadline may end behind it."""
    stage.store_record("ws")
    run = Run(rig.dial(), (), Deadline.after(rig.clock, 1.0))
    runner = run.begin(stage.tree(), rig.results.append, 0)
    run.resume()
    rig.until(2000)
    assert rig.winner == "ws"
    stage.wait_stored(timestamp=NOON + 0.1)
    runner.abort()
    # What might be written is, when no thread is left to write it.
    eventually(lambda: "connman-cache" not in {thread.name for thread in threading.enumerate()})
    assert stage.record is not None


def test_the_log_tells_that_the_cache_was_used(rig: Rig, stage: Stage) -> None:
    stage.store_record("ws")
    dialling = Dialling(rig, stage.tree())
    rig.until(100)
    dialling.join().dispose()
    assert dialling.log == ["ws cache"]


# Keys


@pytest.mark.parametrize(
    ("urls", "key"),
    [
        (["wss://a.example/x?token=1"], "connman:tls:a.example"),
        (["ws://a.example/x"], "connman:plain:a.example"),
        (["ws://u:p@b.example:81/", "wss://a.example:444/", "ws://b.example:81/y"], "connman:plain:a.example:444,b.example:81"),
        (["tls://a.example:1", "wss://b.example"], "connman:tls:a.example:1,b.example"),
        (["unix:///run/x.sock"], "connman:plain:unix:///run/x.sock"),
    ],
)  # fmt: skip
def test_other_hosts_and_tls_have_keys_of_their_own(urls: list[str], key: str) -> None:
    assert Cached(Sequential(*map(Transport, urls)), {}).key == key


def test_both_keys_live_in_one_file(rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "transports.json"
    for key, name in (("tls", "wss"), ("plain", "ws")):
        rig.connect(Cached(rig.leaf(name, Ok(10)), path, key=key))
        rig.advance(20)
        eventually(lambda key=key, name=name: _holds(path, key, name))
    rig.connect(Cached(rig.leaf("ws", No(10)), path, key="plain"))
    rig.advance(20)
    eventually(lambda: not _holds(path, "plain", "ws"))
    # Only its own key is gone.
    assert _holds(path, "tls", "wss")


def _holds(path: Path, key: str, name: str) -> bool:
    try:
        return bool(json.loads(FileStore(path)[key])["transport"] == name)
    except KeyError:
        return False


# Bad stores


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "5", '"ws"', "[" * 100_000,
        '{"timestamp": "now", "transport": "ws", "latency": 1}',
        '{"timestamp": 1e999, "transport": "ws", "latency": 1}',
        '{"timestamp": NaN, "transport": "ws", "latency": 1}',
        '{"timestamp": 1, "transport": 5, "latency": 1}',
        '{"timestamp": 1, "transport": "ws", "latency": -1}',
        '{"timestamp": 1, "transport": "ws", "latency": 1e9}',
        '{"timestamp": 1, "transport": "ws", "latency": true}',
        '{"timestamp": 1, "transport": "ws", "latency": 1, "skips": "many"}',
        '{"timestamp": 1, "transport": "ws", "latency": 1, "skips": -1}',
        '{"timestamp": 1, "transport": "ws", "latency": 1, "more": 1}',
        '{"timestamp": 1%s, "transport": "ws", "latency": 1}' % ("0" * 400),
        '{"timestamp": 1, "transport": "ws", "latency": 1, "skips": 1%s}' % ("0" * 400),
        '{"transport": "ws"}',
    ],
    ids=lambda text: text[:60],
)  # fmt: skip
def test_a_corrupt_text_is_forgotten_and_no_harm(rig: Rig, stage: Stage, text: str) -> None:
    stage.mapping[KEY] = text
    rig.connect(stage.tree())
    eventually(lambda: KEY not in stage.mapping)
    rig.until(150)
    assert rig.winner == "ws"
    stage.wait_stored(transport="ws", skips=0)


class Refusing(dict[str, str]):
    """A mapping of which only some methods work."""

    def __init__(self, *broken: str) -> None:
        super().__init__()
        self.broken = broken

    def _use(self, what: str) -> None:
        if what in self.broken:
            raise ConnectionResetError(what)

    def __getitem__(self, key: str) -> str:
        self._use("get")
        return super().__getitem__(key)

    def __setitem__(self, key: str, text: str) -> None:
        self._use("set")
        super().__setitem__(key, text)

    def __delitem__(self, key: str) -> None:
        self._use("delete")
        super().__delitem__(key)


@pytest.mark.parametrize("broken", [("get",), ("set",), ("delete",), ("get", "set", "delete")], ids=str)
def test_a_store_that_fails_stops_nothing(
    rig: Rig, broken: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    store = Refusing(*broken)
    stage = Stage(rig, store)
    tree = stage.tree(rig.leaf("ws", Ok(100), No(100), No(100)))
    for results in range(1, 4):
        rig.connect(tree)
        rig.advance(250)
        assert len(rig.results) == results
        eventually(lambda: "connman-cache" not in {thread.name for thread in threading.enumerate()})
    assert [type(result) is Opened for result in rig.results] == [True, False, False]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_without_a_store_it_is_its_child(
    rig: Rig, stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "platformdirs", None)
    tree = Cached(stage.ws)
    rig.connect(tree)
    rig.until(150)
    assert rig.winner == "ws"
    assert len(caplog.records) == 1
    assert tree.describe() == "Cached: 1800 s, without a store\n└─ ws"


@pytest.mark.parametrize(
    "make",
    [
        lambda leaf: Cached(leaf, 5),
        lambda leaf: Cached(leaf, {}, -1),
        lambda leaf: Cached(leaf, {}, math.nan),
        lambda leaf: Cached(leaf, {}, "1"),
    ],
)
def test_what_cannot_work_is_refused(rig: Rig, make: Callable[[Leaf], Cached]) -> None:
    with pytest.raises(InvalidOption):
        make(rig.leaf("ws"))
