"""What the hostile surroundings have in common."""

import pytest

from tests.hostile.fleet import Tls


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls.make(tmp_path_factory.mktemp("tls"))
