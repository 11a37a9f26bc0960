"""Who is on a presence channel."""

from typing import Any

import pytest

from connman.integrations.pusher.members import Member, Members

TWO = {"presence": {"ids": ["1", "2"], "hash": {"1": {"name": "One"}, "2": None}, "count": 2}}


def test_those_of_the_subscription_and_those_who_come_and_go() -> None:
    members = Members()
    members.my_id = "2"
    members.reset(TWO)
    assert list(members) == [Member("1", {"name": "One"}), Member("2")]
    assert members.me == Member("2")
    assert members.add({"user_id": "3", "user_info": 3}) == Member("3", 3)
    assert "3" in members
    assert members.remove({"user_id": "1"}) == Member("1", {"name": "One"})
    assert members.get("1") is None
    assert len(members) == 2
    members.reset()
    assert (len(members), members.me, members.my_id) == (0, None, None)


@pytest.mark.parametrize(
    "data", [None, 1, "text", [], {}, {"user_id": None}, {"user_id": []}, {"user_id": ""}, {"user_id": True}]
)
def test_what_makes_no_sense_changes_nobody(data: Any) -> None:
    members = Members()
    members.reset(TWO)
    assert members.add(data) is None
    assert members.remove(data) is None
    assert len(members) == 2


@pytest.mark.parametrize(
    "data",
    [
        1,
        "text",
        [],
        {},
        {"presence": None},
        {"presence": {"hash": [], "ids": {}}},
        {"presence": {"ids": [[], "", True, None, 1.5], "hash": {"": 1}}},
    ],
)
def test_a_subscription_that_makes_no_sense_has_nobody(data: Any) -> None:
    members = Members()
    members.reset(TWO)
    members.reset(data)
    assert len(members) == 0


def test_users_of_whom_only_the_id_is_told() -> None:
    """As soketi tells of those without user_info."""
    members = Members()
    members.reset({"presence": {"ids": ["1", 2], "hash": {"3": {"a": 1}}, "count": 3}})
    assert list(members) == [Member("1"), Member("2"), Member("3", {"a": 1})]


def test_whoever_is_unknown_does_not_leave() -> None:
    assert Members().remove({"user_id": "1"}) is None


def test_numbers_for_ids() -> None:
    members = Members()
    assert members.add({"user_id": 7}) == Member("7")
    assert 7 in members
    assert members.get(7) == members.get("7")


def test_iterating_while_they_change() -> None:
    members = Members()
    members.reset(TWO)
    for member in members:
        members.remove({"user_id": member.id})
    assert len(members) == 0
