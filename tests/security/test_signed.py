"""JWTs: what is verified, and every way in which one is refused."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from arbiter.config.files import UnusableFile
from arbiter.config.options import Auth
from arbiter.errors import AuthorError
from arbiter.server.auth.porter import Porter
from arbiter.server.auth.signed import read_signers
from arbiter.server.gate import PermissionDenied, Unauthenticated
from tests.security.conftest import AUDIENCE, DECIDE, ISSUER, PROFILE, jwk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.security.conftest import Open, Roll, Signer

SECRET = b"0123456789abcdef0123456789abcdef"


def gate(signer: Signer, **more: Any) -> Porter:
    return Porter(Auth(jwt_keys=str(signer.file), jwt_issuer=ISSUER, jwt_audience=AUDIENCE), **more)


def admitted(porter: Porter, token: str, method: str = DECIDE) -> tuple[str, str]:
    caller = porter.admit(method, [("authorization", f"Bearer {token}")], tuple)
    return caller.name, caller.by


def public(algorithm: str, key: Any) -> dict[str, Any]:
    """The JWK of any key."""
    made: dict[str, Any] = getattr(jwt.algorithms, f"{algorithm}Algorithm").to_jwk(key, as_dict=True)
    return made


def secret(kid: str = "shared", content: bytes = SECRET) -> dict[str, Any]:
    return {"kty": "oct", "kid": kid, "k": base64.urlsafe_b64encode(content).decode().rstrip("=")}


def test_a_server_lets_a_jwt_in_by_its_roles(serve: Open, signer: Signer) -> None:
    server = serve(jwt_keys=signer.file, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    assert server.call(DECIDE, signer.sign("decide")) == "OK"
    assert server.call(PROFILE, signer.sign("decide")) == "PERMISSION_DENIED"
    assert server.call(DECIDE, signer.sign("decide", iss="https://other.test")) == "UNAUTHENTICATED"


def test_each_kind_of_key_verifies_its_own_algorithm(signer: Signer) -> None:
    rsa_key = rsa.generate_private_key(65537, 2048)
    edwards = ed25519.Ed25519PrivateKey.generate()
    signer.publish(
        jwk(signer.key, "first"),
        public("RSA", rsa_key.public_key()) | {"kid": "rsa"},
        public("OKP", edwards.public_key()) | {"kid": "ed"},
        secret(),
    )
    porter = gate(signer)
    for key, kid, algorithm in (
        (signer.key, "first", "ES256"),
        (rsa_key, "rsa", "RS256"),
        (edwards, "ed", "EdDSA"),
        (SECRET, "shared", "HS256"),
    ):
        assert admitted(porter, signer.sign("decide", key=key, kid=kid, algorithm=algorithm)) == ("robot", "jwt")
    for kid, algorithm in (("rsa", "PS256"), ("rsa", "RS512")):
        with pytest.raises(Unauthenticated):
            admitted(porter, signer.sign("decide", key=rsa_key, kid=kid, algorithm=algorithm))


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"exp": None}, "lacks a claim"),
        ({"sub": None}, "lacks a claim"),
        ({"iss": None}, "lacks a claim"),
        ({"aud": None}, "lacks a claim"),
        ({"exp": 1_700_000_000}, "has expired"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"iss": "https://other.test"}, "another issuer"),
        ({"aud": "billing"}, "another audience"),
        ({"roles": None}, "gives no role"),
        ({"roles": "decide"}, "gives no role"),
        ({"roles": ["root"]}, "gives no role"),
        ({"sub": ""}, "`sub` must be"),
        ({"sub": "x" * 257}, "`sub` must be"),
        ({"exp": "soon"}, "does not hold"),
    ],
)
def test_a_jwt_that_claims_too_little_is_refused(signer: Signer, claims: dict[str, Any], said: str) -> None:
    with pytest.raises(Unauthenticated, match=said):
        admitted(gate(signer), signer.sign("decide", **claims))


def test_an_audience_may_be_one_of_several_and_unknown_roles_are_passed_over(signer: Signer) -> None:
    porter = gate(signer)
    token = signer.sign("decide", "reports", aud=["billing", AUDIENCE])
    assert admitted(porter, token) == ("robot", "jwt")
    with pytest.raises(PermissionDenied, match="has decide"):
        admitted(porter, token, PROFILE)


def test_the_algorithm_none_is_refused(signer: Signer) -> None:
    claims = {"sub": "robot", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, "roles": ["admin"]}
    for headers in ({"kid": "first"}, {}):
        with pytest.raises(Unauthenticated):
            admitted(gate(signer), jwt.encode(claims, "", "none", headers=headers))


def test_a_public_key_is_no_shared_secret(signer: Signer) -> None:
    """The old confusion: a token signed by HMAC with the text of the public key, which everybody knows."""
    pem = signer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in (
            {"alg": "HS256", "kid": "first"},
            {"sub": "robot", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, "roles": ["admin"]},
        )
    )
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(head + b"." + body, pem)
    forged = b".".join((head, body, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()
    with pytest.raises(Unauthenticated, match="no key of this server fits"):
        admitted(gate(signer), forged)


def test_another_key_of_the_same_name_verifies_nothing(signer: Signer) -> None:
    with pytest.raises(Unauthenticated, match="signature"):
        admitted(gate(signer), signer.sign("decide", key=ec.generate_private_key(ec.SECP256R1())))


def test_the_key_is_named_unless_there_is_one(signer: Signer) -> None:
    assert admitted(gate(signer), signer.sign("decide", kid="")) == ("robot", "jwt")
    signer.publish(jwk(signer.key, "first"), secret())
    porter = gate(signer)
    for kid in ("", "second"):
        with pytest.raises(Unauthenticated, match="no key of this server fits"):
            admitted(porter, signer.sign("decide", kid=kid))


def test_a_long_jwt_is_refused_unread(signer: Signer) -> None:
    with pytest.raises(Unauthenticated, match="more than"):
        admitted(gate(signer), signer.sign("decide", more="x" * 10_000))


def test_a_jwt_that_was_verified_expires_all_the_same(signer: Signer) -> None:
    moments = [time.time(), time.time() + 3600]
    porter = gate(signer, clock=lambda: moments.pop(0))
    token = signer.sign("decide")
    assert admitted(porter, token) == ("robot", "jwt")
    with pytest.raises(Unauthenticated, match="expired"):
        admitted(porter, token)


def test_what_a_key_verified_goes_with_the_key(signer: Signer) -> None:
    porter = gate(signer)
    token = signer.sign("decide")
    assert admitted(porter, token) == ("robot", "jwt")
    signer.publish(jwk(ec.generate_private_key(ec.SECP256R1()), "second"))
    porter.look()
    with pytest.raises(Unauthenticated):
        admitted(porter, token)


def test_the_memory_of_verified_jwts_is_bounded(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arbiter.server.auth.porter._REMEMBERED", 3)
    porter = gate(signer)
    for number in range(10):
        admitted(porter, signer.sign("decide", sub=f"robot-{number}"))
        assert len(porter._verified) <= 3


def test_tokens_and_jwts_are_taken_beside_each_other(roll: Roll, signer: Signer) -> None:
    token = roll.token("desk", "decide")
    auth = Auth(tokens=str(roll.file), jwt_keys=str(signer.file), jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    porter = Porter(auth)
    assert admitted(porter, token) == ("desk", "token")
    assert admitted(porter, signer.sign("decide")) == ("robot", "jwt")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("[]", "the file is no JWKS"),
        ('{"keys": []}', "there is no key in the file"),
        ('{"keys": [3]}', "a key must be a mapping"),
        ('{"keys": [{"kid": "a"}]}', "`kty` must be one of"),
        ('{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}', "it needs 32 bytes"),
        ('{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}', "it needs 2048 bits"),
        ('{"keys": [{"kty": "RSA", "alg": "PS256", "n": "AQAB", "e": "AQAB"}]}', "verifies RS256 here"),
        ('{"keys": [{"kty": "EC", "crv": "P-521", "x": "AQAB", "y": "AQAB"}]}', "must be on the curve P-256"),
        ('{"keys": [{"kty": "EC", "crv": "P-256", "d": "topsecret", "x": "AQ", "y": "AQ"}]}', "this is a private key"),
        ('{"keys": [{"kty": "oct", "use": "enc", "k": "topsecret"}]}', "not for signatures"),
        ('{"keys": [{"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"}]}', "no sound key of kind EC"),
        ('{"keys": [', "YAML"),
    ],
)
def test_every_mistake_in_the_keys_is_told_and_shows_no_secret(tmp_path: Path, keys: str, said: str) -> None:
    with pytest.raises(AuthorError) as caught:
        read_signers(tmp_path / "keys.json", keys.encode(), ISSUER, AUDIENCE)
    assert said in str(caught.value)
    assert "topsecret" not in str(caught.value)


def test_a_key_may_not_stand_twice_under_one_name(signer: Signer) -> None:
    signer.publish(secret(), secret())
    with pytest.raises(AuthorError, match="the same `kid`"):
        gate(signer)


def test_shared_secrets_may_not_be_readable_by_everybody(signer: Signer) -> None:
    signer.file.chmod(0o644)
    assert admitted(gate(signer), signer.sign("decide")) == ("robot", "jwt")
    signer.publish(secret())
    signer.file.chmod(0o644)
    with pytest.raises(UnusableFile, match="chmod o-r"):
        gate(signer)
