"""A pair across two relays: frames in order, credit, closes."""

from connman.relay.cluster.pair import FRAME_COST, PIECE, WINDOW
from tests.relay.cluster.rig import Bus, FakeSide, send


def test_frames_cross_unchanged_both_ways() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    send(caller, b"one", 1)
    send(caller, b"", 2)
    send(caller, b"part", 1, fin=False)
    send(caller, b"end", 0)
    send(provider, b"answer", 1)
    bus.settle()
    assert provider.frames == [(1, True, b"one"), (2, True, b""), (1, False, b"part"), (0, True, b"end")]
    assert caller.frames == [(1, True, b"answer")]


def test_a_close_comes_behind_the_frames_with_its_code_and_reason() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    for number in range(100):
        send(caller, b"%d" % number)
    assert caller.other is not None
    caller.other.close(4005, "tschüß")
    bus.settle()
    assert len(provider.frames) == 100
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


def test_a_frame_longer_than_a_piece_crosses_as_fragments_of_one_message() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    payload = bytes(range(256)) * 4096  # 1 MiB
    send(caller, payload, 1)
    send(caller, b"next", 2)
    bus.settle()
    *pieces, last, following = provider.frames
    assert [opcode for opcode, _, _ in [*pieces, last]] == [1] + [0] * len(pieces)
    assert [fin for _, fin, _ in [*pieces, last]] == [False] * len(pieces) + [True]
    assert max(len(payload) for _, _, payload in pieces) <= PIECE
    assert b"".join(payload for _, _, payload in [*pieces, last]) == payload
    assert following == (2, True, b"next")


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
    assert caller.frames == [(2, True, b"early")]
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
    assert provider.size + FRAME_COST * len(provider.frames) <= WINDOW
    assert sent == len(provider.frames) + 1
    provider.other.resume()
    bus.settle()
    assert not caller.is_paused
    assert len(provider.frames) == sent


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
    assert len(provider.frames) == 1000


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
    assert len(provider.frames) == sent
    assert provider.closes == [(1000, "done")]


def test_a_side_that_is_closed_hears_and_says_nothing_more() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    assert caller.other is not None
    caller.other.close(1000, "")
    send(caller, b"late")
    send(provider, b"crossing")
    bus.settle()
    assert (caller.frames, provider.frames) == ([], [])
    assert provider.closes == [(1000, "")]
    caller.other.close(4000, "twice")
    bus.settle()
    assert provider.closes == [(1000, "")]
