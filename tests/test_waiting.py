"""What the tests wait and measure with."""

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

from tests.loopback import in_thread
from tests.waiting import ProcessorWaits, Stalls, eventually, precedence, waited_for_a_processor


def first_processor() -> int:
    return min(os.sched_getaffinity(0))


def test_a_stall_is_counted() -> None:
    with Stalls() as stalls:
        # Stands for a machine that does something else: nobody else has the interpreter meanwhile.
        ctypes.PyDLL(None).usleep(300_000)
        eventually(lambda: stalls.seconds)
    assert stalls.seconds > 0.2


@contextlib.contextmanager
def spinning(count: int) -> Iterator[list[int]]:
    """Have so many programs want the first processor all the time."""
    pinned = f"import os; os.sched_setaffinity(0, [{first_processor()}])\nwhile True: pass"
    programs = [subprocess.Popen([sys.executable, "-c", pinned]) for _ in range(count)]
    try:
        yield [program.pid for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.wait()


def test_the_time_without_a_processor_is_counted() -> None:
    """Two that want the same one share it."""
    with spinning(2) as pids:
        for pid in pids:
            eventually(lambda pid=pid: waited_for_a_processor(pid) > 0.1)  # type: ignore[misc]
    assert waited_for_a_processor(pids[0]) == 0


def test_a_thread_of_this_process_that_gets_no_processor_is_counted() -> None:
    is_over, first = threading.Event(), first_processor()

    def spin() -> None:
        os.sched_setaffinity(0, [first])  # of this thread alone
        while not is_over.is_set():
            pass

    with spinning(1):
        waits = ProcessorWaits()
        spinner = in_thread(spin)
        try:
            eventually(lambda: waits.seconds > 0.1)
        finally:
            is_over.set()
        spinner.result(10)
    assert ProcessorWaits().seconds < 0.1


def test_precedence_ends_with_its_block() -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with spinning(1) as (child,):
        with precedence(os.getpid(), child):
            priorities = {os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, child)}
            late = in_thread(os.getpriority, os.PRIO_PROCESS, 0)
            assert priorities | {late.result(10)} in ({max(usual - 10, -20)}, {usual})  # granted, or not
        assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, child)} == {usual}
