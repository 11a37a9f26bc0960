"""What becomes of connections when the process forks or ends."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from typing import Protocol

from connman.clock import forget_timers_after_fork
from connman.transport.resolve import forget_lookups_after_fork
from connman.transport.sockets import drop_sockets_after_fork

logger = logging.getLogger("connman.fork")

EXIT_TIMEOUT = 2.0
"""Seconds that the interpreter's end waits for open connections to end politely."""


class Lived(Protocol):
    """Something with locks and threads, which has to be told when the process forks or ends."""

    def after_fork(self) -> None:
        """Become fresh in the child: new locks, nothing inherited.

        Threads: the first one of the child that uses connman.
        """

    def end_soon(self) -> None:
        """Begin to end, without blocking, because the interpreter does.

        Threads: the one that runs the exit hooks.
        """

    def has_ended(self, within: float) -> bool:
        """Wait up to ``within`` seconds for the end that `end_soon` began, and return whether it came.

        Threads: the one that runs the exit hooks.
        """


# Everything that lives, weakly. Single operations on a dict are atomic; no lock may be made at import.
_lived: dict[int, weakref.ref[Lived]] = {}
_process = {"pid": os.getpid()}
_hooks: list[str] = []
_resets: dict[int, threading.Lock] = {}


def register(lived: Lived) -> None:
    """Have ``lived`` told of forks and of the interpreter's end, as long as it exists.

    Threads: any.
    """
    key = id(lived)
    _lived[key] = weakref.ref(lived, lambda _: _lived.pop(key, None))
    if not _hooks:
        _hooks.append("installed")
        os.register_at_fork(after_in_child=check_process)
        atexit.register(_end_all)


def check_process() -> None:
    """Make everything fresh when this is a forked child that has not been noticed yet; every entry calls it.

    The hook alone would not do: uWSGI forks without calling any (facts: peers 5.1).

    Threads: any.
    """
    if os.getpid() != _process["pid"]:
        _reset_child()


def _reset_child() -> None:
    # One lock for each process: the parent's may have been held when it forked.
    with _resets.setdefault(os.getpid(), threading.Lock()):
        if os.getpid() == _process["pid"]:
            return
        drop_sockets_after_fork()
        forget_lookups_after_fork()
        forget_timers_after_fork()
        for lived in _all():
            lived.after_fork()
        _process = {"pid": os.getpid()}


def _all() -> list[Lived]:
    return [lived for ref in list(_lived.values()) if (lived := ref()) is not None]


def _end_all() -> None:
    """End what is open when the interpreter does: all told first, then waited for together."""
    check_process()
    everything = _all()
    for lived in everything:
        lived.end_soon()
    deadline = time.monotonic() + EXIT_TIMEOUT
    for lived in everything:
        if not lived.has_ended(max(0.0, deadline - time.monotonic())):
            logger.debug("not ended within the exit's bound: %r", lived)
