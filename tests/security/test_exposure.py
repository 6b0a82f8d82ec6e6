"""Servers that would stand open refuse to start, and say what to do."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from arbiter.config.files import UnusableFile
from arbiter.config.options import Auth, Tls
from arbiter.errors import AuthorError
from arbiter.server.exposure import Exposed, check_start, is_public
from tests import forked
from tests.security.conftest import RULES, Authority, put

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.security.conftest import Roll, Signer

NO_TLS, NO_AUTH = Tls(), Auth()


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("127.0.0.1:1", False),
        ("127.9.9.9:1", False),
        ("[::1]:1", False),
        ("localhost:1", False),
        ("0.0.0.0:1", True),
        ("[::]:1", True),
        (":1", True),
        ("10.0.0.1:1", True),
        ("192.0.2.1:1", True),
        ("[2001:db8::1]:1", True),
        ("no-such-host.invalid:1", True),
    ],
)
def test_every_address_but_loopback_is_public(address: str, public: bool) -> None:  # noqa: FBT001 - a column
    assert is_public(address) is public


@pytest.mark.parametrize("option", ["listen", "admin"])
def test_a_public_address_without_authentication_is_refused(option: str) -> None:
    with pytest.raises(Exposed, match=rf"`{option}` is the public address 0\.0\.0\.0:1, and nothing says") as caught:
        check_start({option: "0.0.0.0:1"}, "", NO_TLS, NO_AUTH)
    assert "auth.tokens" in str(caught.value)
    assert "--auth-insecure" in str(caught.value)


@pytest.mark.parametrize("option", ["listen", "admin"])
def test_tokens_over_plaintext_on_a_public_address_are_refused(option: str, roll: Roll) -> None:
    roll.token("robot", "decide")
    with pytest.raises(Exposed, match=rf"`{option}` .* without TLS"):
        check_start({option: "[::]:1"}, "", NO_TLS, Auth(tokens=str(roll.file)))


def test_certificates_of_clients_alone_say_not_what_they_may_call(authority: Authority) -> None:
    tls = msgspec.structs.replace(authority.install("localhost"), client_ca=str(authority.file))
    with pytest.raises(Exposed, match="says who calls, not what they may call"):
        check_start({"listen": "0.0.0.0:1"}, "", tls, NO_AUTH)


def test_metrics_on_a_public_address_are_refused() -> None:
    with pytest.raises(Exposed, match="`metrics` is the public address"):
        check_start({"listen": "127.0.0.1:1"}, "0.0.0.0:9", NO_TLS, NO_AUTH)


def test_what_is_guarded_or_on_loopback_starts(authority: Authority, roll: Roll) -> None:
    roll.token("robot", "decide")
    check_start({"listen": "127.0.0.1:1", "admin": ""}, "127.0.0.1:9", NO_TLS, NO_AUTH)
    auth = Auth(tokens=str(roll.file))
    check_start({"listen": "127.0.0.1:1"}, "", NO_TLS, auth)
    check_start({"listen": "0.0.0.0:1", "admin": "0.0.0.0:2"}, "", authority.install("localhost"), auth)


def test_whoever_means_it_starts_and_reads_of_it_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_start({"listen": "0.0.0.0:1", "admin": "0.0.0.0:2"}, "0.0.0.0:9", NO_TLS, Auth(insecure=True))
    assert [word in caplog.text for word in ("`listen`", "`admin`", "`metrics`")] == [True] * 3
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_jwts_for_any_audience_are_refused_even_on_loopback(signer: Signer) -> None:
    for auth in (Auth(jwt_keys=str(signer.file)), Auth(jwt_keys=str(signer.file), jwt_issuer="x", insecure=True)):
        with pytest.raises(Exposed, match=r"set both"):
            check_start({"listen": "127.0.0.1:1"}, "", NO_TLS, auth)


def test_files_that_let_nobody_in_are_refused_at_once(authority: Authority, roll: Roll) -> None:
    put(roll.file, "")
    with pytest.raises(AuthorError, match="nobody stands in the file"):
        check_start({"listen": "127.0.0.1:1"}, "", NO_TLS, Auth(tokens=str(roll.file)))
    with pytest.raises(UnusableFile, match="cannot read"):
        check_start({"listen": "127.0.0.1:1"}, "", NO_TLS, Auth(tokens=str(roll.file) + ".gone"))
    tls = authority.install("localhost")
    put(roll.file, "no key")
    with pytest.raises(UnusableFile, match="no private key"):
        check_start({"listen": "127.0.0.1:1"}, "", Tls(certificate=tls.certificate, key=str(roll.file)), NO_AUTH)


def serve(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run `arbiter serve`, which is expected to end at once."""
    (folder / "rules").mkdir(exist_ok=True)
    (folder / "rules" / "rules.yaml").write_text(RULES, "utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARBITER_")}
    words = ("serve", "--models", "", "--workers", "1", *flags)
    return forked.arbiter(*words, cwd=folder, environment=environment)


def test_the_command_refuses_before_it_listens(tmp_path: Path) -> None:
    done = serve(tmp_path, "--listen", "0.0.0.0:0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: `listen` is the public address 0.0.0.0:0")
    assert "Traceback" not in done.stderr


def test_the_command_tells_what_is_wrong_with_the_callers(tmp_path: Path, roll: Roll) -> None:
    put(roll.file, "callers:\n  - {name: robot, roles: [decide], sha256: arb_secretsecret}\n")
    done = serve(tmp_path, "--auth-tokens", str(roll.file), "--listen", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "callers.yaml:2:" in done.stderr
    assert "secretsecret" not in done.stderr
