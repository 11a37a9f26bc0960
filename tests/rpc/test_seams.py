"""What streams need of a session and of a call is what those have."""

import inspect
from typing import Any

import pytest

from connman.rpc import calls, seams, session


@pytest.mark.parametrize(("seam", "real"), [(seams.Session, session.Session), (seams.Call, calls.Call)])
def test_methods_take_the_same_arguments(seam: Any, real: Any) -> None:
    methods = [name for name, member in vars(seam).items() if inspect.isfunction(member) and name[0] != "_"]
    assert methods
    for name in methods:
        wanted = inspect.signature(getattr(seam, name)).parameters
        assert list(inspect.signature(getattr(real, name)).parameters) == list(wanted), name
