"""Pusher's tree with its cache: to the millisecond, what is tried alone, for how long, and what follows it.

The schedules without one are in test_default.py; what a `Cached` does with other trees is in test_cached.py.
"""

import json
import time
from typing import Any

import pytest

import connman
from connman.errors import UpgradeRefused
from connman.strategy import Cached, Opened, Runner, pusher_default, pusher_tree
from connman.testing import FakeClock
from tests.loopback import PATIENCE, hanging_port
from tests.strategy.rig import HANG, Leaf, No, Ok, Outcome, Rig
from tests.transport.sockjs_peers import echoing
from tests.waiting import eventually

KEY = "key"
TTL = 1800.0
NOON = 1_700_000_000.0  # the time of the day when the rig's clock shows 0

# When each leaf is started where all of them hang, and nothing is stored.
ALL_HANG = [
    (0, "ws"), (2_000, "xhr_streaming"), (6_000, "xhr_polling"),
    (15_000, "ws"), (17_000, "xhr_streaming"), (21_000, "xhr_polling"), (32_000, "xhr_streaming"), (36_000, "xhr_polling"),
    (45_000, "ws"), (47_000, "xhr_streaming"), (51_000, "xhr_polling"), (62_000, "xhr_streaming"), (66_000, "xhr_polling"),
    (92_000, "xhr_streaming"), (96_000, "xhr_polling"),
    (105_000, "ws"), (107_000, "xhr_streaming"), (111_000, "xhr_polling"), (122_000, "xhr_streaming"), (126_000, "xhr_polling"),
]  # fmt: skip
ALL_HANG_WITHOUT_TLS = [
    (0, "ws"), (2_000, "wss"), (5_000, "xhr_streaming"), (9_000, "xhr_polling"),
    (15_000, "ws"), (17_000, "wss"), (20_000, "xhr_streaming"), (24_000, "xhr_polling"),
    (35_000, "xhr_streaming"), (39_000, "xhr_polling"),
    (45_000, "ws"), (47_000, "wss"), (50_000, "xhr_streaming"),
]  # fmt: skip
ALONE = {"timestamp": NOON, "skips": 4}


class Tree:
    """The tree of scripted leaves that all hang but for those with a script, and what it has stored."""

    def __init__(self, rig: Rig, *, plain: bool = False, **scripts: list[Outcome]) -> None:
        def leaf(name: str, priority: int) -> Leaf:
            return rig.leaf(name, *scripts.pop(name, [HANG]), priority=priority)

        self.rig = rig
        self.store: dict[str, str] = {}
        self.ws, self.wss = leaf("ws", 3), leaf("wss", 3)
        self.streaming, self.polling = leaf("xhr_streaming", 1), leaf("xhr_polling", 1)
        assert not scripts
        child = pusher_tree(
            self.ws, wss=self.wss if plain else None, streaming=self.streaming, polling=self.polling
        )
        self.root = Cached(child, self.store, TTL, key=KEY, now=lambda: NOON + rig.clock.now())

    def keep(self, transport: str, latency: float, **more: Any) -> None:
        self.store[KEY] = json.dumps(ALONE | {"transport": transport, "latency": latency} | more)

    def connect(self) -> Runner:
        self.rig.took()
        return self.rig.connect(self.root)

    def open(self, milliseconds: int) -> list[tuple[int, str]]:
        """Have it open one, which takes that long, end it and return what was started when, from its start."""
        began, results = self.rig.now, len(self.rig.results)
        runner = self.connect()
        self.rig.advance(milliseconds - 1)
        assert len(self.rig.results) == results
        self.rig.advance(1)
        assert len(self.rig.results) == results + 1
        runner.abort()
        assert self.rig.clock.pending == 0
        return [(at - began, name) for at, name in self.starts()]

    def starts(self) -> list[tuple[int, str]]:
        return [(at, what.split()[0]) for at, what in self.rig.journal if " started" in what]

    def wait_stored(self, transport: str, latency: float, skips: int) -> None:
        record = {"transport": transport, "latency": latency, "skips": skips}
        record["timestamp"] = NOON + self.rig.clock.now()
        eventually(lambda: json.loads(self.store.get(KEY, "{}")) == record, message=lambda: str(self.store))

    def wait_forgotten(self) -> None:
        eventually(lambda: not self.store)


def later(milliseconds: int, schedule: list[tuple[int, str]]) -> list[tuple[int, str]]:
    return [(at + milliseconds, name) for at, name in schedule]


# Where all leaves hang


def test_with_nothing_stored_it_is_the_tree(rig: Rig) -> None:
    tree = Tree(rig)
    tree.connect()
    rig.until(130_000)
    assert tree.starts() == ALL_HANG


@pytest.mark.parametrize(
    ("transport", "latency", "alone"),
    [("ws", 0.35, 1_700), ("ws", 0.0, 1_000), ("xhr_streaming", 2.5, 6_000), ("xhr_polling", 6.3, 13_600)],
)
def test_what_is_stored_is_tried_alone_and_then_all_begins_anew(
    rig: Rig, transport: str, latency: float, alone: int
) -> None:
    tree = Tree(rig)
    tree.keep(transport, latency)
    tree.connect()
    rig.until(alone - 1)
    assert tree.starts() == [(0, transport)]
    assert tree.store
    rig.until(alone + 130_000)
    assert tree.starts() == [(0, transport), *later(alone, ALL_HANG)]
    assert rig.journal[:3] == [
        (0, f"{transport} started"),
        (alone, f"{transport} aborted"),
        (alone, "ws started"),
    ]
    tree.wait_forgotten()


@pytest.mark.parametrize("transport", ["ws", "wss"])
def test_without_tls_as_well(rig: Rig, transport: str) -> None:
    tree = Tree(rig, plain=True)
    tree.keep(transport, 0.5)
    tree.connect()
    rig.until(2_000 + 50_000)
    assert tree.starts() == [(0, transport), *later(2_000, ALL_HANG_WITHOUT_TLS)]


@pytest.mark.parametrize(("transport", "skips"), [("xhr_streaming", 0), ("xhr_polling", 3)])
def test_http_that_is_passed_over_changes_nothing(rig: Rig, transport: str, skips: int) -> None:
    tree = Tree(rig)
    tree.keep(transport, 0.5, skips=skips)
    tree.connect()
    rig.until(130_000)
    assert tree.starts() == ALL_HANG
    assert tree.store


@pytest.mark.parametrize(("age", "alone"), [(TTL, 1_000), (TTL + 0.001, None)])
def test_exactly_as_old_as_allowed_is_not_too_old(rig: Rig, age: float, alone: int | None) -> None:
    tree = Tree(rig)
    tree.keep("ws", 0.0, timestamp=NOON - age)
    tree.connect()
    rig.until(20_000)
    expected = ALL_HANG[:5] if alone is None else [(0, "ws"), *later(alone, ALL_HANG[:5])]
    assert tree.starts() == expected


# Where one fails


def test_a_websocket_that_fails_begins_it_anew_at_once_and_then_hurries_nothing(rig: Rig) -> None:
    tree = Tree(rig, ws=[No(10)])
    tree.keep("ws", 0.35)
    tree.connect()
    rig.until(170_000)
    starts = [at for at, name in tree.starts() if name == "ws"]
    assert starts == [0, 10, 15_010, 45_010, 105_010, 165_010]
    assert tree.starts()[2:4] == [(2_010, "xhr_streaming"), (6_010, "xhr_polling")]


def test_a_websocket_that_cannot_be_tried_leaves_http_alone_at_once(rig: Rig) -> None:
    tree = Tree(rig, ws=[No()])
    tree.keep("ws", 0.35)
    tree.ws.supported = False
    tree.connect()
    rig.until(14_000)
    assert tree.starts() == [(0, "ws"), (0, "xhr_streaming"), (4_000, "xhr_polling")]


# Where one opens


def test_a_websocket_that_answers_is_alone_from_then_on(rig: Rig) -> None:
    tree = Tree(rig, ws=[Ok(1_000)])
    for _ in range(3):
        assert tree.open(1_000) == [(0, "ws")]
        tree.wait_stored("ws", 1.0, 0)


def test_streaming_is_passed_over_four_times_and_is_alone_then(rig: Rig) -> None:
    tree = Tree(rig, xhr_streaming=[Ok(500)] * 6 + [HANG, Ok(500)])
    for skips in range(5):
        assert tree.open(2_500) == [(0, "ws"), (2_000, "xhr_streaming")]
        # From the start of the tree, the wait for the websocket included.
        tree.wait_stored("xhr_streaming", 2.5, skips)
    assert tree.open(500) == [(0, "xhr_streaming")]
    tree.wait_stored("xhr_streaming", 0.5, 4)
    # It hangs now, has 2 * 0.5 + 1 s, and opens in its turn behind the websocket.
    assert tree.open(4_500) == [(0, "xhr_streaming"), (2_000, "ws"), (4_000, "xhr_streaming")]
    tree.wait_stored("xhr_streaming", 2.5, 4)


def test_polling_where_streams_are_held_back(rig: Rig) -> None:
    tree = Tree(rig, xhr_polling=[Ok(300)])
    for skips in range(5):
        assert tree.open(6_300) == ALL_HANG[:3]
        tree.wait_stored("xhr_polling", 6.3, skips)
    assert tree.open(300) == [(0, "xhr_polling")]
    tree.wait_stored("xhr_polling", 0.3, 4)


def test_a_websocket_that_works_again_is_found_at_the_first_chance(rig: Rig) -> None:
    tree = Tree(rig, ws=[HANG, Ok(100)], xhr_streaming=[Ok(500)])
    assert tree.open(2_500) == ALL_HANG[:2]
    assert tree.open(100) == [(0, "ws")]
    # How often HTTP was passed over is not forgotten by that.
    tree.wait_stored("ws", 0.1, 1)
    assert tree.open(100) == [(0, "ws")]
    tree.wait_stored("ws", 0.1, 1)


def test_after_http_alone_it_is_found_when_that_is_old(rig: Rig) -> None:
    tree = Tree(rig, ws=[Ok(100)], xhr_streaming=[Ok(500)])
    tree.keep("xhr_streaming", 0.5)
    assert tree.open(500) == [(0, "xhr_streaming")]
    tree.wait_stored("xhr_streaming", 0.5, 4)
    rig.advance(1_800_000)  # exactly the time for which it counts
    assert tree.open(500) == [(0, "xhr_streaming")]
    tree.wait_stored("xhr_streaming", 0.5, 4)
    rig.advance(1_800_001)
    assert tree.open(100) == [(0, "ws")]
    tree.wait_stored("ws", 0.1, 4)


def test_wss_where_it_is_the_way(rig: Rig) -> None:
    tree = Tree(rig, plain=True, wss=[Ok(250)])
    assert tree.open(2_250) == [(0, "ws"), (2_000, "wss")]
    tree.wait_stored("wss", 2.25, 0)
    assert tree.open(250) == [(0, "wss")]
    tree.wait_stored("wss", 0.25, 0)


def test_what_lets_nobody_in_is_a_way_that_works(rig: Rig) -> None:
    tree = Tree(rig, ws=[Ok(100, refusal=UpgradeRefused(403))])
    for _ in range(2):
        assert tree.open(100) == [(0, "ws")]
        tree.wait_stored("ws", 0.1, 0)
        result = rig.results[-1]
        assert isinstance(result, Opened)
        assert isinstance(result.refusal, UpgradeRefused)


# Aborts and priorities


@pytest.mark.parametrize("at", [1_000, 3_000, 9_000])
def test_an_abort_ends_it_for_good(rig: Rig, at: int) -> None:
    tree = Tree(rig)
    tree.keep("xhr_streaming", 0.5)  # alone for 2 s
    runner = tree.connect()
    rig.until(at)
    under_way = {1_000: ["xhr_streaming"], 3_000: ["ws"], 9_000: ["ws", "xhr_streaming", "xhr_polling"]}[at]
    rig.took()
    runner.abort()
    assert rig.took() == [(at, f"{name} aborted") for name in under_way]
    rig.advance(200_000)
    assert rig.journal == []
    assert rig.results == []
    assert rig.clock.pending == 0


def test_a_priority_forced_while_http_is_alone_goes_on_with_the_websocket(rig: Rig) -> None:
    tree = Tree(rig)
    tree.keep("xhr_streaming", 2.5)
    runner = tree.connect()
    rig.until(500)
    runner.force_min_priority(2)
    rig.until(16_000)
    assert [line for line in rig.journal if "started" in line[1]] == [
        (0, "xhr_streaming started"),
        (500, "ws started with 2"),
        (2_500, "xhr_streaming started with 2"),
        (6_500, "xhr_polling started with 2"),
        (15_500, "ws started with 2"),
    ]
    assert (2_500, "xhr_streaming failed") in rig.journal
    assert (6_500, "xhr_polling failed") in rig.journal
    assert rig.results == []
    tree.wait_forgotten()


# The tree of URLs


def test_the_tree_of_urls_has_the_same_schedule(rig: Rig) -> None:
    store: dict[str, str] = {}
    with hanging_port() as port:
        tree = pusher_default(f"ws://127.0.0.1:{port}/app", http=f"http://127.0.0.1:{port}/base", store=store)
        assert isinstance(tree, Cached)
        record = {"timestamp": time.time(), "transport": "xhr_streaming", "latency": 2.5, "skips": 4}
        store[tree.key] = json.dumps(record)
        dial = rig.dial(proxy=None, open_timeout=1_000.0)
        runner = tree.connect(rig.results.append, dial=dial)
        rig.until(6_000 + 130_000)
        runner.abort()
        tried = sorted((step.start, step.leaf) for step in dial.log if step.phase != "cache")
        assert [(round(start * 1_000), leaf) for start, leaf in tried] == [
            (0, "xhr_streaming"),
            *later(6_000, ALL_HANG),
        ]
        ends = {(step.leaf, round((step.start + step.seconds) * 1_000)) for step in dial.log[:8]}
        assert ends == {
            ("xhr_streaming", 0), ("xhr_streaming", 6_000), ("ws", 21_000), ("xhr_streaming", 23_000), ("xhr_polling", 23_000),
            ("xhr_streaming", 38_000), ("xhr_polling", 42_000), ("ws", 51_000),
        }  # fmt: skip
        assert {step.cause for step in dial.log} == {None, "given up"}
    assert rig.results == []
    assert rig.clock.pending == 0
    eventually(lambda: not store)


def test_the_tree_of_urls_opens_over_http_and_remembers_it() -> None:
    """The server is a real one, and takes none of the clock's time."""
    store: dict[str, str] = {}
    with hanging_port() as port, echoing() as server:
        http = server.target.removeprefix("xhr-streaming+")
        tree = pusher_default(f"ws://127.0.0.1:{port}/app", http=http, store=store)
        for number in range(6):
            clock = FakeClock()
            conn = connman.Connection(tree, clock=clock, proxy=None, ping_interval=None)
            future = conn.get_connected()
            if number < 5:
                eventually(lambda clock=clock: clock.pending >= 2)
                clock.advance(1.999)
                assert conn.state is connman.State.CONNECTING
                clock.advance(0.001)
            future.result(PATIENCE)
            assert conn.transport_name == "xhr_streaming"
            assert round(clock.now() * 1_000) == (2_000 if number < 5 else 0)
            conn.send("hello")
            assert conn.recv(PATIENCE) == "hello"
            conn.disconnect(timeout=PATIENCE)
            expected = {
                "transport": "xhr_streaming",
                "latency": round(clock.now(), 6),
                "skips": min(number, 4),
            }
            eventually(lambda expected=expected: expected.items() <= stored(store).items())


def stored(store: dict[str, str]) -> dict[str, Any]:
    return json.loads(next(iter(store.values()), "{}"))
