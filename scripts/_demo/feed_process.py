"""A server process as the demo holds it: started, killed, frozen, and asked what it has seen."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Literal, Self

HOST = "127.0.0.1"
START_TIMEOUT = 15.0
END_TIMEOUT = 5.0

Mode = Literal["serve", "deaf", "relay", "device"]


class FeedFailed(Exception):
    """The server process did not come up."""


class FeedProcess:
    """A server process on one port, again and again; a with-block that leaves no process behind.

    ``script``: what it runs. ``port``: None for one of its own, else what it is to be told.

    Threads: one, but for `count`; a thread for each process reads its reports.
    """

    def __init__(self, secret: str, script: str = "server.py", port: int | None = None) -> None:
        self._secret = secret
        self._script = script
        # Held as long as the demo runs: while no server listens nobody else can take the port, and dialling it is refused.
        self._reservation = reserve_port() if port is None else None
        self.port = port if self._reservation is None else int(self._reservation.getsockname()[1])
        self._process: subprocess.Popen[str] | None = None
        self._reports: threading.Thread | None = None
        self._condition = threading.Condition()
        # Guarded by _condition: _counts, over all processes so far, and _is_up, of the present one.
        self._counts: Counter[str] = Counter()
        self._is_up = False

    @property
    def url(self) -> str:
        """Where it listens; any path will do."""
        return f"ws://{HOST}:{self.port}/ticks"

    @property
    def pid(self) -> int | None:
        """The process's id, None when there is none."""
        return None if self._process is None else self._process.pid

    def count(self, event: str) -> int:
        """Return how often the servers have reported ``event`` ("socket", "pass", "refused", "ran twice").

        Threads: any.
        """
        with self._condition:
            return self._counts[event]

    def start(self, mode: Mode) -> None:
        """Start a process and wait until it listens.

        Raises: FeedFailed.
        """
        assert self._process is None
        self._is_up = False
        server = str(Path(__file__).with_name(self._script))
        # A session of its own, so that a Ctrl-C is ours alone to answer.
        self._process = process = subprocess.Popen(
            [sys.executable, server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reports = threading.Thread(
            target=self._report_loop, args=(process,), name="demo-feed", daemon=True
        )
        self._reports.start()
        self._order(process, mode)
        with self._condition:
            self._condition.wait_for(lambda: self._is_up or process.poll() is not None, START_TIMEOUT)
            if not self._is_up:
                raise FeedFailed(f"the server process did not listen within {START_TIMEOUT:g} s")

    def _order(self, process: subprocess.Popen[str], mode: Mode) -> None:
        """Tell the process what to be: by stdin, because arguments and environment are for everyone to see."""
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps({"pass": self._secret, "port": self.port, "mode": mode}) + "\n")
            process.stdin.flush()

    def _report_loop(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)["event"]
            with self._condition:
                self._counts[event] += 1
                self._is_up = self._is_up or event == "listening"
                self._condition.notify_all()
        process.wait()
        with self._condition:
            self._condition.notify_all()

    def freeze(self) -> None:
        """Stop the process without ending it: its sockets stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process with SIGKILL and wait until it is gone and its last reports are read. Idempotent."""
        process, reports = self._process, self._reports
        if process is None or reports is None:
            return
        process.kill()
        process.wait(END_TIMEOUT)
        reports.join(END_TIMEOUT)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process = self._reports = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        if self._reservation is not None:
            self._reservation.close()


def reserve_port() -> socket.socket:
    """Return a socket that is bound to a free loopback port and does not listen: dialling the port is refused."""
    sock = socket.socket()
    # As the server does it: so that it can bind the same port beside us, also while old connections linger there.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((HOST, 0))
    return sock
