"""Several connections taken as one: what is left of a deadline, what is broken, and the sums."""

from connman.clock import Deadline, SystemClock
from connman.connection.group import all_gone, end_all, total
from connman.records import Stats
from tests.connection.rig import DEAF, PATIENCE, Rig

NO_TIME = 0.0


def deadline(seconds: float) -> Deadline:
    return Deadline.after(SystemClock(), seconds)


def test_all_are_gone_when_the_last_one_is() -> None:
    with Rig() as one, Rig([DEAF]) as other:
        one.open()
        deaf = other.open()
        conns = [one.conn, other.conn]
        for conn in conns:
            conn.end_soon(1000, "", PATIENCE)
        assert one.conn.wait_gone(PATIENCE)
        assert not all_gone(conns, deadline(NO_TIME))
        deaf.listen()
        assert all_gone(conns, deadline(PATIENCE))
        assert all_gone([], deadline(NO_TIME))


def test_what_has_not_ended_by_the_deadline_is_broken() -> None:
    with Rig() as one, Rig([DEAF]) as other:
        one.open()
        deaf = other.open()
        for rig in (one, other):
            rig.conn.end_soon(1000, "", PATIENCE)
        assert one.conn.wait_gone(PATIENCE)
        assert end_all([other.conn, one.conn], deadline(NO_TIME))
        assert all_gone([one.conn, other.conn], deadline(NO_TIME))
        deaf.drop()


def test_the_sums() -> None:
    one = Stats(1, 2, 3, 4, 5, 6, 7, 8, "old", 0.5, 20.0)
    other = Stats(10, 20, 30, 40, 50, 60, 70, 80, None, None, 2.0)
    assert total([one, other]) == Stats(11, 22, 33, 44, 55, 66, 77, 88, "old", 0.5, 20.0)
    assert total([]) == Stats()
