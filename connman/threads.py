"""Name and mark connman's own threads.

``threading`` is looked up at call time and nothing is made at import, so that gevent may patch it later.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable


def spawn(
    name: str, target: Callable[[], None], note: Callable[[threading.Thread], None] | None = None
) -> threading.Thread:
    """Start and return a marked daemon thread named ``connman-<name>``.

    Daemon, because an open connection must not keep the interpreter from ending; the exit hook ends it politely.
    ``note`` is called with it before it starts: a lock that was made before gevent came does not keep a greenlet out.

    Raises: RuntimeError when the system or an ending interpreter grants no thread.
    Threads: any.
    """
    # By process: a thread that forks is the main one of the child, and the user's there.
    pid = os.getpid()

    def run() -> None:
        try:
            target()
        finally:
            if os.getpid() != pid:
                # A greenlet that a fork has copied: here `threading` has forgotten it, and would stumble over its end.
                # This makes it known again.
                threading.current_thread()

    thread = threading.Thread(target=run, name=f"connman-{name}", daemon=True)
    thread.connman_pid = pid  # type: ignore[attr-defined]
    if note is not None:
        note(thread)
    thread.start()
    return thread


def is_kill(error: BaseException) -> bool:
    """Return whether ``error`` is what gevent kills a greenlet with; who swallows it keeps the killer waiting for ever.

    Threads: any.
    """
    greenlet = sys.modules.get("greenlet")
    return greenlet is not None and isinstance(error, greenlet.GreenletExit)


def is_own() -> bool:
    """Return whether the calling thread is one of connman's.

    Threads: any.
    """
    return getattr(threading.current_thread(), "connman_pid", None) == os.getpid()
