"""Batches between relays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.relay.cluster import wire
from connman.relay.cluster.wire import BadBatch, Header
from tests.relay.cluster.rig import Bus, send

u32 = st.integers(0, 2**32 - 1)
headers = st.builds(
    Header, st.binary(min_size=8, max_size=8), u32, u32, u32, u32, st.booleans(), st.booleans()
)


@given(headers)
def test_a_header_comes_back_as_it_went(header: Header) -> None:
    assert wire.unpack_header(wire.pack(header)) == header


def test_numbers_wrap_around() -> None:
    header = wire.unpack_header(wire.pack(Header(bytes(8), 1, 2, 2**32, 2**32 + 5)))
    assert (header.number, header.taken) == (0, 5)


@pytest.mark.parametrize("batch", [b"", b"CM", b"x" * 28, b"CM\x02" + bytes(25), bytes(27)])
def test_what_is_no_batch_of_this_version_is_told(batch: bytes) -> None:
    with pytest.raises(BadBatch):
        wire.unpack_header(batch)


@given(st.integers(0, 65535), st.text())
def test_a_close_comes_back_as_it_went(code: int, reason: str) -> None:
    assert wire.unpack_closing(wire.pack_closing(code, reason)) == (code, reason)


@given(u32, st.text())
def test_a_claim_comes_back_as_it_went(credit: int, name: str) -> None:
    assert wire.unpack_claim(wire.pack_claim(credit, name)) == (credit, name)


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x01\x02\xff"])
def test_a_bad_close_is_told(body: bytes) -> None:
    with pytest.raises(BadBatch):
        wire.unpack_closing(body)


@pytest.mark.parametrize("body", [b"", b"123", b"1234\xff"])
def test_a_bad_claim_is_told(body: bytes) -> None:
    with pytest.raises(BadBatch):
        wire.unpack_claim(body)


@pytest.mark.parametrize("body", [b"", b"123", b"12345"])
def test_a_bad_credit_is_told(body: bytes) -> None:
    with pytest.raises(BadBatch):
        wire.unpack_number(body)


@given(st.data())
def test_a_mutated_batch_ends_pairs_at_worst(data: st.DataObject) -> None:
    bus = Bus()
    caller, provider = bus.pair()
    send(caller, b"hello")
    send(caller, b"x" * 300)
    [(_, batch)] = bus.nodes[0].links.take()
    changed = bytearray(batch)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(batch) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(batch)))
    bus.nodes[1].links.receive(bytes(changed[:cut] if data.draw(st.booleans()) else changed))
    bus.settle()
    bus.beat()
    bus.beat()  # at the latest now the gap is seen
    assert len(provider.closes) <= 1
    # Whatever it did, the next pair is as good as ever.
    caller, provider = bus.pair()
    send(caller, b"again")
    bus.settle()
    assert provider.data == b"again"
