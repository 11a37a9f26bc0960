"""A websocket's port whose packets are dropped: the tree of `pusher_default` is open over HTTP in under 2.5 s."""

import pytest

from connman.testing import FaultProxy
from tests.hostile.netns.namespace import Firewall
from tests.promises.networks import OVER_HTTP, SLACK, default_tree, opened, tried
from tests.transport.sockjs_servers import SockjsProcess

pytestmark = [pytest.mark.netns, pytest.mark.slow]


@pytest.mark.parametrize("way", ["both", "down"])
def test_a_websocket_s_port_that_drops_packets(firewall: Firewall, way: str) -> None:
    """Planted: with HTTP behind the websocket, 5 s later, it is not open in time."""
    with (
        SockjsProcess("aiohttp") as server,
        FaultProxy("127.0.0.1", server.port) as other_port,
    ):
        tree = default_tree(other_port.port, server.port, store={})
        firewall.drop(other_port.port, way=way)
        with opened(tree, OVER_HTTP, proxy=None) as conn:
            assert conn.transport_name == "xhr_streaming"
            assert tried(conn) == ["ws", "xhr_streaming"]
            assert [(step.phase, step.cause) for step in conn.attempts if step.leaf == "ws"] == [
                ("tcp", "given up")
            ]
        firewall.heal()
        with opened(tree, SLACK, proxy=None) as conn:
            assert conn.transport_name == "ws"
