"""Dials into a network that drops, resets or has no way: at the deadline or at once, with the stage and the cause."""

import pytest

from tests.hostile.dialling import failed_dial
from tests.hostile.netns.namespace import Firewall
from tests.promises.peers import Peers, serve_ws

pytestmark = [pytest.mark.netns, pytest.mark.slow]


def test_dials_end_in_time_and_name_their_stage(firewall: Firewall) -> None:
    """websocket-client 1.9.2 with timeout=0.4: WebSocketTimeoutException or an OSError, with neither stage nor address."""
    with Peers(serve_ws) as server:
        for is_shared in (False, True):
            for scheme in ("ws", "wss"):
                url = server.url(scheme)
                firewall.drop(server.port)
                failed_dial(url, is_shared=is_shared).assert_at_deadline("tcp")
                firewall.heal()
                firewall.drop(server.port, way="down")  # the server has it open, the client never hears
                failed_dial(url, is_shared=is_shared).assert_at_deadline("tcp")
                firewall.heal()
                firewall.reject(server.port, "tcp reset")
                failed_dial(url, is_shared=is_shared).assert_at_once("tcp", "Connection refused")
                firewall.heal()
                firewall.reject(server.port, "icmpx host-unreachable")
                failed_dial(url, is_shared=is_shared).assert_at_once("tcp", "No route to host")
                firewall.heal()
        failed_dial("ws://192.0.2.1:80/").assert_at_once("tcp", "Network is unreachable")
