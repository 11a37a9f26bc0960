"""What the tests wait and measure with."""

import ctypes

from tests.waiting import Stalls, eventually


def test_a_stall_is_counted() -> None:
    with Stalls() as stalls:
        # Stands for a machine that does something else: nobody else has the interpreter meanwhile.
        ctypes.PyDLL(None).usleep(300_000)
        eventually(lambda: stalls.seconds)
    assert stalls.seconds > 0.2
