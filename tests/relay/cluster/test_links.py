"""Links: lost batches, relays that begin anew, silence, and any order of it all."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connman.relay.cluster import wire
from connman.relay.cluster.links import LEAST_WINDOW, MOST_LINKS, MOST_REFUSALS, MOST_WINDOW, SILENCE
from connman.relay.cluster.pair import COST, WINDOW
from tests.examples import examples
from tests.relay.cluster.rig import Bus, FakeSide, Node, send

BROKER_LOST = (4113, "broker lost")
LOST = (4102, "the other side was lost")


def test_a_lost_batch_ends_the_pairs_of_its_link_on_both_sides() -> None:
    bus = Bus(3)
    caller, provider = bus.pair(0, 1)
    other_caller, other = bus.pair(0, 2)
    send(caller, b"lost")
    bus.publish(bus.nodes[0])
    bus.nodes[1].inbox.clear()
    send(caller, b"next")
    bus.settle()
    assert provider.pieces == []
    assert (caller.closes, provider.closes) == ([BROKER_LOST], [BROKER_LOST])
    assert bus.nodes[1].links.resets == 1
    send(other_caller, b"untouched")
    bus.settle()
    assert other.data == b"untouched"


def test_a_lost_batch_is_found_by_the_next_beat_when_nobody_says_more() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    send(caller, b"lost")
    bus.publish(bus.nodes[0])
    bus.nodes[1].inbox.clear()
    bus.beat()
    bus.beat()
    assert (caller.closes, provider.closes) == ([BROKER_LOST], [BROKER_LOST])


def test_a_lost_close_is_found_though_its_sender_has_nothing_more_to_say() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    assert caller.other is not None
    caller.other.close(1000, "")
    bus.publish(bus.nodes[0])
    bus.nodes[1].inbox.clear()
    for _ in range(3):
        bus.beat()
    assert provider.closes == [BROKER_LOST]


def test_a_batch_twice_ends_the_link_and_no_frame_comes_twice() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    send(caller, b"once")
    bus.publish(bus.nodes[0])
    bus.nodes[1].inbox.append(bus.nodes[1].inbox[0])
    bus.settle()
    assert provider.data == b"once"
    assert (caller.closes, provider.closes) == ([BROKER_LOST], [BROKER_LOST])


def test_a_relay_that_begins_anew_ends_what_was() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    bus.nodes[0].links.lost_all()
    assert caller.closes == [BROKER_LOST]
    again, provider_again = bus.pair()
    assert provider.closes == [BROKER_LOST]
    send(again, b"hello")
    bus.settle()
    assert provider_again.data == b"hello"


def test_a_relay_that_nobody_hears_is_lost() -> None:
    bus = Bus()
    caller, _ = bus.pair()
    del bus.by_id[bus.nodes[1].id]
    send(caller, b"hello?")
    bus.settle()
    assert caller.closes == [LOST]


def test_a_silent_relay_is_lost() -> None:
    bus = Bus()
    caller, _ = bus.pair()
    for beat in range(SILENCE + 1):
        assert not caller.closes, beat
        bus.nodes[0].links.tick()
        bus.publish(bus.nodes[0])  # taken by Redis, and the other relay says nothing
    assert caller.closes == [LOST]


def test_beats_keep_a_pair_whose_sides_say_nothing() -> None:
    bus = Bus()
    caller, provider = bus.pair()
    for _ in range(5 * SILENCE):
        bus.beat()
    assert (caller.closes, provider.closes) == ([], [])


def test_a_link_that_carries_nothing_says_nothing() -> None:
    bus = Bus()
    caller, _ = bus.pair()
    assert caller.other is not None
    caller.other.close(1000, "")
    bus.settle()
    for _ in range(3):
        bus.beat()
    for node in bus.nodes:
        node.links.tick()
    assert [bus.publish(node) for node in bus.nodes] == [0, 0]


def test_a_late_batch_of_an_earlier_life_harms_nobody() -> None:
    bus = Bus()
    caller, _ = bus.pair()
    send(caller, b"late")
    [(_, late)] = bus.nodes[0].links.take()
    bus.nodes[0].links.lost_all()
    caller, provider = bus.pair()
    bus.nodes[1].links.receive(late)
    bus.settle()
    send(caller, b"fine")
    bus.settle()
    assert provider.data == b"fine"
    assert not provider.closes


def test_a_claim_that_is_lost_is_refused_with_its_link() -> None:
    bus = Bus()
    here, there = bus.nodes
    there.claims.waits = True
    key = here.links.to(there.id).claim("device")
    bus.settle()
    here.links.lost(there.id)
    assert here.claims.refusals == [(key, *LOST)]
    there.links.lost(here.id)
    assert there.claims.cancels == [key + 1]


def test_a_round_is_bounded_and_goes_on_with_the_next() -> None:
    bus = Bus(3)
    pairs = [bus.pair(0, owner) for owner in (1, 2) for _ in range(8)]
    for caller, _ in pairs:
        send(caller, *[b"x" * 50_000] * 4)
    rounds = []
    while batches := bus.nodes[0].links.take():
        rounds.append(sum(len(batch) for _, batch in batches))
        for there, batch in batches:
            bus.by_id[there].links.receive(batch)
        for node in bus.nodes[1:]:
            bus.publish(node)
        while bus.deliver(bus.nodes[0]):
            pass
    assert all(provider.size == 200_000 for _, provider in pairs)
    assert len(rounds) > 2
    assert max(rounds) < 2**20 + 2 * 2**18


def test_what_is_under_way_to_a_relay_is_bounded_over_all_its_pairs() -> None:
    bus = Bus()
    pairs = [bus.pair() for _ in range(20)]
    for caller, _ in pairs:
        while not caller.is_paused:
            send(caller, b"x" * 10_000)
    under_way = 0
    while batches := bus.nodes[0].links.take():
        under_way += sum(len(batch) for _, batch in batches)
    assert under_way < MOST_WINDOW + 20_000  # the other relay has heard nothing of it yet
    assert LEAST_WINDOW < MOST_WINDOW


class Cluster(RuleBasedStateMachine):
    """Any order of what clients, relays and Redis may do, over two relays."""

    def __init__(self) -> None:
        super().__init__()
        self.bus = Bus()
        self.pairs: list[tuple[FakeSide, FakeSide]] = []
        self.said: dict[int, bytes] = {}
        self.harmed = False  # something was lost on the way

    sizes = st.sampled_from([0, 1, 100, 5_000, 60_000, 300_000])

    @rule(which=st.integers(0, 1))
    def join(self, which: int) -> None:
        if len(self.pairs) < 6:
            here, there = self.bus.nodes[which], self.bus.nodes[1 - which]
            key = here.links.to(there.id).claim("device")
            self.bus.settle()
            remote = here.claims.granted_sides.pop(key, None)
            if remote is None:
                assert self.harmed
                return
            side = FakeSide()
            side.other = remote
            remote.attach(side)
            self.pairs.append((side, there.claims.served[-1]))

    def pick(self, number: int, from_caller: bool) -> tuple[FakeSide, FakeSide] | None:
        if not self.pairs:
            return None
        pair = self.pairs[number % len(self.pairs)]
        return pair if from_caller else (pair[1], pair[0])

    @rule(number=st.integers(0, 5), from_caller=st.booleans(), size=sizes, byte=st.integers(0, 255))
    def say(self, number: int, from_caller: bool, size: int, byte: int) -> None:
        pair = self.pick(number, from_caller)
        # As a relay does: a side that is paused is not read from, one that is closed says nothing.
        if pair and not pair[0].is_paused and not pair[0].closes and pair[0].other is not None:
            frame = bytes([byte]) * min(size, 60_000)  # a relay passes long ones on in pieces
            send(pair[0], *[frame] * (size // 60_000 or 1))
            self.said[id(pair[0])] = self.said.get(id(pair[0]), b"") + bytes([byte]) * size

    @rule(number=st.integers(0, 5), from_caller=st.booleans())
    def close(self, number: int, from_caller: bool) -> None:
        pair = self.pick(number, from_caller)
        if pair and pair[0].other is not None and not pair[0].closes:
            pair[0].other.close(4000, "bye")
            pair[0].other = None

    @rule(number=st.integers(0, 5), from_caller=st.booleans(), pauses=st.booleans())
    def slow(self, number: int, from_caller: bool, pauses: bool) -> None:
        pair = self.pick(number, from_caller)
        if pair and pair[0].other is not None:
            if pauses:
                pair[0].other.pause()
            else:
                pair[0].other.resume()

    @rule(which=st.integers(0, 1))
    def publish(self, which: int) -> None:
        self.bus.publish(self.bus.nodes[which])

    @rule(which=st.integers(0, 1))
    def deliver(self, which: int) -> None:
        self.bus.deliver(self.bus.nodes[which])

    @rule(which=st.integers(0, 1))
    def lose(self, which: int) -> None:
        if self.bus.nodes[which].inbox:
            self.bus.nodes[which].inbox.popleft()
            self.harmed = True

    @rule(which=st.integers(0, 1))
    def begin_anew(self, which: int) -> None:
        self.bus.nodes[which].links.lost_all()
        self.harmed = True

    @rule()
    def beat(self) -> None:
        self.bus.beat()

    @invariant()
    def each_has_heard_a_beginning_of_what_was_said(self) -> None:
        for pair in self.pairs:
            for speaker, hearer in (pair, pair[::-1]):
                said = self.said.get(id(speaker), b"")
                assert said[: hearer.size] == hearer.data
                assert len(hearer.closes) <= 1

    @invariant()
    def little_is_under_way(self) -> None:
        for node in self.bus.nodes:
            data = sum(len(batch) for batch in node.inbox)
            assert data < 4 * MOST_WINDOW + WINDOW * COST

    def teardown(self) -> None:
        for caller, provider in self.pairs:
            for side in (caller, provider):
                if side.other is not None:
                    side.other.resume()
        for _ in range(SILENCE):  # fewer than it takes to find a relay silent
            self.bus.beat()
        for pair in self.pairs:
            for speaker, hearer in (pair, pair[::-1]):
                if not self.harmed and hearer.other is not None:
                    assert hearer.data == self.said.get(id(speaker), b"")
                if speaker.other is None and not speaker.closes and hearer.other is not None:
                    assert hearer.closes, "nobody was told of the end"
                if self.harmed and hearer.closes and speaker.other is not None:
                    assert speaker.closes, "one side was closed, the other one waits for ever"


Cluster.TestCase.settings = settings(examples(200), stateful_step_count=40)
TestCluster = Cluster.TestCase


def test_garbage_from_redis_is_dropped() -> None:
    node = Node(1)
    for garbage in (b"", b"x", b"\0" * 200, b"CM\x01\x00" + bytes(24)):
        node.links.receive(garbage)
    assert node.links.dropped == 3
    assert wire.HEADER.size == 28


def test_made_up_relays_fill_nothing() -> None:
    node = Node(1)
    for number in range(MOST_LINKS + 100):
        made_up = wire.Header(number.to_bytes(8, "little"), 5, 0, 0, 0)
        node.links.receive(wire.pack(made_up))
        # What makes no sense is refused; but who asks for a refusal a thousand times gets few.
        for epoch in (1, 2):
            node.links.receive(wire.pack(wire.Header(number.to_bytes(8, "big"), epoch, 0, 7, 0)))
    assert len(list(node.links)) == MOST_LINKS
    assert len(node.links.take()) <= MOST_REFUSALS
    assert node.links.take() == []


def test_nobody_speaks_to_a_relay_in_its_own_name() -> None:
    node = Node(1)
    claim = wire.message(wire.CLAIM, 0, wire.pack_claim(WINDOW, "device"))
    node.links.receive(wire.pack(wire.Header(node.id, 5, 0, 0, 0), [claim]))
    assert not node.claims.claims
    assert list(node.links) == []
