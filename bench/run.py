"""Runs rows: each task in a fresh process against a fresh server, the tasks of a row in turn, round after round."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import wire
from bench.judge import Outcome, Row, Task
from bench.rows import unfit
from bench.server import raise_descriptor_limit

ROOT = Path(__file__).parent.parent
LONGEST_RUN = 150.0
"""Seconds after which a process is ended and counts as failed."""


Processors = Collection[int]


def processors(placement: str, all_of_them: Processors) -> tuple[Processors, Processors]:
    """Return the processors of the client and those of the server.

    Left alone, the scheduler puts the two on one processor in some runs and apart in others, and where a message is waited
    for that is a factor of three. ``together``: both on one. ``apart``: the server has one of its own. ``free``: as it comes.
    """
    known = sorted(all_of_them)
    if placement == "free" or len(known) < 2:
        return known, known
    return (known[-1:] if placement == "together" else known[:-1]), known[-1:]


def place(process: subprocess.Popen[str], where: Processors | None) -> None:
    """Keep a process that has just been started on these processors; the threads it starts later follow it."""
    if where and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, where)


def available() -> Processors:
    """Return the processors this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()


class NoServerError(Exception):
    """A server did not start: its text is the last thing that it said, and ``is_missing`` that a module is not there."""

    def __init__(self, complaints: str) -> None:
        last = (complaints.strip().splitlines() or ["the server ended"])[-1]
        super().__init__(last)
        self.is_missing = last.startswith("ModuleNotFoundError")


@contextlib.contextmanager
def server(where: Processors | None = None, words: Sequence[str] = ("server",)) -> Iterator[int]:
    """Run a server inside the block and give its port.

    Raises: NoServerError.
    """
    name, *rest = words
    command, pipe = [sys.executable, "-m", f"bench.{name}", *rest], subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as complaints,  # a pipe that nobody empties would hold the server up
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=complaints, text=True) as process,
    ):
        place(process, where)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = process.stdout.readline()
            if not port:
                complaints.seek(0)
                raise NoServerError(complaints.read())
            yield int(port)
        finally:
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def all_servers(commands: Sequence[str], where: Processors | None = None) -> Iterator[int]:
    """Run the servers of a task inside the block, each with the port of the one before; give the port of the last.

    Raises: NoServerError.
    """
    with contextlib.ExitStack() as running:
        ports: list[str] = []
        for command in commands:
            ports = [str(running.enter_context(server(where, [*command.split(), *ports])))]
        yield int(ports[0])


def run_client(task: Task, port: int, where: Processors | None = None) -> dict[str, Any]:
    """Run one client to its end and return what it printed, or the error it ended with."""
    url = f"ws://{wire.HOST}:{port}/{task.path}"
    settings = [f"{name}={number}" for name, number in task.numbers.items()]
    command = [sys.executable, "-m", "bench.client", task.client, task.job, url, *settings]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        place(process, where)
        try:
            out, complaints = process.communicate(timeout=LONGEST_RUN)
            return json.loads(out.splitlines()[-1])
        except subprocess.TimeoutExpired:
            process.kill()
            return {"error": f"still running after {LONGEST_RUN:g} s"}
        except (IndexError, ValueError):
            return {"error": (complaints.strip().splitlines() or [f"exit status {process.returncode}"])[-1]}


def run_task(task: Task, placement: str = "free") -> dict[str, Any]:
    """Run one task once."""
    reason = unfit(task, raise_descriptor_limit())
    if reason:
        return {"missing": reason}
    of_client, of_server = processors(placement, available())
    try:
        with all_servers(task.servers, of_server) as port:
            return run_client(task, port, of_client)
    except NoServerError as error:
        return {"missing" if error.is_missing else "error": str(error)}


def run_row(row: Row, say: Callable[[str], None] = lambda text: None) -> dict[str, Outcome]:
    """Run a row: A B C, A B C. What is missing or has failed is not tried again."""
    outcomes = {task.label: Outcome() for task in row.tasks}
    for number in range(row.rounds):
        for task in row.tasks:
            outcome = outcomes[task.label]
            if not (outcome.missing or outcome.error):
                say(f"{row.name} {number + 1}/{row.rounds}: {task.label}")
                outcome.add(run_task(task, row.placement))
    return outcomes
