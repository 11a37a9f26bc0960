"""The chaos rig: a small seeded run of it as it is, and what it is for, planted, is found."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.rigs.chaos.ledger import Break, Lines, Record, complaints, flat, lateness

ROOT = Path(__file__).parent.parent.parent

# A call of each kind that ends well, in process 7; "x" is killed at 10.0.
GOOD = """
called c0.0.0 7 once 1.0
ran c0.0.0 8
ended c0.0.0 7 1.1 ok
called c0.0.1 7 safe 1.0
ran c0.0.1 8
ended c0.0.1 7 1.1 ok
called c0.0.2 7 once 9.9
ran c0.0.2 8
ended c0.0.2 7 10.2 gone
called c0.0.3 7 once 10.5
ended c0.0.3 7 10.6 nobody
called c0.0.4 7 safe 9.9
ran c0.0.4 8
ran c0.0.4 9
ended c0.0.4 7 14.0 ok
called p0.0.0 8 once 9.9
"""
BREAKS = [Break(10.0, "provider", 8)]


def record(text: str) -> Record:
    result = Record()
    for line in text.split("\n"):
        if line:
            result.take(line.split())
    return result


def test_what_keeps_every_promise_is_fine() -> None:
    assert complaints(record(GOOD), BREAKS) == []


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("called c1 7 once 1.0", "c1 never ended"),
        ("called c1 7 once 1.0\nended c1 7 1.1 ok", "answered and never ran"),
        ("called c1 7 once 1.0\nran c1 8\nended c1 7 1.1 wrong", "ended as wrong"),
        ("called c1 7 once 1.0\nended c1 7 1.1 timeout", "ended as timeout"),
        ("called c1 7 once 9.9\nran c1 8\nended c1 7 10.1 unsent", "never to have left, and ran"),
        ("called c1 7 once 9.9\nran c1 8\nran c1 9\nended c1 7 10.1 gone", "ran 2 times, though"),
        ("called c1 7 safe 9.9\nran c1 8\nran c1 8\nended c1 7 10.1 ok", "ran 2 times in process 8"),
        ("called c1 7 safe 9.9\nran c1 8\nended c1 7 10.1 gone", "was lost"),
        ("called c1 7 once 9.9\nended c1 7 11.1 gone", "1.10 s behind"),
        ("called c1 7 once 20.0\nended c1 7 22.0 nobody", "2.00 s behind"),
    ],
)
def test_what_breaks_a_promise_is_found(lines: str, text: str) -> None:
    found = complaints(record(f"{GOOD}\n{lines}"), BREAKS)
    assert any(text in complaint for complaint in found), found


def test_lateness_counts_from_the_last_break_that_was_met() -> None:
    breaks = [Break(at, "relay", 1) for at in (5.0, 10.0, 15.0)]
    call = record("called c1 7 once 4.0\nended c1 7 10.5 gone").calls["c1"]
    assert lateness(call, breaks) == 0.5


def test_several_write_into_one_file(tmp_path: Path) -> None:
    one, two = (Lines(tmp_path / "calls") for _ in range(2))
    one.write("called", "c1", 7, "once", 1.0)
    two.write("called", "c2", 7, "safe", 2.0)
    one.write("ended", "c1", 7, 3.0, "ok")
    for lines in (one, two):
        lines.close()
    read = Record.read(tmp_path / "calls")
    assert [(call.is_safe, call.end, call.outcome) for call in read.calls.values()] == [
        (False, 3.0, "ok"),
        (True, None, ""),
    ]


def test_memory_that_grows_is_found() -> None:
    assert flat([30.0] * 40) is None
    assert flat([20.0, 25.0, *[30.0] * 40]) is None
    assert flat([30.0 + n for n in range(40)]) is not None
    assert flat([1.0, 100.0]) is None  # too short a life to tell


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("side", ["provider", "caller"])
def test_a_small_chaos_keeps_every_promise(side: str, seed: int) -> None:
    words = [
        "--calls",
        "3000",
        "--relay-kills",
        "2",
        "--side-kills",
        "2",
        "--kill-side",
        side,
        "--seed",
        str(seed),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.rigs.chaos", *words],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 complaints" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("plant", "text"),
    [
        ("wrong", "ended as wrong"),
        ("twice", "times in process"),
        ("again", "though it may not be sent again"),
    ],
)
def test_a_planted_bug_is_found(plant: str, text: str, seed: int) -> None:
    words = [
        "--calls",
        "2500",
        "--relay-kills",
        "3",
        "--side-kills",
        "0",
        "--safe-share",
        "0.5",
        "--plant",
        plant,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.rigs.chaos", *words, "--seed", str(seed)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert text in done.stdout
