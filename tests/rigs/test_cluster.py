"""The rig of two relays over Redis, small: every act of it, each promise kept."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.redis_server import executable

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_a_small_cluster_keeps_every_promise() -> None:
    executable()  # skips where there is no Redis
    words = [
        "--providers",
        "150",
        "--callers",
        "40",
        "--rounds",
        "2",
        "--frames",
        "20000",
        "--chaos",
        "5",
        "--seed",
        "1",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "tests.rigs.cluster", *words],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
        timeout=55,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "all promises kept" in run.stdout
