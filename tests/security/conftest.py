"""Certificates, tokens and JWTs that are made for a test, and servers that ask for them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import grpc
import jwt
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from arbiter.config.limits import Limits
from arbiter.config.options import Audit, Auth, Tls
from arbiter.profiles.store import Store
from arbiter.runtime.archive import Archive
from arbiter.runtime.desk import Desk
from arbiter.runtime.engine import Engine
from arbiter.runtime.loader import Loader
from arbiter.runtime.local import LocalAdmin
from arbiter.runtime.settings import Backing
from arbiter.runtime.versions import Versions
from arbiter.server.app import Server
from arbiter.server.settings import FaceSettings
from arbiter.telemetry.counters import Counters
from arbiter.v1 import admin_pb2, decision_pb2, outcome_pb2, profile_pb2, trigger_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.message import Message

RULES = """
schema:
  profile: {name: {type: string, personal: true}, level: int}
features: {visits: {count: visit}}
segments: {known: profile.name != ""}
decisions: {home: {slots: 2, order: [priority]}}
rules:
  - {id: named, decision: home, when: profile.name == "Ann", then: {action: greet}}
  - {id: counted, decision: home, when: int(profile.name) > 3, then: {action: greet}}
  - {id: everybody, decision: home, then: {action: show, params: {text: welcome}}}
"""
ISSUER, AUDIENCE = "https://issuer.test", "arbiter"
DECIDE = "/arbiter.v1.DecisionService/Decide"
UPDATE = "/arbiter.v1.ProfileService/UpdateProfile"
PROFILE = "/arbiter.v1.ProfileService/GetProfile"
FOLLOW = "/arbiter.v1.TriggerService/Subscribe"
LOOK_ON = "/arbiter.v1.AdminService/WatchDecisions"
OUTCOMES = "/arbiter.v1.OutcomeService/RecordOutcomes"
SNAPSHOT = "/arbiter.v1.AdminService/GetSnapshot"
OVERRIDE = "/arbiter.v1.AdminService/SetOverride"
REQUESTS: dict[str, Message] = {
    DECIDE: decision_pb2.DecideRequest(subject_id="ann", decision="home"),
    UPDATE: profile_pb2.UpdateProfileRequest(subject_id="ann"),
    PROFILE: profile_pb2.GetProfileRequest(subject_id="ann"),
    FOLLOW: trigger_pb2.SubscribeRequest(subject_id="ann"),
    LOOK_ON: admin_pb2.WatchDecisionsRequest(subject_id="ann", share=0.5),
    OUTCOMES: outcome_pb2.RecordOutcomesRequest(outcomes=[outcome_pb2.Outcome(decision_id="1.a.b", name="click")]),
    SNAPSHOT: admin_pb2.GetSnapshotRequest(),
    OVERRIDE: admin_pb2.SetOverrideRequest(rule_id="named", clear=True, reason="a reason"),
}


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        builder = self._builder(self._name, self._key.public_key(), timedelta(days=1))
        made = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(self, name: str, *, lasts: timedelta = timedelta(days=1)) -> tuple[bytes, bytes]:
        """The PEM of a certificate for a host or a client, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._builder(subject, key.public_key(), lasts).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM), secret

    def install(self, name: str, **more: Any) -> Tls:
        """Put a pair for `name` where a server looks; a second call replaces the first."""
        certificate, key = self.issue(name, **more)
        files = self.folder / "server.pem", self.folder / "server.key"
        for file, content in zip(files, (certificate, key), strict=True):
            put(file, content)
        return Tls(certificate=str(files[0]), key=str(files[1]))

    def _builder(self, subject: x509.Name, key: Any, lasts: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + lasts)
        )


def put(file: Path, content: bytes | str) -> None:
    """Replace a file as tools do that mean it: a new one takes the name of the old."""
    draft = file.with_name(f".{file.name}.draft")
    draft.write_bytes(content.encode() if isinstance(content, str) else content)
    draft.chmod(0o600)
    draft.rename(file)


class Roll:
    """A file of callers, written as they are added."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._entries: list[str] = []

    def token(self, name: str, *roles: str, expires: str = "") -> str:
        """Let a caller in by a token, which is returned."""
        made = f"arb_{secrets.token_urlsafe(32)}"
        digest = sha256(made.encode()).hexdigest()
        until = f", expires: {expires}" if expires else ""
        self._add(f"  - {{name: {name}, roles: [{', '.join(roles)}], sha256: {digest}{until}}}\n")
        return made

    def certificate(self, name: str, inside: str, *roles: str) -> None:
        """Let a caller in by the name in a certificate."""
        self._add(f"  - {{name: {name}, roles: [{', '.join(roles)}], certificate: {inside}}}\n")

    def forget(self, name: str) -> None:
        """Take a caller out."""
        self._entries = [entry for entry in self._entries if f"name: {name}," not in entry]
        self._add("")

    def _add(self, entry: str) -> None:
        self._entries.append(entry)
        put(self.file, "callers:\n" + "".join(self._entries))


class Signer:
    """Signs JWTs with a key that the server knows by its JWKS file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.publish(jwk(self.key, "first"))

    def publish(self, *keys: dict[str, Any]) -> None:
        """Write the JWKS file."""
        put(self.file, json.dumps({"keys": keys}))

    def sign(self, *roles: str, key: Any = None, kid: str = "first", algorithm: str = "ES256", **claims: Any) -> str:
        """A JWT; a claim of None is left out."""
        every = {"sub": "robot", "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600, "roles": list(roles)}
        said = {name: value for name, value in (every | claims).items() if value is not None}
        return jwt.encode(said, key or self.key, algorithm, headers={"kid": kid} if kid else {})


def jwk(key: Any, kid: str) -> dict[str, Any]:
    """The public half of a key of the curve P-256."""
    made: dict[str, Any] = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return made | {"kid": kid}


class Guarded:
    """A server in this process, and a channel for each way to reach it."""

    def __init__(self, folder: Path, settings: FaceSettings) -> None:
        folder.mkdir()
        rules = folder / "rules"
        rules.mkdir()
        (rules / "rules.yaml").write_text(RULES, "utf-8")
        archive = Archive(folder / "data" / "snapshots")
        self.store = Store.open(folder / "data" / "store")
        self.engine = Engine(self.store)
        self.counters = Counters()
        loader, desk = Loader(rules, None, archive), Desk(archive, self.counters)
        admin = LocalAdmin(self.engine, loader, desk, Versions(desk, loader, archive))
        admin.reload()
        self.server = Server(Backing(self.engine, admin, self.counters), "127.0.0.1:0", settings)
        self._channels: list[grpc.Channel] = []

    def channel(self, ca: Path | None = None, client: tuple[bytes, bytes] | None = None) -> grpc.Channel:
        """A new connection: with TLS if there is a `ca`, with a certificate and key of the client's."""
        target = f"localhost:{self.server.port}"
        if ca is None:
            made = grpc.insecure_channel(target)
        else:
            chain, key = client or (None, None)
            credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key, chain)
            # Channels with equal arguments share connections, and a new handshake is what is asked for.
            made = grpc.secure_channel(target, credentials, [("grpc.use_local_subchannel_pool", 1)])
        self._channels.append(made)
        return made

    def call(self, method: str, token: str = "", channel: grpc.Channel | None = None, **more: Any) -> str:
        """Call a method; the name of the status code."""
        metadata = [("authorization", f"Bearer {token}")] if token else []
        metadata += more.get("metadata", [])
        return outcome_of(channel or self.channel(), method, metadata, more.get("request"))

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        self.server.stop(1.0)
        self.store.close()


def outcome_of(
    channel: grpc.Channel, method: str, metadata: Sequence[tuple[str, str]], request: Message | None = None
) -> str:
    """The name of the status code of one call."""
    content = (request or REQUESTS.get(method) or profile_pb2.GetProfileRequest()).SerializeToString()
    unary = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
    stream = channel.unary_stream(method, request_serializer=None, response_deserializer=None)
    try:
        if method in {FOLLOW, LOOK_ON}:
            answers: Any = stream(content, metadata=tuple(metadata), timeout=30)
            next(answers)
            answers.cancel()
        else:
            unary(content, metadata=tuple(metadata), timeout=30)
    except grpc.RpcError as error:
        name: str = error.code().name
        return name
    return "OK"


Open = Callable[..., Guarded]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A certificate authority."""
    return Authority(tmp_path)


@pytest.fixture
def roll(tmp_path: Path) -> Roll:
    """A file of callers."""
    return Roll(tmp_path / "callers.yaml")


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    """Signs JWTs."""
    return Signer(tmp_path / "keys.json")


@pytest.fixture(params=["inline", "stock"])
def transport(request: pytest.FixtureRequest) -> str:
    """What carries the calls."""
    name: str = request.param
    return name


@pytest.fixture
def serve(tmp_path: Path, transport: Any) -> Iterator[Open]:
    """Opens servers."""
    opened: list[Guarded] = []

    def opener(
        *, tls: Tls | None = None, audit: Path | None = None, limits: Limits | None = None, **auth: Any
    ) -> Guarded:
        settings = FaceSettings(
            limits=limits or Limits(),
            transport=transport,
            tls=tls or Tls(),
            auth=msgspec.convert({name: str(value) for name, value in auth.items()}, Auth),
            audit=Audit(file=str(audit)) if audit else Audit(),
        )
        opened.append(Guarded(tmp_path / f"server-{len(opened)}", settings))
        return opened[-1]

    yield opener
    for server in opened:
        server.close()
