"""How commands reach a server: which one, and by what right."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
import typer.main

from arbiter.cli.app import app
from tests import forked

if TYPE_CHECKING:
    import subprocess

    from tests.client.conftest import Authority, Road

ENGINE = Path(__file__).parent.parent.parent / "engine"
DECIDE = ("decide", "ann", "shop.banner")
SECRET = "s3cr3t-t0ken"  # noqa: S105 - of nothing


def arbiter(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ARBITER_")}
    return forked.arbiter(*words, environment=clean | environment)


def test_a_token_comes_from_the_environment_or_a_file(road: Road, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("of-a-file\n", "utf-8")
    here = {"ARBITER_TARGET": road.target}
    token = {"ARBITER_TOKEN": "of-the-environment"}
    for done in (
        arbiter(*DECIDE, **here),
        arbiter(*DECIDE, **here, **token),
        arbiter(*DECIDE, "--token-file", str(file), **here, **token),
        arbiter("profile", "get", "ann", "--target", road.target, ARBITER_TOKEN_FILE=str(file)),
    ):
        assert (done.returncode, done.stderr) == (0, "")
    assert [each.metadata.get("authorization") for each in road.seen] == [
        None,
        "Bearer of-the-environment",
        "Bearer of-a-file",
        "Bearer of-a-file",
    ]


def test_a_command_connects_with_tls_and_shows_a_certificate(road: Road, authority: Authority, tmp_path: Path) -> None:
    road.close()
    road.open(credentials=grpc.ssl_server_credentials([authority.issue("127.0.0.1")], authority.pem, True))
    key, certificate = authority.issue("operator")
    for name, pem in (("ca", authority.pem), ("key", key), ("certificate", certificate)):
        (tmp_path / name).write_bytes(pem)
    words = [f"--{name}={tmp_path / name}" for name in ("ca", "key", "certificate")]
    variables = {f"ARBITER_{name.upper()}_FILE": str(tmp_path / name) for name in ("ca", "key", "certificate")}
    for done in (
        arbiter(*DECIDE, "--target", road.target, *words),
        arbiter(*DECIDE, "--target", road.target, **variables),
    ):
        assert (done.returncode, done.stderr) == (0, "")
    assert len(road.seen) == 2
    refused = arbiter(*DECIDE, "--target", road.target, "--no-tls", **variables)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: no server answers at {road.target}")


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (("--target", "nowhere"), {}, "error: `nowhere` is no target: write HOST:PORT"),
        (("--target", "example.com:1"), {"ARBITER_TOKEN": SECRET}, "error: the token would go to example.com:1"),
        (("--certificate", "x"), {}, "error: tls has no `key`: a client's certificate and its key go together"),
        (("--ca", "absent.pem"), {}, "error: tls: the `ca` cannot be read from absent.pem: No such file"),
        ((), {"ARBITER_TOKEN": f"{SECRET} {SECRET}"}, "error: the token is empty or holds what no token can"),
        (("--token-file", "absent"), {}, "cannot read absent"),
    ],
)
def test_a_mistake_about_the_way_is_told_without_the_secret(
    words: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    done = arbiter(*DECIDE, *words, **environment)
    assert done.returncode in {1, 2}
    assert said in done.stderr
    assert SECRET not in done.stderr


def test_every_command_that_asks_a_server_has_the_same_options() -> None:
    asking = {
        words: {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
        for words, command in commands(typer.main.get_command(app), ())
    }
    with_target = {words: options for words, options in asking.items() if "--target" in options}
    assert len(with_target) > 10
    way = {"--token-file", "--tls", "--ca", "--certificate", "--key", "--insecure-token"}
    assert not [words for words, options in with_target.items() if not way <= options]


def commands(command: object, words: tuple[str, ...]) -> list[tuple[tuple[str, ...], typer.core.TyperCommand]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        assert isinstance(command, typer.core.TyperCommand)
        return [(words, command)]
    return [found for name, each in inner.items() for found in commands(each, (*words, name))]
