"""Masking keys and their use."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.transport.masking import masked, new_key


def plainly(payload: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masks_as_the_rfc_says(payload: bytes, key: bytes) -> None:
    assert masked(payload, key) == plainly(payload, key)


@pytest.mark.parametrize("size", [0x3FFF, 0x4000, 0x4001, 0x4002, 0x4003, 100_003])
def test_masks_long_payloads_by_lanes(size: int) -> None:
    payload, key = os.urandom(size), os.urandom(4)
    assert masked(payload, key) == plainly(payload, key)


def test_keys_are_four_bytes_and_distinct() -> None:
    keys = [new_key() for _ in range(5000)]
    assert {len(key) for key in keys} == {4}
    assert len(set(keys)) > 4990  # some of 2**32 may meet


def test_a_forked_child_has_other_keys() -> None:
    new_key()  # a block is there
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, b"".join(new_key() for _ in range(200)))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    assert len(theirs) == 800
    ours = {new_key() for _ in range(200)}
    assert len(ours & {theirs[i : i + 4] for i in range(0, 800, 4)}) < 3
