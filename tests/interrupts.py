"""Raise where a Ctrl-C may: at each point of a call at which Python looks for signals, one after another.

Python runs signal handlers in the main thread when a function is entered, when a call has returned and when a loop jumps
back, and nowhere else. A profile and a trace function are told of these points, and what they raise comes out there; of
the calls of types, such as `map`, the trace function alone, by the instruction behind each call.
"""

import contextlib
import gc
import itertools
import opcode
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from connman import ConnmanError

PATIENCE = 10.0  # seconds that only a failing test reaches


class CtrlC(BaseException):
    """What the handler raises. Not KeyboardInterrupt, which would end the test run."""


def is_in_a_thread_start(frame: Any) -> bool:
    """Whether the frame is within Python's own `Thread.start`: an interrupt there may leave a thread that never begins."""
    while frame is not None:
        if frame.f_code is threading.Thread.start.__code__:
            return True
        frame = frame.f_back
    return False


RESUME = opcode.opmap["RESUME"]
CALLS = {number for name, number in opcode.opmap.items() if name.startswith("CALL")}
JUMPS_BACK = {number for name, number in opcode.opmap.items() if name.startswith("JUMP_BACKWARD")}


class Interrupter:
    """Raise CtrlC at the `point`-th point (from 1) at which Python looks for signals, and note where that was.

    With `handle` that is called there instead. What is behind a call of a type is a point in `files` alone.
    """

    def __init__(
        self, point: int, handle: Callable[[], object] | None = None, files: tuple[str, ...] = ()
    ) -> None:
        self._point = point
        self._handle = handle
        self._files = files
        self._before: dict[Any, int] = {}  # the newest instruction of each frame
        self._points = itertools.count(1)
        self.where: str | None = None

    def __enter__(self) -> None:
        gc.disable()  # what it finds would be interrupted as well
        sys.settrace(self._trace)
        sys.setprofile(self._profile)

    def __exit__(self, *exc_info: object) -> None:
        sys.setprofile(None)
        sys.settrace(None)
        gc.enable()

    def _profile(self, frame: Any, event: str, argument: object) -> None:
        # An exception that is thrown into a generator is told as a call as well.
        is_entered = event == "call" and frame.f_code.co_code[frame.f_lasti] == RESUME
        if (is_entered or event == "c_return") and frame.f_code is not Interrupter.__exit__.__code__:
            self._reach(frame, f"{event} {getattr(argument, '__qualname__', frame.f_code.co_name)}")

    def _trace(self, frame: Any, event: str, _: object) -> Any:
        code = frame.f_code.co_code
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        is_looked_into = frame.f_code.co_filename.endswith(self._files or ("no file",))
        if event == "opcode":
            before = self._before.get(frame)
            self._before[frame] = code[frame.f_lasti]
            if code[frame.f_lasti] in JUMPS_BACK:
                self._reach(frame, "jumps back")
            elif is_looked_into and before in CALLS:
                self._reach(frame, "behind a call")
        return self._trace if event != "call" or is_looked_into or JUMPS_BACK & set(code[::2]) else None

    def _reach(self, frame: Any, what: str) -> None:
        if not is_in_a_thread_start(frame) and next(self._points) == self._point:
            sys.setprofile(None)
            sys.settrace(None)
            self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} {what}"
            if self._handle is None:
                raise CtrlC
            self._handle()


class Point:
    """The `number`-th point (from 1) of a call."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.where: str | None = None

    def interrupt(
        self,
        call: Callable[[], object],
        handle: Callable[[], object] | None = None,
        files: tuple[str, ...] = (),
    ) -> str | None:
        """Make the call, interrupt it at this point, and say where that was; None if the call has fewer points.

        Nothing but the interrupt, an error of connman, or what `handle` raises may come out of it.
        """
        interrupter = Interrupter(self.number, handle, files)
        try:
            with contextlib.suppress(CtrlC, ConnmanError), interrupter:
                call()
        finally:
            self.where = interrupter.where
        return self.where


def every_point(*, more_than: int = 5, step: int = 1) -> Iterator[Point]:
    """Yield each point (or every `step`-th) of the call that the loop interrupts, and one behind the last.

    It has to have more points than `more_than`: else nothing was tried.
    """
    for number in itertools.count(1, step):
        point = Point(number)
        yield point
        if point.where is None:
            assert number > more_than, "the call has no points"
            return


def within(call: Callable[[], object], what: str) -> None:
    """Make the call on a thread of its own: a lock that the main thread left taken is not taken for that one."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - told to the test
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), what
    assert not raised, f"{what}: {raised[0]!r}"
