"""The tests of a connection's life are run with each kind of reader."""

from collections.abc import Iterator

import pytest

from tests.connection.rig import reader_kind

LIFE = {
    "test_attempt",
    "test_backoff",
    "test_callbacks",
    "test_connection",
    "test_core",
    "test_fork",
    "test_future",
    "test_group",
    "test_keepalive",
    "test_life",
    "test_reader",
    "test_receiver",
}
# With both kinds also where the slow tests are left out.
QUICK = {"test_callbacks", "test_receiver"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = metafunc.module.__name__.rpartition(".")[2]
    if name in LIFE:
        marks = () if name in QUICK else pytest.mark.slow
        kinds = ["thread", pytest.param("shared", marks=marks)]
        metafunc.parametrize("each_reader_kind", kinds, indirect=True)


@pytest.fixture(autouse=True)
def each_reader_kind(request: pytest.FixtureRequest) -> Iterator[None]:
    token = reader_kind.set(getattr(request, "param", "thread"))
    yield
    reader_kind.reset(token)
