"""What `import connman` gives, and what it leaves for later."""

import subprocess
import sys

import pytest

import connman
import connman.strategy as imported

LAZY = """
import sys, connman
assert "connman.strategy" not in sys.modules
connman.strategy.Transport
assert "connman.strategy" in sys.modules
"""


def test_strategies_are_imported_when_they_are_used() -> None:
    assert connman.strategy is imported
    subprocess.run([sys.executable, "-c", LAZY], check=True, timeout=60)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'strategies'"):
        _ = connman.strategies
