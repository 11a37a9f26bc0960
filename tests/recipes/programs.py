"""Servers of workers as programs: run in a session of their own, asked over HTTP, looked at through /proc, and ended."""

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from tests.recipes.blocks import PATIENCE, Site
from tests.servers import WebSocketProcess
from tests.waiting import eventually

_numbers = itertools.count(1)


class Program:
    """A server, in a session of its own, which is killed at the end whatever happens: it is only ours.

    It is ended as a service manager would, with SIGTERM, or with ``end_by=SIGINT`` as Ctrl-C in a terminal does, which
    tells the whole group; after which it has to exit with ``code``. ``end_by=SIGKILL``: how it ends is not looked at.
    """

    def __init__(
        self, site: Site, *command: str, listener: socket.socket | None = None, end_by: signal.Signals = signal.SIGTERM,
        code: int = 0,
    ) -> None:  # fmt: skip
        self._log = site.folder / f"log-{next(_numbers)}"  # several may run in one folder
        self._end_by = end_by
        self._code = -signal.SIGKILL if end_by is signal.SIGKILL else code
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=site.folder, env=site.env, pass_fds=[] if listener is None else [listener.fileno()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        try:
            if kind is None:
                self.end()
            else:
                print(self.log())
        finally:
            for pid in self.members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    def end(self, within: float = PATIENCE) -> None:
        """End it, within so many seconds. Idempotent."""
        if self._process.returncode is not None:
            return
        if self._end_by is signal.SIGINT:
            os.killpg(self._process.pid, self._end_by)
        else:
            self._process.send_signal(self._end_by)
        assert self._process.wait(within) == self._code, self.log()

    @property
    def pid(self) -> int:
        """That of the process that was started: of the master, where there is one."""
        return self._process.pid

    def members(self) -> set[int]:
        """Return the processes of its session: it and what it has forked or started."""
        found = set()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(ValueError, ProcessLookupError):
                if os.getsid(int(entry.name)) == self.pid:
                    found.add(int(entry.name))
        return found

    def links(self, server: WebSocketProcess) -> dict[int, set[str]]:
        """Return the sockets (their inodes) that each process has connected to the server; without those that have none."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inodes = {row[9] for row in rows if row[2] == f"0100007F:{server.port:04X}"}
        found = {pid: inodes & sockets_of(pid) for pid in self.members()}
        return {pid: linked for pid, linked in found.items() if linked}

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, predicate: Callable[[], bool], what: str) -> None:
        """Wait for `what`; fail at once when the program has ended meanwhile."""

        def is_so() -> bool:
            assert self._process.poll() is None, f"it has ended: {self.log()}"
            return predicate()

        eventually(is_so, PATIENCE, what)

    def wait_logged(self, pattern: str, times: int) -> None:
        self.wait_until(lambda: len(re.findall(pattern, self.log())) == times, f"{times} x {pattern}")

    def wait_dialled(self, site: Site, connections: int) -> None:
        self.wait_until(lambda: site.server.stats()["upgraded"] == connections, f"{connections} connections")


def sockets_of(pid: int) -> set[str]:
    """Return the inodes of a process's sockets; none when it has ended."""
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(link))
    return {name.removeprefix("socket:[").removesuffix("]") for name in found if name.startswith("socket:")}


def ask(port: int, word: str) -> str:
    """Return what the server answers; the text of the error when it answers none."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/say/{word}", timeout=PATIENCE) as answer:
            text: str = answer.read().decode()
    except OSError as error:
        return f"no answer: {error}"
    return text


def ask_all(port: int, words: Sequence[str], threads: int) -> list[str]:
    """Ask from several threads at once, so that every thread of every worker has something to do."""
    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(lambda word: ask(port, word), words))


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """Hold a port for a server that cannot be handed a listener, restarts included: bound, never listening."""
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        yield reservation.getsockname()[1]
