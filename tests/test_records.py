"""Records: values that can be compared, hashed, pickled and not changed."""

import dataclasses
import pickle

import pytest

from connman.records import PoolStats, Reset, State, Stats, Step

RECORDS = [
    Step("tcp", "h:1", 0.1),
    Reset(True, ConnectionError("x"), 1006, "why", 2, None, 1),
    Stats(messages_in=1, last_error="x"),
    PoolStats(1, 1, 0, 0, 5, Stats()),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_cannot_be_changed(record: object) -> None:
    name = dataclasses.fields(record)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, None)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_survives_pickling(record: object) -> None:
    assert repr(pickle.loads(pickle.dumps(record))) == repr(record)


def test_a_state_is_its_lower_case_name() -> None:
    assert [f"{state}" for state in State] == ["idle", "connecting", "open", "waiting", "closed"]
    assert State.OPEN == "open"
    assert pickle.loads(pickle.dumps(State.OPEN)) is State.OPEN


def test_a_step_tells_what_where_how_long_and_how_it_ended() -> None:
    assert str(Step("tcp", "127.0.0.1:80", 0.12345, "refused")) == "tcp 127.0.0.1:80 (0.123 s): refused"
    assert str(Step("upgrade", "", 1.0)) == "upgrade (1.000 s): ok"


def test_fresh_stats_count_nothing() -> None:
    counts = dataclasses.asdict(Stats())
    assert (counts.pop("last_error"), counts.pop("ping_rtt")) == (None, None)
    assert set(counts.values()) == {0}
