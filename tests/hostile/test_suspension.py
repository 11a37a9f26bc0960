"""A machine that was suspended asks its peers first and judges them then; a stopped client process is the model of it.

WebSocketApp: alive as well after stops of 4 s and 10 s.
"""

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.fleet import SLACK, Tls
from tests.rigs.liveness.stage import Client
from tests.servers import WebSocketProcess, ws_server
from tests.waiting import eventually

pytestmark = pytest.mark.slow

INTERVAL = TIMEOUT = 0.3
STOPS = 15
# Not **/: every worker asks, and walks through all of the system for it.
LIBFAKETIME = [
    str(path)
    for folder in ("faketime", "*/faketime")
    for path in Path("/usr/lib").glob(f"{folder}/libfaketime.so.1")
]

Servers = tuple[WebSocketProcess, WebSocketProcess]


@pytest.fixture
def servers(tls: Tls) -> Iterator[tuple[WebSocketProcess, WebSocketProcess]]:
    with ws_server() as plain, ws_server(tls.path, tls.path) as secure:
        yield plain, secure


def client(servers: Servers, **options: Any) -> Client:
    return Client("connman", [server.url("/silent") for server in servers], INTERVAL, TIMEOUT, **options)


def test_a_stopped_client_calls_no_peer_dead(servers: Servers, seed: int) -> None:
    """From a moment to over three times ping_interval + ping_timeout, at any phase.

    Planted: judged by the clock alone it fails at the first stops; so did stops of less than a second before.
    """
    dice, pace = random.Random(seed), threading.Event()
    lengths = [dice.choice([dice.uniform(0.05, 0.6), dice.uniform(0.5, 1.2)]) for _ in range(STOPS)]
    with client(servers) as program:
        for length in [*lengths, 3.5 * (INTERVAL + TIMEOUT)]:
            program.stop()
            pace.wait(length)
            program.go_on()
            pace.wait(dice.uniform(0.0, 0.4))
        pace.wait(2 * (INTERVAL + TIMEOUT))
        assert program.losses == {}
        assert program.end() == 4


@pytest.mark.skipif(not LIBFAKETIME, reason="libfaketime is not installed")
def test_a_wall_clock_that_jumps_under_the_whole_process_changes_nothing(
    servers: Servers, tmp_path: Path
) -> None:
    """An hour ahead, an hour back, for the interpreter and the C library as well; then a peer that freezes is noticed.

    Planted: with time.time() as the clock it fails.
    """
    shift, pace = tmp_path / "shift", threading.Event()
    shift.write_text("+0")
    environment = {
        "LD_PRELOAD": LIBFAKETIME[0],
        "FAKETIME_TIMESTAMP_FILE": str(shift),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    with client(servers, environment=environment) as program:
        for hours in ("+3600", "-3600", "+3600", "+0"):
            shift.write_text(hours)
            pace.wait(1.5 * (INTERVAL + TIMEOUT))
        assert program.losses == {}
        for server in servers:
            server.stop()
        shift.write_text("-3600")
        # Without a bound: on a busy machine the library itself, which reads a file for each look at a clock, takes a second.
        eventually(lambda: len(program.losses) == 4)


def test_a_peer_that_died_meanwhile_is_noticed_after_it(servers: Servers) -> None:
    """The probe gets its ping_timeout, no more. Planted: with a keepalive that ends nothing, never."""
    with client(servers) as program:
        program.stop()
        for server in servers:
            server.stop()
        threading.Event().wait(2 * (INTERVAL + TIMEOUT) + 1.0)
        since = program.go_on()
        eventually(lambda: len(program.losses) == 4)
        took = [at - since for at, _ in program.losses.values()]
        print(took)
        assert max(took) <= INTERVAL + TIMEOUT + SLACK
        assert min(took) >= TIMEOUT * 0.9
