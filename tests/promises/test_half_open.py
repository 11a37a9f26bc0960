"""A peer that is gone without a word is noticed in time, a slow callback is no such peer, and nobody waits for it.

The other shapes of a half-open connection, and what else is no such peer: tests/hostile/test_liveness.py and beside it.

Seen failing on planted bugs: with a keepalive that ends nothing no frozen peer is noticed; with the time inside a callback
counted against the peer a callback that blocks is a loss; with a `close` that takes the send lock `disconnect` waits for a
peer that does not read, and with a `ping` that takes it no other connection is pinged any more. (websocket-client 1.9.2 has
the last two: `close()` and `ping()` wait for the lock of a sender that is stuck.)
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import connman
from connman.errors import PingTimeout
from tests.hostile.fleet import SLACK
from tests.loopback import in_thread
from tests.promises.peers import PATIENCE, by_dispatch, connection, wait_stuck, within
from tests.servers import WebSocketProcess, ws_server
from tests.waiting import eventually

DISPATCHES = ["reader", *(pytest.param(name, marks=pytest.mark.slow) for name in ("shared", "thread"))]
SHARED = pytest.mark.parametrize(
    "is_shared", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["own reader", "shared reader"]
)
INTERVAL = TIMEOUT = 0.3
NOTICED = INTERVAL + TIMEOUT + SLACK
KEEPALIVE = {"ping_interval": INTERVAL, "ping_timeout": TIMEOUT, "proxy": None}


@pytest.fixture
def server() -> Iterator[WebSocketProcess]:
    with ws_server() as process:
        yield process


@pytest.fixture
def secure_server(tmp_path: Path) -> Iterator[tuple[WebSocketProcess, Any]]:
    import ssl

    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with ws_server(tmp_path / "server.pem", tmp_path / "server.pem") as process:
        yield process, context


class Losses:
    """What `on_reset` was told, and when."""

    def __init__(self) -> None:
        self.told: list[tuple[float, connman.Reset]] = []

    def __call__(self, _: connman.Connection, reset: connman.Reset) -> None:
        self.told.append((time.monotonic(), reset))

    def wait_noticed(self, since: float, what: str) -> None:
        eventually(lambda: self.told, max(0.0, since + NOTICED - time.monotonic()), f"{what} to be noticed")
        at, reset = self.told[0]
        assert isinstance(reset.error, PingTimeout)
        assert reset.opened
        print(f"{what}: noticed after {at - since:.2f} s of {NOTICED:g}")


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_a_frozen_server_process_is_noticed(server: WebSocketProcess, dispatch: str) -> None:
    losses = Losses()
    conn = by_dispatch(dispatch, server.url("/silent"), on_reset=losses, open_timeout=0.5, **KEEPALIVE)
    with conn:
        # It must have been alive over some pings before.
        eventually(lambda: conn.stats.ping_rtt is not None)
        server.stop()
        losses.wait_noticed(time.monotonic(), "SIGSTOP")
        server.cont()
        eventually(lambda: conn.is_open and conn.generation == 2)


@SHARED
@pytest.mark.slow
def test_a_frozen_server_process_is_noticed_over_tls(
    secure_server: tuple[WebSocketProcess, Any], is_shared: bool
) -> None:
    server, context = secure_server
    losses = Losses()
    with connection(
        is_shared, server.url("/silent"), on_reset=losses, ssl_context=context, **KEEPALIVE
    ) as conn:
        eventually(lambda: conn.stats.ping_rtt is not None)
        server.stop()
        losses.wait_noticed(time.monotonic(), "SIGSTOP over TLS")
        within(1.0, conn.disconnect)


@SHARED
def test_a_frozen_peer_is_noticed_while_it_is_sent_to(server: WebSocketProcess, is_shared: bool) -> None:
    """The pings wait behind messages that nobody takes."""
    losses = Losses()

    def flood() -> None:
        # In pieces: one message that takes long to mask would not have been begun when the peer is given up.
        while True:
            conn.send(b"\0" * 1_000_000)

    with connection(is_shared, server.url("/silent"), on_reset=losses, **KEEPALIVE) as conn:
        server.stop()
        since = time.monotonic()
        sender = in_thread(flood)
        losses.wait_noticed(since, "SIGSTOP under a send")
        with pytest.raises(connman.errors.ConnectionLost):
            sender.result(PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_a_callback_that_blocks_is_no_dead_peer(server: WebSocketProcess, dispatch: str) -> None:
    losses = Losses()
    heard: list[object] = []
    pause = threading.Event()

    def on_data(_: connman.Connection, data: object) -> None:
        heard.append(data)
        pause.wait(3 * (INTERVAL + TIMEOUT))

    with by_dispatch(dispatch, server.url("/echo"), on_data=on_data, on_reset=losses, **KEEPALIVE) as conn:
        conn.send("one")
        conn.send("two")
        eventually(lambda: len(heard) == 2)
        pause.set()
        conn.send("three")
        eventually(lambda: len(heard) == 3)
        assert losses.told == []
        assert conn.generation == 1
        # And afterwards it is judged again.
        server.stop()
        losses.wait_noticed(time.monotonic(), "SIGSTOP after a slow callback")


@pytest.mark.slow
def test_a_peer_that_freezes_while_a_callback_blocks_is_noticed_after_it(server: WebSocketProcess) -> None:
    losses, witnessed = Losses(), Losses()
    entered, go_on = threading.Event(), threading.Event()

    def on_data(*_: object) -> None:
        entered.set()
        go_on.wait(PATIENCE)

    with (
        connman.Connection(server.url("/echo"), on_data=on_data, on_reset=losses, **KEEPALIVE) as conn,
        connman.Connection(server.url("/echo"), on_reset=witnessed, **KEEPALIVE),
    ):
        conn.send("one")
        assert entered.wait(PATIENCE)
        server.stop()
        # Another one, which is not blocked, tells when the time is up.
        witnessed.wait_noticed(time.monotonic(), "SIGSTOP beside a slow callback")
        assert losses.told == []
        go_on.set()
        losses.wait_noticed(time.monotonic(), "SIGSTOP under a slow callback")


@SHARED
def test_a_peer_that_does_not_read_never_holds_disconnect_up(
    server: WebSocketProcess, is_shared: bool
) -> None:
    outcomes = []
    conn = connection(is_shared, server.url("/deaf"), ping_interval=None, close_timeout=0.5, proxy=None)
    conn.wait_open(PATIENCE)
    for _ in range(4):
        outcomes.append(in_thread(conn.send, b"\0" * 20_000_000))
    wait_stuck(conn)
    within(0.5 + 1.0, conn.disconnect)
    assert conn.state is connman.State.CLOSED
    for outcome in outcomes:
        with pytest.raises((connman.errors.ConnectionLost, connman.errors.NotConnected)):
            outcome.result(PATIENCE)


@pytest.mark.slow
def test_a_peer_that_does_not_read_holds_no_other_connection_up(server: WebSocketProcess) -> None:
    """Neither its messages nor its pings, nor the detection of a loss."""
    losses = Losses()
    with ws_server() as other_server:
        deaf = connman.Connection(
            server.url("/deaf"), ping_interval=0.05, ping_timeout=60, close_timeout=0.2, proxy=None
        )
        deaf.wait_open(PATIENCE)
        senders = [in_thread(deaf.send, b"\0" * 20_000_000) for _ in range(4)]
        wait_stuck(deaf)
        with connman.Connection(other_server.url("/echo"), on_reset=losses, **KEEPALIVE) as other:
            eventually(lambda: other.stats.ping_rtt is not None)
            for number in range(100):
                other.send(str(number))
                assert other.recv(PATIENCE) == str(number)
            other_server.stop()
            losses.wait_noticed(time.monotonic(), "SIGSTOP beside a stuck connection")
        within(0.2 + 1.0, deaf.disconnect)
        for sender in senders:
            assert isinstance(sender.exception(PATIENCE), connman.ConnmanError)
