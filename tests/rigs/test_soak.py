"""The soak: a small part of it as it is, and what it is for, planted, is found.

Seen failing: each kind of leak is planted here, one a cycle, and has to be named.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.rigs.soak.__main__ import PLANTS
from tests.rigs.soak.gauges import Gauges, rise

# Of a whole program, with thousands of connections.
pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parent.parent.parent

# The judge


def gauges(**columns: list[float]) -> Gauges:
    """Return what nine rounds measured: flat, but for the columns that are given."""
    flat: dict[str, list[float]] = {
        "memory": [30.0] * 9, "descriptors": [7] * 9, "threads": [1] * 9, "objects": [20_000] * 9,
    }  # fmt: skip
    result = Gauges()
    for memory, descriptors, threads, objects in zip(*{**flat, **columns}.values(), strict=True):
        result.add((memory, int(descriptors), int(threads), int(objects)))
    return result


def test_what_is_flat_is_fine() -> None:
    assert gauges().complaints() == []


def test_what_grows_while_it_warms_up_is_fine() -> None:
    warm = gauges(memory=[20, 25, 28, *[30.0] * 6], objects=[1, 2, 3, *[4000.0] * 6])
    assert warm.complaints() == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("memory", [30 + 0.25 * n for n in range(9)]),
        ("descriptors", [*[7.0] * 8, 8]),
        ("threads", [*[1.0] * 7, 2, 1]),
        ("objects", [*[20_000.0] * 8, 20_021]),
        ("objects", [*[20_000.0] * 8, 19_979]),
    ],
)
def test_what_grows_is_named(name: str, values: list[float]) -> None:
    (complaint,) = gauges(**{name: values}).complaints()
    assert complaint.startswith(name)


def test_memory_is_judged_by_a_line_and_not_by_its_end() -> None:
    assert gauges(memory=[30, 30, 30, 30, 30, 30, 30, 30, 31.2]).complaints() == []
    assert rise([1, 2, 3]) == pytest.approx(2)
    assert rise([5]) == rise([]) == 0


# The rig


def soak(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "tests.rigs.soak", *arguments]
    run = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert run.stderr == ""
    return run.returncode, run.stdout


@pytest.mark.slow
def test_some_cycles_leave_nothing() -> None:
    code, said = soak("--cycles", "1500")
    assert code == 0, said
    assert "flat over 1500 cycles" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "word"),
    [(plant, f"{plant}s" if plant in ("descriptor", "thread") else plant) for plant in PLANTS],
)
def test_a_leak_is_found(plant: str, word: str) -> None:
    code, said = soak("--cycles", "300", "--plant", plant)
    assert code == 1, said
    assert f"BROKEN: {word} " in said
