"""What a grant allows, and the tokens that are none."""

import pickle

import pytest

from connman.relay.tokens import EVERYTHING, LONGEST_TOKEN, Grant, NoTokens, TokenRefused, checked_length


@pytest.mark.parametrize(
    ("pattern", "name", "allowed"),
    [
        ("device-42", "device-42", True),
        ("device-42", "device-421", False),
        ("device-42", "Device-42", False),
        ("device-*", "device-42", True),
        ("device-*", "device-", True),
        ("device-*", "my-device-42", False),
        ("*", "überall ♥", True),
        ("", "device", False),
        ("device-?", "device-4", True),
        ("device-?", "device-42", False),
        ("device-[0-9]", "device-4", True),
        ("device-[!0-9]", "device-4", False),
        ("device-[[]1]", "device-[1]", True),
        ("device.*", "devicexx", False),
        ("a|b", "a", False),
        ("device-42", "device-42\n", False),
    ],
)
def test_a_pattern_covers_a_whole_name(pattern: str, name: str, *, allowed: bool) -> None:
    assert Grant(provide=(pattern,)).may_provide(name) is allowed
    assert Grant(reach=(pattern,)).may_reach(name) is allowed


def test_providing_and_reaching_are_two_things() -> None:
    grant = Grant(provide=("a",), reach=("b", "c"))
    assert (grant.may_provide("a"), grant.may_reach("a")) == (True, False)
    assert (grant.may_provide("c"), grant.may_reach("c")) == (False, True)
    assert not Grant().may_provide("a")


def test_a_pattern_made_to_take_for_ever_does_not() -> None:
    """Tokens bring their patterns along: `*a*a*a…` is the classic that blows up in a regular expression."""
    assert not Grant(reach=("*a" * 60 + "b",)).may_reach("a" * 128)


def test_expiry() -> None:
    assert not Grant().is_expired(1e12)
    assert not Grant(expires=100.0).is_expired(99.9)
    assert Grant(expires=100.0).is_expired(100.0)


def test_no_tokens_lets_everybody() -> None:
    assert NoTokens().check(None) is NoTokens().check("any") is EVERYTHING


def test_a_token_is_there_and_of_a_sane_length() -> None:
    assert checked_length("x" * LONGEST_TOKEN) == "x" * LONGEST_TOKEN
    for token in (None, ""):
        with pytest.raises(TokenRefused, match="a token is needed"):
            checked_length(token)
    with pytest.raises(TokenRefused, match="too long"):
        checked_length("x" * (LONGEST_TOKEN + 1))


def test_a_refusal_survives_pickling() -> None:
    assert str(pickle.loads(pickle.dumps(TokenRefused("expired")))) == "expired"
