"""Networks that let no websocket through: the tree of `pusher_default` is open over HTTP soon, and comes back from there.

Real servers of SockJS (which speak websockets at `/websocket`), real proxies, real time. 2.5 s is the promise: HTTP starts
2 s behind a websocket that does not open. The schedules themselves are in tests/strategy/test_default.py.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

import connman
from connman.errors import UpgradeRefused
from connman.testing import FaultProxy
from tests.loopback import hanging_port
from tests.promises.networks import (
    BEHIND_STREAMING,
    BEHIND_WS,
    BEYOND_CACHED,
    OVER_HTTP,
    SLACK,
    default_tree,
    echo,
    network,
    nothing_left,
    opened,
    tried,
)
from tests.promises.peers import run_program
from tests.proxies import Blocks
from tests.transport.sockjs_servers import NAMES, SockjsProcess
from tests.waiting import eventually

pytestmark = pytest.mark.slow

TTL = 1800.0


@pytest.fixture(scope="module", name="server")
def fixture_server() -> Iterator[SockjsProcess]:
    with SockjsProcess("aiohttp") as process:
        yield process


@pytest.fixture(autouse=True)
def nothing_open() -> Iterator[None]:
    with nothing_left():
        yield


def log_in(channel: connman.Channel) -> None:
    channel.send("log me in")
    assert channel.recv() == "log me in"


# It opens


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("blocks", ["refuse", "swallow"])
def test_a_proxy_that_lets_no_websocket_through(blocks: Blocks, name: str, tmp_path: Path) -> None:
    """Planted: HTTP 3 s behind the websocket; a websocket that is swallowed and not ended when HTTP has won."""
    with (
        SockjsProcess(name) as server,
        network(server, blocks, tmp_path) as net,
        net.connected(OVER_HTTP) as conn,
    ):
        assert conn.transport_name == "xhr_streaming"
        assert net.proxy.blocked == 1
        (end,) = (step for step in conn.attempts if step.leaf == "ws" and step.cause is not None)
        assert end.phase == "upgrade"
        assert end.cause == (str(UpgradeRefused(403)) if blocks == "refuse" else "given up")


def test_a_network_that_passes_the_upgrade_and_swallows_frames(server: SockjsProcess, tmp_path: Path) -> None:
    """Planted: without the login in the leaf the websocket wins, and the connection fails."""
    with (
        network(server, "swallow frames", tmp_path) as net,
        net.connected(OVER_HTTP, handshake=log_in) as conn,
    ):
        assert conn.transport_name == "xhr_streaming"
        ends = {step.leaf: (step.phase, step.cause) for step in conn.attempts}
        assert ends == {"ws": ("handshake", "given up"), "xhr_streaming": ("handshake", None)}


def test_a_port_that_answers_no_syn(server: SockjsProcess) -> None:
    """A full backlog drops packets as a firewall does, which is in tests/hostile/netns. Planted: as with the proxy."""
    with (
        hanging_port() as port,
        opened(default_tree(port, server.port, store={}), OVER_HTTP, proxy=None) as conn,
    ):
        assert conn.transport_name == "xhr_streaming"
        assert tried(conn) == ["ws", "xhr_streaming"]


def test_a_network_that_holds_streams_back(server: SockjsProcess, tmp_path: Path) -> None:
    """Planted: polling a second later; a tree without it."""
    with network(server, "refuse", tmp_path) as net:
        net.proxy.holds_streams = True
        with net.connected(BEHIND_WS + BEHIND_STREAMING + SLACK) as conn:
            assert conn.transport_name == "xhr_polling"
            assert tried(conn) == ["ws", "xhr_streaming", "xhr_polling"]


# It comes back


def test_what_worked_is_tried_first_and_the_websocket_again_when_that_is_old(
    server: SockjsProcess, tmp_path: Path
) -> None:
    """Planted: HTTP passed over three times only; a file that is never old; one that is not read."""
    with network(server, "refuse", tmp_path) as net:
        for _ in range(5):  # four times HTTP is passed over though it is in the file
            with net.connected(OVER_HTTP) as conn:
                assert tried(conn) == ["ws", "xhr_streaming"]
        assert net.proxy.blocked == 5
        net.proxy.blocks = None
        with net.connected(SLACK) as conn:
            assert tried(conn) == ["cached xhr_streaming", "xhr_streaming"]
        net.let_pass(TTL)
        with net.connected(SLACK) as conn:
            assert tried(conn) == ["ws"]
            assert conn.transport_name == "ws"
        with net.connected(SLACK) as conn:
            assert tried(conn) == ["cached ws", "ws"]


@pytest.mark.parametrize("blocks", ["refuse", "swallow"])
def test_what_worked_and_does_not_any_more_is_forgotten_and_all_begins_anew(
    server: SockjsProcess, blocks: Blocks, tmp_path: Path
) -> None:
    """Planted: a cached way that is waited out when it has failed; one that gets twice its time and 2 s."""
    with network(server, None, tmp_path) as net:
        with net.connected(SLACK) as conn:
            assert conn.transport_name == "ws"
        net.proxy.blocks = blocks
        # Refused it is forgotten at once; swallowed it has twice its time and a second.
        alone = 0.0 if blocks == "refuse" else 2 * net.record["latency"] + BEYOND_CACHED
        with net.connected(alone + OVER_HTTP) as conn:
            assert conn.transport_name == "xhr_streaming"
            assert net.proxy.blocked == 2
            starts = {step.leaf: step.start for step in conn.attempts}
            assert starts["xhr_streaming"] >= alone + BEHIND_WS
        # HTTP in the file does not keep it from the websocket, four times.
        net.proxy.blocks = None
        with net.connected(SLACK) as conn:
            assert conn.transport_name == "ws"


def test_another_process_begins_with_what_worked_here(server: SockjsProcess, tmp_path: Path) -> None:
    """Planted: a store of this process alone."""
    with network(server, None, tmp_path) as net, net.connected(SLACK):
        alone = ["ws cache", "ws tcp", "ws proxy", "ws upgrade"]
        done = run_program("reaching.py", *net.words)
        assert (done.stderr, done.stdout.split(", ")) == ("", alone)
        net.proxy.blocks = "refuse"
        done = run_program("reaching.py", *net.words)
        assert (done.stderr, done.stdout.split(", ")[:5]) == ("", [*alone, "ws tcp"])
        # It has forgotten for this one as well.
        assert net.record.get("transport") != "ws"


def test_what_failed_is_forgotten_before_anything_else_works(server: SockjsProcess, tmp_path: Path) -> None:
    """Planted: forgetting nothing."""
    with network(server, None, tmp_path) as net:
        with net.connected(SLACK) as conn:
            assert conn.transport_name == "ws"
        net.proxy.blocks = "refuse"
        with net.connecting() as conn:
            eventually(lambda: not net.record)
            assert conn.state is connman.State.CONNECTING
        with net.connected(OVER_HTTP) as conn:
            assert tried(conn) == ["ws", "xhr_streaming"]


def test_one_connection_finds_its_way_each_time_it_comes_back(server: SockjsProcess) -> None:
    """Planted: a cached way that may take as long as it likes."""
    ways: list[str | None] = []
    with FaultProxy("127.0.0.1", server.port) as proxy:
        tree = default_tree(proxy.port, proxy.port, store={})
        conn = connman.Connection(tree, proxy=None, on_open=lambda conn: ways.append(conn.transport_name))
        with conn:
            echo(conn)
            for count, fate in enumerate(("swallow", "refuse", "pass"), 2):
                proxy.websockets = fate
                proxy.cut()
                eventually(lambda count=count: len(ways) == count)
                echo(conn)
    assert ways == ["ws", "xhr_streaming", "xhr_streaming", "ws"]
