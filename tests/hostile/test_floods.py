"""A server that floods one connection starves no other of the same reader, and no queue grows with it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.test_bounds import ROOT, run
from tests.promises.peers import program_environment

PROGRAMS = Path(__file__).parent / "programs"
# Two floods, and the process that sends them, share the processors with the echo that is measured.
USUAL, WORST = 0.05, 0.5
# What two connections may keep for callbacks that block, max_message_size each, and a little.
MOST_MEMORY = (2 * 16 + 8) << 20


@pytest.fixture
def flooding() -> Iterator[int]:
    """Run the program that floods, in a process of its own, and yield its port."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAMS / "flooding.py")],
        cwd=ROOT,
        env={**program_environment(), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.communicate("")


FLOODS = [
    # What, how many readers, and who takes what comes.
    ("pings", 1, "reader"),
    ("long-pings", 1, "reader"),
    ("pongs", 1, "reader"),
    ("empty-texts", 1, "reader"),
    ("texts", 1, "reader"),
    ("fragments", 1, "reader"),
    ("big", 1, "reader"),
    ("texts", 1, "thread"),
    ("empty-texts", 1, "blocked"),
    ("texts", 1, "blocked"),
    ("empty-texts", 1, "recv"),
    ("texts", 1, "recv"),
    ("pings", 0, "reader"),
    ("texts", 0, "reader"),
    ("texts", 0, "blocked"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "readers", "dispatch"), FLOODS)
def test_a_flood_starves_nobody_and_grows_no_queue(
    kind: str, readers: int, dispatch: str, flooding: int
) -> None:
    """Seen failing while one look at a flood of pings took all of a chunk: the echo took 0.14 s, now 0.008 s.

    And while messages without a byte counted for nothing behind callbacks that block.
    """
    url = f"ws://127.0.0.1:{flooding}"
    answer = run(PROGRAMS / "beside.py", f"{url}/echo", f"{url}/{kind}", str(readers), dispatch)
    times, slower = answer.pop("echoes"), min(answer["slower"], 4.0)
    print(kind, readers, dispatch, answer, f"median {times[len(times) // 2]:.4f}, worst {times[-1]:.4f}")
    assert answer["is_open"]
    assert times[len(times) // 2] < USUAL * slower, times
    assert times[-1] < WORST * slower, times
    assert answer["memory"] < MOST_MEMORY, answer
    assert answer["disconnected"] < 0.2 + 1.0, answer
    assert answer["threads"] == 1, answer
