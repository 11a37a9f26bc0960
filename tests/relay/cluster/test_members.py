"""Which relays there are."""

from connman.relay.cluster.members import Members, stamp_of
from connman.relay.cluster.presence import EXPIRY
from connman.relay.cluster.store import RelayInfo
from connman.relay.counts import RelaySeen

HERE, A, B = b"here....", b"a.......", b"b......."


def members(*relays: bytes) -> Members:
    made = Members(HERE)
    made.seen([RelayInfo(relay, "somewhere") for relay in relays], 10.0)
    return made


def test_the_newest_spare_is_asked_first_and_this_relay_never() -> None:
    assert members(HERE, A, B).order({HERE: b"9", A: b"10", B: b"9"}) == ([A, B], [])


def test_a_relay_that_no_beat_has_shown_yet_is_asked() -> None:
    assert members(HERE).order({A: b"1"}) == ([A], [])


def test_a_relay_that_was_seen_and_is_no_more_is_not_asked() -> None:
    made = members(HERE, A, B)
    assert made.seen([RelayInfo(HERE, ""), RelayInfo(B, "")], 11.0) == [A]
    assert made.order({A: b"1", B: b"1"}) == ([B], [A])


def test_a_relay_that_nobody_listens_for_is_not_asked_until_it_is_seen_again() -> None:
    made = members(HERE, A)
    made.died(A)
    made.died(B)
    assert made.order({A: b"1", B: b"1"}) == ([B], [A])
    assert made.others == 0
    made.seen([RelayInfo(A, "")], 12.0)
    assert made.order({A: b"1"}) == ([A], [])


def test_dead_relays_are_forgotten_when_no_name_can_be_written_as_theirs_any_more() -> None:
    made = members(HERE, A)
    made.seen([RelayInfo(HERE, "")], 11.0)
    made.seen([RelayInfo(HERE, "")], 11.0 + EXPIRY)
    assert made.order({A: b"1"}) == ([A], [])


def test_after_the_broker_was_lost_nobody_counts_as_dead() -> None:
    made = members(HERE, A)
    made.seen([RelayInfo(HERE, "")], 11.0)
    made.forget()
    assert made.order({A: b"1"}) == ([A], [])
    assert made.table(12.0) == ()


def test_the_table_says_who_lives_and_since_when_that_is_known() -> None:
    assert members(A).table(12.5) == (RelaySeen(A.hex(), "somewhere", 2.5),)


def test_a_stamp_that_is_none_is_the_oldest() -> None:
    assert [stamp_of(text) for text in (b"17", b"", b"x", b"-1", b"9" * 5000)] == [17, 0, 0, 0, 0]
