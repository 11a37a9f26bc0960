"""`connman relay` as it is run, with small limits so that a run need not wait long for what is refused by time."""

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from connman.relay import Limits
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent.parent.parent

SECRET = "a secret that the rig alone knows, of 32 bytes at least"
ORIGIN = "https://good.example"
MESSAGE = 1024 * 1024
OPTIONS = {
    "max_message_size": MESSAGE,
    "max_connections": 2000,
    "max_per_address": 300,
    "max_per_name": 16,
    "handshake_timeout": 2.0,
    "join_timeout": 2.0,
    "ready_timeout": 1.0,
    "attempts_per_second": 100.0,
    "burst": 400,
    "ping_interval": 5.0,
    "ping_timeout": 5.0,
}
LIMITS = Limits(**OPTIONS)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Running:
    """A relay that listens."""

    pid: int
    port: int
    admin: int


@contextmanager
def relay() -> Iterator[Running]:
    """Start one; at the end it is asked to end, and has to say so and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        key, told = Path(folder, "key"), Path(folder, "told")
        key.write_text(SECRET, encoding="utf-8")
        words = ["--port=0", "--admin=0", f"--jwt-key={key}", f"--origin={ORIGIN}", "--grace=0"]
        words += [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
        with (
            told.open("w") as file,
            subprocess.Popen(
                [sys.executable, "-m", "connman", "relay", *words], cwd=ROOT, stderr=file
            ) as process,
        ):
            try:
                eventually(lambda: "admin on" in told.read_text() or process.poll() is not None, 20.0)
                port, admin = map(int, re.findall(r"://127\.0\.0\.1:(\d+)/", told.read_text()))
                yield Running(process.pid, port, admin)
                # Whatever it has logged meanwhile is an error of its own: those of clients are none.
                assert len(told.read_text().splitlines()) == 2, told.read_text()
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == 143
            finally:
                process.kill()
