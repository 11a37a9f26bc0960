"""Under servers that fork or restart their workers: one connection a worker, its own, ended in order with the worker.

The same application on websocket-client 1.9.2 alone (BARE=1 in its environment), 300 requests under gunicorn --preload with
4 workers: sync workers gave 19 right answers, 108 that were someone else's and 173 errors; gthread 70 and 230 of the others'.
"""

import contextlib
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.promises.peers import PROGRAMS
from tests.recipes.blocks import Site
from tests.recipes.programs import Program, ask, ask_all, reserved_port
from tests.servers import ws_server
from tests.waiting import eventually

WORKERS = 4
WORDS = [f"word-{number}" for number in range(300)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks at other processes through /proc"),
]


@pytest.fixture(name="site")
def fixture_site(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    with ws_server() as server:
        site = Site(folder, server, tmp_path / "none.pem")
        site.env["TARGET"] = server.url("/echo")
        shutil.copy(PROGRAMS / "inherited.py", folder)
        yield site


def gevent_or_skip(kind: str) -> None:
    if kind == "gevent":
        pytest.importorskip("gevent")


@contextlib.contextmanager
def gunicorn(
    site: Site, kind: str, *options: str, app: str = "inherited:app"
) -> Iterator[tuple[Program, int]]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        command = (
            sys.executable, "-m", "gunicorn", app, "--bind", f"fd://{listener.fileno()}", "--worker-class", kind,
            "--workers", str(WORKERS), "--threads", "2" if kind == "gthread" else "1", "--graceful-timeout", "10",
            *options,
        )  # fmt: skip
        with Program(site, *command, listener=listener) as program:
            program.wait_logged("Booting worker", WORKERS)
            yield program, listener.getsockname()[1]


def check_links(site: Site, program: Program, of_the_master: int = 0) -> None:
    """Each worker has at most one connection, nobody has another's, and the server knows of no other."""
    links = program.links(site.server)
    assert len(links.pop(program.pid, ())) == of_the_master
    assert links
    assert {len(sockets) for sockets in links.values()} == {1}
    assert len({inode for sockets in links.values() for inode in sockets}) == len(links)
    counts = site.server.stats()
    assert counts["open"] == counts["accepted"] == len(links) + of_the_master


def check_farewells(site: Site, connections: int) -> None:
    """Everyone has told the server that he goes."""
    eventually(lambda: site.server.stats()["open"] == 0)
    closes = site.server.closes()
    assert set(closes) <= {"1000", "1001"}, closes
    assert sum(closes.values()) == connections


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_300_requests_over_an_inherited_connection_under_gunicorn(
    site: Site, kind: str, options: tuple[str, ...]
) -> None:
    """Preloading, the master has opened the connection that the workers inherit; its own goes on.

    gunicorn's gevent worker patches behind the fork: the connection is older than that.
    """
    gevent_or_skip(kind)
    of_the_master = 2 if options else 0
    if options:
        site.env["OPENED"] = "1"
    with gunicorn(site, kind, *options) as (program, port):
        before = program.links(site.server).get(program.pid)
        assert ask_all(port, WORDS, 2 * WORKERS) == WORDS
        check_links(site, program, of_the_master)
        assert program.links(site.server).get(program.pid) == before
        site.server.broadcast("news")
        if options:
            program.wait_logged("heard news", 1)
            assert f"{program.pid} heard news" in program.log()
        connections = site.server.stats()["upgraded"]
    assert "SIGKILL" not in program.log()
    assert "Traceback" not in program.log()
    check_farewells(site, connections)


@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_workers_that_are_recycled_say_goodbye(site: Site, kind: str) -> None:
    """With --max-requests. Without a close the server would take each for a broken connection.

    Seen failing with the hook at the interpreter's end taken out.
    """
    gevent_or_skip(kind)
    with gunicorn(site, kind, "--preload", "--max-requests", "20") as (program, port):
        assert ask_all(port, WORDS[:120], WORKERS) == WORDS[:120]
        program.wait_until(
            # One that is busy may have had most of the words: the others get theirs from here.
            lambda: ask(port, "more") == "more" and site.server.closes().get("1001", 0) >= 3,
            "workers to be replaced",
        )
        program.wait_until(
            lambda: ask(port, "more") == "more" and site.server.stats()["upgraded"] > WORKERS,
            "new ones to dial",
        )
        assert set(site.server.closes()) == {"1001"}
    check_farewells(site, site.server.stats()["upgraded"])


def test_a_peer_that_is_deaf_does_not_hold_a_worker_up(site: Site) -> None:
    """It never answers a close. A worker waits for that no longer than the interpreter's end may, and is not killed.

    Seen failing with `EXIT_TIMEOUT` and the timeout of `Core.end_soon` at 30 s.
    """
    (site.folder / "deaf.py").write_text(
        "import connman, os\n"
        "conn = connman.Connection(os.environ['TARGET'])\n"
        "def app(environ, start_response):\n"
        "    conn.wait_open(10)\n"
        "    start_response('200 OK', [])\n"
        "    return [b'open']\n"
    )
    site.env["TARGET"] = site.server.url("/deaf")
    with gunicorn(site, "sync", app="deaf:app") as (program, port):
        assert set(ask_all(port, WORDS[:40], WORKERS)) == {"open"}
        assert site.server.stats()["upgraded"] >= 1
        # gunicorn itself takes up to 2 s; it would kill what has not ended after 10.
        program.end(within=8)
    assert "SIGKILL" not in program.log()
    eventually(lambda: not program.members())


# uWSGI


@pytest.mark.parametrize("options", ["", "--lazy-apps", "--py-call-osafterfork"])
def test_300_requests_under_uwsgi(site: Site, options: str) -> None:
    """It forks without calling Python's hooks, but for --py-call-osafterfork, which crashes with Python 3.13."""
    uwsgi = shutil.which("uwsgi", path=str(Path(sys.executable).parent))
    if uwsgi is None:
        pytest.skip("uwsgi is not installed beside this Python: pip install '.[servers]', with a compiler")
    if options == "--py-call-osafterfork" and sys.version_info >= (3, 13):
        pytest.skip("uWSGI's --py-call-osafterfork crashes with Python 3.13 (unbit/uwsgi#2710)")
    command = (
        uwsgi, "--master", "--processes", str(WORKERS), "--threads", "2", "--die-on-term", "--enable-threads",
        "--module", "inherited:app", "--http-socket", "127.0.0.1:0", "--home", sys.prefix, "--listen", "64",
        *options.split(),
    )  # fmt: skip
    with Program(site, *command) as program:
        program.wait_logged("WSGI app 0 .* ready", WORKERS if options == "--lazy-apps" else 1)
        found = re.search(r"bound to TCP address 127\.0\.0\.1:(\d+)", program.log())
        assert found is not None
        assert ask_all(int(found[1]), WORDS, 2 * WORKERS) == WORDS
        check_links(site, program)
        connections = site.server.stats()["upgraded"]
    check_farewells(site, connections)


# Celery


def test_celery_processes_that_are_recycled_say_goodbye(site: Site) -> None:
    """Prefork, each process for four tasks: over the connection object that they inherit, which is not open.

    Its end is not looked at: billiard kills processes that are just being recycled, and then may wait for ever for a lock
    that one of them had (1 of 40 runs; no thread of connman's is in that process).
    """
    (site.folder / "tasks.py").write_text(
        "import os, connman\n"
        "from celery import Celery\n"
        "from celery.signals import worker_process_shutdown\n"
        "app = Celery('tasks')\n"
        "feed = connman.Connection(os.environ['TARGET'])\n"
        "@worker_process_shutdown.connect\n"
        "def leave(**kwargs):\n"
        "    feed.disconnect(1001, timeout=2)\n"
        "@app.task\n"
        "def say(word):\n"
        "    feed.send(word, wait=5)\n"
        "    return feed.recv(timeout=5)\n"
    )
    results, messages = site.folder / "results", site.folder / "data_in"
    results.mkdir()
    messages.mkdir()
    (site.folder / "data_out").symlink_to(messages)  # what the caller puts out the worker takes in
    site.env |= {"CELERY_BROKER_URL": "filesystem://", "CELERY_RESULT_BACKEND": f"file://{results}"}
    command = (
        sys.executable, "-m", "celery", "--app", "tasks", "worker", "--pool", "prefork", "--concurrency", "2",
        "--max-tasks-per-child", "4", "--without-gossip", "--without-mingle", "--without-heartbeat",
    )  # fmt: skip
    with Program(site, *command, end_by=signal.SIGKILL) as program:
        caller = (
            "import tasks; sent = [tasks.say.delay(f'word-{n}') for n in range(20)];"
            "print([result.get(timeout=30) for result in sent])"
        )
        assert site.run(sys.executable, "-c", caller) == f"{WORDS[:20]}\n"
        upgraded = site.server.stats()["upgraded"]
        assert upgraded >= 5
        assert len(program.links(site.server)) <= 2
        program.wait_until(
            lambda: site.server.closes() == {"1001": upgraded - site.server.stats()["open"]},
            "every recycled process to say goodbye",
        )
        assert site.server.stats()["open"] <= 2


# Reloaders: a process that watches, and one that serves and is replaced when a file has changed.


def check_reloader(site: Site, program: Program, port: int, *, changed: Path) -> None:
    def is_served(word: str) -> bool:
        return ask(port, word) == word

    program.wait_until(lambda: is_served("one"), "the first answer")
    before = program.links(site.server)
    # The watching process has imported the application as well, or forked; it has no connection.
    assert len(before) == 1
    assert ask(port, "two") == "two"
    changed.write_text(changed.read_text() + "\n# changed\n")
    program.wait_until(lambda: site.server.closes() == {"1001": 1}, "the old process to say goodbye")
    program.wait_until(lambda: is_served("three"), "the new process")
    after = program.links(site.server)
    assert len(after) == 1
    assert after.keys() != before.keys()
    assert site.server.stats()["upgraded"] == 2


def test_djangos_runserver_reloads(site: Site) -> None:
    (site.folder / "manage.py").write_text(
        "import logging\n"
        "import sys\n"
        "import django.conf\n"
        "from django.core.management import execute_from_command_line\n"
        "from django.http import HttpResponse\n"
        "from django.urls import path\n"
        "logging.basicConfig()\n"
        "told = {'version': 1, 'loggers': {'django.utils.autoreload': {'level': 'DEBUG'}}}\n"
        "django.conf.settings.configure(SECRET_KEY='x', DEBUG=True, ROOT_URLCONF=__name__, LOGGING=told)\n"
        "from inherited import say\n"
        "urlpatterns = [path('say/<word>', lambda request, word: HttpResponse(say(word)))]\n"
        "execute_from_command_line(sys.argv)\n"
    )
    with reserved_port() as port:
        command = (sys.executable, "manage.py", "runserver", f"127.0.0.1:{port}")
        with Program(site, *command, end_by=signal.SIGINT) as program:
            # It serves before it looks for the first time, and takes what it finds then for unchanged.
            program.wait_until(
                lambda: "inherited.py first seen" in program.log(), "the reloader's first look"
            )
            check_reloader(site, program, port, changed=site.folder / "inherited.py")
    check_farewells(site, 2)


def test_flasks_debug_server_reloads(site: Site) -> None:
    (site.folder / "flask_app.py").write_text(
        "from flask import Flask\n"
        "from inherited import say\n"
        "app = Flask(__name__)\n"
        "app.get('/say/<word>')(say)\n"
    )
    with reserved_port() as port:
        command = (sys.executable, "-m", "flask", "--app", "flask_app", "run", "--debug", "--port", str(port))
        with Program(site, *command, end_by=signal.SIGINT) as program:
            check_reloader(site, program, port, changed=site.folder / "inherited.py")
    check_farewells(site, 2)
