"""Who is joined with whom, and who is told of an end: exact frames, codes and reasons."""

import json
from typing import Any

import pytest

from connman.relay import Grant, Relay, TokenRefused
from tests.relay.rig import (
    BINARY,
    CONNECTED,
    HANDOVER,
    LOST,
    REACHED,
    READY,
    TEXT,
    Client,
    caller,
    close_frame,
    frame,
    group,
    make,
    pair,
    provider,
)
from tests.waiting import eventually

# Names


def test_a_caller_and_a_spare_are_joined_and_piped_untouched(relay: Relay) -> None:
    near, far = pair(relay)
    with near, far:
        near.say("Grüße ☃")
        assert far.frame() == (TEXT, True, "Grüße ☃".encode())
        far.say(b"\x00\xff" * 100)
        assert near.frame() == (BINARY, True, b"\x00\xff" * 100)
        near.write(frame(TEXT, b"in ", fin=False) + frame(0, b"two", fin=True) + frame(TEXT))
        assert [far.frame() for _ in range(3)] == [
            (TEXT, False, b"in "),
            (0, True, b"two"),
            (TEXT, True, b""),
        ]
        near.write(frame(TEXT, b"\xff not UTF-8"))
        assert far.frame() == (TEXT, True, b"\xff not UTF-8")
        snapshot = relay.snapshot()
        assert (snapshot.pairs, snapshot.spares, snapshot.connections) == (1, 0, 2)


def test_the_newest_spare_is_taken_first(relay: Relay) -> None:
    spares = [provider(relay) for _ in range(3)]
    for spare in reversed(spares):
        with caller(relay) as near:
            assert spare.told() == HANDOVER
            spare.say(READY)
            assert near.told() == REACHED
            near.leave()
        assert spare.closed() == (1000, "")
        spare.sock.close()


def test_nobody_of_that_name(relay: Relay) -> None:
    with provider(relay, "other"), caller(relay) as near:
        assert near.closed() == (4104, "no provider of that name")
    assert relay.snapshot().refused == {"no-provider": 1}


def test_a_spare_that_left_is_not_handed_over(relay: Relay) -> None:
    with provider(relay) as far:
        assert far.leave(1000) == (1000, "")
    with caller(relay) as near:
        assert near.closed()[0] == 4104


def test_a_spare_that_is_not_ready_in_time_makes_room_for_the_next() -> None:
    with make(ready_timeout=0.5) as relay, provider(relay) as good, provider(relay) as slow:
        with caller(relay) as near:
            assert slow.told() == HANDOVER
            assert slow.closed() == (4110, "not ready in time")
            assert good.told() == HANDOVER
            good.say(READY)
            assert near.told() == REACHED
        assert relay.snapshot().handovers_failed == 1


def test_the_last_spare_is_not_ready() -> None:
    with make(ready_timeout=0.1) as relay, provider(relay) as far, caller(relay) as near:
        assert near.closed() == (4110, "not ready in time")
        assert far.told() == HANDOVER
        assert far.closed() == (4110, "not ready in time")


@pytest.mark.parametrize("answer", ["{}", "ready", '{"command":"provide","name":"x"}'])
def test_a_wrong_answer_to_the_handover(relay: Relay, answer: str) -> None:
    with provider(relay) as far, caller(relay) as near:
        assert far.told() == HANDOVER
        far.say(answer)
        assert far.closed() == (4001, 'Expected {"command":"ready"}')
        assert near.closed() == (4110, "not ready in time")


def test_a_spare_that_dies_in_the_handover(relay: Relay) -> None:
    with provider(relay) as good, provider(relay) as bad, caller(relay) as near:
        assert bad.told() == HANDOVER
        bad.sock.close()
        assert good.told() == HANDOVER
        good.say(READY)
        assert near.told() == REACHED


def test_a_caller_that_leaves_in_the_handover(relay: Relay) -> None:
    with provider(relay) as far, caller(relay) as near:
        assert far.told() == HANDOVER
        near.sock.close()
        assert far.closed() == LOST


@pytest.mark.parametrize("name", ["", "x" * 129, "a\x00b", None])
def test_an_invalid_caller_costs_no_spare(relay: Relay, name: str | None) -> None:
    with provider(relay) as far, Client(relay, {"command": "reach", "name": name}) as bad:
        assert bad.closed()[0] == 4001
        assert relay.snapshot().spares == 1
        with caller(relay) as near:
            assert far.told() == HANDOVER
            far.say(READY)
            assert near.told() == REACHED


def test_names_of_any_script(relay: Relay) -> None:
    near, far = pair(relay, "Gerät 42 ☃ 名前")
    with near, far:
        near.say("x")
        assert far.hear() == "x"


def test_what_comes_too_early_waits(relay: Relay) -> None:
    with provider(relay) as far, caller(relay) as near:
        assert far.told() == HANDOVER
        near.say("early")
        near.say("x" * 100_000)
        far.write(frame(TEXT, READY.encode()) + frame(TEXT, b"at once"))
        assert near.told() == REACHED
        assert near.hear() == "at once"
        assert far.hear() == "early"
        assert far.hear() == "x" * 100_000


def test_a_spare_says_nothing_before_the_handover(relay: Relay) -> None:
    with provider(relay) as far:
        far.say(READY)
        assert far.closed() == (4000, "Invalid message (nothing may be sent before the handover)")
    assert relay.snapshot().spares == 0


def test_too_many_spares_and_names() -> None:
    with make(max_per_name=2, max_names=1) as relay, provider(relay), provider(relay):
        with Client(relay, {"command": "provide", "name": "device"}) as third:
            assert third.closed() == (4129, "too many spares of this name")
        with Client(relay, {"command": "provide", "name": "other"}) as other:
            assert other.closed() == (4129, "too many names")


def test_callers_of_one_name_are_bounded() -> None:
    with make(max_pairs_per_name=1) as relay:
        near, far = pair(relay, "a")
        with near, far, provider(relay, "a"):
            with Client(relay, {"command": "reach", "name": "a"}) as second:
                assert second.closed() == (4129, "too many callers of this name")
            near.leave()
            eventually(lambda: relay.names() == [("a", 1, 0)])
            third, served = pair(relay, "a")
            with third, served:
                pass
        assert relay.snapshot().refused["full"] == 1


def test_names_are_listed_with_what_they_have(relay: Relay) -> None:
    near, far = pair(relay, "a")
    with near, far, provider(relay, "a"), provider(relay, "b"):
        assert relay.names() == [("a", 1, 1), ("b", 1, 0)]
        near.leave()
        eventually(lambda: relay.names() == [("a", 1, 0), ("b", 1, 0)])


# First messages


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (b"{}", (4000, "Invalid message (expected a JSON string)")),
        ("", (4001, "Invalid JSON")),
        ("{", (4001, "Invalid JSON")),
        ("null", (4001, "Received data is not an object")),
        ("{}", (4001, 'Expected "self" to be a string"')),
        ('{"self":"a"}', (4001, 'Expected "other" to be a string"')),
        ('{"self":"a","other":"b","spawn":1}', (4001, 'Expected "spawn" to be undefined or a string"')),
        ('{"command":"pong"}', (4001, 'Expected "command" to be "provide" or "reach"')),
        (json.dumps({"command": "reach", "name": "x" * 20000}), (1009, "the message is too big")),
    ],
)
def test_wrong_first_messages(relay: Relay, first: str | bytes, told: tuple[int, str]) -> None:
    with Client(relay, first) as client:
        assert client.frame() == (8, True, told[0].to_bytes(2) + told[1].encode())


def test_a_first_message_that_is_not_utf8(relay: Relay) -> None:
    with Client(relay) as client:
        client.write(frame(TEXT, b"\xff"))
        assert client.closed() == (1007, "text that is not valid UTF-8")


def test_a_first_message_in_drips_and_fragments(relay: Relay) -> None:
    with Client(relay) as far:
        wire = frame(TEXT, b'{"command":"prov', fin=False) + frame(0, b'ide","name":"device"}')
        for byte in wire:
            far.write(bytes((byte,)))
        assert far.told() == {"command": "provided"}


def test_no_first_message_in_time() -> None:
    with make(join_timeout=0.1) as relay, Client(relay) as client:
        assert client.closed() == (4108, "no first message in time")


# Ends of pairs


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        (1000, "", (1000, "")),
        (1000, "done", (1000, "done")),
        (1001, "away", (1001, "away")),
        (4005, "grün ☃", (4005, "grün ☃")),
        (3000, "x" * 123, (3000, "x" * 123)),
        (None, "", (1000, "")),
    ],
)
def test_a_close_reaches_the_other_with_code_and_reason(
    relay: Relay, code: int | None, reason: str, told: tuple[int, str]
) -> None:
    for far_leaves in (False, True):
        near, far = pair(relay)
        leaver, left = (far, near) if far_leaves else (near, far)
        with near, far:
            assert leaver.leave(code, reason) == told
            assert left.closed() == told
    eventually(lambda: relay.snapshot().connections == 0)
    assert relay.snapshot().pairs == 0


def test_messages_before_a_close_arrive(relay: Relay) -> None:
    near, far = pair(relay)
    with near, far:
        near.write(frame(TEXT, b"last") + close_frame(4000, b"bye"))
        assert far.hear() == "last"
        assert far.closed() == (4000, "bye")


def test_a_side_that_is_lost_is_told_at_once(relay: Relay) -> None:
    for far_dies in (False, True):
        near, far = pair(relay)
        dead, left = (far, near) if far_dies else (near, far)
        with near, far:
            dead.sock.close()
            assert left.closed() == LOST


def test_a_violation_closes_the_other_as_lost(relay: Relay) -> None:
    near, far = pair(relay)
    with near, far:
        near.write(frame(TEXT, b"x", first=0xC1))
        assert near.frame() == (8, True, b"\x03\xeareserved bits are set")
        assert far.closed() == (4102, "the other side was closed: 1002 reserved bits are set")


# Groups: the model's relay


def test_a_group_of_two(relay: Relay) -> None:
    one, two = group(relay)
    with one, two:
        one.say("text")
        two.say(b"binary")
        assert two.hear() == "text"
        assert one.hear() == b"binary"
        snapshot = relay.snapshot()
        assert (snapshot.groups, snapshot.pairs) == (1, 1)
        assert one.leave(4999, "whatever") == (4999, "whatever")
        assert two.closed() == (4002, "")
    eventually(lambda: relay.snapshot().groups == 0)


def test_what_the_first_says_alone_is_dropped(relay: Relay) -> None:
    with Client(relay, {"self": "a", "other": "b"}) as one:
        one.say("dropped")
        one.say(b"x" * 300_000)
        # Answered behind them: they have been taken.
        one.write(frame(9, b"seen"))
        assert one.frame() == (10, True, b"seen")
        with Client(relay, {"self": "b", "other": "a"}) as two:
            assert one.told() == CONNECTED
            assert two.told() == CONNECTED
            one.say("kept")
            assert two.hear() == "kept"


def test_the_tail_of_what_was_begun_alone_is_dropped(relay: Relay) -> None:
    with Client(relay, {"self": "a", "other": "b"}) as one:
        one.write(frame(TEXT, b"be", fin=False) + frame(9))
        assert one.frame() == (10, True, b"")
        with Client(relay, {"self": "b", "other": "a"}) as two:
            assert one.told() == CONNECTED
            one.write(frame(0, b"gun") + frame(TEXT, b"next"))
            assert two.told() == CONNECTED
            assert two.hear() == "next"


def test_a_third_member_is_sent_away(relay: Relay) -> None:
    one, two = group(relay)
    with one, two, Client(relay, {"self": "a", "other": "b"}) as three:
        assert three.closed() == (4001, "Group full (2 members)")
        one.say("still here")
        assert two.hear() == "still here"


def test_groups_side_by_side_and_again(relay: Relay) -> None:
    one, two = group(relay)
    three, four = group(relay, "a", "c")
    with one, two, three, four:
        one.say("1")
        three.say("3")
        assert (two.hear(), four.hear()) == ("1", "3")
        two.sock.close()
        assert one.closed() == (4002, "")
        again, partner = group(relay)
        with again, partner:
            again.say("again")
            assert partner.hear() == "again"
        four.say("4")
        assert three.hear() == "4"


def test_a_lonely_member_that_leaves_makes_room(relay: Relay) -> None:
    with Client(relay, {"self": "a", "other": "b"}) as one:
        one.leave()
    one, two = group(relay)
    one.sock.close()
    two.sock.close()


# Tokens


class Known:
    """Knows tokens by heart."""

    def __init__(self, **grants: Grant) -> None:
        self.grants = grants

    def check(self, token: str | None) -> Grant:
        if token not in self.grants:
            raise TokenRefused("the token is not known")
        return self.grants[token]


@pytest.fixture
def guarded() -> Any:
    grants = Known(dev=Grant(("device-*",), ()), app=Grant((), ("device-*",)), both=Grant(("a",), ("b",)))
    with Relay(port=0, tokens=grants) as relay:
        yield relay


def test_a_token_of_the_upgrade(guarded: Relay) -> None:
    with (
        provider(guarded, "device-1", authorization="Bearer dev") as far,
        caller(guarded, "device-1", authorization="Bearer app") as near,
    ):
        assert far.told() == HANDOVER
        far.say(READY)
        assert near.told() == REACHED


def test_a_token_of_the_first_message(guarded: Relay) -> None:
    with Client(guarded, {"command": "provide", "name": "device-1", "token": "dev"}) as far:
        assert far.told() == {"command": "provided"}


@pytest.mark.parametrize("first", [{}, {"token": "s3cret"}])
def test_a_token_that_is_missing_or_wrong(guarded: Relay, first: dict[str, str]) -> None:
    with Client(guarded, {"command": "provide", "name": "device-1", **first}) as far:
        assert far.closed() == (3000, "the token is not known")


@pytest.mark.parametrize(
    "first",
    [
        {"command": "provide", "name": "gateway", "token": "dev"},
        {"command": "reach", "name": "device-1", "token": "dev"},
        {"command": "provide", "name": "device-1", "token": "app"},
        {"self": "b", "other": "a", "token": "both"},
        {"self": "device-1", "other": "device-2", "token": "dev"},
    ],
)
def test_a_name_that_the_token_does_not_allow(guarded: Relay, first: dict[str, str]) -> None:
    with Client(guarded, first) as client:
        assert client.closed() == (3003, "the token does not allow this name")


def test_a_group_needs_both_names(guarded: Relay) -> None:
    with Client(guarded, {"self": "a", "other": "b", "token": "both"}) as one:
        one.write(frame(9))
        assert one.frame() == (10, True, b"")
