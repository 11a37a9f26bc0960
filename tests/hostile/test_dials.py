"""A dial that gets no answer ends at its deadline, and its error says at which stage it hung.

websocket-client 1.9.2: `connect(timeout=0.4)` gives WebSocketTimeoutException or TimeoutError ("timed out") in each case,
with neither stage nor address; an answer that drips holds it for ever.
"""

from typing import Any

import pytest

from connman.errors import HandshakeTimeout
from connman.testing import FaultProxy
from tests.hostile.dialling import OPEN_TIMEOUT, failed_dial
from tests.hostile.fleet import Tls
from tests.loopback import hanging_port
from tests.promises.peers import Peers, serve_ws

SHARED = pytest.mark.parametrize(
    "is_shared", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["own reader", "shared reader"]
)


@SHARED
def test_a_full_backlog_is_the_tcp_stage(is_shared: bool) -> None:
    with hanging_port() as port:
        failed_dial(f"ws://127.0.0.1:{port}/", is_shared=is_shared).assert_at_deadline("tcp")


@SHARED
@pytest.mark.parametrize(("scheme", "stage"), [("ws", "upgrade"), ("wss", "tls")])
def test_a_black_hole_behind_the_accept_is_the_next_stage(
    tls: Tls, scheme: str, stage: str, is_shared: bool
) -> None:
    options: dict[str, Any] = {"ssl_context": tls.client} if scheme == "wss" else {}
    with Peers(serve_ws) as server, FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.deaf()
        failed_dial(proxy.url(scheme), is_shared=is_shared, **options).assert_at_deadline(stage)


@SHARED
def test_a_login_without_an_answer_is_the_handshake(is_shared: bool) -> None:
    with Peers(lambda sock: serve_ws(sock, lambda _: None)) as server:
        failed = failed_dial(
            server.url(),
            is_shared=is_shared,
            handshake=lambda channel: channel.recv(),
            handshake_timeout=OPEN_TIMEOUT,
        )
        failed.assert_at_deadline("handshake", HandshakeTimeout)
