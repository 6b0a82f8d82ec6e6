"""Real processes on real ports: a supervisor, two workers, callers over gRPC, and everything that happens to them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from arbiter.runtime.address import ListenError, reserve
from arbiter.runtime.archive import Archive
from arbiter.runtime.loader import Loader
from arbiter.v1 import admin_pb2, admin_pb2_grpc, decision_pb2, decision_pb2_grpc, profile_pb2, profile_pb2_grpc
from arbiter.v1.value_pb2 import Value
from tests import forked
from tests.conftest import replace, workers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ENGINE = Path(__file__).parent.parent / "engine"
PATIENCE_S = 30.0  # how long a test waits for what must come; none is expected to

BASE = """\
actions: {show: {params: {left: string, right: string}}}
decisions:
  home: {slots: 1, order: [priority], default: {action: show, params: {left: none, right: none}}}
"""
RULES = """\
segments:
  everyone: "true"
rules:
  - id: all
    decision: home
    priority: 5
    when: segments.everyone
    then: {action: show, params: {left: TEXT, right: TEXT}}
  - id: gold
    decision: home
    priority: 9
    when: profile.tier == "gold"
    then: {action: show, params: {left: gold, right: gold}}
"""


class Served:
    """A running `arbiter serve`."""

    def __init__(
        self, folder: Path, workers: int, program: Sequence[str] = ("-m", "arbiter.cli"), *, wait: bool = True
    ) -> None:
        self.rules = folder / "rules"
        self.log = folder / "log"
        command = [sys.executable, *program, "serve", "--listen", "127.0.0.1:0", "--workers", str(workers)]
        for name in ("rules", "models", "data"):
            command += [f"--{name}", str(folder / name)]
        environment = {**os.environ, "PYTHONPATH": str(ENGINE), "OTEL_METRICS_EXPORTER": "console"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True
            )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline().strip() if wait else ""
        self.address = self.ready.removeprefix("arbiter ready on ").partition(",")[0]
        self._channels: list[grpc.Channel] = []

    def channel(self) -> grpc.Channel:
        """A connection of its own, so that the kernel gives it to any of the workers."""
        channel = grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._channels.append(channel)
        return channel

    def drop_channels(self) -> None:
        while self._channels:
            self._channels.pop().close()

    @property
    def admin(self) -> admin_pb2_grpc.AdminServiceStub:
        return admin_pb2_grpc.AdminServiceStub(self.channel())

    def snapshot(self) -> admin_pb2.GetSnapshotResponse:
        return self.admin.GetSnapshot(admin_pb2.GetSnapshotRequest(), timeout=PATIENCE_S, wait_for_ready=True)

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return workers_of(self.process.pid)

    def edit(self, text: str) -> None:
        replace(self.rules / "rules.yaml", RULES.replace("TEXT", text))

    def break_rules(self) -> None:
        replace(self.rules / "rules.yaml", RULES.replace("priority: 5", "priorty: 5"))

    def stop(self) -> int:
        self.drop_channels()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "rules" / "base.yaml").write_text(BASE)
    (tmp_path / "rules" / "rules.yaml").write_text(RULES.replace("TEXT", "first"))
    return tmp_path


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[[], Served]]:
    started: list[Served] = []

    def start() -> Served:
        started.append(Served(folder, workers=2))
        return started[-1]

    yield start
    for served in started:
        served.stop()


def decide(channel: grpc.Channel, subject: str = "someone") -> tuple[str, str, str]:
    """The two texts that were shown, and the digest of the snapshot that showed them."""
    request = decision_pb2.DecideRequest(subject_id=subject, decision="home")
    answer = decision_pb2_grpc.DecisionServiceStub(channel).Decide(request, timeout=PATIENCE_S, wait_for_ready=True)
    params = answer.treatments[0].params
    return params["left"].string_value, params["right"].string_value, answer.snapshot


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def ended(pid: int) -> bool:
    """Whether a process is gone; one that nobody has waited for yet counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def reload_health(channel: grpc.Channel) -> tuple[int, str]:
    answer, call = health_pb2_grpc.HealthStub(channel).Check.with_call(
        health_pb2.HealthCheckRequest(service="arbiter.reload"), timeout=PATIENCE_S
    )
    error = dict(call.trailing_metadata() or ()).get("arbiter-last-error", "")
    return int(answer.status), str(error)


def test_an_edit_is_live_on_every_worker_and_a_broken_one_changes_nothing(serve: Callable[[], Served]) -> None:
    served = serve()
    digest = served.snapshot().snapshot.digest
    assert served.ready == f"arbiter ready on {served.address}, snapshot {digest[:12]}, 2 workers"
    channels = [served.channel() for _ in range(8)]
    assert {decide(channel) for channel in channels} == {("first", "first", digest)}

    served.edit("second")
    wait_until(lambda: {decide(channel)[0] for channel in channels} == {"second"})
    second = served.snapshot()
    assert second.snapshot.digest != digest
    assert {worker.digest for worker in second.workers} == {second.snapshot.digest}

    served.break_rules()
    wait_until(lambda: not served.snapshot().last_reload.ok)
    told = served.snapshot()
    assert told.snapshot == second.snapshot
    assert told.last_reload.diagnostics[0].file == "rules/rules.yaml"
    assert {decide(channel)[0] for channel in channels} == {"second"}
    for channel in channels:
        status, error = reload_health(channel)
        assert status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert error.startswith("rules/rules.yaml:")
    rejected = f"rejected, nothing changes, snapshot {told.snapshot.digest[:12]} stays\nrules/rules.yaml:"
    assert rejected in served.log.read_text()

    served.edit("mended")
    wait_until(lambda: {decide(channel)[0] for channel in channels} == {"mended"})
    assert served.snapshot().last_reload.ok
    for channel in channels:
        wait_until(lambda channel=channel: reload_health(channel) == (1, ""))  # type: ignore[misc]

    assert served.stop() == 0
    written = served.log.read_text()
    assert '"arbiter.outcome": "failed"' in written  # the metric, which the console exporter writes at the end
    assert "Traceback" not in written


def test_reload_answers_when_every_worker_serves_the_result(serve: Callable[[], Served]) -> None:
    served = serve()
    channels = [served.channel() for _ in range(8)]
    for number in range(5):
        served.edit(f"n{number}")
        answer = served.admin.Reload(admin_pb2.ReloadRequest(), timeout=PATIENCE_S)
        assert answer.last_reload.ok
        assert {worker.digest for worker in answer.workers} == {answer.snapshot.digest}
        assert {decide(channel) for channel in channels} == {(f"n{number}", f"n{number}", answer.snapshot.digest)}
    served.break_rules()
    answer = served.admin.Reload(admin_pb2.ReloadRequest(), timeout=PATIENCE_S)
    assert not answer.changed
    assert not answer.last_reload.ok
    assert {decide(channel)[0] for channel in channels} == {"n4"}
    checked = served.admin.Validate(admin_pb2.ValidateRequest(files={"a.yaml": b"rulez: []"}), timeout=PATIENCE_S)
    assert [each.message for each in checked.diagnostics] == ["unknown key `rulez` in a rule file"]
    assert served.snapshot().snapshot == answer.snapshot


def test_no_call_fails_and_none_is_mixed_while_snapshots_change(serve: Callable[[], Served]) -> None:
    served = serve()
    channels = [served.channel() for _ in range(3)]
    done = threading.Event()
    answers: list[tuple[str, str, str]] = []
    failures: list[Exception] = []

    def call(channel: grpc.Channel) -> None:
        try:
            while not done.is_set():
                answers.append(decide(channel))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is to show it
            failures.append(error)

    threads = [threading.Thread(target=call, args=(channel,)) for channel in channels]
    for thread in threads:
        thread.start()
    expected = {}
    for number in range(8):
        served.edit(f"n{number}")
        answer = served.admin.Reload(admin_pb2.ReloadRequest(), timeout=PATIENCE_S)
        expected[answer.snapshot.digest] = f"n{number}"
        before = len(answers)
        wait_until(lambda before=before: len(answers) > before + 20 or bool(failures))  # type: ignore[misc]
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    seen = set(answers)
    assert {digest for _, _, digest in seen} >= set(expected)
    assert all(left == right == expected.get(digest, "first") for left, right, digest in seen)


def test_a_decision_after_an_acknowledged_update_sees_it_on_any_worker(serve: Callable[[], Served]) -> None:
    served = serve()
    writer = profile_pb2_grpc.ProfileServiceStub(served.channel())
    channels = [served.channel() for _ in range(12)]
    for number in range(10):
        for tier, text in (("gold", "gold"), ("none", "first")):
            request = profile_pb2.UpdateProfileRequest(subject_id=f"s{number}", set={"tier": Value(string_value=tier)})
            writer.UpdateProfile(request, timeout=PATIENCE_S, wait_for_ready=True)
            assert {decide(channel, f"s{number}")[0] for channel in channels} == {text}


def test_a_killed_worker_is_replaced_and_the_new_one_serves_what_is_current(serve: Callable[[], Served]) -> None:
    served = serve()
    served.edit("second")
    wait_until(lambda: decide(served.channel())[0] == "second")
    victim, survivor = served.workers()
    os.kill(victim, signal.SIGKILL)
    served.drop_channels()
    wait_until(lambda: len(set(served.workers()) - {victim, survivor}) == 1)
    wait_until(lambda: all(worker.digest for worker in served.snapshot().workers))
    served.drop_channels()
    assert {decide(served.channel())[0] for _ in range(12)} == {"second"}
    assert "ended with exit code -9" in served.log.read_text()


def test_a_start_on_broken_files_serves_the_last_good_snapshot(serve: Callable[[], Served]) -> None:
    served = serve()
    served.edit("second")
    wait_until(lambda: decide(served.channel())[0] == "second")
    digest = served.snapshot().snapshot.digest
    assert served.stop() == 0
    served.break_rules()
    again = serve()
    assert decide(again.channel()) == ("second", "second", digest)
    assert not again.snapshot().last_reload.ok
    assert f"starting on the last good snapshot, {digest[:12]}" in again.log.read_text()
    again.edit("mended")
    wait_until(lambda: decide(again.channel())[0] == "mended")


def test_a_first_start_on_broken_files_reports_them_all_and_fails(serve: Callable[[], Served], folder: Path) -> None:
    (folder / "rules" / "rules.yaml").write_text("rules: [")
    (folder / "rules" / "base.yaml").write_text("rulez: []")
    served = serve()
    assert served.ready == ""
    assert served.stop() == 1
    written = served.log.read_text()
    assert "rules/rules.yaml:1:9" in written
    assert "rules/base.yaml:1:1" in written


def test_a_first_start_on_a_full_disk_says_so_and_blames_no_file(serve: Callable[[], Served], folder: Path) -> None:
    # As if the disk were full when the first part of the snapshot is written.
    built = Loader(folder / "rules", folder / "models", None).load().built
    assert built is not None
    parts = folder / "data" / "snapshots" / "parts"
    parts.mkdir(parents=True)
    full = parts / f".{next(iter(built.snapshot.parts))}"
    full.symlink_to("/dev/full")
    served = serve()
    assert served.ready == ""
    assert served.stop() == 1
    written = served.log.read_text()
    assert "the disk of the data directory is full" in written
    assert "mistake" not in written
    full.unlink()
    assert "arbiter ready" in serve().ready


def test_workers_end_with_their_supervisor(serve: Callable[[], Served]) -> None:
    served = serve()
    workers = served.workers()
    assert len(workers) == 2
    served.process.kill()
    served.process.wait()
    wait_until(lambda: all(ended(pid) for pid in workers))


def test_a_second_supervisor_on_the_same_data_is_refused(serve: Callable[[], Served]) -> None:
    served = serve()
    second = serve()
    assert second.ready == ""
    assert second.stop() == 1
    assert "is in use by another `arbiter serve`" in second.log.read_text()
    with contextlib.closing(served.channel()) as channel:
        assert decide(channel)[0] == "first"


def test_workers_that_cannot_start_are_given_up(serve: Callable[[], Served], folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "store").write_text("not a folder")
    served = serve()
    assert served.ready == ""
    assert served.stop() == 1
    written = served.log.read_text()
    assert "died 3 times before it served" in written
    assert "StoreError" in written


def test_a_port_that_is_taken_is_refused_and_not_shared(serve: Callable[[], Served], folder: Path) -> None:
    served = serve()
    command = [
        sys.executable,
        "-m",
        "arbiter.cli",
        "serve",
        "--listen",
        served.address,
        "--data",
        str(folder / "data2"),
    ]
    command += ["--rules", str(folder / "rules"), "--models", str(folder / "models")]
    second = subprocess.run(  # noqa: S603 - our own program
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ENGINE)}
    )
    assert second.returncode == 1
    assert second.stdout == ""
    assert f"cannot listen on {served.address}" in second.stderr


def test_a_pipe_among_the_rules_is_refused_and_files_go_on_being_followed(serve: Callable[[], Served]) -> None:
    served = serve()
    pipe = served.rules / "pipe.yaml"
    os.mkfifo(pipe)
    wait_until(lambda: not served.snapshot().last_reload.ok)
    (found,) = served.snapshot().last_reload.diagnostics
    assert (found.file, found.message) == ("rules/pipe.yaml", "is no regular file")
    pipe.unlink()
    served.edit("second")
    wait_until(lambda: decide(served.channel())[0] == "second")
    assert served.stop() == 0


# Stands for a network file system that answers no more once a file `hang` is there, and for the first process of a
# container, which gets no signal that it has no handler for.
HANGING = """\
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
walk, hang = os.walk, Path(sys.argv.pop(1))
def walk_or_hang(*given, **named):
    while hang.exists():
        hang.with_name("hangs").touch()
        time.sleep(1)
    return walk(*given, **named)
os.walk = walk_or_hang
from arbiter.cli.app import main
main()
"""


@pytest.mark.parametrize("before", [True, False])
def test_it_ends_though_reading_the_files_hangs(folder: Path, before: bool) -> None:  # noqa: FBT001
    hang = folder / "hang"
    if before:
        hang.touch()
    served = Served(folder, 1, ["-c", HANGING, str(hang)], wait=not before)
    hang.touch()
    wait_until((folder / "hangs").exists)
    assert served.stop() == 0
    assert "Traceback" not in served.log.read_text()


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(ListenError, match="a port is at most 65535"):
        reserve("127.0.0.1:99999")


def test_a_snapshot_that_went_from_disk_is_written_again_for_a_worker_that_starts(
    serve: Callable[[], Served], folder: Path
) -> None:
    served = serve()
    digest = served.snapshot().snapshot.digest
    served.break_rules()
    wait_until(lambda: not served.snapshot().last_reload.ok)
    snapshots = folder / "data" / "snapshots"
    shutil.rmtree(snapshots)
    snapshots.touch()  # so that it cannot be written again yet
    killed = served.workers()[0]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: ended(killed))
    served.drop_channels()
    wait_until(lambda: {worker.digest for worker in served.snapshot().workers} == {"", digest})
    shown = forked.arbiter("snapshot", "show", "--target", served.address)
    assert re.search(r"^worker [01]\tdown$", shown.stdout, re.MULTILINE)
    snapshots.unlink()
    wait_until(lambda: [worker.digest for worker in served.snapshot().workers] == [digest, digest])
    (kept,) = Archive(snapshots).history()
    assert (kept.digest, kept.at) == (digest, served.snapshot().snapshot.loaded_at.ToMicroseconds())
    (snapshots / "history.json").write_text("[")
    listed = forked.arbiter("snapshot", "list", "--data", str(folder / "data"))
    assert (listed.returncode, digest[:12] in listed.stdout) == (0, True)
    assert listed.stderr.startswith("the history of snapshots cannot be read, the folders' own times are taken: ")
