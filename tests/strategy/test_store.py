"""Texts are kept in a file that processes share, or in any mapping, and a store that fails is none."""

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from connman.errors import InvalidOption
from connman.strategy.store import FileStore, Slot, store_for
from tests.loopback import PATIENCE, in_thread
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture(name="path")
def fixture_path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "transports.json"


# The file


def test_a_text_comes_back_also_from_another_object(path: Path) -> None:
    FileStore(path)["one"] = '{"a": [1, "ü"]}'
    assert json.loads(FileStore(path)["one"]) == {"a": [1, "ü"]}


def test_keys_are_separate(path: Path) -> None:
    store = FileStore(path)
    store["one"], store["two"] = "1", "2"
    store["one"] = "3"
    del store["two"]
    assert store["one"] == "3"
    with pytest.raises(KeyError):
        store["two"]
    with pytest.raises(KeyError):
        del store["two"]


def test_only_this_user_reads_it(path: Path) -> None:
    FileStore(path)["one"] = "1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_reading_makes_nothing(path: Path) -> None:
    with pytest.raises(KeyError):
        FileStore(path)["one"]
    assert not path.parent.exists()


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 60_000, b"1" * 5_000, b'{"one": 1}' + b" " * 65_536],
    ids=["empty", "cut", "list", "null", "not-utf-8", "deep", "long-number", "too-big"],
)
def test_a_damaged_file_is_an_empty_one(path: Path, damage: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(damage)
    store = FileStore(path)
    with pytest.raises(KeyError):
        store["one"]
    with pytest.raises(KeyError):
        del store["one"]
    store["one"] = "1"
    assert json.loads(path.read_bytes()) == {"one": 1}


def test_what_is_no_json_is_refused(path: Path) -> None:
    with pytest.raises(ValueError):
        FileStore(path)["one"] = "{"
    assert not path.exists()


def test_it_stays_small_and_drops_what_was_written_longest_ago(path: Path) -> None:
    store = FileStore(path)
    filler = json.dumps("x" * 10_000)
    for number in range(6):
        store[str(number)] = filler
    store["0"] = filler
    store["6"] = filler
    assert list(json.loads(path.read_bytes())) == ["2", "3", "4", "5", "0", "6"]
    assert path.stat().st_size <= 64 * 1024


def test_what_a_killed_process_has_left_is_written_over(path: Path) -> None:
    path.parent.mkdir()
    path.with_name("transports.json.new").write_bytes(b"x" * 1000)
    FileStore(path)["one"] = "1"
    assert sorted(left.name for left in path.parent.iterdir()) == ["transports.json", "transports.json.lock"]
    assert json.loads(path.read_bytes()) == {"one": 1}


def test_a_link_in_the_way_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for suffix in (".lock", ".new"):
        link = path.with_name(path.name + suffix)
        link.symlink_to(victim)
        with pytest.raises(OSError):
            FileStore(path)["one"] = "1"
        link.unlink()
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("suffix", [".lock", ".new"])
def test_a_pipe_in_the_way_is_not_waited_for(path: Path, suffix: str) -> None:
    path.parent.mkdir()
    os.mkfifo(path.with_name(path.name + suffix))
    writing = in_thread(FileStore(path).__setitem__, "one", "1")
    error = writing.exception(PATIENCE)
    assert error is None if suffix == ".lock" else isinstance(error, OSError)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_cannot_be_read(path: Path, kind: str) -> None:
    path.mkdir(parents=True) if kind == "folder" else (path.parent.mkdir(), os.mkfifo(path))
    with pytest.raises(OSError, match="not a regular file"):
        FileStore(path)["one"]


def test_a_holder_of_the_lock_that_is_stopped_keeps_nobody_for_long(path: Path) -> None:
    store = FileStore(path)
    store["one"] = "1"
    with path.with_name("transports.json.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process"):
            store["one"] = "2"
        assert store["one"] == "1"  # readers need no lock
        fcntl.flock(lock, fcntl.LOCK_UN)
    store["one"] = "2"
    assert store["one"] == "2"


WRITER = """
import sys
from connman.strategy.store import FileStore
path, name = sys.argv[1:]
store = FileStore(path)
sys.stdin.read(1)
for number in range(60):
    store[f"{name}-{number % 3}"] = str(number)
    assert store[f"{name}-{number % 3}"] == str(number)
    if number == 30:
        del store[f"{name}-0"]
"""


def test_processes_that_share_it_lose_nothing(path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", WRITER, path]
    writers = [
        subprocess.Popen([*command, str(number)], cwd=ROOT, stdin=subprocess.PIPE) for number in range(3)
    ]
    try:
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.close()
        assert [writer.wait(30) for writer in writers] == [0, 0, 0]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait(10)
    names = {f"{writer}-{number}" for writer in range(3) for number in range(3)}
    store = FileStore(path)
    assert {name: store[name] for name in names} == {name: str(57 + int(name[-1])) for name in names}


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_that_is_forked_within_a_write_does_not_keep_the_lock(path: Path) -> None:
    store = FileStore(path)

    children: list[int] = []

    class Forking(str):
        """A key that forks when it is looked up under the lock."""

        __slots__ = ()

        def __hash__(self) -> int:
            if not children:
                children.append(os.fork())
                if not children[0]:
                    signal.alarm(30)
                    signal.pause()
            return super().__hash__()

    store[Forking("one")] = "1"
    assert len(children) == 1
    try:
        store["two"] = "2"
        assert store["one"] == "1"
    finally:
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)


# Which store


def test_a_path_is_a_file_and_a_mapping_itself(path: Path) -> None:
    mapping: dict[str, str] = {}
    assert store_for(mapping) is mapping
    for found in (store_for(path), store_for(str(path))):
        assert repr(found) == f"FileStore({str(path)!r})"


@pytest.mark.parametrize("store", [1, object(), ["a"][0].__len__], ids=["number", "object", "method"])
def test_anything_else_is_refused(store: object) -> None:
    with pytest.raises(InvalidOption):
        store_for(store)  # type: ignore[arg-type]


def test_by_default_it_lies_in_the_user_s_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("platformdirs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    found = store_for(None)
    assert isinstance(found, FileStore)
    found["one"] = "1"
    assert [path.relative_to(tmp_path).name for path in tmp_path.rglob("*.json")] == ["transports.json"]


def no_home(*_: object, **__: object) -> Path:
    raise RuntimeError("could not determine the home directory")


@pytest.mark.parametrize("user_cache_path", [no_home, lambda *_, **__: Path("~/.cache")], ids=["new", "old"])
def test_without_a_home_there_is_no_cache(
    user_cache_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "platformdirs", SimpleNamespace(user_cache_path=user_cache_path))
    assert store_for(None) is None
    assert ["no home folder" in record.getMessage() for record in caplog.records] == [True]


def test_without_platformdirs_there_is_no_cache(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert store_for(None) is None
    assert ["connman[http]" in record.getMessage() for record in caplog.records] == [True]


# One key of it, written behind


class SlowStore(dict[str, str]):
    """Holds every writer up until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.may_go = threading.Semaphore(0)
        self.writers: list[str] = []

    def _stop(self) -> None:
        self.writers.append(threading.current_thread().name)
        self.entered.release()
        assert self.may_go.acquire(timeout=10)

    def __setitem__(self, key: str, text: str) -> None:
        self._stop()
        super().__setitem__(key, text)

    def __delitem__(self, key: str) -> None:
        self._stop()
        super().__delitem__(key)


@pytest.fixture(name="slow")
def fixture_slow() -> Iterator[SlowStore]:
    store = SlowStore()
    yield store
    store.may_go.release(100)


def test_writing_does_not_wait_and_counts_at_once(slow: SlowStore) -> None:
    slot = Slot(slow, "one")
    assert slot.read() is None
    slot.write("1")
    assert slow.entered.acquire(timeout=10)
    assert slot.read() == "1"
    assert not dict(slow)
    slow.may_go.release()
    eventually(lambda: dict(slow) == {"one": "1"})
    assert slow.writers == ["connman-cache"]


def test_of_what_waits_the_last_one_is_written(slow: SlowStore) -> None:
    slot = Slot(slow, "one")
    slot.write("1")
    assert slow.entered.acquire(timeout=10)
    for number in range(2, 1000):
        slot.write(str(number))
    assert slot.read() == "999"
    slow.may_go.release(2)
    eventually(lambda: dict(slow) == {"one": "999"})
    assert len(slow.writers) == 2


def is_written() -> bool:
    """Whether no thread writes any more."""
    return not any(thread.name == "connman-cache" for thread in threading.enumerate())


def test_nothing_is_written_as_well(slow: SlowStore, caplog: pytest.LogCaptureFixture) -> None:
    slow.may_go.release(10)
    slot = Slot(slow, "one")
    slot.write("1")
    eventually(lambda: dict(slow) == {"one": "1"})
    slot.write(None)
    assert slot.read() is None
    eventually(lambda: not dict(slow))
    eventually(is_written)  # while it is being written the same would not be written once more
    slot.write(None)  # there is nothing to remove
    eventually(is_written)
    assert len(slow.writers) == 3
    slot.write("2")
    eventually(lambda: dict(slow) == {"one": "2"})
    assert not caplog.records


def test_texts_of_bytes_are_texts() -> None:
    assert Slot({"one": b"1"}, "one").read() == "1"  # type: ignore[arg-type]
    assert Slot({"one": b"\xff"}, "one").read() == ""  # type: ignore[arg-type]


class BrokenStore(dict[str, str]):
    """Raises what the servers of users raise."""

    tries = 0

    def _fail(self, *_: object) -> None:
        self.tries += 1
        raise RuntimeError("redis://:s3cret@host is away")

    __getitem__ = __setitem__ = __delitem__ = _fail  # type: ignore[assignment]


def test_a_store_that_fails_is_none_and_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    store = BrokenStore()
    slot = Slot(store, "one")
    assert slot.read() is None
    for number in range(3):
        slot.write(str(number) if number else None)
        eventually(lambda tries=number + 2: store.tries == tries)
        eventually(lambda: "connman-cache" not in {thread.name for thread in threading.enumerate()})
    assert slot.read() is None
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "BrokenStore" in warnings[0]
    assert "RuntimeError" in warnings[0]
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("kind", ["folder-is-a-file", "path-is-a-folder"])
def test_a_file_that_cannot_be_is_none_and_one_warning(
    path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir(parents=True) if kind == "path-is-a-folder" else path.parent.write_text("")
    slot = Slot(FileStore(path), "one")
    assert slot.read() is None
    slot.write("1")
    eventually(lambda: slot.read() is None)
    assert len(caplog.records) == 1


def test_without_a_thread_nothing_is_written_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    mapping: dict[str, str] = {}
    slot = Slot(mapping, "one")

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as ending:
        ending.setattr(threading.Thread, "start", start)
        slot.write("1")
    assert slot.read() == "1"
    slot.write("2")
    eventually(lambda: mapping == {"one": "2"})


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_writes_with_a_thread_of_its_own(path: Path) -> None:
    class Gate(FileStore):
        """A file that the parent is still writing when it forks."""

        entered, may_go = threading.Event(), threading.Event()
        is_parent = True

        def __setitem__(self, key: str, text: str) -> None:
            if self.is_parent:
                self.entered.set()
                assert self.may_go.wait(10)
            super().__setitem__(key, text)

    store = Gate(path)
    slot = Slot(store, "one")
    slot.write("1")
    assert store.entered.wait(10)
    child = os.fork()
    if not child:
        signal.alarm(20)
        store.is_parent = False
        assert slot.read() is None
        slot.write("2")
        eventually(path.exists)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert json.loads(path.read_bytes()) == {"one": 2}
    store.may_go.set()
    eventually(lambda: json.loads(path.read_bytes()) == {"one": 1})
