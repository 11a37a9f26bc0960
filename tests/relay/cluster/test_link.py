"""One life of a link, message by message."""

import pytest

from connman.relay.cluster import wire
from connman.relay.cluster.link import BATCH, Link
from connman.relay.cluster.pair import COST, WINDOW
from connman.relay.cluster.wire import BadBatch, Header
from tests.relay.cluster.rig import Bus, FakeClaims, FakeSide

HERE, THERE = b"here....", b"there..."


class Half:
    """A link whose other end is this test."""

    def __init__(self, window: int = 1_000_000) -> None:
        self.claims = FakeClaims()
        self.wakes = 0
        self.link = Link(HERE, THERE, epoch=7, window=window, claims=self.claims, wake=self._wake)
        self.link.peer_epoch = 9
        self._number = 0

    def _wake(self, _link: Link) -> None:
        self.wakes += 1

    def hears(self, *messages: bytes, taken: int = 0) -> None:
        header = Header(THERE, 9, 7, self._number, taken)
        self._number += 1
        assert self.link.follows(header)
        self.link.receive(header, wire.pack(header, messages))

    def says(self) -> list[tuple[int, int, bytes]]:
        """Take the next batch apart: kind, number and body of each message."""
        batch, found = self.link.take_batch(), []
        offset = wire.HEADER.size
        while offset < len(batch):
            kind, key, size = wire.MESSAGE.unpack_from(batch, offset)
            offset += wire.MESSAGE.size
            found.append((kind, key, batch[offset : offset + size]))
            offset += size
        return found

    def joined(self, credit: int = WINDOW) -> FakeSide:
        """Claim a spare and get it."""
        key = self.link.claim("device")
        self.says()
        self.hears(wire.message(wire.GRANT, key ^ 1, wire.NUMBER.pack(credit)))
        side = FakeSide()
        side.other = self.claims.granted_sides[key]
        side.other.attach(side)
        return side


def test_a_claim_says_its_name_and_how_much_may_come() -> None:
    half = Half()
    assert [half.link.claim(name) for name in ("a", "ü")] == [0, 2]
    assert half.wakes == 2
    credit = wire.NUMBER.pack(WINDOW)
    assert half.says() == [(wire.CLAIM, 0, credit + b"a"), (wire.CLAIM, 2, credit + "ü".encode())]


def test_the_pairs_of_both_relays_have_numbers_of_their_own() -> None:
    half = Half()
    half.joined()
    half.hears(wire.message(wire.CLAIM, 0, wire.pack_claim(100, "theirs")))
    assert set(half.link.pairs) == {0, 1}


def test_a_claim_is_taken_back_once_and_not_after_its_answer() -> None:
    half = Half()
    key = half.link.claim("device")
    half.link.cancel(key)
    half.link.cancel(key)
    assert [kind for kind, _, _ in half.says()] == [wire.CLAIM, wire.CANCEL]
    half.hears(wire.message(wire.GRANT, key ^ 1, wire.NUMBER.pack(1)))  # has crossed the cancel
    assert not half.link.pairs
    assert not half.claims.granted_sides


def test_a_claim_that_was_taken_back_is_neither_granted_nor_refused() -> None:
    half = Half()
    half.claims.waits = True
    half.hears(wire.message(wire.CLAIM, 0, wire.pack_claim(100, "device")))
    half.hears(wire.message(wire.CANCEL, 0))
    assert half.claims.cancels == [1]
    assert half.link.grant(1) is None
    half.link.refuse(1, 4104, "")
    assert half.says() == []


def test_a_refusal_has_code_and_reason_both_ways() -> None:
    half = Half()
    half.claims.spares = 0
    half.hears(wire.message(wire.CLAIM, 0, wire.pack_claim(100, "device")))
    refusal = wire.pack_closing(4104, "no provider of that name")
    assert half.says() == [(wire.REFUSE, 1, refusal)]
    key = half.link.claim("device")
    half.hears(wire.message(wire.REFUSE, key ^ 1, refusal))
    half.hears(wire.message(wire.REFUSE, key ^ 1, refusal))
    assert half.claims.refusals == [(key, 4104, "no provider of that name")]


def test_frames_wait_for_credit_and_go_out_when_it_comes() -> None:
    half = Half()
    side = half.joined(credit=100)
    assert side.other is not None
    for letter in (b"a", b"b", b"c"):
        side.other.forward([letter * 50, b""])
    assert [body[:1] for _, _, body in half.says()] == [b"a"]
    assert side.is_paused
    half.hears(wire.message(wire.CREDIT, 1, wire.NUMBER.pack(66)))
    assert [body[:1] for _, _, body in half.says()] == [b"b"]
    assert side.is_paused
    half.hears(wire.message(wire.CREDIT, 1, wire.NUMBER.pack(66)))
    assert [body[:1] for _, _, body in half.says()] == [b"c"]
    assert not side.is_paused


def test_pairs_take_turns_when_the_link_is_full() -> None:
    half = Half(window=1000)
    sides = [half.joined() for _ in range(3)]
    for _ in range(4):
        for number, side in enumerate(sides):
            assert side.other is not None
            side.other.forward([b"%d" % number * 400, b""])
    order = ""
    taken = 0
    while messages := half.says():
        for _, _, body in messages:
            order += chr(body[0])
            taken += len(body) + wire.MESSAGE.size
        half.hears(taken=taken)
    assert order == "01" + "201201201" + "2"
    assert not any(side.is_paused for side in sides)


def test_the_other_relay_is_told_what_was_taken_in_before_it_has_to_wait() -> None:
    half = Half()
    half.joined()
    piece = wire.message(wire.FRAMES, 1, b"x" * 30_000)
    half.hears(piece)
    wakes = half.wakes
    assert not half.link.owes_news
    half.hears(piece, piece)
    assert half.link.owes_news
    assert half.wakes > wakes
    header = wire.unpack_header(half.link.take_batch())
    assert header.taken == 3 * len(piece)
    assert not half.link.owes_news


def test_frames_for_a_pair_that_has_ended_count_as_taken_in() -> None:
    half = Half()
    half.hears(wire.message(wire.FRAMES, 5, b"late"))
    assert wire.unpack_header(half.link.take_batch()).taken == wire.MESSAGE.size + 4


def test_a_batch_ends_soon_after_its_size_and_the_rest_is_in_the_next() -> None:
    half = Half()
    for number in range(40):
        half.link.send(wire.CREDIT, number, b"x" * 10_000)
    batches = []
    while half.link.has_batch:
        batches.append(half.says())
    assert [key for batch in batches for _, key, _ in batch] == list(range(40))
    assert all(sum(len(body) + 9 for _, _, body in batch) < BATCH + 10_009 for batch in batches)


@pytest.mark.parametrize(
    "message",
    [
        b"\0",
        wire.MESSAGE.pack(wire.FRAMES, 0, 5) + b"four",
        wire.message(99, 0),
        wire.message(wire.CREDIT, 0, b"x"),
        wire.message(wire.GRANT, 0),
        wire.message(wire.CLOSE, 0),
        wire.message(wire.CLAIM, 0, b"x"),
        wire.message(wire.CLAIM, 1, wire.pack_claim(1, "ours to count")),
    ],
)
def test_a_message_that_makes_no_sense_is_told(message: bytes) -> None:
    with pytest.raises(BadBatch):
        Half().hears(message)


def test_a_claim_under_a_number_that_is_taken_is_told() -> None:
    half = Half()
    claim = wire.message(wire.CLAIM, 0, wire.pack_claim(100, "device"))
    half.hears(claim)
    with pytest.raises(BadBatch):
        half.hears(claim)


def test_more_taken_in_than_was_sent_is_told() -> None:
    with pytest.raises(BadBatch):
        Half().hears(taken=1)


@pytest.mark.parametrize("is_attached", [False, True])
def test_frames_beyond_the_credit_are_told_and_go_no_further(is_attached: bool) -> None:
    half = Half()
    side = half.joined() if is_attached else None
    key = 0 if is_attached else half.link.claim("device")
    if not is_attached:
        half.hears(wire.message(wire.GRANT, key ^ 1, wire.NUMBER.pack(WINDOW)))
    else:
        assert side is not None
        assert side.other is not None
        side.other.pause()  # it reads nothing
    piece = wire.message(wire.FRAMES, key ^ 1, bytes(WINDOW // 2 - COST))
    half.hears(piece, piece)
    with pytest.raises(BadBatch, match="credit"):
        half.hears(wire.message(wire.FRAMES, key ^ 1, b""))
    if side is not None:
        assert side.size == WINDOW - 2 * COST


def test_what_has_ended_says_nothing_more() -> None:
    bus = Bus()
    caller, _ = bus.pair()
    [link] = bus.nodes[0].links
    link.end(4113, "broker lost")
    assert caller.other is not None
    caller.other.forward([b"late", b""])
    caller.other.resume()
    caller.other.close(1000, "")
    assert caller.closes == [(4113, "broker lost")]
    assert not link.has_batch
