"""What holds for every test: nothing is left behind, and what was random can be repeated."""

import gc
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

import connman
from connman.clock import forget_timers_after_fork
from tests import examples  # noqa: F401  # loads the profile of the quick run
from tests.lockorder import LockOrder
from tests.stacks import nothing_collected
from tests.waiting import eventually

# Containers often forbid bytecode: then each worker rewrites the asserts of every file again, and each program that a
# test starts compiles connman again, which is a quarter of the whole run. Before any other module of the tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell has what it starts in the background ignore Ctrl-C, and so would every program that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before any lock is made. CONNMAN_LOCK_ORDER=0 leaves the locks as they are.
HOME = str(Path(connman.__file__).parent) + os.sep
LOCK_ORDER = LockOrder(lambda filename: filename.startswith(HOME))
if os.environ.get("CONNMAN_LOCK_ORDER") != "0":
    LOCK_ORDER.install()

DESCRIPTORS = "/proc/self/fd"
PATIENCE = 5.0  # seconds for threads to finish behind a close that returns at once


@pytest.fixture(autouse=True)
def one_lock_order(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail when locks of connman's were taken in more than one order, by this test and all before it together."""
    if request.node.get_closest_marker("plain_locks"):
        forget_timers_after_fork()  # whose lock was made before
        with LOCK_ORDER.paused():
            yield
        forget_timers_after_fork()
    else:
        yield
    if cycles := LOCK_ORDER.take_cycles():
        pytest.fail("\n\n".join(cycles), pytrace=False)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail when a thread, socket or selector of the test outlives it and its other fixtures.

    What a wider fixture (class, module, session) opened before the test is not the test's.
    """
    threads, descriptors = set(threading.enumerate()), open_descriptors()
    yield
    try:
        eventually(
            lambda: not (set(threading.enumerate()) - threads or open_descriptors() - descriptors), PATIENCE
        )
    except AssertionError:
        left = [stack_of(thread) for thread in threading.enumerate() if thread not in threads]
        left += [f"descriptor {number}: {kind}" for number, kind in sorted(open_descriptors() - descriptors)]
        if left:
            pytest.fail("left behind:\n" + "\n".join(left), pytrace=False)


def open_descriptors() -> set[tuple[int, str]]:
    """List the open sockets and selectors as number and kind; nothing where there is no /proc."""
    found = set()
    # No Path: this runs twice in each of thousands of tests.
    for number in os.listdir(DESCRIPTORS) if os.path.exists(DESCRIPTORS) else ():
        try:
            kind = os.readlink(f"{DESCRIPTORS}/{number}")
        except FileNotFoundError:  # closed meanwhile, as the one listdir() itself uses
            continue
        if kind.startswith(("socket:", "anon_inode:[eventpoll]")):
            found.add((int(number), kind))
    return found


def stack_of(thread: threading.Thread) -> str:
    with nothing_collected():
        frame = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else "  (ended meanwhile)\n"
    return f"thread {thread.name!r}:\n{stack}"


@pytest.fixture
def seed() -> int:
    """Choose the seed of a randomised test: CONNMAN_SEED repeats a run. The report of a failure shows it."""
    value = int(os.environ.get("CONNMAN_SEED") or random.randrange(2**32))
    print(f"CONNMAN_SEED={value}")
    return value


def pytest_collection_finish() -> None:
    """Take thousands of collected tests out of what each garbage collection of a test walks over."""
    gc.collect()
    gc.freeze()
