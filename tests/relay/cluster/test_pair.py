"""A pair across two relays: frames in order, credit, closes."""

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from connman.relay.cluster.pair import COST, PIECE, WINDOW, pieces
from tests.relay.cluster.rig import Bus, FakeSide, send


def test_frames_cross_unchanged_both_ways() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    send(caller, b"one")
    send(caller, b"\x82", b"two", b"three")
    send(provider, b"answer")
    bus.settle()
    assert provider.data == b"one\x82twothree"
    assert caller.data == b"answer"


def test_a_close_comes_behind_the_frames_with_its_code_and_reason() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    for number in range(100):
        send(caller, b"%d" % number)
    assert caller.other is not None
    caller.other.close(4005, "tschüß")
    bus.settle()
    assert len(provider.pieces) == 100
    assert provider.closes == [(4005, "tschüß")]
    assert not caller.closes
    assert [link.pairs for node in bus.nodes for link in node.links] == [{}, {}]


def test_both_may_close_at_once() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    assert caller.other is not None
    assert provider.other is not None
    caller.other.close(1000, "")
    provider.other.close(1000, "")
    bus.settle()
    assert (caller.closes, provider.closes) == ([], [])
    assert [link.pairs for node in bus.nodes for link in node.links] == [{}, {}]


@given(st.lists(st.sampled_from([2, 100, 5_000, 60_000, PIECE + 14]), max_size=20))
def test_many_frames_go_in_pieces_and_no_frame_is_cut(sizes: list[int]) -> None:
    frames = [bytes([number]) * size for number, size in enumerate(sizes)]
    made = list(pieces([part for frame in frames for part in (frame[:2], frame[2:])]))
    assert b"".join(made) == b"".join(frames)
    ends = set(accumulate(map(len, frames)))
    assert not frames or set(accumulate(map(len, made))) <= ends
    assert all(len(piece) <= PIECE or len(set(piece)) == 1 for piece in made)


def test_what_a_pair_sends_at_once_leaves_room_for_the_others() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    other_caller, other = bus.pair()
    for _ in range(4):
        send(caller, *[b"x" * 60_000] * 20)
    send(other_caller, b"me too")
    bus.publish(bus.nodes[0])
    bus.deliver(bus.nodes[1])
    bus.deliver(bus.nodes[1])
    bus.deliver(bus.nodes[1])
    assert other.data == b"me too"
    bus.settle()
    assert provider.size == 4_800_000


def test_what_comes_before_a_side_is_attached_is_kept_for_it() -> None:
    bus = Bus()
    caller_node, owner = bus.nodes
    key = caller_node.links.to(owner.id).claim("device")
    bus.settle()
    [provider] = owner.claims.served
    send(provider, b"early")
    assert provider.other is not None
    provider.other.close(4000, "and gone")
    bus.settle()
    caller = FakeSide()
    caller_node.claims.granted_sides[key].attach(caller)
    assert caller.pieces == [b"early"]
    assert caller.closes == [(4000, "and gone")]


def test_a_slow_reader_stops_the_far_sender_and_nothing_is_lost() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    assert provider.other is not None
    provider.other.pause()  # the provider's socket takes no more
    sent = 0
    while not caller.is_paused:
        send(caller, b"x" * 1000)
        sent += 1
        bus.settle()
        assert sent < 1000
    # What has left this machine is bounded by the credit; what waits here is the frame that did not fit.
    assert provider.size + COST * len(provider.pieces) <= WINDOW
    assert sent == len(provider.pieces) + 1
    provider.other.resume()
    bus.settle()
    assert not caller.is_paused
    assert len(provider.pieces) == sent


def test_one_slow_reader_delays_no_other_pair() -> None:
    bus = Bus()
    slow_caller, slow = bus.pair()
    caller, provider = bus.pair()
    assert slow.other is not None
    slow.other.pause()
    while not slow_caller.is_paused:
        send(slow_caller, b"x" * 1000)
    bus.settle()
    for _ in range(1000):
        send(caller, b"y" * 1000)
        bus.settle()
    assert not caller.is_paused
    assert len(provider.pieces) == 1000


def test_the_last_frames_of_a_side_that_has_gone_wait_for_a_slow_reader_but_not_for_ever() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    assert caller.other is not None
    assert provider.other is not None
    provider.other.pause()
    while not caller.is_paused:
        send(caller, b"x" * 1000)
    bus.settle()
    caller.other.close(1000, "done")
    bus.settle()
    assert not provider.closes
    for _ in range(20):
        bus.beat()
    assert provider.closes == [(1000, "done")]
    assert [link.pairs for node in bus.nodes for link in node.links] == [{}, {}]


def test_the_last_frames_arrive_when_the_reader_takes_them_in_time() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    assert caller.other is not None
    assert provider.other is not None
    provider.other.pause()
    sent = 0
    while not caller.is_paused:
        send(caller, b"x" * 1000)
        sent += 1
    bus.settle()
    caller.other.close(1000, "done")
    provider.other.resume()
    bus.settle()
    assert len(provider.pieces) == sent
    assert provider.closes == [(1000, "done")]


def test_a_side_that_is_closed_hears_and_says_nothing_more() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    assert caller.other is not None
    caller.other.close(1000, "")
    send(caller, b"late")
    send(provider, b"crossing")
    bus.settle()
    assert (caller.pieces, provider.pieces) == ([], [])
    assert provider.closes == [(1000, "")]
    caller.other.close(4000, "twice")
    bus.settle()
    assert provider.closes == [(1000, "")]
