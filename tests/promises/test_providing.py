"""Providers and callers in processes that end, fork, or are workers of a server: nothing hangs, nobody gets another's."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connman.relay import Relay
from connman.rpc import reach
from tests.promises.peers import PROGRAMS, program_environment, run_program
from tests.promises.test_workers import WORKERS, gunicorn
from tests.recipes.blocks import Site
from tests.recipes.programs import ask, ask_all
from tests.servers import ws_server
from tests.waiting import eventually

BOUND = 2.5  # seconds from the end of the main module to the end of the process

PROGRAM = PROGRAMS / "providing.py"


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay(port=0) as relay:
        yield relay


@pytest.mark.parametrize(
    "scenario",
    [
        "end_while_it_waits",
        "end_while_a_service_runs",
        pytest.param("end_while_it_dials", marks=pytest.mark.slow),
    ],
)
def test_the_process_ends_soon_and_silently(relay: Relay, scenario: str) -> None:
    program = subprocess.Popen(
        [sys.executable, str(PROGRAM), scenario, relay.url],
        env=program_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n", program.communicate()[1]
        since = time.monotonic()
        try:
            out, err = program.communicate(timeout=BOUND)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it did not end within {BOUND:g} s")
        print(f"ended after {time.monotonic() - since:.2f} s")
        assert (program.returncode, out, err) == (3, "", "")
    finally:
        program.kill()
        program.communicate()
    eventually(lambda: relay.snapshot().connections == 0)
    # Everyone has said goodbye.
    assert set(relay.snapshot().closes) <= {1000, 1001}


def fork(relay: Relay, scenario: str) -> dict[str, object]:
    done = run_program("providing.py", scenario, relay.url, timeout=50.0)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_provider_is_the_parents_alone(relay: Relay) -> None:
    assert fork(relay, "fork_a_provider") == {"child": ["Forked", "Forked", 0, 0, True, True], "parent": True}


def test_a_child_calls_over_a_connection_of_its_own(relay: Relay) -> None:
    assert fork(relay, "fork_a_caller") == {"child": ["Forked", True], "parent": True, "running": False}


# Workers

APP = """
import os
from connman.rpc import provide, reach

URL = os.environ["TARGET"]
# At import: under --preload it is the master's object that the workers inherit.
peer = reach(URL, "echo")
if os.environ.get("OPENED"):
    assert peer.call("echo", "first") == "first"
providers = {}

def app(environ, start_response):
    word = environ["PATH_INFO"].rpartition("/")[2]
    pid = os.getpid()
    if pid not in providers:
        providers[pid] = provide(URL, f"worker-{pid}", {"pid": os.getpid}, spares=1).wait_ready(20)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [(peer.call("echo", word) if word != "pid" else str(pid)).encode()]
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_workers_call_and_provide_each_for_itself(
    tmp_path: Path, relay: Relay, kind: str, options: tuple[str, ...]
) -> None:
    words = [f"word-{number}" for number in range(200)]
    with ws_server() as server:
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "calling.py").write_text(APP)
        site = Site(folder, server, tmp_path / "none.pem")
        site.env["TARGET"] = relay.url
        if options:
            site.env["OPENED"] = "1"
        echo = subprocess.Popen(
            [sys.executable, "-m", "connman", "provide", "served:echo", relay.url, "echo", "--spares", "8"],
            cwd=serving(tmp_path),
            env=program_environment(),
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(lambda: relay.snapshot().spares >= 2)
            with gunicorn(site, kind, *options, app="calling:app") as (program, port):
                assert ask_all(port, words, 2 * WORKERS) == words
                pid = ask(port, "pid")
                with reach(relay.url, f"worker-{pid}") as peer:
                    assert peer.call("pid") == int(pid)
            assert "Traceback" not in program.log()
        finally:
            echo.terminate()
            echo.wait()
    eventually(lambda: relay.snapshot().connections == 0)


def serving(folder: Path) -> Path:
    (folder / "served.py").write_text("def echo(word):\n    return word\n")
    return folder
