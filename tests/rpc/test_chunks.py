"""Chunks: cut at characters, in order however many wait."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from connman.rpc.chunks import MAX_CHUNKS, Chunks, cut, joined
from connman.rpc.wire import size_of


@given(st.text(), st.integers(0, 20), st.integers(1, 50))
def test_a_cut_fits_and_is_never_empty_when_a_character_fits(text: str, start: int, size: int) -> None:
    piece = cut(text, start, size)
    assert size_of(piece) <= size
    assert text[start:].startswith(str(piece))
    assert piece or not text[start:] or size_of(text[start]) > size


@given(st.lists(st.integers(0, 3 * MAX_CHUNKS), max_size=6), st.booleans())
def test_chunks_stay_in_order_however_many_wait(counts: list[int], is_text: bool) -> None:
    chunks = Chunks()
    added: list[Any] = []
    taken: list[Any] = []
    for turn, count in enumerate(counts):
        for number in range(count if turn % 2 == 0 else 0):
            piece = f"{number % 10}"
            added.append(piece if is_text else piece.encode())
            chunks.add(added[-1], 1)
        for _ in range(count if turn % 2 else 0):
            if chunks:
                taken.append(chunks.take())
    assert chunks.size == len(joined(added)) - len(joined(taken))
    while chunks:
        taken.append(chunks.take())
    assert joined(taken) == joined(added)
    assert chunks.size == 0


def test_few_chunks_come_as_they_were() -> None:
    chunks = Chunks()
    for number in range(MAX_CHUNKS):
        chunks.add(bytes([number % 256]), 1)
    assert [chunks.take() for _ in range(3)] == [b"\x00", b"\x01", b"\x02"]


def test_tiny_chunks_that_wait_take_no_memory_of_their_own() -> None:
    chunks = Chunks()
    for _ in range(100 * MAX_CHUNKS):
        chunks.add(b"x", 1)
    items = 0
    while chunks:
        chunks.take()
        items += 1
    assert items < MAX_CHUNKS + 101


def test_the_last_item_may_be_of_any_kind() -> None:
    chunks = Chunks()
    for _ in range(MAX_CHUNKS + 2):
        chunks.add("x", 1)
    chunks.add_last({"a": 1})
    found = []
    while chunks:
        found.append(chunks.take())
    assert found[-2:] == ["xx", {"a": 1}]
