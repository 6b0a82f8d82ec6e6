"""`arbiter bench` beside a real server: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from arbiter.client import Client
from arbiter.config.options import Auth
from arbiter.runtime.local import open_local
from arbiter.runtime.settings import Backing
from arbiter.server.app import Server
from arbiter.server.settings import FaceSettings
from arbiter.telemetry.counters import Counters
from tests import forked
from tests.security.conftest import Authority, Guarded, Roll

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
RULES = """
decisions:
  shop.banner:
    slots: 1
    order: [priority]
    default: {action: show, params: {banner: bestsellers}}
rules:
  - id: phone
    decision: shop.banner
    priority: 70
    when: context.device == "ios"
    then: {action: show, params: {banner: app}}
"""
SHORT = ("--seconds", "0.2", "--warmup", "0")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("bench")
    (home / "rules").mkdir()
    (home / "rules" / "shop.yaml").write_text(RULES, "utf-8")
    counters = Counters()
    engine, admin = open_local(home / "rules", None, home / "data", counters=counters)
    server = Server(Backing(engine, admin, counters), "127.0.0.1:0")
    yield f"127.0.0.1:{server.port}"
    server.stop(1)
    engine.store.close()


def bench(*arguments: object, target: str = "") -> subprocess.CompletedProcess[str]:
    done = forked.arbiter("bench", *arguments, environment={**os.environ, "ARBITER_TARGET": target})
    assert "Traceback" not in done.stderr
    return done


def test_a_closed_loop_is_told_as_a_table(target: str) -> None:
    done = bench("shop.banner", *SHORT, "--streams", 4, "--context", '{"device": "ios"}', target=target)
    assert done.returncode == 0, done.stderr
    rows = dict(line.split("\t") for line in done.stdout.splitlines())
    assert rows["what"] == "measured"
    assert rows["load"] == "4 callers, 1 connection, 0.2 s"
    assert int(rows["OK a second"].replace(",", "")) > 0
    assert rows["OK a second"] == rows["answers a second"]
    assert re.fullmatch(r"[\d,]+ µs", rows["p99.9 of OK"])


def test_an_open_loop_is_told_as_json(target: str) -> None:
    done = bench("shop.banner", *SHORT, "--rate", 200, "--json", "--timeout", 5, target=target)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["target"] == target
    assert told["method"] == "decide"
    assert set(told["statuses"]) == {"OK"}
    assert 0 < told["latency_us"]["p50"] <= told["latency_us"]["p99"] <= told["latency_us"]["max"]
    assert told["unsent"] == told["unanswered"] == 0


def test_batches_tell_their_decisions(target: str) -> None:
    done = bench("shop.banner", *SHORT, "--method", "batch", "--batch", 7, "--json", target=target)
    told = json.loads(done.stdout)
    assert told["decisions_per_second"] == pytest.approx(7 * told["goodput"], rel=0.01)


def test_updates_reach_the_subjects_of_a_file(target: str, tmp_path: Path) -> None:
    subjects = tmp_path / "subjects.txt"
    subjects.write_text("ann\n\nbob\n", "utf-8")
    done = bench("--method", "update", "--set", "visits=3", "--subjects", subjects, *SHORT, target=target)
    assert done.returncode == 0, done.stderr
    with Client(target) as client:
        assert client.get_profile("ann").attributes == client.get_profile("bob").attributes == {"visits": 3}
        assert client.get_profile("customer-0").attributes == {}


def test_calls_that_fail_are_counted_and_end_it_with_1(target: str) -> None:
    done = bench("shop.nothing", *SHORT, "--json", target=target)
    assert done.returncode == 1
    assert set(json.loads(done.stdout)["statuses"]) == {"NOT_FOUND"}


def test_a_guarded_server_is_reached_as_clients_reach_it(tmp_path: Path) -> None:
    authority, roll, token = Authority(tmp_path), Roll(tmp_path / "callers.yaml"), tmp_path / "token"
    token.write_text(roll.token("load", "decide"), "utf-8")
    tls = msgspec.structs.replace(authority.install("localhost"), client_ca=str(authority.file))
    guarded = Guarded(tmp_path / "server", FaceSettings(tls=tls, auth=Auth(tokens=str(roll.file))))
    try:
        check_ways_in(f"localhost:{guarded.server.port}", authority, token, tmp_path)
    finally:
        guarded.close()


def check_ways_in(target: str, authority: Authority, token: Path, tmp_path: Path) -> None:
    for name, pem in zip(("certificate", "key"), authority.issue("generator"), strict=True):
        (tmp_path / name).write_bytes(pem)
    way = [f"--{name}={tmp_path / name}" for name in ("certificate", "key")]
    trust = f"--ca={authority.file}"
    done = bench("home", *SHORT, "--json", trust, *way, "--token-file", token, target=target)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["statuses"]) == {"OK"}
    # Each of the three is needed.
    done = bench("home", *SHORT, "--json", trust, *way, target=target)
    assert (done.returncode, set(json.loads(done.stdout)["statuses"])) == (1, {"UNAUTHENTICATED"})
    for missing in ([trust, "--token-file", token], [*way, "--token-file", token], ["--token-file", token]):
        done = bench("home", *SHORT, "--json", *missing, target=target)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: no server answers at {target}: ")


def test_a_token_goes_to_another_machine_in_the_open_only_when_that_is_said(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cr3t", "utf-8")
    away = ["home", *SHORT, "--target", "192.0.2.1:1", "--remote", "--token-file", token]
    done = bench(*away)
    assert done.returncode == 2
    assert "the token would go to 192.0.2.1:1 in the open" in " ".join(re.sub("[│]", "", done.stderr).split())


def test_nobody_there_is_said() -> None:
    done = bench("shop.banner", *SHORT, target="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: no server answers at 127.0.0.1:1: Connection refused: start one with `arbiter serve`, or name another "
        "with --target HOST:PORT; say --tls or --ca FILE if it speaks TLS\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shop.banner", "--target", "10.1.2.3:50051"], "'10.1.2.3:50051' is not this machine"),
        (["shop.banner", "--target", "nowhere"], "'nowhere' is no target: write HOST:PORT"),
        (
            ["shop.banner", "--target", "10.1.2.3:1", "--remote", "--token-file", __file__],
            "the token is empty or holds what no token can",
        ),
        (
            ["shop.banner", "--certificate", __file__],
            "tls has no 'key': a client's certificate and its key go together",
        ),
        (["shop.banner", "--ca", __file__], "holds no root certificates (PEM): no certificate or crl found"),
        (["shop.banner", "--tls", "--target", "unix:/tmp/none"], "servers speak no TLS on those: ask without it"),
        (["shop.banner", "--token-file", __file__], "the token is empty or holds what no token can"),
        ([], "say which decision point is asked"),
        (["shop.banner", "--method", "update", "--set", "a=1"], "an update asks no decision point"),
        (["--method", "update"], "say what is set, as in --set visits=1"),
        (["shop.banner", "--set", "a=1"], "only '--method update' sets attributes"),
        (["shop.banner", "--streams", "2", "--connections", "3"], "2 streams cannot keep 3 connections busy"),
        (["shop.banner", "--seconds", "6000"], "Input should be less than or equal to 600"),
        (["shop.banner", "--subjects", os.devnull], "names nobody: write one subject a line"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_sent(arguments: list[str], said: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert said.replace("'", "") in " ".join(re.sub("[`'│]", "", done.stderr).split())
