"""The interpreter's end is never held up: no hang, no traceback, no word, the exit code is kept, and peers get a goodbye.

Beside it websocket-client 1.9.2: 200 of its WebSocketApp on threads that are no daemons hold the end up for ever, also
behind a SIGTERM whose handler raises SystemExit, and when `atexit` closes them, which never gets its turn; on daemon threads
the process ends in time, and none of the 200 peers gets a close frame.
"""

import ast
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.loopback import hanging_port, refusing_port
from tests.promises.peers import PROGRAMS, program_environment
from tests.servers import WebSocketProcess, ws_server
from tests.waiting import Stalls, eventually, waited_for_a_processor

BOUND = 2.5  # seconds from the end of the main module to the end of the process

PROGRAM = PROGRAMS / "exiting.py"


def named_in(name: str) -> list[str]:
    """Read a list of functions of the program, which is not imported: it is a program."""
    return [
        element.id
        for node in ast.parse(PROGRAM.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
        and isinstance(node.value, ast.List)
        for element in node.value.elts
        if isinstance(element, ast.Name)
    ]  # fmt: skip


PHASES = named_in("PHASES")
# On a shared reader the rest says the same as on a thread each.
QUICK_SHARED = {"opened", "retrying_all_the_time", "pool_opening"}
# Each takes as long as it may, or says the same as another.
SLOW = {
    "in_a_busy_callback",
    "silently_opened",
    "in_a_callback",
    "in_on_open",
    "pool_silent",
    "iterated",
    "waited_for",
    "dialling_tcp",
    "pool_hanging",
    "crowded",
}


@pytest.fixture(scope="module")
def server() -> Iterator[WebSocketProcess]:
    with ws_server() as process:
        yield process


@pytest.fixture(scope="module")
def counting_server() -> Iterator[WebSocketProcess]:
    """A server that sees every end: on the other one are connections to /silent, which never looks."""
    with ws_server() as process:
        yield process


def cases() -> Iterator[object]:
    quick = {(phase, "shared") for phase in QUICK_SHARED}
    for phase in PHASES:
        for dispatch in ("reader", "thread", "shared"):
            slow = phase in SLOW if dispatch == "reader" else (phase, dispatch) not in quick
            yield pytest.param(
                phase, dispatch, marks=[pytest.mark.slow] if slow else [], id=f"{phase}-{dispatch}"
            )


def test_the_phases_were_found() -> None:
    assert len(PHASES) == 21
    assert len(named_in("WAYS")) == len(WAYS) == 21


class End(NamedTuple):
    """How a process ends: its exit code, the end of its last words, the signal it is sent, the goodbyes it says."""

    code: int = 3
    last_words: str = ""
    signal: int | None = None
    is_polite: bool = True


WAYS = {
    "end": End(),
    "fall_off": End(0),
    "raise_an_error": End(1, "ValueError: the end\n"),
    # Nothing of Python's runs behind it.
    "be_terminated": End(-signal.SIGTERM, signal=signal.SIGTERM, is_polite=False),
    "be_terminated_to_exit": End(signal=signal.SIGTERM),
    "be_terminated_to_disconnect": End(signal=signal.SIGTERM),
    "be_interrupted": End(-signal.SIGINT, "KeyboardInterrupt\n", signal.SIGINT),
    "be_interrupted_twice": End(signal=signal.SIGINT),
    "disconnect_at_exit": End(),
    "connect_at_exit": End(),
    "be_finalized": End(),
    "be_torn_down": End(),
    "be_collected": End(),
    "collect": End(),
    "end_by_a_weak_reference": End(),
    "use_in_a_daemon_thread": End(),
    "interrupt_from_a_daemon_thread": End(),
    "exit_in_another_thread": End(),
    "go_on_in_another_thread": End(),
    "fork_meanwhile": End(),
    "exit_in_a_child": End(),
}
QUICK_WAYS = {"be_terminated_to_exit", "be_interrupted", "connect_at_exit", "be_collected"}
CROWDED_WAYS = [
    "end", "be_terminated_to_exit", "be_terminated_to_disconnect", "be_interrupted_twice", "connect_at_exit",
    "be_torn_down", "be_collected", "use_in_a_daemon_thread", "go_on_in_another_thread", "fork_meanwhile",
]  # fmt: skip


def run(server: WebSocketProcess, phase: str, dispatch: str, way: str = "end") -> None:
    """Run the program and check how it ends."""
    end = WAYS[way]
    with refusing_port() as refusing, hanging_port() as hanging:
        command = [
            sys.executable, "-X", "faulthandler", str(PROGRAM), phase, dispatch, server.url(""), str(refusing), str(hanging), way
        ]  # fmt: skip
        program = subprocess.Popen(
            command, env=program_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n", program.communicate()[1]
            since = time.monotonic()
            if end.signal is not None:
                program.send_signal(end.signal)
            out, err = wait_ended(program)
            print(f"{phase}, {dispatch}, {way}: ended after {time.monotonic() - since:.2f} s")
            words = err[-len(end.last_words) :] if end.last_words else err
            assert (program.returncode, out, words) == (end.code, "", end.last_words)
            assert "Exception ignored" not in err
            assert "Exception in thread" not in err
        finally:
            program.kill()
            program.communicate()


def wait_ended(program: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return what the program has written once it has ended.

    While the machine stood still no time passed, nor while the program's main thread had work and got no processor: in the
    stress a process may get a fifth of one.
    """
    left, waited = BOUND, waited_for_a_processor(program.pid)
    while left > 0.001:
        with Stalls() as stalls:
            try:
                return program.communicate(timeout=left)
            except subprocess.TimeoutExpired:
                pass
        before, waited = waited, waited_for_a_processor(program.pid)
        left = max(stalls.seconds, waited - before)
    program.send_signal(signal.SIGABRT)  # faulthandler tells where its threads are
    pytest.fail(f"it did not end within {BOUND:g} s:\n{program.communicate()[1]}")


@pytest.mark.parametrize(("phase", "dispatch"), list(cases()))
def test_the_process_ends_soon_and_silently(server: WebSocketProcess, phase: str, dispatch: str) -> None:
    run(server, phase, dispatch)


def ways() -> Iterator[Any]:
    for way in WAYS:
        for dispatch in ("reader", "shared"):
            is_quick = way in QUICK_WAYS and dispatch == "reader"
            yield pytest.param("opened", dispatch, way, marks=[] if is_quick else pytest.mark.slow)
    for number, way in enumerate(CROWDED_WAYS):
        for dispatch in ("reader", "shared")[number % 2 :]:
            yield pytest.param("crowded", dispatch, way, marks=pytest.mark.slow)


def all_gone(server: WebSocketProcess) -> dict[str, int]:
    """Wait until the server has seen the end of every connection, and return its counts of then."""
    found: dict[str, int] = {}

    def is_empty() -> bool:
        found.update(server.stats())
        return found["open"] == 0

    eventually(is_empty, message="the server to see the end of all")
    return found


@pytest.mark.parametrize(("phase", "dispatch", "way"), list(ways()))
def test_every_way_to_end(counting_server: WebSocketProcess, phase: str, dispatch: str, way: str) -> None:
    before = all_gone(counting_server)  # those of an earlier test as well: its goodbye would count here
    run(counting_server, phase, dispatch, way)
    now = all_gone(counting_server)
    opened = now["upgraded"] - before["upgraded"]
    assert opened >= (200 if phase == "crowded" else 1)
    assert now["goodbyes"] - before["goodbyes"] == (opened if WAYS[way].is_polite else 0)
