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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
    """A server that runs until the end of its with-block, in a process group of its own."""

    def __init__(self, site: Site, *command: str, listener: socket.socket | None = None) -> None:
        self._site = site
        self._command = command
        self._descriptors = [] if listener is None else [listener.fileno()]
        self._log = site.folder / "log"

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    @contextlib.contextmanager
    def running(self) -> Iterator["Program"]:
        """SIGTERM at the end, which has to be a good one. The group is killed in any case: it is only ours."""
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                self._command, cwd=self._site.folder, env=self._site.env, pass_fds=self._descriptors,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            yield self
            assert process.poll() is None, self.log()
            process.terminate()
            assert process.wait(PATIENCE) == 0, self.log()
        except BaseException:
            print(self.log())
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


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
def gunicorn(site: Site, app: str, *options: str) -> Iterator[int]:
    """Run gunicorn, whose configuration is the README's gunicorn.conf.py if that was written; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = (
            sys.executable, "-m", "gunicorn", app, "--bind", f"fd://{listener.fileno()}", "--worker-class", "gthread",
            "--workers", str(WORKERS), "--threads", str(POOL), "--graceful-timeout", "10", *options,
        )  # fmt: skip
        with Program(site, *command, listener=listener).running():
            yield listener.getsockname()[1]


# gunicorn


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
def test_flask_under_gunicorn(site: Site, options: tuple[str, ...]) -> None:
    site.write("conn.py", "flask_app.py", "gunicorn.conf.py")
    with gunicorn(site, "flask_app:app", *options) as port:
        # Before any request, by post_worker_init; a master that had dialled would be one more.
        eventually(lambda: site.server.stats()["upgraded"] == WORKERS * POOL, PATIENCE)
        assert ask_all(port) == WORDS
        assert site.server.stats()["upgraded"] == WORKERS * POOL
    eventually(lambda: site.server.stats()["open"] == 0)


def test_flask_under_gunicorn_needs_no_settings(site: Site) -> None:
    site.write("conn.py", "flask_app.py")
    with gunicorn(site, "flask_app:app", "--preload") as port:
        assert ask(port, "first") == "first"
        # One worker has dialled, for its first request. Neither the master nor the other has.
        assert site.server.stats()["accepted"] <= POOL
        assert ask_all(port) == WORDS
    eventually(lambda: site.server.stats()["open"] == 0)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
def test_django_under_gunicorn(site: Site, options: tuple[str, ...]) -> None:
    site.write("conn.py", "views.py", "gunicorn.conf.py")
    shutil.copy(Path(__file__).with_name("recipes") / "django_site.py", site.folder)
    with gunicorn(site, "django_site:app", *options) as port:
        assert ask_all(port) == WORDS
        eventually(lambda: site.server.stats()["upgraded"] == WORKERS * POOL, PATIENCE)
    eventually(lambda: site.server.stats()["open"] == 0)


# uWSGI


@pytest.mark.parametrize("options", [(), ("--lazy-apps",)], ids=["default", "lazy-apps"])
def test_flask_under_uwsgi(site: Site, options: tuple[str, ...]) -> None:
    """uWSGI needs a compiler and is therefore no part of the `test` extra: it runs where it is installed."""
    uwsgi = shutil.which("uwsgi", path=str(Path(sys.executable).parent)) or shutil.which("uwsgi")
    if uwsgi is None:
        pytest.skip("uwsgi is not installed (pip install uwsgi, which needs a compiler)")
    site.write("conn.py", "flask_app.py")
    (site.folder / "uwsgi.ini").write_text(blocks("ini")[0].text)
    command = (uwsgi, "--ini", "uwsgi.ini", "--http-socket", "127.0.0.1:0", "--home", sys.prefix, *options)
    with Program(site, *command).running() as program:
        found = eventually(
            lambda: re.search(r"bound to TCP address 127\.0\.0\.1:(\d+)", program.log()), PATIENCE
        )
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
    with Program(site, *command).running():
        # Before any task, by worker_process_init; the parent would be one more.
        eventually(lambda: site.server.stats()["upgraded"] == WORKERS, PATIENCE)
        caller = "import tasks; print([tasks.say.delay(f'word-{n}').get(timeout=30) for n in range(4)])"
        assert site.run(sys.executable, "-c", caller) == f"{WORDS[:4]}\n"
        assert site.server.stats()["upgraded"] == WORKERS
    eventually(lambda: site.server.stats()["open"] == 0)
