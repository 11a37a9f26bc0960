"""What becomes of connections when the process forks or ends."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol, TypeVar

from connman.clock import forget_timers_after_fork
from connman.threads import keep_handles_after_fork
from connman.transport.masking import forget_keys_after_fork
from connman.transport.resolve import forget_lookups_after_fork, hold_lookups, release_lookups
from connman.transport.sockets import drop_sockets_after_fork

_T = TypeVar("_T")

logger = logging.getLogger("connman.fork")

EXIT_TIMEOUT = 1.5
"""Seconds that the interpreter's end waits for connections: `end_soon` gives peers 1 s to answer the close.

What takes longer is a callback of the user's, which nothing can end.
"""


class Forked(Protocol):
    """Something with locks, which has to be told when the process forks."""

    def after_fork(self) -> Callable[[], None] | None:
        """Become fresh in the child: new locks, nothing inherited.

        Return what calls users back, if anything does: it is called when everything else is fresh as well.

        Threads: the first one of the child that uses connman.
        """


class Ending(Protocol):
    """Something with threads, which has to be told when the interpreter ends."""

    def end_soon(self) -> None:
        """Begin to end, without blocking.

        Threads: the one that runs the exit hooks.
        """

    def wait_gone(self, within: float) -> bool:
        """Wait up to ``within`` seconds (0: look only) for the end that `end_soon` began; return whether it came.

        Threads: the one that runs the exit hooks.
        """


# Everything that lives, weakly, by its id(). Setting an entry is atomic; no lock may be made at import.
_forked: weakref.WeakValueDictionary[int, Forked] = weakref.WeakValueDictionary()
_ending: weakref.WeakValueDictionary[int, Ending] = weakref.WeakValueDictionary()
_process = {"pid": os.getpid()}
_hooks: list[str] = []
_resets: dict[int, threading.Lock] = {}


def register(forked: Forked) -> None:
    """Have ``forked`` told of forks, as long as it exists.

    Threads: any.
    """
    _forked[id(forked)] = forked
    # On first use: importing installs nothing. Two threads may both register; the second call has nothing to do.
    if "fork" not in _hooks:
        _hooks.append("fork")
        os.register_at_fork(
            before=hold_lookups, after_in_parent=release_lookups, after_in_child=check_process
        )


def end_at_exit(ending: Ending) -> None:
    """Have ``ending`` told of the interpreter's end, as long as it exists.

    Threads: any.
    """
    _ending[id(ending)] = ending
    if "exit" not in _hooks:
        _hooks.append("exit")
        atexit.register(_end_all)


def _existing(registry: weakref.WeakValueDictionary[int, _T]) -> list[_T]:
    # Not values(), which looks at one after another while other threads add more.
    return [thing for ref in registry.valuerefs() if (thing := ref()) is not None]


def check_process() -> None:
    """Make everything fresh when this is a forked child that has not been noticed yet; every entry calls it.

    The hook alone would not do: uWSGI forks without calling any.

    Threads: any.
    """
    if os.getpid() != _process["pid"]:
        _reset_child()


def _reset_child() -> None:
    # One lock for each process: the parent's may have been held when it forked.
    with _resets.setdefault(os.getpid(), threading.Lock()):
        if os.getpid() == _process["pid"]:
            return
        keep_handles_after_fork()  # first: the rest drops threads of the parent's
        drop_sockets_after_fork()
        forget_keys_after_fork()
        forget_lookups_after_fork()
        forget_timers_after_fork()
        tell_users = [forked.after_fork() for forked in _existing(_forked)]
        # Last: other threads of the child wait at the lock until everything is fresh.
        _process["pid"] = os.getpid()
    # Outside the lock: whoever is told that his Future has failed may come in here again.
    for tell in tell_users:
        if tell is not None:
            tell()


def _end_all() -> None:
    """End what is open when the interpreter does: all told first, then waited for together."""
    check_process()
    everything = _existing(_ending)
    for ending in everything:
        ending.end_soon()
    deadline = time.monotonic() + EXIT_TIMEOUT
    for ending in everything:
        if not ending.wait_gone(max(0.0, deadline - time.monotonic())):
            logger.debug("not ended within the exit's bound: %r", ending)
