"""Streams larger than memory should hold, through a real relay between real processes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connman.rpc.receiving import WINDOW

pytest.importorskip("uvloop", reason="the relay needs the extra connman[relay]")

from connman.relay import Relay

PROGRAM = Path(__file__).parent / "programs" / "stream_end.py"
ROOT = Path(__file__).parents[2]
MIB = 256

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def start(*args: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *args], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def url() -> Iterator[str]:
    with Relay(port=0) as relay:
        provider = start("provide", relay.url)
        try:
            assert provider.stdout is not None
            assert provider.stdout.readline() == "ready\n"
            yield relay.url
        finally:
            provider.communicate(timeout=30)


def move(url: str, how: str, count: int) -> dict[str, Any]:
    found, _ = start(how, url, str(count)).communicate(timeout=240)
    told: dict[str, Any] = json.loads(found)
    print(how, told)
    return told


@pytest.mark.parametrize("how", ["read", "write"])
def test_memory_stays_flat_and_calls_go_on(url: str, how: str) -> None:
    told = move(url, how, MIB)
    assert told["size"] == MIB << 20
    # A chunk of the service's, its window, and what the network and the allocator hold.
    assert max(told["own"], told["far"]) < 24
    assert told["calls"] > 10
    assert told["slowest"] < 1.0


def test_streams_that_are_not_read_take_their_windows_alone(url: str) -> None:
    told = move(url, "hold", 60)
    assert told["size"] == 60
    assert told["own"] < 60 * WINDOW / (1 << 20) + 24
    assert told["slowest"] < 1.0
