"""Tests marked `netns` run in a network namespace of their own each."""

from collections.abc import Iterator

import pytest

from tests.hostile.netns.namespace import Firewall, Inside, is_inside, raise_loopback


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if is_inside():
        return
    for number, item in enumerate(items):
        if item.get_closest_marker("netns") is not None and not isinstance(item, Inside):
            assert item.parent is not None
            inside = Inside.from_parent(item.parent, name=item.name, nodeid=item.nodeid)
            inside.own_markers = item.own_markers
            inside.keywords.update(item.keywords)
            items[number] = inside


@pytest.fixture
def firewall() -> Iterator[Firewall]:
    raise_loopback()
    made = Firewall()
    yield made
    made.heal()
