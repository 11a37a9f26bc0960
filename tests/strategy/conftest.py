"""The rig for the tests of the strategies."""

import pytest

from tests.strategy.rig import Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()
