"""The stress: a small part of it as it is, and a flake that is planted is found and can be repeated."""

import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.rigs.stress.plugin import shuffled

# Of a whole program, run several times.
pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parent.parent.parent

# The order


def items(*nodeids: str) -> list[Any]:
    return [SimpleNamespace(nodeid=nodeid) for nodeid in nodeids]


NODES = [
    f"{file}::{name}"
    for file in ("a.py", "b.py", "c.py")
    for name in ("A::x[1]", "A::x[2::]", "A::y", "f", "g[::]")
]


def test_a_seed_gives_one_order_and_another_seed_another() -> None:
    orders = [[item.nodeid for item in shuffled(items(*NODES), seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == sorted(NODES) for order in orders)


@pytest.mark.parametrize("seed", range(20))
def test_files_and_classes_stay_together(seed: int) -> None:
    order = [item.nodeid for item in shuffled(items(*NODES), seed)]
    files = [nodeid.partition("::")[0] for nodeid in order]
    assert sum(one != other for one, other in itertools.pairwise(files)) == 2
    classes = [nodeid.partition("[")[0].rpartition("::")[0] for nodeid in order]
    assert sum(one != other for one, other in itertools.pairwise(classes)) == 5


# The rig

ORDER = """
seen = []

def test_first():
    seen.append(1)

def test_second():
    assert seen
"""
RACE = """
import threading

def test_race():
    box = [0]
    together = threading.Barrier(4)
    def pause():
        pass
    def add():
        together.wait()
        for _ in range(100_000):
            seen = box[0]
            pause()
            box[0] = seen + 1
    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert box[0] == 400_000
"""
STRICT = """
import faulthandler
import sys

def test_strict():
    assert sys.getswitchinterval() < 1e-5
    assert sys.flags.dev_mode
    assert "error" in sys.warnoptions
    assert faulthandler.is_enabled()
"""
HANG = """
import pathlib
import threading

def test_hang():
    pathlib.Path(__file__).with_name("begun").touch()
    threading.Event().wait()
"""


def stress(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.rigs.stress", *map(str, arguments)]
    run = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert run.stderr == ""
    return run.returncode, run.stdout


@pytest.mark.slow
def test_a_test_that_depends_on_the_order_is_found_and_repeated(tmp_path: Path) -> None:
    """The flake is planted: the second test needs what the first left behind."""
    planted = tmp_path / "test_planted.py"
    planted.write_text(ORDER)
    code, said = stress("--times", 4, "--seed", 4, "-q", planted)
    assert code == 1
    seeds = re.findall(r"again: scripts/stress --times 1 --seed (\d+)", said)
    assert seeds
    assert re.search(r"FLAKE \S*test_planted.py::test_second", said)
    assert f"4 rounds, {len(seeds)} of them with failures" in said
    code, said = stress("--times", 1, "--seed", seeds[0], planted)
    assert code == 1
    good = next(seed for seed in range(4, 8) if str(seed) not in seeds)
    assert stress("--times", 1, "--seed", good, planted)[0] == 0


@pytest.mark.slow
def test_a_race_is_found(tmp_path: Path) -> None:
    """The race is planted: what another thread adds between a look and what follows from it is lost."""
    planted = tmp_path / "test_planted.py"
    planted.write_text(RACE)
    code, said = stress("--times", 2, planted)
    assert code == 1
    assert re.search(r"FLAKE \S*test_planted.py::test_race", said)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_every_process_of_a_round_is_strict_and_restless(tmp_path: Path, jobs: int) -> None:
    planted = tmp_path / "test_planted.py"
    planted.write_text(STRICT)
    code, said = stress("--times", 1, "--jobs", jobs, planted)
    assert code == 0, said


@pytest.mark.slow
def test_what_hangs_shows_where(tmp_path: Path) -> None:
    planted = tmp_path / "test_planted.py"
    planted.write_text(HANG)
    for bound in (3, 12, 48):  # the first may be over before a busy machine has come to the test
        code, said = stress("--times", 1, "--bound", bound, planted)
        assert code == 1
        assert "FLAKE the run itself\n  hung" in said
        if (tmp_path / "begun").exists():
            break
    assert "in test_hang" in said


@pytest.mark.slow
def test_a_round_of_what_threads_meet_in() -> None:
    files = ("connection/test_life.py", "connection/test_core.py", "connection/test_future.py", "connection/test_queue.py",
             "test_clock.py", "test_leases.py", "test_manager.py", "test_pool.py")  # fmt: skip
    code, said = stress("--times", 1, "-m", "not slow", *(f"tests/{file}" for file in files))
    assert code == 0, said
