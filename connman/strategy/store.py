"""Where `Cached` keeps what it knows: any mapping, or a small JSON file that several processes may share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from connman.clock import Deadline, SystemClock
from connman.errors import InvalidOption
from connman.threads import Condition, spawn
from connman.transport.causes import describe

logger = logging.getLogger("connman.strategy")

# A record takes about 100 bytes. A file that is larger than this is not ours, and ours never grows larger.
_MAX_FILE = 64 * 1024
# How long a process waits for others that are writing the file, which takes each of them less than a millisecond.
_PATIENCE = 1.0
_LOOK = 0.01


class Store(Protocol):
    """What `Cached` needs of a mapping: a dict has it, and so has a ``redis.Redis``."""

    def __getitem__(self, key: str, /) -> str | bytes:
        """Return the text under ``key``.

        Raises: KeyError when there is none.
        """

    def __setitem__(self, key: str, text: str, /) -> None:
        """Keep ``text`` under ``key``."""

    def __delitem__(self, key: str, /) -> None:
        """Forget what is under ``key``; a KeyError when there is nothing is fine."""


class FileStore:
    """A JSON file of texts that are JSON themselves; processes that share it lose nothing of each other.

    It is replaced as a whole, under a lock that lies beside it (``….lock``): readers never see half of it. A file that
    is damaged, or larger than 64 KiB, is an empty one. Of what would make it larger, the oldest is dropped. File and
    folder are made when they are needed, for this user only.

    Threads: any; writing waits up to 1 s for other writers.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def __repr__(self) -> str:
        return f"FileStore({str(self._path)!r})"

    def __getitem__(self, key: str) -> str:
        """Return the text under ``key``.

        Raises: KeyError when there is none; OSError when the file cannot be read.
        Threads: any; does not wait.
        """
        return json.dumps(self._read()[key])

    def __setitem__(self, key: str, text: str) -> None:
        """Keep ``text`` under ``key``.

        Raises: ValueError when it is not JSON; OSError when the file cannot be written.
        Threads: any; see the class.
        """
        value = json.loads(text)
        with self._locked():
            entries = self._read()
            # To the end: the first is the one that has waited longest for a new text.
            entries.pop(key, None)
            self._replace(entries | {key: value})

    def __delitem__(self, key: str) -> None:
        """Forget what is under ``key``.

        Raises: KeyError when there is nothing; OSError when the file cannot be written.
        Threads: any; see the class.
        """
        if key not in self._read():
            raise KeyError(key)
        with self._locked():
            entries = self._read()
            if key in entries:  # else another process was faster, which is as good
                del entries[key]
                self._replace(entries)

    def _read(self) -> dict[str, Any]:
        # Not to be kept waiting by a pipe that lies at the path.
        with (
            contextlib.suppress(FileNotFoundError),
            _opened(self._path, os.O_RDONLY | os.O_NONBLOCK) as descriptor,
        ):
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError("not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                text = file.read(_MAX_FILE + 1)
            return {} if len(text) > _MAX_FILE else _parsed(text)
        return {}

    def _replace(self, entries: dict[str, Any]) -> None:
        text = json.dumps(entries, indent=1).encode()
        while len(text) > _MAX_FILE:
            del entries[next(iter(entries))]
            text = json.dumps(entries, indent=1).encode()
        # Always the same name, since only the holder of the lock comes here: what a killed process leaves is used again.
        # Links are not followed, and a pipe is not waited for: somebody else may have laid them.
        fresh = self._beside(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
        with _opened(fresh, flags) as descriptor, open(descriptor, "wb", closefd=False) as file:
            file.write(text)
        os.replace(fresh, self._path)

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(self._path.name + suffix)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other writers out, of this process and of others, while the block runs."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _opened(self._beside(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW) as descriptor:
            _wait_locked(descriptor)
            try:
                yield
            finally:
                # Not left to the close: a child that was forked meanwhile has the lock as well, for as long as it lives.
                fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_locked(descriptor: int) -> None:
    # Real time, whatever the connection's clock: other processes live in it. A holder that is stopped must not stop us.
    clock = SystemClock()
    deadline = Deadline.after(clock, _PATIENCE)
    pause = Condition()
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if deadline.expired:
                raise OSError("another process holds its lock") from None
        with pause:
            clock.wait(pause, _LOOK)


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def store_for(store: Store | str | os.PathLike[str] | None) -> Store | None:
    """Return the store that was meant: a mapping as it is, the file at a path, or for None the user's cache folder.

    None when there is no such folder, or no ``platformdirs`` to find it with, of which a warning tells.

    Raises: InvalidOption for anything else.
    Threads: any.
    """
    if store is None:
        return _default_store()
    if isinstance(store, str | os.PathLike):
        return FileStore(store)
    if all(hasattr(store, name) for name in ("__getitem__", "__setitem__", "__delitem__")):
        return store
    raise InvalidOption("store is a mapping, the path of a file, or None for the user's cache folder")


def _default_store() -> Store | None:
    try:
        import platformdirs  # lazy: an extra
    except ImportError:
        logger.warning("no cache of transports: connman[http] finds the user's cache folder, or give a store")
        return None
    # A user without a home: it raises, or leaves the "~", which would be made where we happen to run.
    with contextlib.suppress(RuntimeError):
        folder = platformdirs.user_cache_path("connman", appauthor=False)
        if folder.is_absolute():
            return FileStore(folder / "transports.json")
    logger.warning("no cache of transports: this user has no home folder; give a store")
    return None


class _Work:
    """What one process still has to write."""

    __slots__ = ("is_running", "is_waiting", "lock", "text")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # Guarded by lock: all of these. is_waiting: `text` (None: nothing, remove it) is still to be written.
        self.text: str | None = None
        self.is_waiting = False
        self.is_running = False


class Slot:
    """One key of a store, written on a thread of its own: a disk or a server that hangs holds up no timer.

    What a store raises is no error here: reading finds nothing then and writing does nothing. The first time, a warning
    says so.

    Threads: any; `read` blocks as long as the store does, `write` never.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        self._has_warned = False
        # By process: in a child the thread does not exist, and the lock may have been held.
        self._works: dict[int, _Work] = {}

    def read(self) -> str | None:
        """Return the text, None when there is none; what `write` was given counts at once.

        Threads: any; blocks as long as the store does.
        """
        work = self._work()
        with work.lock:
            if work.is_waiting:
                return work.text
        try:
            text = self._store[self._key]
            return text.decode() if isinstance(text, bytes) else text
        except KeyError:
            return None
        except UnicodeDecodeError:
            return ""  # something, and nothing that could be understood
        except Exception as error:  # user code: a mapping may raise anything
            self._maybe_warn("read", error)
            return None

    def write(self, text: str | None) -> None:
        """Have ``text`` kept, None for nothing; of several that wait the last one counts.

        Threads: any; never blocks.
        """
        work = self._work()
        with work.lock:
            work.text, work.is_waiting = text, True
            if work.is_running:
                return
            work.is_running = True
        try:
            spawn("cache", lambda: self._write_loop(work))
        except RuntimeError:  # an ending interpreter grants no thread
            with work.lock:
                work.is_running = False

    def _work(self) -> _Work:
        return self._works.get(os.getpid()) or self._works.setdefault(os.getpid(), _Work())

    def _write_loop(self, work: _Work) -> None:
        try:
            while True:
                with work.lock:
                    if not work.is_waiting:
                        work.is_running = False
                        return
                    text = work.text
                self._apply(text)
                with work.lock:
                    # What came meanwhile is written in the next round. The same once more changes nothing.
                    work.is_waiting = work.text is not text
        # top of a thread: a killed greenlet must not keep later ones from being started
        except BaseException:
            with work.lock:
                work.is_running = work.is_waiting = False
            raise

    def _apply(self, text: str | None) -> None:
        try:
            if text is not None:
                self._store[self._key] = text
            else:
                with contextlib.suppress(KeyError):
                    del self._store[self._key]
        except Exception as error:  # user code: a mapping may raise anything
            self._maybe_warn("written", error)

    def _maybe_warn(self, what: str, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            # Of a user's mapping no more than the names: its texts may quote a password of its server.
            is_ours = isinstance(self._store, FileStore)
            store = repr(self._store) if is_ours else type(self._store).__name__
            cause = describe(error) if is_ours else type(error).__name__
            logger.warning("no cache of transports: %s cannot be %s: %s", store, what, cause)
