"""How every server says where it is, and that it ends with the bench."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any


def say_port(port: int) -> None:
    """Tell the bench that this program is ready, and where."""
    print(port, flush=True)


def end_with_bench() -> None:
    """Return when standard input ends, which it does when the bench is done or gone."""
    sys.stdin.read()


def end_in_background() -> None:
    """Leave when standard input ends, whatever this program does then."""

    def watch() -> None:
        end_with_bench()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def run_loop(work: Coroutine[Any, Any, None], *, is_fast: bool) -> None:
    """Run until the bench is done, on asyncio's own event loop or on uvloop."""
    end_in_background()
    with asyncio.Runner(loop_factory=_uvloop if is_fast else None) as runner:
        runner.run(work)


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop  # lazy: only for who is measured with it

    return uvloop.new_event_loop()


def mate_of(path: str) -> tuple[str, str]:
    """Return who a connection is and whom it wants: `/3/send` talks with `/3/take`."""
    number, _, side = path.strip("/").partition("/")
    return f"{number}/{side}", f"{number}/{'take' if side == 'send' else 'send'}"
