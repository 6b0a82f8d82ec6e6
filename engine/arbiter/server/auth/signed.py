"""JWTs: from a file of public keys (JWKS, RFC 7517) to who signed a token speaks of.

Law: which key may verify which algorithm is decided by the file and never by the token, so neither `none` nor a public
key taken for a shared secret verifies anything. The signature is PyJWT's to check, what must be claimed is said here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import jwt
import msgspec

from arbiter.authoring.blocks import Block, one_of
from arbiter.authoring.documents import Form, read_documents
from arbiter.authoring.nodes import Mapping, Node, kind_of
from arbiter.authoring.report import Report
from arbiter.server.auth.callers import Known, refusal
from arbiter.server.auth.roles import ROLES
from arbiter.server.gate import Caller, Unauthenticated

if TYPE_CHECKING:
    from pathlib import Path

FORM: Final = Form("a file of keys", 1 << 18, "keep the keys that still sign")
# The one algorithm of each kind of key.
ALGORITHMS: Final = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA", "oct": "HS256"}
_CURVES: Final = {"EC": "P-256", "OKP": "Ed25519"}
_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth")
_RSA_BITS: Final = 2048
_SECRET_BYTES: Final = 32
_LEEWAY_S: Final = 10  # between the issuer's clock and ours
LONGEST: Final = 8192
_CLAIMS: Final = ("exp", "sub", "iss", "aud")
_NAME_BYTES: Final = 256
_SAID: Final[tuple[tuple[type[Exception], str], ...]] = (
    (jwt.ExpiredSignatureError, "the JWT has expired: get a new one"),
    (jwt.ImmatureSignatureError, "the JWT is not valid yet: its `nbf` or `iat` lies ahead"),
    (jwt.InvalidAudienceError, "the JWT is meant for another audience: its `aud` does not name this server"),
    (jwt.InvalidIssuerError, "the JWT is of another issuer than this server trusts"),
    (jwt.MissingRequiredClaimError, f"the JWT lacks a claim: it must have {', '.join(_CLAIMS)}"),
    (jwt.InvalidSignatureError, "the JWT's signature does not hold"),
)


class Key(msgspec.Struct, frozen=True):
    """A key and the one algorithm that it verifies."""

    key: Any
    algorithm: str


class Signers:
    """The keys, and whom a token must come from and be meant for. `secret`: one of them is a shared secret."""

    def __init__(self, keys: dict[str, Key], issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self.secret = any(key.algorithm == "HS256" for key in keys.values())

    def verify(self, token: str) -> Known:
        """Return whom a token speaks of, and until when. Raises Unauthenticated."""
        if len(token) > LONGEST:
            raise Unauthenticated(f"the JWT has more than {LONGEST:,} characters")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise Unauthenticated("the JWT is malformed") from None
        key = self._key(header.get("kid"))
        if key is None or header.get("alg") != key.algorithm:
            raise Unauthenticated("no key of this server fits the JWT: its `kid` or its `alg` is another")
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_S,
                options={"require": list(_CLAIMS)},
            )
        except jwt.InvalidTokenError as error:
            said = next((text for kind, text in _SAID if isinstance(error, kind)), "the JWT does not hold")
            raise Unauthenticated(said) from None
        return _known(claims)

    def _key(self, kid: object) -> Key | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid) if isinstance(kid, str) else None


def _known(claims: dict[str, Any]) -> Known:
    name, roles = claims["sub"], claims.get("roles")
    if not isinstance(name, str) or not 0 < len(name.encode(errors="replace")) <= _NAME_BYTES:
        raise Unauthenticated(f"the JWT's `sub` must be 1 to {_NAME_BYTES} bytes of text")
    # The issuer may know roles of other services.
    held = frozenset(role for role in ROLES if isinstance(roles, list) and role in roles)
    if not held:
        raise Unauthenticated(f"the JWT gives no role: its claim `roles` must be a list with some of {one_of(ROLES)}")
    return Known(Caller(name, held, "jwt"), expires=float(claims["exp"]) + _LEEWAY_S)


def read_signers(path: Path, content: bytes, issuer: str, audience: str) -> Signers:
    """Read a JWKS file's content. Raises AuthorError with every mistake in it."""
    report = Report()
    # JSON is YAML, so mistakes have their places here as everywhere.
    roots = read_documents(path.name, content, FORM, report) or []
    keys: dict[str, Key] = {}
    if roots and isinstance(roots[0], Mapping):
        block = Block(roots[0], report, what="a file of keys", keys=("keys",))
        block.require("keys", 'write a JWKS: `{"keys": [...]}`')
        for place, item in block.items("keys"):
            _read_key(item, place, report, keys)
    elif not report:
        report.whole(path.name, "the file is no JWKS", 'write a JSON object: `{"keys": [...]}`')
    if not keys and not report:
        report.whole(path.name, "there is no key in the file, so nothing could be verified")
    if report:
        raise refusal(report)
    return Signers(keys, issuer, audience)


def _read_key(node: Node, path: str, report: Report, keys: dict[str, Key]) -> None:
    if not isinstance(node, Mapping):
        report.at(node, f"a key must be a mapping, this is {kind_of(node)}", path=path)
        return
    block = Block(node, report, what="a key", path=path, keys=node.entries)
    found = {name: each.text for name in node.entries if (each := _scalar(block, name)) is not None}
    kind = found.get("kty", "")
    algorithm = ALGORITHMS.get(kind)
    if algorithm is None:
        report.at(node, f"`kty` must be one of {one_of(ALGORITHMS)}", path=path)
    elif found.get("alg", algorithm) != algorithm:
        block.refuse(block.key("alg"), f"a key of kind {kind} verifies {algorithm} here, and nothing else")
    elif kind in _CURVES and found.get("crv") != _CURVES[kind]:
        report.at(node, f"a key of kind {kind} must be on the curve {_CURVES[kind]}", path=path)
    elif found.get("use", "sig") != "sig":
        block.refuse(block.key("use"), "this key is not for signatures", "remove it, `use` must be `sig`")
    elif kind != "oct" and any(name in found for name in _PRIVATE):
        report.at(node, "this is a private key", "publish the public part alone, and renew the key", path)
    elif found.get("kid", "") in keys:
        report.at(node, "two keys have the same `kid`", "give each its own", path)
    else:
        key = _key(found, algorithm)
        if key is None:
            report.at(node, f"this is no sound key of kind {kind}", _least(kind), path)
        else:
            keys[found.get("kid", "")] = key


def _scalar(block: Block, name: str) -> Any:
    node = block.get(name)
    return node if hasattr(node, "text") else None


def _key(found: dict[str, str], algorithm: str) -> Key | None:
    try:
        key = jwt.PyJWK(found, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if algorithm == "RS256" and key.key_size < _RSA_BITS:
        return None
    if algorithm == "HS256" and len(key) < _SECRET_BYTES:
        return None
    return Key(key, algorithm)


def _least(kind: str) -> str:
    return {"RSA": f"it needs {_RSA_BITS} bits", "oct": f"it needs {_SECRET_BYTES} bytes"}.get(kind, "")
