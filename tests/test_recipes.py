"""The README's recipes run as their frameworks run them: real servers, real workers, requests over HTTP."""

import contextlib
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recipes.blocks import Site, blocks, site
from tests.recipes.programs import Program, ask, ask_all
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


def answers(port: int) -> list[str]:
    return ask_all(port, WORDS, WORKERS * POOL)


@contextlib.contextmanager
def gunicorn(site: Site, app: str, *options: str, kind: str = "gthread") -> Iterator[tuple[Program, int]]:
    """Run gunicorn, with the README's gunicorn.conf.py if that was written; yield it and its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = (
            sys.executable, "-m", "gunicorn", app, "--bind", f"fd://{listener.fileno()}", "--worker-class", kind,
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
        assert answers(port) == WORDS
        assert site.server.stats()["upgraded"] == WORKERS * POOL


def test_flask_under_gunicorn_needs_no_settings(site: Site) -> None:
    site.write("conn.py", "flask_app.py")
    with gunicorn(site, "flask_app:app", "--preload") as (_, port):
        assert site.server.stats()["accepted"] == 0
        assert ask(port, "first") == "first"
        # One worker has dialled, for its first request. Neither the master nor the other has.
        assert site.server.stats()["accepted"] <= POOL
        assert answers(port) == WORDS


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
def test_flask_under_gunicorn_with_gevent(site: Site, options: tuple[str, ...]) -> None:
    pytest.importorskip("gevent")
    site.write("conn.py", "flask_app.py", "gunicorn.conf.py")
    with gunicorn(site, "flask_app:app", *options, kind="gevent") as (program, port):
        program.wait_dialled(site, WORKERS * POOL)
        assert answers(port) == WORDS
        assert site.server.stats()["upgraded"] == WORKERS * POOL


def test_flask_under_a_preloading_gunicorn_that_gevent_has_patched(site: Site) -> None:
    """With settings for TLS of the application's own, which without the recipe would be older than the patches."""
    pytest.importorskip("gevent")
    site.write("conn.py", "flask_app.py", "gevent.conf.py")
    conn = site.folder / "conn.py"
    text = conn.read_text().replace("size=4", "size=4, ssl_context=ssl.create_default_context()")
    conn.write_text(f"import ssl\n{text}")
    assert text.count("ssl_context") == 1
    with gunicorn(site, "flask_app:app", "--preload", "-c", "gevent.conf.py", kind="gevent") as (_, port):
        assert site.server.stats()["accepted"] == 0
        assert answers(port) == WORDS
        assert site.server.stats()["upgraded"] <= WORKERS * POOL


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
def test_django_under_gunicorn(site: Site, options: tuple[str, ...]) -> None:
    site.write("conn.py", "views.py", "gunicorn.conf.py")
    shutil.copy(Path(__file__).with_name("recipes") / "django_site.py", site.folder)
    with gunicorn(site, "django_site:app", *options) as (program, port):
        program.wait_dialled(site, WORKERS * POOL)
        assert answers(port) == WORDS


# uWSGI


@pytest.mark.parametrize(("options", "loads"), [((), 1), (("--lazy-apps",), 4)], ids=["default", "lazy-apps"])
def test_flask_under_uwsgi(site: Site, options: tuple[str, ...], loads: int) -> None:
    """uWSGI needs a compiler and is therefore in an extra of its own, `servers`: it runs where it is installed."""
    uwsgi = shutil.which("uwsgi", path=str(Path(sys.executable).parent))
    if uwsgi is None:
        pytest.skip("uwsgi is not installed beside this Python: pip install '.[servers]', with a compiler")
    site.write("conn.py", "flask_app.py")
    (site.folder / "uwsgi.ini").write_text(blocks("ini")[0].text)
    command = (uwsgi, "--ini", "uwsgi.ini", "--http-socket", "127.0.0.1:0", "--home", sys.prefix, *options)
    with Program(site, *command) as program:
        # A worker that is told to end while it loads the application takes that for an error of the import, and lives on.
        program.wait_logged("WSGI app 0 .* ready", loads)
        found = re.search(r"bound to TCP address 127\.0\.0\.1:(\d+)", program.log())
        assert found is not None
        assert answers(int(found[1])) == WORDS
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
