"""The interpreter's end is never held up: no hang, no traceback, no word, and the exit code is kept."""

import ast
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.loopback import hanging_port, refusing_port
from tests.promises.peers import PROGRAMS, program_environment
from tests.servers import WebSocketProcess, ws_server

BOUND = 2.5  # seconds from the end of the main module to the end of the process

PROGRAM = PROGRAMS / "exiting.py"
# Read, not imported: it is a program.
PHASES = [
    element.id
    for node in ast.parse(PROGRAM.read_text(encoding="utf-8")).body
    if isinstance(node, ast.Assign)
    and ast.unparse(node.targets[0]) == "PHASES"
    and isinstance(node.value, ast.List)
    for element in node.value.elts
    if isinstance(element, ast.Name)
]
# On a shared reader the rest says the same as on a thread each.
QUICK_SHARED = {"opened", "fed", "dialling", "backing_off", "retrying_all_the_time", "pool_opening"}
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
}


@pytest.fixture(scope="module")
def server() -> Iterator[WebSocketProcess]:
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
    assert len(PHASES) == 20


@pytest.mark.parametrize(("phase", "dispatch"), list(cases()))
def test_the_process_ends_soon_and_silently(server: WebSocketProcess, phase: str, dispatch: str) -> None:
    with refusing_port() as refusing, hanging_port() as hanging:
        command = [sys.executable, str(PROGRAM), phase, dispatch, server.url(""), str(refusing), str(hanging)]
        program = subprocess.Popen(
            command, env=program_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n", program.communicate()[1]
            since = time.monotonic()
            try:
                out, err = program.communicate(timeout=BOUND)
            except subprocess.TimeoutExpired:
                pytest.fail(f"it did not end within {BOUND:g} s")
            print(f"{phase}, {dispatch}: ended after {time.monotonic() - since:.2f} s")
            assert (program.returncode, out, err) == (3, "", "")
        finally:
            program.kill()
            program.communicate()
