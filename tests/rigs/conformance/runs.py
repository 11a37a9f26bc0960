"""What is run: groups of cases, each against a fuzzing server of its own with a client process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.rigs.conformance.suite import ROOT, Server

PROTOCOL = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
SHORT = ("12.*.1", "12.*.4", "12.*.11", "13.*.1", "13.*.4", "13.*.11")
"""Of the compressed messages 16 B, 1 KiB, and 8 KiB in fragments."""


@dataclass(frozen=True)
class Run:
    """Some cases, and how the client connects for them. ``patience``: seconds for one case, above the suite's own."""

    name: str
    title: str
    cases: Sequence[str]
    is_secure: bool = False
    compression: str = ""
    readers: str = "own"
    patience: float = 30.0
    goal: float | None = None
    """Seconds that all of it should take on a machine that does nothing else."""


RUNS = (
    Run("ws", "ws, cases 1-7, 10", PROTOCOL),
    Run("limits", "ws, cases 9: limits", ("9.*",), patience=110.0, goal=10.0),
    Run("wss", "wss, cases 1-7, 10", PROTOCOL, is_secure=True),
    Run("deflate-12", "ws, cases 12: compression", ("12.*",), compression="deflate", patience=500.0),
    Run("deflate-13", "ws, cases 13: its parameters", ("13.*",), compression="deflate", patience=500.0),
)


def quick(runs: Sequence[Run]) -> list[Run]:
    """Take of the compressed messages, which are most of the time, only the short ones."""
    return [
        replace(run, cases=[case for case in SHORT if case[:3] == run.cases[0][:3]])
        if run.compression
        else run
        for run in runs
    ]


def both_readers(runs: Sequence[Run]) -> list[Run]:
    """Add each run once more, with `Pool(readers=1)`."""
    shared = (
        replace(run, name=f"{run.name}-shared", title=f"{run.title}, shared reader", readers="shared")
        for run in runs
    )
    return [*runs, *shared]


@dataclass
class Result:
    """What came of a run: the verdict on each case, and what the client said where it should be silent."""

    run: Run
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)
    complaint: str = ""

    @property
    def seconds(self) -> float:
        """What the client's connections took, one after the other."""
        return self._sum("seconds")

    @property
    def cpu(self) -> float:
        """The processor time of the client in them."""
        return self._sum("cpu")

    def _sum(self, name: str) -> float:
        return float(sum(case.get(name, 0.0) for case in self.cases.values()))


def missing(case: str) -> dict[str, Any]:
    """Return what stands for a verdict that did not come."""
    return {"id": case, "behavior": "MISSING", "behaviorClose": "MISSING", "remoteCloseCode": None}


def execute(
    run: Run,
    python27: str,
    *,
    client: str = "connman",
    only: Sequence[str] = (),
    is_dev: bool = False,
    reports: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Result:
    """Do one run: a server, a client, and the verdict on each of its cases. Without a case nothing is done.

    Raises: suite.UnfitError.
    """
    folder = "" if reports is None else str(reports / run.name)
    with Server(python27, run.cases, only, secure=run.is_secure, reports=folder) as server:
        result = Result(run, {case: missing(case) for case in server.cases})
        if server.cases:
            _Driver(run, server, result, say).drive(client, is_dev=is_dev)
    return result


class _Driver:
    """Feeds one client with cases and gathers what it and the server say of them."""

    def __init__(self, run: Run, server: Server, result: Result, say: Callable[[str], None]) -> None:
        self._run = run
        self._server = server
        self._result = result
        self._say = say

    def _command(self, client: str, *, is_dev: bool) -> list[str]:
        run, server = self._run, self._server
        strictly = ["-X", "dev", "-W", "error"] if is_dev else []
        command = [sys.executable, *strictly, "-m", "tests.rigs.conformance.client", client, server.url]
        command += ["--readers", run.readers, "--patience", str(run.patience)]
        command += ["--ca", server.ca] if server.ca else []
        return command + (["--compression", run.compression] if run.compression else [])

    def drive(self, client: str, *, is_dev: bool) -> None:
        """Run the cases one after the other; a client that hangs is ended, and its other cases stay missing."""
        with tempfile.TemporaryFile() as complaints:
            command = self._command(client, is_dev=is_dev)
            pipe = subprocess.PIPE
            with subprocess.Popen(
                command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=complaints, text=True
            ) as process:
                try:
                    for number, case in enumerate(self._server.cases, 1):
                        self._say(f"{self._run.title}: {case} ({number} of {len(self._server.cases)})")
                        if not self._one(process, case):
                            break
                finally:
                    self._end(process)
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip()
        if client == "connman" and said:
            self._result.complaint = said

    def _one(self, process: subprocess.Popen[str], case: str) -> bool:
        """Run one case; False when the client does not go on."""
        assert process.stdin is not None
        assert process.stdout is not None
        overseer = threading.Timer(self._run.patience + 10, process.kill)
        overseer.start()
        try:
            process.stdin.write(f"{case}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            return False
        finally:
            overseer.cancel()
            overseer.join()
        if not line:
            return False
        facts = json.loads(line)
        verdict = self._server.verdict() or missing(case)
        self._result.cases[verdict["id"]] = {**verdict, **facts, "id": verdict["id"]}
        return True

    def _end(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        try:
            process.stdin.close()
            process.wait(10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            process.kill()


def execute_all(runs: Sequence[Run], jobs: int, execute_one: Callable[[Run], Result]) -> list[Result]:
    """Do the runs, ``jobs`` at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(execute_one, runs))
