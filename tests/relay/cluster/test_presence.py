"""Which names a relay has, and what of it is to be written."""

from hypothesis import given
from hypothesis import strategies as st

from connman.relay.cluster.presence import EXPIRY, LINGER, REFRESH, Presence


def test_a_name_is_written_with_its_first_spare_and_taken_out_with_its_last() -> None:
    presence = Presence()
    presence.added("a", 100)
    assert presence.take(10, 0.0) == [("a", 100)]
    presence.added("a", 100)
    presence.gone("a", 0.0)
    assert presence.take(10, 0.0) == []
    presence.gone("a", 0.0)
    assert presence.take(10, LINGER - 0.1) == []
    assert presence.is_dirty
    assert presence.take(10, LINGER) == [("a", None)]
    assert not presence.is_dirty


def test_a_spare_that_is_taken_and_replaced_at_once_costs_one_write() -> None:
    presence = Presence()
    presence.added("a", 100)
    presence.take(10, 0.0)
    for second in range(101, 200):
        presence.gone("a", 0.0)
        presence.added("a", second)
    assert presence.take(10, 0.0) == [("a", 199)]


def test_names_are_written_in_the_order_of_their_changes_and_not_all_at_once() -> None:
    presence = Presence()
    for name in "abc":
        presence.added(name, 1)
    assert presence.take(2, 0.0) == [("a", 1), ("b", 1)]
    assert presence.is_dirty
    assert presence.take(2, 0.0) == [("c", 1)]


def test_what_could_not_be_written_is_written_again() -> None:
    presence = Presence()
    presence.added("a", 1)
    presence.added("b", 1)
    presence.gone("b", 0.0)
    taken = presence.take(10, LINGER)
    presence.not_written(name for name, _ in taken)
    assert presence.take(10, LINGER) == [("a", 1), ("b", None)]


def test_a_broker_that_forgets_is_told_again() -> None:
    presence = Presence()
    presence.added("a", 1)
    presence.take(10, 0.0)
    presence.write_all()
    assert presence.take(10, 0.0) == [("a", 1)]


def test_names_that_were_written_long_ago_are_written_before_they_expire() -> None:
    presence = Presence()
    presence.added("old", 1)
    presence.take(10, 0.0)
    presence.added("new", 2)
    presence.take(10, 10.0)
    presence.refresh(REFRESH + 1)
    assert presence.take(10, REFRESH + 1) == [("old", 1)]
    presence.refresh(REFRESH + 10)
    assert presence.take(10, REFRESH + 10) == [("new", 2)]
    presence.refresh(REFRESH + 11)
    assert not presence.is_dirty


def test_few_names_are_refreshed_at_a_time() -> None:
    presence = Presence()
    for number in range(6_000):
        presence.added(str(number), 1)
    presence.take(6_000, 0.0)
    presence.refresh(REFRESH)
    assert len(presence.take(6_000, REFRESH)) == 20
    assert EXPIRY - REFRESH > 6_000 / 110  # seconds


def test_leaving_takes_every_name_out_and_late_words_change_nothing() -> None:
    presence = Presence()
    presence.added("a", 1)
    presence.added("b", 1)
    presence.take(10, 0.0)
    presence.leave()
    presence.gone("a", 0.0)
    assert presence.take(10, 0.0) == [("a", None), ("b", None)]
    assert len(presence) == 0


actions = st.lists(
    st.tuples(st.sampled_from(["added", "gone", "take", "fail", "all"]), st.sampled_from("abc"))
)


@given(actions)
def test_whatever_happens_what_is_written_in_the_end_is_what_there_is(history: list[tuple[str, str]]) -> None:
    presence = Presence()
    spares = dict.fromkeys("abc", 0)
    written: set[str] = set()

    def write(most: int) -> None:
        for name, stamp in presence.take(most, LINGER):
            (written.discard if stamp is None else written.add)(name)

    for action, name in history:
        if action == "added":
            spares[name] += 1
            presence.added(name, 1)
        elif action == "gone" and spares[name]:
            spares[name] -= 1
            presence.gone(name, 0.0)
        elif action == "take":
            write(1)
        elif action == "fail":
            presence.not_written([name for name, _ in presence.take(2, LINGER)])
        elif action == "all":
            presence.write_all()
    write(10)
    assert written == {name for name, count in spares.items() if count}
    assert len(presence) == len(written)
