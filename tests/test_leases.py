"""Leases: what an interruption at any point leaves behind (the rest is told through pools, in test_pool.py)."""

import contextlib
import gc
import itertools
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from connman import Pool
from connman.testing import FakeClock, ScriptedDialer


class Interrupted(BaseException):
    """What a signal handler raises, as Ctrl-C does."""


@contextlib.contextmanager
def interrupted_at(number: int) -> Iterator[Callable[[], bool]]:
    """Raise at the `number`-th point of leases.py where a signal handler may run; yield what tells whether there was one.

    These are the beginnings of functions and the returns from C functions; not those of generator expressions, which
    are closed in places where Python can only print what is raised. No garbage is collected meanwhile: it would call
    weak references' callbacks, of which Python can only print it as well.
    """
    count = itertools.count(1)
    was_hit = False

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal was_hit
        if event in ("call", "c_return") and not was_hit and is_inside(frame) and next(count) == number:
            was_hit = True
            raise Interrupted

    gc.disable()
    sys.setprofile(profile)
    try:
        yield lambda: was_hit
    finally:
        sys.setprofile(None)
        gc.enable()


def is_inside(frame: FrameType) -> bool:
    callers = [each for each in (frame, frame.f_back) if each is not None]
    is_ours = any(each.f_code.co_filename.endswith("leases.py") for each in callers)
    return is_ours and frame.f_code.co_name != "<genexpr>"


def borrow_and_return(pool: Pool) -> None:
    with pool.connection(timeout=0) as conn:
        conn.send("x")


@pytest.mark.plain_locks
@pytest.mark.parametrize("begin", range(1, 80, 10))
def test_an_interruption_at_any_point_loses_no_lease(begin: int) -> None:
    # Five points of 52 lost the connection that was being lent.
    with Pool(url=ScriptedDialer(lambda _: ScriptedDialer.OPEN), size=1, clock=FakeClock()) as pool:
        pool.wait_open(10.0)
        for number in range(begin, begin + 10):
            with contextlib.suppress(Interrupted), interrupted_at(number):
                borrow_and_return(pool)
            # At most what a step left half done, which the next lease finishes.
            borrow_and_return(pool)
            assert (pool.stats.leased, pool.stats.waiters) == (0, 0), number


def test_the_points_of_a_lease_are_fewer_than_those_tried() -> None:
    with Pool(url=ScriptedDialer(lambda _: ScriptedDialer.OPEN), size=1, clock=FakeClock()) as pool:
        pool.wait_open(10.0)
        with interrupted_at(81) as was_hit:
            borrow_and_return(pool)
        assert not was_hit()
