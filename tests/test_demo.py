"""The demo: it keeps its promises, leaves no process behind, and its judge does not let a false number pass."""

import dataclasses
import importlib
import io
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import connman
from connman.errors import ConnectionLost, ConnectTimeout
from connman.records import Step
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "scripts" / "_demo"
PATIENCE = 50.0


@pytest.fixture(autouse=True)
def demo_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The demo's modules can be imported, as when main.py is run."""
    monkeypatch.syspath_prepend(DEMO)
    known = set(sys.modules)
    yield
    for name in {path.stem for path in DEMO.glob("*.py")} - known:
        sys.modules.pop(name, None)


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def good_numbers() -> Any:
    """Numbers such as a good run has."""
    return module("promises").Numbers(
        callers_served=200, shared_futures=1, shared_sockets=1, refused_code=4001, refused_attempts=1,
        sockets=41, attempts=73, passes=24, opens=24, resets_of_open=24, unpaired=0, out_of_order=0,
        losses=16, losses_caused=16, messages=12_200, gaps=0, repeats=0, noticed_kill=0.004, noticed_freeze=1.498,
        came_back=0.985, longest_outage=7.37, deaf_attempts=16, longest_attempt=1.0, delays=70, wrong_delays=0,
        calls_answered=900, calls_back=400, calls_wrong=0, calls_lost=0, calls_twice=0, calls_cut=90, calls_ended=0.01,
        calls_resumed=0.2, ended_open=8, ended_mid_open=4, disconnect_all=0.004, late_callbacks=0, late_sockets=0, threads_left=0,
        sockets_left=0, callback_errors=0, leaks=0,
    )  # fmt: skip


# Whole runs


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DEMO / "main.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_quick_run_keeps_every_promise() -> None:
    with start("--quick") as run:
        output, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, output
    verdicts = re.findall(r"  (OK|BROKEN)$", output, re.MULTILINE)
    assert verdicts == ["OK"] * len(module("promises").judge(good_numbers()))
    assert "1 socket, 1 Future, 200 served" in output
    assert "OOOOOOOO CCCC WW" in output
    # In one line, or in two when they fell into two of its periods.
    assert sum(map(int, re.findall(r"(\d+) x lost: PingTimeout", output))) == 8
    assert "\x1b" not in output


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_server_process_as_well(number: signal.Signals, code: int) -> None:
    with start() as run:
        assert run.stdout is not None
        found = next(found for line in run.stdout if (found := re.search(r"server process (\d+)", line)))
        run.send_signal(number)
        output, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == code, output
    assert "Traceback" not in output
    eventually(lambda: not is_running(int(found[1])), message="the server process to be gone")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# The judge


def test_good_numbers_keep_every_promise() -> None:
    promises = module("promises").judge(good_numbers())
    assert [promise.what for promise in promises if not promise.is_kept] == []


def test_what_was_not_measured_keeps_no_promise() -> None:
    promises = module("promises").judge(module("promises").Numbers())
    assert [promise.what for promise in promises if promise.is_kept] == []


FALSE = [
    ("callers_served", 199),
    ("shared_futures", 2),
    ("shared_sockets", 2),
    ("refused_code", 1006),
    ("refused_attempts", 2),
    ("sockets", 74),
    ("attempts", 40),
    ("passes", 23),
    ("opens", 25),
    ("resets_of_open", 23),
    ("unpaired", 1),
    ("out_of_order", 1),
    ("losses", 17),
    ("losses_caused", 8),
    ("messages", 0),
    ("gaps", 1),
    ("repeats", 1),
    ("noticed_kill", 1.5),
    ("noticed_freeze", float("inf")),
    ("came_back", 10.0),
    ("longest_outage", float("nan")),
    ("deaf_attempts", 7),
    ("longest_attempt", 3.0),
    ("delays", 0),
    ("wrong_delays", 1),
    ("calls_answered", 0),
    ("calls_back", 0),
    ("calls_wrong", 1),
    ("calls_lost", 1),
    ("calls_twice", 1),
    ("calls_cut", 0),
    ("calls_ended", 1.5),
    ("calls_resumed", float("inf")),
    ("ended_open", 7),
    ("ended_mid_open", 0),
    ("disconnect_all", 1.2),
    ("late_callbacks", 1),
    ("late_sockets", 1),
    ("threads_left", 1),
    ("sockets_left", 1),
    ("callback_errors", 1),
    ("leaks", 1),
]


@pytest.mark.parametrize(("name", "value"), FALSE)
def test_one_false_number_breaks_a_promise(name: str, value: float) -> None:
    numbers = dataclasses.replace(good_numbers(), **{name: value})
    assert not all(promise.is_kept for promise in module("promises").judge(numbers))


def test_every_number_is_judged() -> None:
    assert {name for name, _ in FALSE} == {field.name for field in dataclasses.fields(good_numbers())}


def test_a_broken_promise_is_named_and_gives_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    main, acts = module("main"), module("acts")
    numbers = dataclasses.replace(good_numbers(), gaps=3)
    monkeypatch.setattr(acts.Show, "run", lambda show: numbers)
    out = io.StringIO()
    assert main.play(module("pace").QUICK, out) == 1
    assert re.search(r"sequence gaps and repeats +3 and 0 +none +BROKEN", out.getvalue())
    assert logging.getLogger("connman").level == logging.NOTSET


# What the numbers are made of


def test_sequence_counts_gaps_and_repeats() -> None:
    sequence = module("audit").Sequence()
    sequence.snapshot({"ACME": 7, "BOLT": 1})
    for symbol, seq in (("ACME", 7), ("BOLT", 1), ("ACME", 9), ("ACME", 9), ("ACME", 10), ("BOLT", 2)):
        sequence.tick(symbol, seq)
    assert (sequence.gaps, sequence.repeats) == (1, 1)


def test_ticks_that_no_snapshot_has_announced_are_a_gap() -> None:
    sequence = module("audit").Sequence()
    sequence.tick("ACME", 7)
    assert (sequence.gaps, sequence.repeats) == (1, 0)


def reset(
    *, opened: bool, attempt: int, retry_in: float | None, error: Exception | None = None
) -> connman.Reset:
    return connman.Reset(opened, error or ConnectionLost(), None, "", attempt, retry_in, 1)


def test_track_pairs_opens_with_resets() -> None:
    track = module("audit").Track()
    track.opened(1.0)
    track.received({"snapshot": {"ACME": 1}}, 1.1)
    track.received({"symbol": "ACME", "seq": 1, "price": 9.5}, 1.2)
    track.reset(reset(opened=True, attempt=1, retry_in=0.15), 2.0)
    track.reset(reset(opened=False, attempt=2, retry_in=0.25), 3.0)
    track.opened(4.5)
    assert (track.opens, track.losses, track.failures, track.messages) == (2, 1, 1, 1)
    assert (track.out_of_order, track.gaps, track.wrong_delays) == (0, 0, 0)
    assert track.outages == [2.5]
    assert track.price == "ACME 9.50"


def test_track_sees_callbacks_out_of_order() -> None:
    track = module("audit").Track()
    track.received({"snapshot": {}}, 0.5)
    track.opened(1.0)
    track.opened(1.0)
    track.reset(reset(opened=False, attempt=1, retry_in=None), 2.0)
    assert track.out_of_order == 3


@pytest.mark.parametrize(("attempt", "retry_in"), [(1, 0.31), (1, 0.09), (2, 0.25)])
def test_track_sees_delays_that_the_rule_does_not_give(attempt: int, retry_in: float) -> None:
    track = module("audit").Track()
    track.opened(1.0)
    track.reset(reset(opened=True, attempt=attempt, retry_in=retry_in), 2.0)
    assert (track.delays, track.wrong_delays) == (1, 1)


def test_track_adds_up_an_attempt_that_timed_out() -> None:
    track = module("audit").Track()
    steps = [Step("tcp", "127.0.0.1:1", 0.25), Step("upgrade", "", 0.5, "timed out")]
    track.reset(reset(opened=False, attempt=1, retry_in=0.2, error=ConnectTimeout("x", steps)), 2.0)
    assert track.timeouts == [0.75]


def test_leak_guard_looks_into_records_and_their_tracebacks() -> None:
    guard = module("leaks").LeakGuard("s3cret")
    guard.handle(logging.makeLogRecord({"msg": "all is well with %s", "args": ("you",)}))
    assert guard.count == 0
    guard.handle(logging.makeLogRecord({"msg": "it is %s", "args": ("s3cret",)}))
    guard.handle(
        logging.makeLogRecord({"msg": "failed", "exc_info": (ValueError, ValueError("s3cret"), None)})
    )
    assert guard.count == 2


# What is written


def test_alike_events_become_one_line() -> None:
    timeline = module("timeline")
    events = [
        timeline.Event("lost", "PingTimeout: no sign of life for 1.6 s", 1, 0.125),
        timeline.Event("open"),
        timeline.Event("lost", "PingTimeout: no sign of life for 1.7 s", 12, 0.25),
        timeline.Event("lost", "PingTimeout: no sign of life for 1.7 s", 9, 0.2),
    ]
    assert timeline.summarised(events) == [
        "3 x lost: PingTimeout: no sign of life for 1.6 s; try 1-12, next in 0.12-0.25 s",
        "1 x open",
    ]


def test_a_line_shows_every_state() -> None:
    timeline, guard = module("timeline"), module("leaks").LeakGuard("s3cret")
    states = [[connman.State.OPEN, connman.State.WAITING], [connman.State.CONNECTING, connman.State.CLOSED]]
    out = io.StringIO()
    timeline.Timeline(out, guard, lambda: timeline.Look(states, 0, "")).say("something")
    assert re.fullmatch(r" +0\.\d\d  OW Cx +0 msg/s  something\n", out.getvalue())


def test_a_line_with_the_pass_is_counted() -> None:
    timeline, guard = module("timeline"), module("leaks").LeakGuard("s3cret")
    timeline.Timeline(io.StringIO(), guard, lambda: timeline.Look([], 0, "")).write("the pass is s3cret")
    assert guard.count == 1
