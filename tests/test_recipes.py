"""The README's recipes run as their frameworks run them: real servers, real workers, requests over HTTP."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest

from tests.recipes.blocks import PATIENCE, Site, blocks, site
from tests.waiting import eventually

WORKERS, POOL = 2, 4
WORDS = [f"word-{number}" for number in range(24)]

pytestmark = pytest.mark.slow


@pytest.fixture(name="site")
def fixture_site(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    with site(folder) as found:
        yield found


class Program:
    """A server, in a process group of its own, which is killed at the end whatever happens: it is only ours."""

    def __init__(self, site: Site, *command: str, listener: socket.socket | None = None) -> None:
        self._log = site.folder / "log"
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
                self._end()
            else:
                print(self.log())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _end(self) -> None:
        """End it as a service manager would: with SIGTERM, after which the exit has to be a clean one."""
        self._process.terminate()
        assert self._process.wait(PATIENCE) == 0, self.log()

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


def ask(port: int, word: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/say/{word}", timeout=PATIENCE) as answer:
        text: str = answer.read().decode()
    return text


def ask_all(port: int) -> list[str]:
    """Ask from several threads at once, so that every thread of every worker has something to do."""
    with ThreadPoolExecutor(WORKERS * POOL) as threads:
        return list(threads.map(lambda word: ask(port, word), WORDS))


@contextlib.contextmanager
def gunicorn(site: Site, app: str, *options: str) -> Iterator[tuple[Program, int]]:
    """Run gunicorn, with the README's gunicorn.conf.py if that was written; yield it and its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = (
            sys.executable, "-m", "gunicorn", app, "--bind", f"fd://{listener.fileno()}", "--worker-class", "gthread",
            "--workers", str(WORKERS), "--threads", str(POOL), "--graceful-timeout", "10", *options,
        )  # fmt: skip
        with Program(site, *command, listener=listener) as program:
            program.wait_logged("Booting worker", WORKERS)
            yield program, listener.getsockname()[1]
    eventually(lambda: site.server.stats()["open"] == 0)


# gunicorn


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
def test_flask_under_gunicorn(site: Site, options: tuple[str, ...]) -> None:
    site.write("conn.py", "flask_app.py", "gunicorn.conf.py")
    with gunicorn(site, "flask_app:app", *options) as (program, port):
        # Before any request, by post_worker_init; a master that had dialled would be one more.
        program.wait_dialled(site, WORKERS * POOL)
        assert ask_all(port) == WORDS
        assert site.server.stats()["upgraded"] == WORKERS * POOL


def test_flask_under_gunicorn_needs_no_settings(site: Site) -> None:
    site.write("conn.py", "flask_app.py")
    with gunicorn(site, "flask_app:app", "--preload") as (_, port):
        assert site.server.stats()["accepted"] == 0
        assert ask(port, "first") == "first"
        # One worker has dialled, for its first request. Neither the master nor the other has.
        assert site.server.stats()["accepted"] <= POOL
        assert ask_all(port) == WORDS


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
def test_django_under_gunicorn(site: Site, options: tuple[str, ...]) -> None:
    site.write("conn.py", "views.py", "gunicorn.conf.py")
    shutil.copy(Path(__file__).with_name("recipes") / "django_site.py", site.folder)
    with gunicorn(site, "django_site:app", *options) as (program, port):
        program.wait_dialled(site, WORKERS * POOL)
        assert ask_all(port) == WORDS


# uWSGI


@pytest.mark.parametrize(("options", "loads"), [((), 1), (("--lazy-apps",), 4)], ids=["default", "lazy-apps"])
def test_flask_under_uwsgi(site: Site, options: tuple[str, ...], loads: int) -> None:
    """uWSGI needs a compiler and is therefore no part of the `test` extra: it runs where it is installed."""
    uwsgi = shutil.which("uwsgi", path=str(Path(sys.executable).parent))
    if uwsgi is None:
        pytest.skip("uwsgi is not installed beside this Python (it needs a compiler)")
    site.write("conn.py", "flask_app.py")
    (site.folder / "uwsgi.ini").write_text(blocks("ini")[0].text)
    command = (uwsgi, "--ini", "uwsgi.ini", "--http-socket", "127.0.0.1:0", "--home", sys.prefix, *options)
    with Program(site, *command) as program:
        # A worker that is told to end while it loads the application takes that for an error of the import, and lives on.
        program.wait_logged("WSGI app 0 .* ready", loads)
        found = re.search(r"bound to TCP address 127\.0\.0\.1:(\d+)", program.log())
        assert found is not None
        assert ask_all(int(found[1])) == WORDS
    eventually(lambda: site.server.stats()["open"] == 0)


# Celery


def test_celery(site: Site) -> None:
    """With broker and results in folders instead of Redis, which Celery takes from its environment.

    The recipe itself is not changed.
    """
    site.write("tasks.py")
    results, data_in = site.folder / "results", site.folder / "data_in"
    results.mkdir()
    data_in.mkdir()
    (site.folder / "data_out").symlink_to(data_in)  # what the caller puts out the worker takes in
    site.env |= {"CELERY_BROKER_URL": "filesystem://", "CELERY_RESULT_BACKEND": f"file://{results}"}
    command = (
        sys.executable, "-m", "celery", "--app", "tasks", "worker", "--pool", "prefork",
        "--concurrency", str(WORKERS), "--without-gossip", "--without-mingle", "--without-heartbeat",
    )  # fmt: skip
    with Program(site, *command) as program:
        # Before any task, by worker_process_init; the parent would be one more.
        program.wait_dialled(site, WORKERS)
        caller = "import tasks; print([tasks.say.delay(f'word-{n}').get(timeout=30) for n in range(4)])"
        assert site.run(sys.executable, "-c", caller) == f"{WORDS[:4]}\n"
        assert site.server.stats()["upgraded"] == WORKERS
    eventually(lambda: site.server.stats()["open"] == 0)
