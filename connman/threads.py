"""Name and mark connman's own threads.

``threading`` is looked up at call time and nothing is made at import, so that gevent may patch it later.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


def spawn(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start and return a marked daemon thread named ``connman-<name>``.

    Daemon, because an open connection must not keep the interpreter from ending; the exit hook ends it politely.

    Raises: RuntimeError when the system or an ending interpreter grants no thread.
    Threads: any.
    """
    thread = threading.Thread(target=target, name=f"connman-{name}", daemon=True)
    # By process: a thread that forks is the main one of the child, and the user's there.
    thread.connman_pid = os.getpid()  # type: ignore[attr-defined]
    thread.start()
    return thread


def is_own() -> bool:
    """Return whether the calling thread is one of connman's.

    Threads: any.
    """
    return getattr(threading.current_thread(), "connman_pid", None) == os.getpid()
