"""What the tests wait and measure with."""

import ctypes
import os
import subprocess
import sys

from tests.waiting import Stalls, eventually, waited_for_a_processor


def test_a_stall_is_counted() -> None:
    with Stalls() as stalls:
        # Stands for a machine that does something else: nobody else has the interpreter meanwhile.
        ctypes.PyDLL(None).usleep(300_000)
        eventually(lambda: stalls.seconds)
    assert stalls.seconds > 0.2


def test_the_time_without_a_processor_is_counted() -> None:
    """Two that want the same one share it."""
    pinned = f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}])\nwhile True: pass"
    spinning = [subprocess.Popen([sys.executable, "-c", pinned]) for _ in range(2)]
    try:
        for program in spinning:
            eventually(lambda program=program: waited_for_a_processor(program.pid) > 0.1)  # type: ignore[misc]
    finally:
        for program in spinning:
            program.kill()
            program.wait()
    assert waited_for_a_processor(spinning[0].pid) == 0
