"""A Ctrl-C at any moment of a call."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.promises.peers import program_environment

PROGRAM = Path(__file__).parent / "programs" / "interrupted.py"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["memory", "sockets"])
def test_a_signal_handler_that_raises_harms_no_other_call(how: str, seed: int) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(seed), how], check=False, env=program_environment(),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]
