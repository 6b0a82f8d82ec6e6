"""`arbiter token new`, and what CI asks of dependencies."""

from __future__ import annotations

import re
import stat
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from arbiter.cli.token import Role
from arbiter.server.auth.callers import read_callers
from arbiter.server.auth.roles import ROLES
from tests import forked

if TYPE_CHECKING:
    import subprocess

ROOT = Path(__file__).resolve().parents[2]
TOKEN = re.compile(r"arb_[A-Za-z0-9_-]{43}")


def new(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.arbiter("token", "new", *arguments, cwd=folder)


def test_a_token_is_printed_once_and_stored_hashed(tmp_path: Path) -> None:
    done = new(tmp_path, "--name", "checkout", "--role", "write", "--role", "decide", "--file", "callers.yaml")
    token = done.stdout.strip()
    assert (done.returncode, done.stderr) == (0, "")
    assert TOKEN.fullmatch(token)
    file = tmp_path / "callers.yaml"
    content = file.read_bytes()
    assert token.encode() not in content
    known = read_callers(file, content).tokens[sha256(token.encode()).digest()]
    assert (known.caller.name, sorted(known.caller.roles)) == ("checkout", ["decide", "write"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = new(tmp_path, "--name", "checkout", "--role", "decide", "--days", "30", "--file", "callers.yaml")
    assert again.stdout.strip() != token
    assert len(read_callers(file, file.read_bytes()).tokens) == 2
    assert [each.name for each in tmp_path.iterdir()] == ["callers.yaml"]


def test_a_token_may_have_any_role_that_a_server_knows(tmp_path: Path) -> None:
    assert {role.value for role in Role} == set(ROLES)
    roles = [word for role in ROLES for word in ("--role", role)]
    assert new(tmp_path, "--name", "all", *roles, "--file", "callers.yaml").returncode == 0
    (known,) = read_callers(tmp_path / "callers.yaml", (tmp_path / "callers.yaml").read_bytes()).tokens.values()
    assert set(known.caller.roles) == set(ROLES)


def test_without_a_file_the_entry_is_printed_beside_the_token(tmp_path: Path) -> None:
    done = new(tmp_path, "--name", "checkout", "--role", "decide")
    digest = sha256(done.stdout.strip().encode()).digest()
    assert digest in read_callers(tmp_path / "callers.yaml", done.stderr.encode()).tokens


def test_a_file_that_is_no_list_of_callers_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "callers.yaml"
    file.write_text("rules: []\n", "utf-8")
    done = new(tmp_path, "--name", "checkout", "--role", "decide", "--file", "callers.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert "was left as it is" in done.stderr
    assert file.read_text("utf-8") == "rules: []\n"


def test_a_name_that_no_caller_can_have_is_refused(tmp_path: Path) -> None:
    done = new(tmp_path, "--name", "check out", "--role", "decide")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be the name of a caller" in done.stderr
