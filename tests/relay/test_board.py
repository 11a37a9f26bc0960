"""Names with their spares, newest first, and groups of two."""

import pytest

from connman.relay.board import Board


def test_the_newest_spare_is_taken_first() -> None:
    board: Board[str] = Board()
    for spare in ("one", "two", "three"):
        board.add_spare("name", spare)
    board.add_spare("other", "four")
    assert (board.spares("name"), board.names) == (3, 2)
    assert board.remove_spare("name", "two")
    assert not board.remove_spare("name", "two")
    assert not board.remove_spare("unknown", "two")
    assert [board.newest_spare("name") for _ in range(3)] == ["three", "one", None]
    assert board.names == 1


def test_names_without_spares_are_forgotten() -> None:
    board: Board[str] = Board()
    board.add_spare("name", "one")
    board.remove_spare("name", "one")
    board.pair_added("name")
    assert board.counted_names() == [("name", 0, 1)]
    board.pair_gone("name")
    board.pair_gone("name")
    assert (board.names, board.counted_names()) == (0, [])


def test_names_are_counted_with_spares_and_pairs() -> None:
    board: Board[str] = Board()
    board.add_spare("b", "one")
    for _ in range(2):
        board.pair_added("a")
    board.pair_added("b")
    board.pair_gone("a")
    assert board.counted_names() == [("a", 0, 1), ("b", 1, 1)]


def test_a_group_has_two() -> None:
    board: Board[str] = Board()
    assert board.enter_group(b"key", "one") is None
    assert board.enter_group(b"key", "two") == "one"
    with pytest.raises(OverflowError):
        board.enter_group(b"key", "three")
    board.leave_group(b"key")
    board.leave_group(b"key")
    assert board.enter_group(b"key", "four") is None
