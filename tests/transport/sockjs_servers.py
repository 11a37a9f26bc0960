"""Real servers of SockJS as processes of their own: the npm package, and the PyPI package on aiohttp."""

import http.client
import importlib.util
import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from tests.npm import npm_packages

PROGRAMS = Path(__file__).with_name("programs")
PATIENCE = 20.0  # seconds
START = 40.0  # seconds for a process to start on a busy machine
NAMES = ["node", "aiohttp"]


class SockjsProcess:
    """One of the programs, which say what they do, on a port of its own that survives restarts; a with-block.

    ``disconnect_delay``, ``heartbeat_delay``: of its sessions, in milliseconds.
    """

    def __init__(self, name: str, *, disconnect_delay: int = 5000, heartbeat_delay: int = 25_000) -> None:
        self.name = name
        self._environment = dict(os.environ)
        if name == "node":
            packages = npm_packages("sockjs", {"sockjs": "0.3.24"}, within=45.0)
            self._environment["NODE_PATH"] = str(packages / "node_modules")
            command = ["node", str(PROGRAMS / "sockjs_node.js")]
        else:
            if any(importlib.util.find_spec(package) is None for package in ("sockjs", "aiohttp")):
                pytest.skip("needs the package sockjs, and aiohttp")
            command = [sys.executable, str(PROGRAMS / "sockjs_aiohttp.py")]
        # Bound but never listening: the port stays ours, and refuses, while the process is dead.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self.port: int = self._reservation.getsockname()[1]
        self._command = [*command, str(self.port), str(disconnect_delay), str(heartbeat_delay)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._reservation.close()

    def start(self) -> None:
        """Start the process and wait until it listens."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], START)[0], "the server did not start"
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        """End it and wait: afterwards its port refuses. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def url(self, kind: str, path: str = "/echo") -> str:
        return f"xhr-{kind}+http://127.0.0.1:{self.port}{path}"

    def ask(self, method: str, path: str) -> tuple[int, bytes]:
        """Make a request of our own and return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def paths(self, what: str = "") -> list[str]:
        """Return the path of each request so far that ends with ``what``, with its query."""
        found: list[str] = json.loads(self.ask("GET", "/requests")[1])
        return [path for path in found if path.partition("?")[0].endswith(what)]
