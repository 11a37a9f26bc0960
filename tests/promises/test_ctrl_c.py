"""Ctrl-C ends every call that waits, and then the program: soon, in silence, with the exit code of its own choice.

Beside it websocket-client 1.9.2: `recv` and `send` end as well, but `close`, which waits for the answer of a peer that
reads nothing, takes its 3 s after the Ctrl-C has come out of `recv`. A Ctrl-C that comes just before the wait begins is
noticed by none of its calls before the peer sends something; by none of ours it was before they waited in steps.
"""

import ast
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.loopback import refusing_port
from tests.promises.peers import PROGRAMS, program_environment
from tests.servers import WebSocketProcess, ws_server

BOUND = 2.5  # seconds from the Ctrl-C to the end of the process
PROGRAM = PROGRAMS / "interrupted.py"
CALLS = [
    element.id
    for node in ast.parse(PROGRAM.read_text(encoding="utf-8")).body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CALLS" and isinstance(node.value, ast.List)
    for element in node.value.elts
    if isinstance(element, ast.Name)
]  # fmt: skip
QUICK = {"result-thread", "send-thread", "recv-shared", "recv-thread-lost"}

# One of each kind of wait.
STEPPED = {
    "result", "wait_open", "wait_closed", "leave", "disconnect_a_pool", "send", "send_behind_another", "recv",
    "iterate", "lend", "callback",
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[WebSocketProcess]:
    with ws_server() as process:
        yield process


def cases() -> Iterator[Any]:
    for call in CALLS:
        for reader in ("thread", "shared", "thread-lost"):
            if reader == "thread-lost" and call not in STEPPED:
                continue
            name = f"{call}-{reader}"
            yield pytest.param(call, reader, marks=[] if name in QUICK else pytest.mark.slow, id=name)


def test_the_calls_were_found() -> None:
    assert len(CALLS) == 26


@pytest.mark.parametrize(("call", "reader"), list(cases()))
def test_a_ctrl_c_ends_the_call_and_the_program(server: WebSocketProcess, call: str, reader: str) -> None:
    with refusing_port() as refusing:
        program = subprocess.Popen(
            [sys.executable, str(PROGRAM), call, reader, server.url(""), str(refusing)],
            env=program_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n", program.communicate()[1]
            since = time.monotonic()
            if not reader.endswith("-lost"):
                program.send_signal(signal.SIGINT)
            try:
                out, err = program.communicate(timeout=BOUND)
            except subprocess.TimeoutExpired:
                pytest.fail(f"it did not end within {BOUND:g} s")
            print(f"{call}, {reader}: ended after {time.monotonic() - since:.2f} s")
            assert (program.returncode, out, err) == (3, "", "")
        finally:
            program.kill()
            program.communicate()
