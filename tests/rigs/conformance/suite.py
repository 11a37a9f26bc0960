"""Autobahn|Testsuite: sets it up in a folder of its own, once, and runs its fuzzing server."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import trustme

ROOT = Path(__file__).parents[3]
HOME = ROOT / ".venv-conformance"
REQUIREMENT = "autobahntestsuite==25.10.1"
SERVER = Path(__file__).with_name("fuzzing_server.py")
LOOPBACK = "127.0.0.1"
LONGEST_INSTALL = 600.0
START = 30.0
"""Seconds for the server to listen, and for its last verdicts."""


class UnfitError(Exception):
    """The machine cannot run the suite; the text says why."""


# Python 2.7


def candidates() -> Iterator[str]:
    """Name what may be a Python 2.7: the variable PYTHON27, PATH, pyenv's versions."""
    for name in (os.environ.get("PYTHON27"), "python2.7", "python2"):
        if name and (found := shutil.which(name)):
            yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(pyenv.glob("versions/2.7*/bin/python")))


def is_python27(python: str) -> bool:
    """Run it and see: a version manager's shim may lie in PATH and run nothing."""
    program = "import pip, sys; sys.exit(sys.version_info[:2] != (2, 7))"
    try:
        return subprocess.run([python, "-c", program], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def find_python27() -> str:
    """Return a Python 2.7 that has pip.

    Raises: UnfitError.
    """
    for candidate in candidates():
        if is_python27(candidate):
            return candidate
    raise UnfitError(
        "found no Python 2.7 with pip, for which Autobahn|Testsuite is written: looked at $PYTHON27, in PATH and among "
        "pyenv's versions (`pyenv install 2.7.18` makes one)"
    )


# Setting it up


def environment() -> dict[str, str]:
    """Return the environment in which Python 2.7 has the suite.

    Its user's folder is ours: other than one of PYTHONPATH it may hold namespace packages, and nothing is needed to
    make it.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**inherited, "PYTHONUSERBASE": str(HOME)}


def is_installed(python: str) -> bool:
    """Whether what is installed is what is wanted."""
    mark = HOME / "installed"
    return mark.exists() and mark.read_text(encoding="utf-8") == mark_of(python)


def mark_of(python: str) -> str:
    """Return what the installation depends on."""
    return f"{REQUIREMENT}\n{python}\n"


def install(python: str) -> None:
    """Install the suite where it is not; whoever comes meanwhile waits.

    Raises: UnfitError.
    """
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_installed(python):
            return
        print(f"installing {REQUIREMENT} into {HOME.name}, which takes half a minute", file=sys.stderr)
        command = [python, "-m", "pip", "install", "--quiet", "--user", "--disable-pip-version-check"]
        try:
            run = subprocess.run(
                [*command, "--no-warn-script-location", REQUIREMENT],
                env={
                    **environment(),
                    "PYTHONWARNINGS": "ignore",
                },  # 2.7 has reached its end, as everybody knows
                capture_output=True,
                text=True,
                timeout=LONGEST_INSTALL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UnfitError(f"installing {REQUIREMENT} took more than {LONGEST_INSTALL:g} s") from None
        if run.returncode:
            said = "\n".join((run.stdout + run.stderr).strip().splitlines()[-15:])
            raise UnfitError(f"cannot install {REQUIREMENT} (it needs a C compiler):\n{said}")
        (HOME / "installed").write_text(mark_of(python), encoding="utf-8")


def set_up() -> str:
    """Return a Python 2.7 for which the suite is installed.

    Raises: UnfitError.
    """
    python = find_python27()
    if not is_installed(python):
        install(python)
    return python


# Running it


class Server:
    """A fuzzing server; a with-block. `verdict()` gives what it found, case by case.

    Raises: UnfitError when it does not start.
    """

    def __init__(
        self, python: str, cases: Sequence[str], only: Sequence[str] = (), *, secure: bool, reports: str = ""
    ) -> None:
        self.ca = ""
        self._facts: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._stack = contextlib.ExitStack()
        self._log = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        try:
            certificate, key = self._certify() if secure else ("", "")
            wanted = {
                "cases": cases,
                "only": only,
                "certificate": certificate,
                "key": key,
                "reports": reports,
            }
            self._process = self._stack.enter_context(self._start(python, json.dumps(wanted)))
            first = self._next(START)
            if first is None:
                raise UnfitError(f"the fuzzing server did not start:\n{self.log()}")
        except BaseException:
            self._stack.close()
            raise
        self.cases: list[str] = first["cases"]
        self.url = f"{'wss' if secure else 'ws'}://{LOOPBACK}:{first['port']}"

    def _certify(self) -> tuple[str, str]:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        authority = trustme.CA()
        own = authority.issue_cert(LOOPBACK)
        self.ca = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca)
        own.private_key_pem.write_to_path(folder / "key.pem")
        for number, part in enumerate(own.cert_chain_pems):
            part.write_to_path(folder / "certificate.pem", append=bool(number))
        return str(folder / "certificate.pem"), str(folder / "key.pem")

    @contextlib.contextmanager
    def _start(self, python: str, wanted: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [python, "-u", str(SERVER), wanted],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        ) as process:
            reading = threading.Thread(target=self._read_loop, args=(process,), daemon=True)
            reading.start()
            try:
                yield process
            finally:
                assert process.stdin is not None
                process.stdin.close()
                try:
                    process.wait(START)
                except subprocess.TimeoutExpired:
                    process.kill()
                reading.join()

    def _read_loop(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._facts.put(json.loads(line))
        self._facts.put(None)

    def _next(self, seconds: float) -> dict[str, Any] | None:
        try:
            return self._facts.get(timeout=seconds)
        except queue.Empty:
            return None

    def verdict(self) -> dict[str, Any] | None:
        """Return the next verdict; None when none comes."""
        return self._next(START)

    def log(self) -> str:
        """Return the end of what the server said."""
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-20:])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()
