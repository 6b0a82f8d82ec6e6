"""A server as it is run, with everything that tells switched on: canaries go in, and none comes out by the side."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from arbiter.v1 import admin_pb2, decision_pb2, profile_pb2, value_pb2
from tests.security.conftest import AUDIENCE, DECIDE, ISSUER, OVERRIDE, PROFILE, RULES, SNAPSHOT, UPDATE, put

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tests.security.conftest import Roll, Signer

ROOT = Path(__file__).resolve().parents[2]
VALUE = "canaryvalue4711"
SUBJECT = "canarysubject4712"
INGEST = "/arbiter.v1.ProfileService/IngestEvents"
VALIDATE = "/arbiter.v1.AdminService/Validate"
# Sampled by the caller, so that every call is traced.
PARENT = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
READY = re.compile(r"arbiter ready on (\S+?),")


def text(value: str = VALUE) -> value_pb2.Value:
    return value_pb2.Value(string_value=value)


def asks() -> list[tuple[str, Message | bytes]]:
    """Calls that end well, and in every kind of error, with canaries wherever a caller may put one."""
    event = profile_pb2.Event(id=VALUE, subject_id=SUBJECT, type="visit", properties={"page": text()})
    decide = decision_pb2.DecideRequest
    update = profile_pb2.UpdateProfileRequest
    return [
        (UPDATE, update(subject_id=SUBJECT, set={"name": text()}, idempotency_key=VALUE)),
        (UPDATE, update(subject_id=SUBJECT, set={"level": text()})),
        (UPDATE, update(subject_id=SUBJECT, increment={"name": value_pb2.Value(int_value=1)})),
        (UPDATE, update(subject_id=SUBJECT, set={VALUE.upper(): text()})),
        (UPDATE, update(subject_id=SUBJECT, set={"name": text()}, expected_version=99)),
        (UPDATE, update(subject_id=SUBJECT, set={"name": text("x")}, idempotency_key=VALUE)),
        (INGEST, profile_pb2.IngestEventsRequest(events=[event])),
        (INGEST, profile_pb2.IngestEventsRequest(events=[event, profile_pb2.Event(id=VALUE, type=VALUE.upper())])),
        (DECIDE, decide(subject_id=SUBJECT, decision="home", explain=decision_pb2.ExplainOptions())),
        (DECIDE, decide(subject_id=SUBJECT, decision="home", context={"x": text()}, request_id=VALUE)),
        (DECIDE, decide(subject_id=SUBJECT, decision="home", context_json=f'{{"x": {VALUE}}}'.encode())),
        (DECIDE, decide(subject_id=SUBJECT, decision=VALUE)),
        (DECIDE, decide(subject_id=SUBJECT * 100, decision="home")),
        (DECIDE, VALUE.encode() * 3),
        (PROFILE, profile_pb2.GetProfileRequest(subject_id=SUBJECT)),
        (PROFILE, profile_pb2.GetProfileRequest(subject_id=SUBJECT * 100)),
        (SNAPSHOT, admin_pb2.GetSnapshotRequest()),
        (VALIDATE, admin_pb2.ValidateRequest(files={"a.yaml": f"rules: [{VALUE}]".encode()})),
        (OVERRIDE, admin_pb2.SetOverrideRequest(rule_id="named", clear=True)),
    ]


class Running:
    """`arbiter serve` in processes of its own; `told` is all that they said when they have ended."""

    def __init__(self, folder: Path, *flags: str) -> None:
        (folder / "rules").mkdir()
        (folder / "rules" / "rules.yaml").write_text(RULES, "utf-8")
        exporters = {f"OTEL_{kind}_EXPORTER": "console" for kind in ("METRICS", "TRACES", "LOGS")}
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ARBITER_", "OTEL_"))}
        self.files = [folder / "out.txt", folder / "err.txt"]
        command = [
            sys.executable, "-m", "arbiter.cli", "serve", "--models", "", "--workers", "1", "--log-level", "debug",
            "--listen", "127.0.0.1:0", *flags,
        ]  # fmt: skip
        with self.files[0].open("wb") as out, self.files[1].open("wb") as err:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                command, cwd=folder, stdout=out, stderr=err,
                env=environment | exporters | {"PYTHONPATH": str(ROOT / "engine")},
            )  # fmt: skip
        self.address = ""

    def wait(self) -> None:
        """Return when it is ready."""
        while self._process.poll() is None:
            found = READY.search(self.files[0].read_text("utf-8"))
            if found is not None:
                self.address = found[1]
                return
            time.sleep(0.05)
        pytest.fail(self.files[1].read_text("utf-8"))

    def stop(self) -> str:
        """End it; returns all that it said."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        return "".join(file.read_text("utf-8") for file in self.files)


def ask(channel: grpc.Channel, method: str, request: Message | bytes, authorization: str) -> str:
    call = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
    content = request if isinstance(request, bytes) else request.SerializeToString()
    try:
        call(content, metadata=(PARENT, ("authorization", authorization)), timeout=20)
    except grpc.RpcError as error:
        name: str = error.code().name
        return name
    return "OK"


def test_nothing_that_is_secret_or_personal_leaves_by_the_side(tmp_path: Path, roll: Roll, signer: Signer) -> None:
    everything, little = roll.token("ops", "decide", "write", "privacy", "admin"), roll.token("shop", "decide")
    signed = signer.sign("decide", "write", "privacy", "admin")
    audit = tmp_path / "audit.jsonl"
    server = Running(
        tmp_path, "--auth-tokens", str(roll.file), "--auth-jwt-keys", str(signer.file), "--auth-jwt-issuer", ISSUER,
        "--auth-jwt-audience", AUDIENCE, "--audit-file", str(audit),
    )  # fmt: skip
    outcomes: set[str] = set()
    try:
        server.wait()
        with grpc.insecure_channel(server.address) as channel:
            for token in (everything, signed, little, f"arb_{VALUE}", f"{signed}x", f"{VALUE}.{VALUE}.{VALUE}"):
                for method, request in asks():
                    outcomes.add(ask(channel, method, request, f"Bearer {token}"))
            outcomes.add(ask(channel, DECIDE, b"", f"Basic {VALUE}"))
            put(roll.file, f"callers:\n  - {{name: a, roles: [decide], sha256: {everything}}}\n")
            put(signer.file, f'{{"keys": [{{"kty": "oct", "k": "{VALUE}"}}]}}')
            until = time.monotonic() + 30
            while server.files[1].read_text("utf-8").count("stay as they were") < 2:  # both files are looked at
                assert time.monotonic() < until
                time.sleep(0.05)
    finally:
        told = server.stop()
    written = audit.read_text("utf-8")
    # All of it did tell: calls of every kind, errors, metrics, a log of the bad files, lines of the audit log.
    assert outcomes >= {
        "OK", "INVALID_ARGUMENT", "NOT_FOUND", "ABORTED", "FAILED_PRECONDITION", "UNAUTHENTICATED", "PERMISSION_DENIED",
    }  # fmt: skip
    assert "arbiter.decisions" in told
    assert PARENT[1][3:35] in told
    assert len(written.splitlines()) > 10
    for canary in (VALUE, VALUE.upper(), SUBJECT, everything, little, signed, everything[4:]):
        assert canary not in told
        assert canary not in written
