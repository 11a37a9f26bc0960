"""Tokens that are JWTs: what they grant, and every forgery that is known."""

import logging
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jwt", reason="needs connman[relay]")
pytest.importorskip("cryptography", reason="needs connman[relay]")

from hypothesis import given
from hypothesis import strategies as st

from connman.errors import InvalidOption
from connman.relay import jwt_tokens
from connman.relay.jwt_tokens import JwtTokens
from connman.relay.tokens import Grant, TokenRefused
from tests.relay.jwts import (
    NOW,
    OTHER_SECRET,
    SECRET,
    forged,
    jwk,
    jwks,
    private_pem,
    public_pem,
    rsa_key,
    signed,
)

CLAIMS = {"provide": ["*"], "reach": ["*"], "exp": NOW + 60}


def tokens(key: Any = SECRET, **options: Any) -> JwtTokens:
    return JwtTokens(key, **{"now": lambda: NOW, "leeway": 0.0} | options)


def refusal(known: JwtTokens, token: str | None) -> str:
    with pytest.raises(TokenRefused) as refused:
        known.check(token)
    # It is sent as the reason of a close, and the error of the library, which may quote, is not behind it.
    assert refused.value.__cause__ is None
    assert len(str(refused.value)) < 100
    assert not token or token not in str(refused.value)
    return str(refused.value)


def test_what_a_token_says_is_what_it_grants() -> None:
    assert tokens().check(signed()) == Grant(("device-*",), ("*",), NOW + 60)
    assert tokens(public_pem(rsa_key())).check(signed(rsa_key())) == Grant(("device-*",), ("*",), NOW + 60)
    assert tokens().check(signed(provide=None, reach=None)) == Grant((), (), NOW + 60)
    assert tokens(SECRET.decode()).check(signed()).reach == ("*",)


def test_a_token_must_be_one() -> None:
    assert refusal(tokens(), None) == refusal(tokens(), "") == "a token is needed"
    for garbage in ("x", "a.b", "a.b.c", "....", "ä.ö.ü", "\ud800.a.b", "=.=.=", "e30.e30.", forged([], {})):
        assert refusal(tokens(), garbage)
    assert refusal(tokens(), "x" * 100_000) == "the token is too long"


def test_another_key_did_not_sign_it() -> None:
    assert refusal(tokens(), signed(OTHER_SECRET)) == "the token's signature is wrong"
    assert refusal(tokens(public_pem(rsa_key())), signed(rsa_key(1))) == "the token's signature is wrong"
    body = signed().rpartition(".")[0]
    for signature in ("", "AAAA", "!"):
        assert refusal(tokens(), f"{body}.{signature}")


@pytest.mark.parametrize(
    "name", ["none", "None", "NONE", "nOnE", "", None, 0, [], {}, "HS384", "ES256", "RS512"]
)
def test_no_other_algorithm_is_believed(name: object) -> None:
    for secret in (None, SECRET):
        token = forged({"alg": name, "typ": "JWT"}, CLAIMS, secret)
        assert refusal(tokens(), token)
        assert refusal(tokens(public_pem(rsa_key())), token)
    assert refusal(tokens(), forged({"typ": "JWT"}, CLAIMS, SECRET)) == "the token's algorithm is not allowed"


def test_a_public_key_does_not_sign() -> None:
    """HS256 with the public key as the secret: where the token chooses the algorithm, anybody can sign."""
    pem = public_pem(rsa_key())
    for secret in (pem, pem.strip(), pem.replace(b"\n", b"\r\n")):
        token = forged({"alg": "HS256"}, CLAIMS, secret)
        assert refusal(tokens(pem), token) == "the token's algorithm is not that of the key"
        both = jwks(jwk(rsa_key()), jwk(SECRET))
        assert refusal(tokens(both), token) == "the token's signature is wrong"
    assert refusal(tokens(SECRET), signed(rsa_key())) == "the token's algorithm is not that of the key"


def test_algorithms_may_be_narrowed() -> None:
    both = jwks(jwk(rsa_key()), jwk(SECRET))
    assert tokens(both).check(signed())
    assert tokens(both).check(signed(rsa_key()))
    narrowed = tokens(both, algorithms=["RS256"])
    assert narrowed.check(signed(rsa_key()))
    assert refusal(narrowed, signed()) == "the token's algorithm is not allowed"
    with pytest.raises(InvalidOption, match="no key for RS256"):
        tokens(SECRET, algorithms=["RS256"])
    for algorithms in (["none"], ["HS256", "none"], [], "HS256"):
        with pytest.raises(InvalidOption, match="algorithms"):
            tokens(algorithms=algorithms)


def test_a_key_that_the_token_brings_along_is_not_used() -> None:
    own = {
        "alg": "HS256",
        "jwk": jwk(OTHER_SECRET),
        "jku": "http://127.0.0.1:1/",
        "x5u": "http://127.0.0.1:1/",
    }
    assert refusal(tokens(), forged(own, CLAIMS, OTHER_SECRET)) == "the token's signature is wrong"


def test_extensions_that_must_be_understood_are_not() -> None:
    for extension in ({"crit": ["b64"], "b64": False}, {"crit": ["x"], "x": 1}, {"crit": []}, {"b64": True}):
        token = forged({"alg": "HS256"} | extension, CLAIMS, SECRET)
        assert refusal(tokens(), token)


def test_kid_chooses_the_key() -> None:
    known = tokens(jwks(jwk(SECRET, kid="a"), jwk(OTHER_SECRET, kid="b")))
    assert known.check(signed(SECRET, headers={"kid": "a"}))
    assert known.check(signed(OTHER_SECRET, headers={"kid": "b"}))
    assert refusal(known, signed(SECRET, headers={"kid": "b"})) == "the token's signature is wrong"
    assert (
        refusal(known, signed(SECRET, headers={"kid": "../../etc/passwd"})) == "the token's key is not known"
    )
    assert refusal(known, forged({"alg": "HS256", "kid": ["a"]}, CLAIMS, SECRET))
    # A token that does not say is tried with each; a key that has no name may be of any.
    assert known.check(signed(OTHER_SECRET))
    assert tokens(SECRET).check(signed(headers={"kid": "anything"}))


def test_expiry() -> None:
    assert tokens().check(signed(exp=NOW + 0.5)).expires == NOW + 0.5
    assert refusal(tokens(), signed(exp=NOW)) == "the token has expired"
    assert refusal(tokens(), signed(exp=NOW - 1)) == "the token has expired"
    assert tokens(leeway=5.0).check(signed(exp=NOW - 4)).expires == NOW + 1
    assert refusal(tokens(leeway=5.0), signed(exp=NOW - 5)) == "the token has expired"
    assert refusal(tokens(), signed(exp=None)) == "the token has no exp: it would never end"


def test_not_before() -> None:
    assert tokens().check(signed(nbf=NOW))
    assert refusal(tokens(), signed(nbf=NOW + 1)) == "the token is not valid yet"
    assert tokens(leeway=5.0).check(signed(nbf=NOW + 5))
    assert tokens().check(signed(iat=NOW + 1000)), "when it was made says nothing of when it holds"


@pytest.mark.parametrize(
    "moment", [b"Infinity", b"-Infinity", b"NaN", b"1" * 400, b'"2000000000"', b"true", b"[1]", b"{}"]
)
@pytest.mark.parametrize("name", [b"exp", b"nbf"])
def test_a_moment_that_is_none_is_refused(name: bytes, moment: bytes) -> None:
    claims = b'{"exp": 1900000000, "%s": %s}' % (name, moment)
    assert refusal(tokens(), forged({"alg": "HS256"}, claims, SECRET))


def test_audience() -> None:
    here = tokens(audience="relay")
    assert here.check(signed(aud="relay"))
    assert here.check(signed(aud=["other", "relay"]))
    for aud in ("other", ["other"], [], None, "relay2", 1, {"relay": 1}, [1, "relay"]):
        assert "audience" in refusal(
            here, signed(aud=aud) if aud is None else forged({"alg": "HS256"}, CLAIMS | {"aud": aud}, SECRET)
        )
    assert "audience" in refusal(tokens(), signed(aud="somebody else"))


def test_issuer() -> None:
    here = tokens(issuer="https://id.example.com")
    assert here.check(signed(iss="https://id.example.com"))
    for iss in ("https://id.example.com.evil", None):
        assert "issuer" in refusal(here, signed(iss=iss))
    assert refusal(here, forged({"alg": "HS256"}, CLAIMS | {"iss": ["https://id.example.com"]}, SECRET))


@pytest.mark.parametrize("patterns", ["*", {"*": 1}, 1, True, [1], [None], [""], ["x" * 257], ["x"] * 257])
@pytest.mark.parametrize("name", ["provide", "reach"])
def test_patterns_are_a_list_of_texts(name: str, patterns: object) -> None:
    assert name in refusal(tokens(), signed(**{name: patterns}))


@pytest.mark.parametrize(
    "raw", [b"[" * 4000, b'{"a":' * 1000, b"1", b'"text"', b"\xff", b"", b'{"alg":"HS256"' + b" " * 5000]
)
def test_headers_and_claims_that_are_none(raw: bytes) -> None:
    """The header is read before anything is verified: anybody may send any."""
    assert refusal(tokens(), forged(raw, CLAIMS, SECRET))
    assert refusal(tokens(), forged({"alg": "HS256"}, raw, SECRET))


@given(st.text(max_size=80))
def test_whatever_comes_is_refused_as_documented(token: str) -> None:
    with pytest.raises(TokenRefused):
        tokens().check(token)


@given(st.data())
def test_a_token_changed_anywhere_is_refused(data: st.DataObject) -> None:
    token = signed()
    # But for the last character, whose lower bits are padding.
    place = data.draw(st.integers(0, len(token) - 2))
    other = data.draw(st.sampled_from("ABCXYZabcxyz0189-_.").filter(lambda c: c != token[place]))
    with pytest.raises(TokenRefused):
        tokens().check(token[:place] + other + token[place + 1 :])


def test_keys_are_exchanged_while_it_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(jwks(jwk(SECRET, kid="a")))
    known = tokens(path, interval=0.0)
    old, new = signed(SECRET, headers={"kid": "a"}), signed(rsa_key(), headers={"kid": "b"})
    assert known.check(old)
    assert refusal(known, new) == "the token's algorithm is not that of the key"
    path.write_bytes(jwks(jwk(SECRET, kid="a"), jwk(rsa_key(), kid="b")))
    assert known.check(old)
    assert known.check(new)
    # A file that would be refused at the start changes nothing.
    for broken in (b"", b"{", private_pem(rsa_key()), jwks(jwk(b"short"))):
        path.write_bytes(broken)
        assert known.check(new)
    assert [record.levelno for record in caplog.records if record.levelno >= logging.ERROR] == [
        logging.ERROR
    ] * 4
    path.write_bytes(jwks(jwk(rsa_key(), kid="b")))
    assert known.check(new)
    assert refusal(known, old) == "the token's algorithm is not that of the key"


def test_what_was_verified_once_still_ends() -> None:
    """A token that was seen before is not verified again: all but its signature is."""
    now = NOW
    known = JwtTokens(SECRET, now=lambda: now, leeway=0.0)
    token = signed(exp=NOW + 60, nbf=NOW)
    assert known.check(token) == known.check(token)
    now = NOW + 60
    assert refusal(known, token) == "the token has expired"
    now = NOW - 1
    assert refusal(known, token) == "the token is not valid yet"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwt_tokens, "MOST_KNOWN", 16)
    known = tokens()
    for number in range(30):
        assert known.check(signed(jti=str(number)))
    assert len(vars(known)["_known"]) == 16


def test_what_was_refused_is_not_remembered() -> None:
    known = tokens()
    for _ in range(2):
        assert refusal(known, signed(OTHER_SECRET)) == "the token's signature is wrong"


def test_a_wrong_key_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(private_pem(rsa_key()))
    with pytest.raises(InvalidOption, match=r"key.pem: a private key"):
        JwtTokens(path)
    with pytest.raises(InvalidOption, match="cannot be read"):
        JwtTokens(tmp_path / "nowhere")
    with pytest.raises(InvalidOption, match="leeway"):
        tokens(leeway=-1)


def test_no_key_is_shown() -> None:
    known = tokens()
    assert SECRET.decode() not in repr(known) + repr(vars(known))
