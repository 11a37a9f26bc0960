"""Looking at where other threads are is safe while they run, and says where they are."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.loopback import in_thread
from tests.stacks import is_in, stacks
from tests.waiting import eventually

PATIENCE = 10.0

# Seen failing without `gc.disable()`: each run ended with a segmentation fault within half a second, on Python 3.11.
LOOK_WHILE_COLLECTING = """
import gc, sys, threading, time
from tests.stacks import stacks

def squares():
    return sum(x for x in (y for y in range(5)))

def run():
    while not is_over:
        squares()

is_over, looker = False, threading.get_ident()
gc.callbacks.append(lambda *_: time.sleep(0.0001) if threading.get_ident() == looker else None)
gc.set_threshold(1)
sys.setswitchinterval(1e-6)
thread = threading.Thread(target=run)
thread.start()
end = time.monotonic() + 1
while time.monotonic() < end:
    stacks()
is_over = True
thread.join()
assert gc.isenabled()
"""


@pytest.mark.slow
def test_threads_may_go_on_while_they_are_looked_at() -> None:
    root = Path(__file__).parent.parent
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-c", LOOK_WHILE_COLLECTING],
        cwd=root,
        text=True,
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_a_thread_is_where_it_is() -> None:
    may_go_on, waiting = threading.Event(), threading.Event.wait.__code__

    def stand() -> None:
        assert may_go_on.wait(PATIENCE)

    def is_standing() -> bool:
        codes = [[place.code for place in stack] for stack in stacks().values()]
        return any(waiting in each and stand.__code__ in each[each.index(waiting) :] for each in codes)

    standing = in_thread(stand)
    eventually(is_standing)
    assert is_in(stand.__code__)
    assert stacks()[threading.get_ident()][0].module == "tests.stacks"
    may_go_on.set()
    standing.result(PATIENCE)
    assert not is_standing()
