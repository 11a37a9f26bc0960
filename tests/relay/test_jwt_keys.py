"""Which keys verify tokens, and which are refused before the relay starts."""

import json
from typing import Any

import pytest

pytest.importorskip("jwt", reason="needs connman[relay]")
pytest.importorskip("cryptography", reason="needs connman[relay]")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from connman.errors import InvalidOption
from connman.relay.jwt_keys import MOST_KEYS, keys_from
from tests.relay.jwts import SECRET, jwk, jwks, private_pem, public_pem, rsa_key


def found(content: bytes) -> list[tuple[str, str | None]]:
    return [(key.algorithm, key.kid) for key in keys_from(content)]


def refusal(content: bytes) -> str:
    with pytest.raises(InvalidOption) as refused:
        keys_from(content)
    assert refused.value.__cause__ is None
    return str(refused.value)


def test_a_secret() -> None:
    assert found(SECRET) == [("HS256", None)]
    assert [keys_from(SECRET + end)[0].material for end in (b"", b"\n", b"\r\n")] == [SECRET] * 3
    assert keys_from(SECRET + b"\n\n")[0].material == SECRET + b"\n"


def test_public_keys_as_pem() -> None:
    assert found(public_pem(rsa_key())) == [("RS256", None)]
    assert (
        found(b"the old one\n" + public_pem(rsa_key()) + b"and the new\n" + public_pem(rsa_key(1)))
        == [("RS256", None)] * 2
    )


def test_a_jwk_and_a_set() -> None:
    assert found(json.dumps(jwk(rsa_key(), kid="a")).encode()) == [("RS256", "a")]
    assert found(jwks(jwk(rsa_key(), kid="a", alg="RS256", use="sig"), jwk(SECRET, kid="b"))) == [
        ("RS256", "a"),
        ("HS256", "b"),
    ]


def test_keys_for_something_else_are_left_out() -> None:
    others: list[dict[str, Any]] = [
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        jwk(rsa_key(), use="enc"),
        jwk(rsa_key(), alg="RS512"),
        jwk(SECRET, alg="HS512"),
        jwk(SECRET, alg="RS256"),  # a secret that claims to be a public key
        jwk(rsa_key(), alg="HS256"),  # and the other way round
        {"kty": "none"},
        {},
    ]
    assert found(jwks(*others, jwk(rsa_key(), kid="a"))) == [("RS256", "a")]
    assert "no key that verifies" in refusal(jwks(*others))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "a secret of 0 bytes"),
        (b"too short a secret", "a secret of 18 bytes: HS256 wants at least 32"),
        (jwks(jwk(b"short")), "key 1: a secret of 5 bytes"),
        (b"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ== me@here", "looks like a public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA", "cut short"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "no public key"),
        (b"{", "not JSON"),
        (b"[]", "a JWK is an object"),
        (b"{" * 100_000, "not JSON"),
        (b'{"keys": {}}', '"keys", a list'),
        (b'{"keys": []}', "no key that verifies"),
        (b'{"keys": [1]}', "key 1: not an object"),
        (jwks(jwk(SECRET), {"kty": "oct"}), "key 2: its numbers are missing"),
        (jwks({"kty": "oct", "k": 1}), "key 1: its numbers are missing"),
        (jwks({"kty": "oct", "k": "!!!!"}), "key 1: its numbers are missing"),
        (jwks({"kty": "RSA", "n": "AAAA", "e": "AQAB"}), "key 1: its numbers are missing"),
        (jwks(jwk(SECRET, kid=1)), "key 1: its kid"),
        (jwks(*[jwk(SECRET)] * (MOST_KEYS + 1)), "65 keys: 64 at most"),
    ],
)  # fmt: skip
def test_what_is_no_key_is_refused(content: bytes, complaint: str) -> None:
    assert complaint in refusal(content)


def test_a_private_key_is_refused() -> None:
    assert "a private key" in refusal(private_pem(rsa_key()))
    assert "a private key" in refusal(public_pem(rsa_key()) + private_pem(rsa_key(1)))
    assert "a private key" in refusal(jwks(jwk(rsa_key(), d="AQAB")))


def test_a_weak_key_is_refused() -> None:
    weak = rsa_key(2, 1024)
    assert "an RSA key of 1024 bits" in refusal(public_pem(weak))
    assert "an RSA key of 1024 bits" in refusal(jwks(jwk(rsa_key()), jwk(weak)))


def test_a_key_of_another_kind_is_refused() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    pem = curve.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert "not RSA" in refusal(pem)


def test_a_public_key_is_never_taken_for_a_secret() -> None:
    """Everybody knows it, and would sign with it: the classic confusion of RS256 with HS256."""
    der = (
        rsa_key()
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert "looks like a public key" in refusal(der)
    ssh = (
        rsa_key()
        .public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    assert "looks like a public key" in refusal(ssh)
    assert found(b"  \n" + public_pem(rsa_key())) == [("RS256", None)]


def test_a_certificate_is_refused_by_name() -> None:
    assert "certificate" in refusal(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def test_no_key_is_shown() -> None:
    assert "secret of 32" not in repr(keys_from(SECRET))


@given(st.binary(max_size=60))
def test_whatever_is_given_is_a_key_or_refused(content: bytes) -> None:
    try:
        keys = keys_from(content)
    except InvalidOption:
        return
    assert [key.algorithm for key in keys] == ["HS256"]
