"""Who is let in, by what, and to what: tokens, names in certificates, roles; and files that change meanwhile."""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from arbiter.config.files import UnusableFile
from arbiter.config.options import Auth
from arbiter.errors import AuthorError
from arbiter.server.auth import porter
from arbiter.server.auth.callers import read_callers
from arbiter.server.auth.porter import Porter
from arbiter.server.auth.roles import NEEDS, ROLES
from arbiter.server.gate import PermissionDenied, Unauthenticated
from arbiter.v1 import admin_pb2, decision_pb2, outcome_pb2, profile_pb2, trigger_pb2
from tests.security.conftest import DECIDE, FOLLOW, OVERRIDE, PROFILE, SNAPSHOT, UPDATE, put

if TYPE_CHECKING:
    from pathlib import Path

    from tests.security.conftest import Open, Roll

BY_ROLE = {"decide": DECIDE, "write": UPDATE, "follow": FOLLOW, "privacy": PROFILE, "admin": SNAPSHOT}


def admitted(gate: Porter, method: str, *authorization: str, names: tuple[bytes, ...] = ()) -> str:
    """Whom the gate takes a call for."""
    metadata = [("user-agent", "x"), *(("authorization", each) for each in authorization)]
    return gate.admit(method, metadata, lambda: names).name


def test_every_method_of_the_protos_needs_a_role() -> None:
    methods = {
        f"/{service.full_name}/{method.name}"
        for module in (decision_pb2, profile_pb2, outcome_pb2, trigger_pb2, admin_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    ours = {path: need for path, need in NEEDS.items() if path.startswith("/arbiter.")}
    assert ours.keys() == methods
    assert set(ours.values()) == set(ROLES)


def test_health_is_open_and_reflection_needs_a_caller() -> None:
    checks = {
        f"/{health.SERVICE_NAME}/{method.name}" for method in health_pb2.DESCRIPTOR.services_by_name["Health"].methods
    }
    assert {path: NEEDS[path] for path in checks} == dict.fromkeys(checks, "open")
    assert NEEDS[f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"] == "any"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_opens_its_methods_and_no_others(serve: Open, roll: Roll, role: str) -> None:
    token = roll.token("robot", role)
    server = serve(tokens=roll.file)
    for needed, method in BY_ROLE.items():
        assert server.call(method, token) == ("OK" if needed == role else "PERMISSION_DENIED")


@pytest.mark.parametrize("method", BY_ROLE.values())
def test_nobody_gets_in_without_a_token_that_is_known(serve: Open, roll: Roll, method: str) -> None:
    roll.token("robot", *ROLES)
    server = serve(tokens=roll.file)
    assert server.call(method) == "UNAUTHENTICATED"
    assert server.call(method, f"arb_{secrets.token_urlsafe(32)}") == "UNAUTHENTICATED"
    assert server.counters.errors["UNAUTHENTICATED"] == 2


def test_health_answers_everybody_and_tells_no_error(serve: Open, roll: Roll) -> None:
    roll.token("robot", "decide")
    server = serve(tokens=roll.file)
    answer, call = health_pb2_grpc.HealthStub(server.channel()).Check.with_call(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert "arbiter-last-error" not in dict(call.trailing_metadata())


def test_reflection_answers_callers_that_are_known(serve: Open, roll: Roll) -> None:
    token = roll.token("robot", "decide")
    server = serve(tokens=roll.file)
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel())
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([asked]), metadata=[("authorization", f"Bearer {token}")])
    assert len(answer.list_services_response.service) == 7
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ServerReflectionInfo(iter([asked])))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("given", ["Basic YTpi", "Bearer", "Bearer ", "token", "", "Bearer  x", "Bearer a.b.c"])
def test_what_is_no_bearer_token_is_refused(roll: Roll, given: str) -> None:
    roll.token("robot", *ROLES)
    with pytest.raises(Unauthenticated):
        admitted(Porter(Auth(tokens=str(roll.file))), DECIDE, given)


def test_the_scheme_may_be_written_in_any_case(roll: Roll) -> None:
    token = roll.token("robot", "decide")
    assert admitted(Porter(Auth(tokens=str(roll.file))), DECIDE, f"bEARER {token}") == "robot"


def test_two_authorizations_are_refused(roll: Roll) -> None:
    token = roll.token("robot", "decide")
    with pytest.raises(Unauthenticated, match="twice"):
        admitted(Porter(Auth(tokens=str(roll.file))), DECIDE, f"Bearer {token}", f"Bearer {token}")


def test_a_method_that_nobody_has_heard_of_needs_a_caller(roll: Roll) -> None:
    token = roll.token("robot", "decide")
    gate = Porter(Auth(tokens=str(roll.file)))
    assert admitted(gate, "/arbiter.v9.NewService/Any", f"Bearer {token}") == "robot"
    with pytest.raises(Unauthenticated):
        admitted(gate, "/arbiter.v9.NewService/Any")


def test_a_token_expires(roll: Roll) -> None:
    token = roll.token("robot", "decide", expires="2030-01-01T00:00:00Z")
    moments = [1893455999.0, 1893456000.0]
    gate = Porter(Auth(tokens=str(roll.file)), clock=lambda: moments.pop(0))
    assert admitted(gate, DECIDE, f"Bearer {token}") == "robot"
    with pytest.raises(Unauthenticated, match="expired"):
        admitted(gate, DECIDE, f"Bearer {token}")


def test_a_denial_says_which_role_is_needed(roll: Roll) -> None:
    token = roll.token("robot", "decide", "write")
    with pytest.raises(PermissionDenied, match=r"needs the role `admin`, and `robot` has decide, write"):
        admitted(Porter(Auth(tokens=str(roll.file))), OVERRIDE, f"Bearer {token}")


def test_tokens_are_compared_in_constant_time(roll: Roll, monkeypatch: pytest.MonkeyPatch) -> None:
    token = roll.token("robot", "decide")
    compared: list[tuple[bytes, bytes]] = []

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(porter, "compare_digest", spy)
    admitted(Porter(Auth(tokens=str(roll.file))), DECIDE, f"Bearer {token}")
    ((one, other),) = compared
    assert one == other
    assert token.encode() not in {one, other}


def test_a_token_that_is_taken_back_opens_nothing_any_more(roll: Roll) -> None:
    kept, gone = roll.token("kept", "decide"), roll.token("gone", "decide")
    gate = Porter(Auth(tokens=str(roll.file)))
    assert admitted(gate, DECIDE, f"Bearer {gone}") == "gone"
    roll.forget("gone")
    late = roll.token("late", "decide")
    gate.look()
    assert [admitted(gate, DECIDE, f"Bearer {each}") for each in (kept, late)] == ["kept", "late"]
    with pytest.raises(Unauthenticated):
        admitted(gate, DECIDE, f"Bearer {gone}")


def test_an_empty_list_lets_nobody_in(roll: Roll) -> None:
    token = roll.token("robot", "decide")
    gate = Porter(Auth(tokens=str(roll.file)))
    put(roll.file, "callers: []\n")
    gate.look()
    with pytest.raises(Unauthenticated):
        admitted(gate, DECIDE, f"Bearer {token}")


def test_a_running_server_takes_in_a_changed_file(serve: Open, roll: Roll) -> None:
    first = roll.token("first", "decide")
    server = serve(tokens=roll.file)
    assert server.call(DECIDE, first) == "OK"
    second = roll.token("second", "decide")
    channel = server.channel()
    until = time.monotonic() + 60
    while server.call(DECIDE, second, channel) != "OK":  # the file is looked at once a second
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("bad", ["callers: 3", "callers:\n  - {name: x}\n", "nobody", ""])
def test_a_bad_file_changes_nothing_and_is_logged(roll: Roll, bad: str, caplog: pytest.LogCaptureFixture) -> None:
    token = roll.token("robot", "decide")
    gate = Porter(Auth(tokens=str(roll.file)))
    put(roll.file, bad)
    with caplog.at_level(logging.ERROR):
        gate.look()
        gate.look()
    assert admitted(gate, DECIDE, f"Bearer {token}") == "robot"
    assert len(caplog.records) == 1
    assert "callers.yaml" in caplog.text


def test_a_file_that_is_gone_changes_nothing(roll: Roll) -> None:
    token = roll.token("robot", "decide")
    gate = Porter(Auth(tokens=str(roll.file)))
    roll.file.unlink()
    gate.look()
    assert admitted(gate, DECIDE, f"Bearer {token}") == "robot"


def test_a_file_that_everybody_may_write_is_refused(roll: Roll) -> None:
    roll.token("robot", "decide")
    roll.file.chmod(0o646)
    with pytest.raises(UnusableFile, match="chmod o-w"):
        Porter(Auth(tokens=str(roll.file)))


def test_the_name_in_a_certificate_gives_roles(roll: Roll) -> None:
    roll.certificate("billing", "billing.internal", "write")
    token = roll.token("robot", "decide")
    gate = Porter(Auth(tokens=str(roll.file)))
    assert admitted(gate, UPDATE, names=(b"other.internal", b"billing.internal")) == "billing"
    with pytest.raises(PermissionDenied):
        admitted(gate, DECIDE, names=(b"billing.internal",))
    with pytest.raises(Unauthenticated):
        admitted(gate, UPDATE, names=(b"other.internal",))
    # A token is asked for by name, a certificate is just there: the token says who calls.
    assert admitted(gate, DECIDE, f"Bearer {token}", names=(b"billing.internal",)) == "robot"
    with pytest.raises(Unauthenticated):
        admitted(gate, UPDATE, "Bearer wrong", names=(b"billing.internal",))


DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{roles: [decide], sha256: D}", "a caller needs the key `name`"),
        ("{name: a, sha256: D}", "a caller needs the key `roles`"),
        ("{name: a, roles: [], sha256: D}", "`roles` is empty"),
        ("{name: a, roles: [decid], sha256: D}", "there is no role `decid`"),
        ("{name: a, roles: decide, sha256: D}", "`roles` must be a list"),
        ("{name: a, roles: [decide]}", "and this one has neither"),
        ("{name: a, roles: [decide], sha256: D, certificate: x}", "and this one has both"),
        ("{name: a, roles: [decide], sha256: arb_secretsecret}", "`sha256` must be 64 hexadecimal digits"),
        ("{name: a, roles: [decide], token: arb_secretsecret}", "unknown key `token`"),
        ('{name: a, roles: [decide], certificate: ""}', "`certificate` is empty"),
        ("{name: a, roles: [decide], sha256: D, expires: 2027-01-01}", "is no moment with a time zone"),
        ("{name: a b, roles: [decide], sha256: D}", "`a b` cannot be the name"),
        ("3", "a caller must be a mapping"),
        ("{name: a, roles: [decide], sha256: D}\n  - {name: b, roles: [write], sha256: D}", "stands here twice"),
    ],
)
def test_every_mistake_in_the_file_has_its_place_and_shows_no_secret(tmp_path: Path, entry: str, said: str) -> None:
    content = f"callers:\n  - {entry.replace(': D', f': {DIGEST}')}\n"
    with pytest.raises(AuthorError) as caught:
        read_callers(tmp_path / "callers.yaml", content.encode())
    text = str(caught.value)
    assert said in text
    assert text.startswith(("callers.yaml:2:", "callers.yaml:3:"))
    assert "secretsecret" not in text
    assert DIGEST not in text
