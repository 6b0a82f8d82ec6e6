"""The audit log: what stands in it, what does not, and calls that it could not take."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import threading
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.server.audit import AUDITED, AuditLog
from arbiter.server.auth.roles import NEEDS, RECORDED
from arbiter.server.calls import Call, settled
from arbiter.server.gate import Caller
from arbiter.server.status import AuditFailed
from arbiter.v1 import admin_pb2, profile_pb2
from tests.security.conftest import DECIDE, FOLLOW, LOOK_ON, OVERRIDE, PROFILE, SNAPSHOT, UPDATE

if TYPE_CHECKING:
    from pathlib import Path

    from arbiter.server.calls import Answer
    from tests.security.conftest import Open, Roll

CALLER = Caller("ops", frozenset({"admin"}), "token")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def opened(file: Path, clock: float = 1_800_000_000.25) -> AuditLog:
    return AuditLog(file, lambda subject_id: f"<{len(subject_id)}>", clock=lambda: clock)


def carried_out(_content: bytes, _call: Call) -> Answer:
    return b"done"


def recorded(log: AuditLog, work: Any = carried_out, request: bytes | None = None) -> bytes:
    content = admin_pb2.SetOverrideRequest(rule_id="r", clear=True, reason="x" * 300).SerializeToString()
    call = Call(caller=CALLER, peer=lambda: "ipv4:127.0.0.1:5")
    return settled(log.recorded(OVERRIDE, work)(content if request is None else request, call), call)


def test_the_methods_of_privacy_and_admin_are_recorded() -> None:
    assert {path for path, need in NEEDS.items() if need in {"privacy", "admin"}} | RECORDED == AUDITED
    assert PROFILE in AUDITED
    assert OVERRIDE in AUDITED
    assert DECIDE not in AUDITED


def test_a_line_says_who_did_what_from_where_and_what_came_of_it(serve: Open, roll: Roll, file: Path) -> None:
    token = roll.token("ops", "admin", "privacy", "decide", "write")
    server = serve(tokens=roll.file, audit=file)
    assert [server.call(method, token) for method in (DECIDE, UPDATE, PROFILE, SNAPSHOT)] == ["OK"] * 4
    assert server.call(OVERRIDE, token) == "NOT_FOUND"  # there is nothing to clear
    profile, snapshot, override = lines(file)
    assert (profile["method"], profile["outcome"]) == (PROFILE, "OK")
    assert (profile["caller"], profile["by"], profile["process"]) == ("ops", "token", os.getpid())
    assert profile["peer"].startswith(("ipv4", "ipv6"))
    assert profile["subject"] == server.store.pseudonym("ann")
    assert "ann" not in json.dumps(profile)
    assert (snapshot["method"], snapshot["outcome"]) == (SNAPSHOT, "OK")
    assert override["outcome"] == "NOT_FOUND"
    assert override["request"] == {"rule_id": "named", "clear": True, "reason": "a reason"}
    assert file.stat().st_mode & 0o777 == 0o600


def test_who_follows_is_recorded_when_the_stream_is_opened(serve: Open, roll: Roll, file: Path) -> None:
    token, other = roll.token("sender", "follow"), roll.token("desk", "privacy")
    server = serve(tokens=roll.file, audit=file)
    assert [server.call(FOLLOW, token), server.call(FOLLOW, other)] == ["OK", "PERMISSION_DENIED"]
    opened, denied = lines(file)
    assert (opened["method"], opened["caller"], opened["outcome"]) == (FOLLOW, "sender", "OK")
    assert opened["subject"] == server.store.pseudonym("ann")
    assert (denied["caller"], denied["outcome"]) == ("desk", "PERMISSION_DENIED")


def test_who_looks_on_at_decisions_is_recorded_when_the_stream_is_opened(serve: Open, roll: Roll, file: Path) -> None:
    token, other = roll.token("ops", "admin"), roll.token("desk", "privacy")
    server = serve(tokens=roll.file, audit=file)
    assert [server.call(LOOK_ON, token), server.call(LOOK_ON, other)] == ["OK", "PERMISSION_DENIED"]
    opened, denied = lines(file)
    assert (opened["method"], opened["caller"], opened["request"]) == (LOOK_ON, "ops", {"share": 0.5})
    assert opened["subject"] == server.store.pseudonym("ann")
    assert (denied["caller"], denied["outcome"]) == ("desk", "PERMISSION_DENIED")


def test_a_pseudonym_is_the_same_each_time_and_another_in_another_store(serve: Open, file: Path) -> None:
    one, other = serve(audit=file), serve(audit=file)
    assert [one.call(PROFILE), one.call(PROFILE), other.call(PROFILE)] == ["OK"] * 3
    first, again, elsewhere = (line["subject"] for line in lines(file))
    assert first == again != elsewhere


def test_who_was_refused_is_recorded_too(serve: Open, roll: Roll, file: Path) -> None:
    token = roll.token("robot", "decide")
    server = serve(tokens=roll.file, audit=file)
    assert [server.call(PROFILE, token), server.call(UPDATE, token)] == ["PERMISSION_DENIED"] * 2
    (line,) = lines(file)
    assert (line["method"], line["caller"], line["outcome"]) == (PROFILE, "robot", "PERMISSION_DENIED")


def test_the_line_stands_before_the_answer_goes_out(file: Path) -> None:
    log = opened(file)
    assert recorded(log) == b"done"
    (line,) = lines(file)
    assert (line["time"], line["caller"], line["peer"]) == ("2027-01-15T08:00:00.250000Z", "ops", "ipv4:127.0.0.1:5")
    assert len(line["request"]["reason"]) == 256


def test_files_and_values_are_counted_and_not_copied(file: Path) -> None:
    log = opened(file)
    content = admin_pb2.ValidateRequest(files={"a.yaml": b"rules: []", "b.yaml": b""}, keep=True)
    call = Call(caller=CALLER)
    method = "/arbiter.v1.AdminService/Validate"
    settled(log.recorded(method, carried_out)(content.SerializeToString(), call), call)
    (line,) = lines(file)
    assert line["request"] == {"files": {"count": 2}, "keep": True}


def test_a_consent_is_recorded_with_what_was_said(file: Path) -> None:
    content = profile_pb2.SetConsentRequest(
        subject_id="ann", purpose="ads", state=profile_pb2.CONSENT_STATE_REVOKED, source="form"
    )
    log, method = opened(file), "/arbiter.v1.ProfileService/SetConsent"
    settled(log.recorded(method, carried_out)(content.SerializeToString(), Call()), Call())
    (line,) = lines(file)
    assert line["request"] == {"purpose": "ads", "state": "CONSENT_STATE_REVOKED", "source": "form"}
    assert line["subject"] == "<3>"


def test_an_account_stands_there_by_its_pseudonym_too(file: Path) -> None:
    log = opened(file)
    content = profile_pb2.GetProfileRequest(account_id="acme").SerializeToString()
    settled(log.recorded(PROFILE, carried_out)(content, Call()), Call())
    (line,) = lines(file)
    assert (line["request"], "subject" in line) == ({"account_id": "<4>"}, False)


def test_a_link_names_both_ids_by_their_pseudonyms(file: Path) -> None:
    log = opened(file)
    content = profile_pb2.LinkIdentityRequest(anonymous_id="device", known_id="ann").SerializeToString()
    settled(log.recorded("/arbiter.v1.ProfileService/LinkIdentity", carried_out)(content, Call(caller=CALLER)), Call())
    (line,) = lines(file)
    assert (line["caller"], line["request"]) == ("ops", {"anonymous_id": "<6>", "known_id": "<3>"})


def test_bytes_that_are_no_request_are_recorded_as_such(file: Path) -> None:
    def refused(_content: bytes, _call: Call) -> Answer:
        raise ValueError("malformed")

    log = opened(file)
    with pytest.raises(ValueError, match="malformed"):
        recorded(log, refused, b"\xff\xff\xff")
    (line,) = lines(file)
    assert (line["outcome"], "request" in line) == ("INTERNAL", False)


def test_a_log_that_cannot_be_opened_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(AuditFailed, match="no-such-folder"):
        opened(tmp_path / "no-such-folder" / "audit.jsonl")


def limited_disk(size: int) -> Any:
    """Let files of this process grow to `size` bytes only, as on a disk that is full."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def fill_disk(file: Path, report: Any) -> None:
    """In a process of its own: what becomes of calls when the disk takes no more, and when it does again."""
    log = opened(file)
    done: list[str] = []

    def work(_content: bytes, _call: Call) -> Answer:
        done.append("done")
        return b"answer"

    recorded(log, work)
    limited_disk(file.stat().st_size + 10)
    said = []
    for _ in range(3):
        try:
            recorded(log, work)
        except AuditFailed as error:
            said.append(str(error))
    worked = len(done)
    limited_disk(resource.RLIM_INFINITY)
    answer = recorded(log, work)
    report.send((said, worked, answer))


def test_what_cannot_be_recorded_is_not_answered_and_soon_not_even_begun(file: Path) -> None:
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=fill_disk, args=(file, theirs))
    process.start()
    theirs.close()
    said, worked, answer = mine.recv()
    process.join()
    assert len(said) == 3
    assert all("cannot be written" in text and str(file) in text for text in said)
    # The first call was under way when the disk was found full, the next ones are refused before they begin.
    assert worked == 2
    assert answer == b"answer"
    whole = [line for line in file.read_text("utf-8").splitlines() if line.endswith("}")]
    assert [json.loads(line)["outcome"] for line in whole] == ["OK", "OK"]


def test_a_log_that_was_renamed_away_is_opened_anew(file: Path) -> None:
    log = opened(file)
    recorded(log)
    file.rename(file.with_suffix(".1"))
    recorded(log)
    assert [len(lines(each)) for each in (file.with_suffix(".1"), file)] == [1, 1]


def test_lines_of_many_threads_and_logs_do_not_mix(file: Path) -> None:
    logs = [opened(file) for _ in range(4)]
    threads = [threading.Thread(target=lambda log=log: [recorded(log) for _ in range(25)]) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(file)) == 100
