"""The command line as a process of its own: its streams, its signals, its exit code."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Self

from tests.loopback import PATIENCE
from tests.servers import CLOSE, Frame, Frames, close_frame
from tests.waiting import eventually

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "connman", *words]


@dataclass(frozen=True)
class Finished:
    """How a program ended."""

    code: int
    out: str
    err: str


def run(*words: str, text: str = "", env: dict[str, str] | None = None) -> Finished:
    """Run `connman …` with `text` as its input, and wait for its end."""
    done = subprocess.run(
        command(*words),
        input=text.encode(),
        capture_output=True,
        timeout=PATIENCE * 3,
        env={**ENVIRONMENT, **(env or {})},
        check=False,
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextlib.contextmanager
def ctrl_c_works() -> Iterator[None]:
    """Have children start with SIGINT not ignored, as a shell's job in the foreground does."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)


class Program:
    """A running `connman …`. Leaving the with-block kills it if it still runs.

    Streams are pipes unless given; a stream that is given is neither collected nor closed.
    """

    def __init__(self, *words: str, **streams: Any) -> None:
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        with ctrl_c_works():
            self.process = subprocess.Popen(command(*words), bufsize=0, env=ENVIRONMENT, **streams)
        self._texts: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
        self._threads: list[threading.Thread] = []
        self.collect("err")

    def collect(self, name: str) -> None:
        """Begin to read a stream, "out" or "err"; before that nobody does."""
        stream = self.process.stdout if name == "out" else self.process.stderr
        if stream is not None:
            thread = threading.Thread(target=self._collect, args=(stream, self._texts[name]))
            thread.start()
            self._threads.append(thread)

    def _collect(self, stream: IO[bytes], text: bytearray) -> None:
        while chunk := stream.read(65536):
            text += chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    @property
    def out(self) -> str:
        return self._texts["out"].decode(errors="replace")

    @property
    def err(self) -> str:
        return self._texts["err"].decode(errors="replace")

    def type(self, text: str) -> None:
        self.type_bytes(text.encode())

    def type_bytes(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait_out(self, pattern: str) -> None:
        self._wait("out", pattern)

    def wait_err(self, pattern: str) -> None:
        self._wait("err", pattern)

    def _wait(self, name: str, pattern: str) -> None:
        def told() -> str:
            return f"{pattern!r} on {name}: {self.out!r} {self.err!r}"

        eventually(lambda: re.search(pattern, getattr(self, name), re.DOTALL), PATIENCE, told)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end and return the exit code; afterwards `out` and `err` are complete."""
        code = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        return code


def started(*words: str, **streams: Any) -> Program:
    """Start `connman …` and collect all it says."""
    program = Program(*words, **streams)
    program.collect("out")
    return program


class Terminal:
    """`connman connect …` on a pseudo terminal."""

    def __init__(self, *words: str) -> None:
        self._main, side = pty.openpty()
        self.process = subprocess.Popen(
            command("connect", *words),
            stdin=side,
            stdout=side,
            stderr=side,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        os.close(side)
        self.shown = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO when the other side is closed
            while chunk := os.read(self._main, 65536):
                self.shown += chunk

    def type(self, data: bytes) -> None:
        os.write(self._main, data)

    def wait(self, pattern: bytes) -> None:
        eventually(lambda: re.search(pattern, self.shown), PATIENCE, lambda: f"{pattern!r} in {self.shown!r}")

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join(PATIENCE)
        os.close(self._main)


def say_goodbye(frames: Frames) -> list[Frame]:
    """Read up to the client's close, answer it, and return all that came, the close included."""
    seen: list[Frame] = []
    for frame in frames:
        seen.append(frame)
        if frame.opcode == CLOSE:
            frames.send(close_frame())
            break
    return seen
