"""Masking keys and their use."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.transport.masking import forget_keys_after_fork, masked, new_key, short_frame


def plainly(payload: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masks_as_the_rfc_says(payload: bytes, key: bytes) -> None:
    assert masked(payload, key) == plainly(payload, key)


@pytest.mark.parametrize("size", [0x3FFF, 0x4000, 0x4001, 0x4002, 0x4003, 100_003])
def test_masks_long_payloads_by_lanes(size: int) -> None:
    payload, key = os.urandom(size), os.urandom(4)
    assert masked(payload, key) == plainly(payload, key)


@given(st.integers(0, 255), st.binary(max_size=125))
def test_a_short_frame_is_head_key_and_masked_payload(first: int, payload: bytes) -> None:
    frame = short_frame(first, payload)
    assert frame[:2] == bytes((first, 0x80 | len(payload)))
    assert frame[6:] == plainly(payload, frame[2:6])


@pytest.mark.parametrize("size", range(126))
def test_a_short_frame_of_any_length(size: int) -> None:
    payload = os.urandom(size)
    frame = short_frame(0x82, payload)
    assert frame[:2] == bytes((0x82, 0x80 | size))
    assert frame[6:] == plainly(payload, frame[2:6])


def test_keys_are_four_bytes_and_distinct() -> None:
    keys = [new_key() for _ in range(5000)]
    assert all(0 <= key < 1 << 32 for key in keys)
    assert max(keys) >> 24
    assert len(set(keys)) > 4990  # some of 2**32 may meet


def test_a_forked_child_has_other_keys() -> None:
    new_key()  # a block is there
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        forget_keys_after_fork()
        os.write(writer, b"".join(new_key().to_bytes(4) for _ in range(200)))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    assert len(theirs) == 800
    ours = {new_key().to_bytes(4) for _ in range(200)}
    assert len(ours & {theirs[i : i + 4] for i in range(0, 800, 4)}) < 3
