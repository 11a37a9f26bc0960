"""Pusher's tree: its schedules to the millisecond, as pusher-js 8.6.0 shows them with leaves of the same behaviour."""

import json
from collections.abc import Callable
from typing import cast

import pytest

import connman
from connman.errors import CertificateError, ConnmanError, InvalidTarget, ProtocolError, UpgradeRefused
from connman.strategy import Opened, Runner, TransportManager, pusher_default, pusher_tree
from connman.transport.base import Transport
from connman.transport.memory import MemoryListener
from tests.loopback import PATIENCE
from tests.strategy.rig import HANG, Leaf, No, Ok, Outcome, Rig
from tests.waiting import eventually


class Tree:
    """Pusher's tree of scripted leaves: websockets have priority 3, HTTP 1."""

    def __init__(self, rig: Rig, *, plain: bool = False, supported: bool = True, **scripts: Outcome) -> None:
        def leaf(name: str, priority: int) -> Leaf:
            return rig.leaf(name, scripts.get(name, HANG), priority=priority, supported=supported)

        self.rig = rig
        self.ws = leaf("ws", 3)
        self.wss = leaf("wss", 3)
        self.streaming, self.polling = leaf("streaming", 1), leaf("polling", 1)
        self.root = pusher_tree(
            self.ws, wss=self.wss if plain else None, streaming=self.streaming, polling=self.polling
        )

    def connect(self) -> Runner:
        return self.rig.connect(self.root)

    def starts(self, name: str | None = None) -> list[tuple[int, str]]:
        lines = [(at, what.split()[0]) for at, what in self.rig.journal if " started" in what]
        return [line for line in lines if name in (None, line[1])]


def test_all_hang(rig: Rig) -> None:
    tree = Tree(rig)
    tree.connect()
    rig.advance(130_000)
    assert tree.starts() == [
        (0, "ws"), (2_000, "streaming"), (6_000, "polling"),
        (15_000, "ws"), (17_000, "streaming"), (21_000, "polling"), (32_000, "streaming"), (36_000, "polling"),
        (45_000, "ws"), (47_000, "streaming"), (51_000, "polling"), (62_000, "streaming"), (66_000, "polling"),
        (92_000, "streaming"), (96_000, "polling"),
        (105_000, "ws"), (107_000, "streaming"), (111_000, "polling"), (122_000, "streaming"), (126_000, "polling"),
    ]  # fmt: skip
    assert (17_000, "streaming aborted") in rig.journal
    assert (17_000, "polling aborted") in rig.journal
    assert (47_000, "streaming aborted") in rig.journal
    assert (47_000, "polling aborted") in rig.journal
    assert rig.results == []


def test_all_hang_without_tls(rig: Rig) -> None:
    tree = Tree(rig, plain=True)
    tree.connect()
    rig.advance(50_000)
    assert tree.starts() == [
        (0, "ws"), (2_000, "wss"), (5_000, "streaming"), (9_000, "polling"),
        (15_000, "ws"), (17_000, "wss"), (20_000, "streaming"), (24_000, "polling"),
        (35_000, "streaming"), (39_000, "polling"),
        (45_000, "ws"), (47_000, "wss"), (50_000, "streaming"),
    ]  # fmt: skip


def test_a_websocket_that_fails_early_hurries_nothing(rig: Rig) -> None:
    tree = Tree(rig, ws=No(10))
    tree.connect()
    rig.advance(170_000)
    assert tree.starts("ws") == [(at, "ws") for at in (0, 15_000, 45_000, 105_000, 165_000)]
    assert tree.starts("streaming")[0] == (2_000, "streaming")
    assert tree.starts("polling")[0] == (6_000, "polling")


def test_a_websocket_that_answers_wins_alone(rig: Rig) -> None:
    tree = Tree(rig, ws=Ok(1000))
    tree.connect()
    rig.advance(60_000)
    assert rig.took() == [
        (0, "ws started"),
        (1000, "ws ok"),
        (1000, "ws forced to 3"),
        (1000, "ws aborted"),
        (1000, "root: ws"),
    ]
    assert rig.clock.pending == 0
    assert rig.open_pipes == ["ws"]


def test_streaming_wins_while_the_websocket_hangs(rig: Rig) -> None:
    tree = Tree(rig, streaming=Ok(500))
    tree.connect()
    rig.advance(60_000)
    assert tree.starts() == [(0, "ws"), (2000, "streaming")]
    assert (2500, "ws forced to 1") in rig.journal
    assert (2500, "ws aborted") in rig.journal
    assert rig.journal[-1] == (2500, "root: streaming")
    assert rig.clock.pending == 0


def test_of_two_that_open_in_the_same_moment_one_stays(rig: Rig) -> None:
    tree = Tree(rig, ws=Ok(2500), streaming=Ok(500))
    tree.connect()
    rig.advance(60_000)
    assert len(rig.results) == 1
    assert len(rig.open_pipes) == 1


def test_polling_wins_where_streaming_is_held_back(rig: Rig) -> None:
    tree = Tree(rig, polling=Ok(300))
    tree.connect()
    rig.advance(60_000)
    assert rig.journal[-1] == (6300, "root: polling")
    assert rig.winner == "polling"
    assert rig.clock.pending == 0


def test_without_websockets_http_starts_at_once(rig: Rig) -> None:
    tree = Tree(rig)
    tree.ws.supported = False
    tree.connect()
    rig.advance(14_000)
    assert tree.starts() == [(0, "streaming"), (4_000, "polling")]


def test_without_streaming_polling_starts_in_its_place(rig: Rig) -> None:
    tree = Tree(rig)
    tree.streaming.supported = False
    tree.connect()
    rig.advance(14_000)
    assert tree.starts() == [(0, "ws"), (2_000, "polling")]


def test_what_is_supported_is_asked_anew_in_every_round(rig: Rig) -> None:
    # Streaming is called out of order while its round is under way: the next round is without it.
    tree = Tree(rig)
    tree.connect()
    rig.advance(16_000)
    tree.streaming.supported = False
    rig.advance(14_000)
    assert [line for line in tree.starts() if line[0] > 15_000] == [(17_000, "polling")]


def test_nothing_supported_is_nothing_to_try(rig: Rig) -> None:
    assert not Tree(rig, supported=False).root.is_supported()
    assert Tree(rig).root.is_supported()


def test_an_abort_ends_everything_for_good(rig: Rig) -> None:
    tree = Tree(rig)
    runner = tree.connect()
    rig.advance(3_000)
    rig.took()
    runner.abort()
    assert rig.took() == [(3_000, "ws aborted"), (3_000, "streaming aborted")]
    rig.advance(200_000)
    assert rig.journal == []
    assert rig.results == []
    assert rig.clock.pending == 0


def test_a_forced_priority_ends_http_and_lets_the_websocket_go_on(rig: Rig) -> None:
    tree = Tree(rig)
    runner = tree.connect()
    rig.advance(5_000)
    rig.took()
    runner.force_min_priority(2)
    assert (5_000, "streaming failed") in rig.journal
    assert "ws aborted" not in [what for _, what in rig.took()]
    rig.advance(40_000)
    started = [line for line in rig.journal if " started" in line[1]]
    assert started == [
        (6_000, "polling started with 2"),
        (15_000, "ws started with 2"),
        (17_000, "streaming started with 2"),
        (21_000, "polling started with 2"),
        (32_000, "streaming started with 2"),
        (36_000, "polling started with 2"),
        (45_000, "ws started with 2"),
    ]
    assert (6_000, "polling failed") in rig.journal
    assert rig.results == []


def test_a_refusal_counts_as_a_way_that_works(rig: Rig) -> None:
    tree = Tree(rig, ws=Ok(1000, refusal=UpgradeRefused(403)))
    tree.connect()
    rig.advance(60_000)
    (result,) = rig.results
    assert isinstance(result, Opened)
    assert isinstance(result.refusal, UpgradeRefused)
    assert rig.clock.pending == 0


def test_no_failure_is_final_for_a_loop(rig: Rig) -> None:
    tree = Tree(rig, ws=No(10, CertificateError("h")), streaming=No(10), polling=No(10))
    tree.connect()
    rig.advance(600_000)
    assert rig.results == []
    assert rig.clock.pending > 0


def test_websockets_alone(rig: Rig) -> None:
    ws = rig.leaf("ws")
    rig.connect(pusher_tree(ws))
    rig.advance(50_000)
    assert [at for at, what in rig.journal if what == "ws started"] == [0, 15_000, 45_000]


def test_one_way_over_http(rig: Rig) -> None:
    rig.connect(pusher_tree(rig.leaf("ws"), polling=rig.leaf("polling")))
    rig.advance(3_000)
    assert [line for line in rig.journal if "started" in line[1]] == [
        (0, "ws started"),
        (2000, "polling started"),
    ]


def test_the_tree_of_urls() -> None:
    tree = pusher_default("ws://one.example/app?key=secret", wss="wss://one.example/app")
    assert tree.describe() == "\n".join(
        (
            "FirstConnected",
            "└─ BestConnected",
            "   ├─ Sequential: loop, 15 s each, doubling up to 60 s",
            "   │  └─ ws ws://one.example/app?… (priority 3)",
            "   └─ Delayed: 2 s",
            "      └─ Sequential: loop, 15 s each, doubling up to 60 s",
            "         └─ wss wss://one.example/app (priority 3)",
        )
    )


def test_with_a_store_it_begins_with_what_worked() -> None:
    store: dict[str, str] = {}
    with MemoryListener("pusher") as listener:
        tree = pusher_default("memory://pusher", store=store, ttl=60.0)
        assert tree.describe().splitlines()[:2] == ["Cached: 60 s", "└─ FirstConnected"]
        for _ in range(2):
            # The other end does not answer a close.
            with connman.connect(tree, ping_interval=None, close_timeout=0.01) as conn:
                listener.accept(PATIENCE)
                assert conn.transport_name == "memory"
            (record,) = eventually(lambda: [json.loads(text) for text in store.values()])
            assert record["transport"] == "memory"


def test_the_websockets_share_a_manager_that_never_gives_them_up() -> None:
    tree = pusher_default("ws://one.example/", wss="wss://one.example/")
    managers = {leaf.manager for leaf in tree.leaves()}
    (manager,) = managers
    assert isinstance(manager, TransportManager)
    opened = Ended(ProtocolError("garbage", 1002))
    for _ in range(10):
        manager.watch(cast(Transport, opened))
        assert opened.on_end is not None
        opened.on_end(opened)
    assert tree.is_supported()
    mine = TransportManager(lives=1)
    assert {leaf.manager for leaf in pusher_default("ws://one.example/", manager=mine).leaves()} == {mine}


class Ended:
    """A transport that has ended with ``error``."""

    ping_pace: float | None = None
    on_end: Callable[["Ended"], None] | None = None

    def __init__(self, error: ConnmanError) -> None:
        self.error = error


@pytest.mark.parametrize("http", ["ws://one.example", "one.example", "xhr-polling+http://one.example"])
def test_http_is_a_url_of_http(http: str) -> None:
    with pytest.raises(InvalidTarget, match="http= is a URL of http or https"):
        pusher_default("wss://one.example", http=http)
