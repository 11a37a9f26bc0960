"""Where the threads of this process are, for a test that waits until one is somewhere.

Nobody follows `f_back` of another thread's frame without `nothing_collected`: in Python 3.11 the garbage collector may run while that looks for the
frame, and what it calls (hypothesis counts its time) lets the other thread go on. What came was freed memory: an object
that is no frame, or a crash. So nothing is collected meanwhile.
"""

import contextlib
import gc
import sys
import threading
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import NamedTuple

_one_at_a_time = threading.Lock()


class Place(NamedTuple):
    """A function that a thread is in, and how far it has come."""

    code: CodeType
    instruction: int
    module: str


@contextlib.contextmanager
def nothing_collected() -> Iterator[None]:
    """Keep the garbage collector from running in any thread: for whoever follows `f_back`."""
    with _one_at_a_time:
        was_collecting = gc.isenabled()
        try:
            gc.disable()
            yield
        finally:
            if was_collecting:
                gc.enable()


def stacks() -> dict[int, list[Place]]:
    """Return for each thread, by its identifier, the places it is in, the innermost first.

    Threads go on meanwhile: callers of a place may already be those that came next.
    """
    with nothing_collected():
        return {thread: _places(innermost) for thread, innermost in sys._current_frames().items()}


def is_in(code: CodeType) -> bool:
    """Return whether a thread is within the function of that code."""
    return any(place.code is code for stack in stacks().values() for place in stack)


def _places(frame: FrameType | None) -> list[Place]:
    places = []
    while frame is not None:
        places.append(Place(frame.f_code, frame.f_lasti, str(frame.f_globals.get("__name__"))))
        frame = frame.f_back
    return places
