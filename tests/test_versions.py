"""Rollback, canary and override on real servers: two workers, many connections, restarts, files that move."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.client import Ask, CallFailed, Client, InvalidRequest, UnknownName
from arbiter.decision.hashing import share
from arbiter.types import ExplainLevel, Reason
from tests import forked
from tests.conftest import replace, workers_of
from tests.graphs import times, write_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENGINE = Path(__file__).parent.parent / "engine"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ENGINE), "ARBITER_TARGET": "", "OTEL_METRICS_EXPORTER": "console"}
COMMAND = [sys.executable, "-m", "arbiter.cli"]
PATIENCE_S = 30.0  # how long a test waits for what must come
CALLERS = 8  # connections: enough that the kernel gives some to each worker

BASE = """\
actions: {show: {params: {text: string}}}
decisions: {home: {default: {action: show, params: {text: default}}}}
"""
RULE = """\
rules:
  - {id: only, decision: home, priority: 1, when: "true", then: {action: show, params: {text: TEXT}}}
"""


class Served:
    """A running `arbiter serve` with two workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        command = [*COMMAND, "serve", "--listen", "127.0.0.1:0", "--workers", "2", "--snapshots", "5"]
        command += ["--models", str(folder / "models") if (folder / "models").is_dir() else ""]
        for name in ("rules", "data"):
            command += [f"--{name}", str(folder / name)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                command, stdout=subprocess.PIPE, stderr=log, env=ENVIRONMENT, text=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("arbiter ready on "), self.log.read_text()
        self.target = line.removeprefix("arbiter ready on ").partition(",")[0]
        # Connections of their own, so that the kernel gives each to any of the workers.
        alone = (("grpc.use_local_subchannel_pool", 1),)
        self.callers = [Client(self.target, timeout=PATIENCE_S, options=alone) for _ in range(CALLERS)]
        self.client = self.callers[0]

    @property
    def digest(self) -> str:
        running = self.client.snapshot().snapshot
        assert running is not None
        return running.digest

    def shown(self, subject: str = "someone") -> set[str]:
        """What every connection's worker shows."""
        return {str(each.decide(subject, "home").treatments[0].params["text"]) for each in self.callers}

    def edit(self, text: str) -> str:
        """Change the files, have them read, and give the digest that runs then."""
        replace(self.folder / "rules" / "rule.yaml", RULE.replace("TEXT", text))
        status = self.client.reload()
        assert status.last_reload is not None
        assert status.last_reload.ok
        return self.digest

    def cli(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        done = forked.arbiter(*arguments, environment={**ENVIRONMENT, "ARBITER_TARGET": self.target})
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: object) -> Any:
        done = self.cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def stop(self) -> None:
        for each in self.callers:
            each.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], Served]]:
    """Starts a server over the same folder; one that ran before is stopped first."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "base.yaml").write_text(BASE)
    (tmp_path / "rules" / "rule.yaml").write_text(RULE.replace("TEXT", "first"))
    started: list[Served] = []

    def start() -> Served:
        if started:
            started.pop().stop()
        started.append(Served(tmp_path))
        return started[-1]

    yield start
    for served in started:
        served.stop()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def looked_again(served: Served, text: str) -> None:
    """Change the files, and wait until the watcher has had them loaded."""
    before = served.client.snapshot().last_reload
    replace(served.folder / "rules" / "rule.yaml", text)
    wait_until(lambda: served.client.snapshot().last_reload != before)


def soon(seconds: float = 3600) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_a_rollback_is_live_on_every_worker_and_held_against_the_files(serve: Callable[[], Served]) -> None:
    served = serve()
    first, second = served.digest, served.edit("second")
    status = served.client.rollback(first, reason="wrong prices")
    assert status.workers == {0: first, 1: first}
    assert served.shown() == {"first"}
    assert status.hold is not None
    assert (status.hold.digest, status.hold.aside, status.hold.reason) == (first, second, "wrong prices")

    # A comment changes the files, and not what they give; a mistake gives nothing, and mending it the same again.
    text = RULE.replace("TEXT", "second")
    for changed in (f"{text}# a comment", f"{text}rulez: []", text):
        looked_again(served, changed)
        assert served.shown() == {"first"}
        assert served.client.snapshot().hold == status.hold

    replace(served.folder / "rules" / "rule.yaml", RULE.replace("TEXT", "third"))
    wait_until(lambda: served.shown() == {"third"})
    assert served.client.snapshot().hold is None
    assert "rolled back from" in served.log.read_text()


def test_a_rollback_ends_by_a_reload_or_by_going_forward_again(serve: Callable[[], Served]) -> None:
    served = serve()
    first, second = served.digest, served.edit("second")
    served.client.rollback(first)
    status = served.client.reload()
    assert (status.hold, status.workers) == (None, {0: second, 1: second})
    third = served.edit("third")
    served.client.rollback(second)
    held = served.client.rollback(first).hold
    assert held is not None
    assert held.aside == third
    status = served.client.rollback(third)
    assert (status.hold, served.shown()) == (None, {"third"})


def test_a_restart_after_a_rollback_starts_on_what_it_was_rolled_back_to(serve: Callable[[], Served]) -> None:
    served = serve()
    first, second = served.digest, served.edit("second")
    hold = served.client.rollback(first, reason="wrong prices").hold
    turns = served.client.snapshots().turns
    again = serve()
    assert again.shown() == {"first"}
    assert again.client.snapshot().hold == hold
    assert again.client.snapshots().turns == turns
    assert f"starting on {first[:12]}, as it was put in place of {second[:12]}" in again.log.read_text()
    replace(again.folder / "rules" / "rule.yaml", "rules: [")
    broken = serve()
    assert broken.shown() == {"first"}
    assert broken.client.snapshot().hold == hold
    replace(broken.folder / "rules" / "rule.yaml", RULE.replace("TEXT", "third"))
    wait_until(lambda: broken.shown() == {"third"})
    assert broken.client.snapshot().hold is None


def test_no_call_fails_and_none_is_mixed_while_operators_order(serve: Callable[[], Served]) -> None:
    served = serve()
    first, second = served.digest, served.edit("second")
    done = threading.Event()
    seen: set[tuple[str, str]] = set()
    failures: list[Exception] = []

    def call(client: Client, number: int) -> None:
        try:
            while not done.is_set():
                answer = client.decide(f"s{number}", "home")
                seen.add((answer.snapshot, str(answer.treatments[0].params["text"])))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is to show it
            failures.append(error)

    threads = [threading.Thread(target=call, args=each) for each in zip(served.callers[1:4], range(3), strict=True)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        served.client.rollback(first)
        served.client.set_canary(second, 50)
        served.client.override("only", until=soon())
        served.client.promote_canary()
        served.client.clear_override("only")
        served.client.set_canary(first, 50)
        served.client.drop_canary()
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    texts = {(first, "first"), (second, "second")}
    assert seen - {(first, "default"), (second, "default")} == texts


def test_a_killed_worker_comes_back_to_what_was_ordered(serve: Callable[[], Served]) -> None:
    served = serve()
    first = served.digest
    second = served.edit("second")
    served.client.rollback(first)
    served.client.set_canary(second, 50)
    os.kill(workers_of(served.process.pid)[0], signal.SIGKILL)
    with Client(served.target, timeout=PATIENCE_S) as client:
        wait_until(lambda: "ended with exit code -9" in served.log.read_text())
        wait_until(lambda: all(client.snapshot().workers.values()))
    inside = next(f"s{n}" for n in range(100) if share(f"canary:{second}", f"s{n}") < 0.5)
    alone = (("grpc.use_local_subchannel_pool", 1),)
    for _ in range(CALLERS):
        with Client(served.target, timeout=PATIENCE_S, options=alone) as client:
            assert client.decide(inside, "home").snapshot == second


def test_what_was_live_is_listed_with_its_turns_and_bounded(serve: Callable[[], Served]) -> None:
    served = serve()
    digests = [served.digest, *(served.edit(f"n{number}") for number in range(6))]
    served.client.rollback(digests[4], reason="the best so far")
    history = served.client.snapshots()
    assert [each.digest for each in history.kept] == [digests[n] for n in (2, 3, 5, 6, 4)]
    assert [each.digest for each in history.turns] == [digests[n] for n in (2, 3, 4, 5, 6, 4)]
    assert (history.kept[-1].cause, history.kept[-1].reason) == ("rollback", "the best so far")
    assert history.kept[0].counts.rules == 1
    with pytest.raises(UnknownName, match=f"no snapshot {digests[0][:12]} is kept"):
        served.client.rollback(digests[0])
    with pytest.raises(InvalidRequest, match="digest is empty"):
        served.client.rollback("")
    folders = {path.name for path in (served.folder / "data" / "snapshots").iterdir() if len(path.name) == 32}
    assert folders == {each.digest for each in history.kept}


def test_a_damaged_version_is_left_out_of_the_list_and_the_others_stay(serve: Callable[[], Served]) -> None:
    served = serve()
    first, second = served.digest, served.edit("second")
    for damage in (b"{", b'{"digest": "\xff"}'):
        (served.folder / "data" / "snapshots" / first / "meta.json").write_bytes(damage)
        assert [each.digest for each in served.client.snapshots().kept] == [second]
        with pytest.raises(CallFailed):
            served.client.rollback(first)
        assert served.shown() == {"second"}


def test_a_canary_decides_for_its_share_always_for_the_same_subjects(serve: Callable[[], Served]) -> None:
    served = serve()
    base = served.digest
    rule = RULE.replace("TEXT", "candidate").encode()
    staged = served.client.keep({"base.yaml": BASE.encode(), "rule.yaml": rule})
    assert staged.diagnostics == ()
    status = served.client.set_canary(staged.digest, 20, reason="try it")
    assert status.canary is not None
    assert (status.canary.percent, status.canary.reason, status.workers) == (20, "try it", {0: base, 1: base})

    subjects = [f"subject-{number}" for number in range(2000)]

    def inside(caller: Client) -> set[str]:
        answers = [caller.decide_batch(Ask(subject_id=s, decision="home") for s in part).results
                   for part in (subjects[:1000], subjects[1000:])]  # fmt: skip
        found = set()
        for subject, answer in zip(subjects, [each for part in answers for each in part], strict=True):
            assert not isinstance(answer, Exception)
            assert (answer.snapshot == staged.digest) == (answer.treatments[0].params["text"] == "candidate")  # type: ignore[union-attr]
            found |= {subject} if answer.snapshot == staged.digest else set()
        return found

    fifth = inside(served.callers[0])
    # Five standard deviations of a binomial: one run in a million falls outside.
    assert abs(len(fifth) - 400) < 5 * (2000 * 0.2 * 0.8) ** 0.5
    assert all(inside(caller) == fifth for caller in served.callers[1:])
    assert fifth == {s for s in subjects if share(f"canary:{staged.digest}", s) * 100 < 20}
    single = next(iter(fifth))
    assert {caller.decide(single, "home").snapshot for caller in served.callers} == {staged.digest}

    served.client.set_canary(staged.digest, 50)
    half = inside(served.client)
    assert half > fifth
    served.edit("second")
    assert inside(served.client) == half
    assert served.shown(next(s for s in subjects if s not in half)) == {"second"}
    assert served.client.snapshot().canary is not None

    again = serve()
    assert inside(again.client) == half
    status = again.client.promote_canary(staged.digest, reason="it sells")
    assert status.canary is None
    assert status.hold is not None
    assert (status.hold.cause, again.shown()) == ("promotion", {"candidate"})
    assert again.client.snapshots().kept[-1].cause == "promotion"
    (again.folder / "rules" / "rule.yaml").write_bytes(rule)
    wait_until(lambda: again.client.snapshot().hold is None)
    assert again.digest == staged.digest
    again.stop()
    assert '"arbiter.decisions.canary"' in again.log.read_text()


def test_an_override_switches_a_rule_off_at_once_and_ends_by_itself(serve: Callable[[], Served]) -> None:
    served = serve()
    status = served.client.override("only", until=soon(), reason="complaints")
    assert served.shown() == {"default"}
    (override,) = status.overrides
    assert (override.kind, override.name, override.reason) == ("rule", "only", "complaints")
    answer = served.client.decide("someone", "home", explain=ExplainLevel.ALL)
    (outcome,) = answer.explanation
    assert outcome.reason is Reason.OVERRIDDEN
    assert outcome.detail.startswith("switched off until 20")
    assert outcome.detail.endswith("Z: complaints")
    assert answer.valid_until is not None

    served.edit("second")
    assert served.shown() == {"default"}
    again = serve()
    assert again.shown() == {"default"}
    assert again.client.snapshot().overrides == status.overrides
    assert again.client.clear_override("only").overrides == ()
    assert again.shown() == {"second"}

    again.client.override("only", until=soon(1))
    wait_until(lambda: again.shown() == {"second"})
    wait_until(lambda: again.client.snapshot().overrides == ())
    assert "the override of rule `only` is over" in again.log.read_text()


def test_the_command_line_goes_back_and_tells_what_differs(serve: Callable[[], Served]) -> None:
    served = serve()
    first, second = served.digest, served.edit("second")
    data = served.folder / "data"
    listed = served.json("snapshot", "list")
    assert [each["digest"] for each in listed] == [first, second]
    assert served.json("snapshot", "list", "--data", data) == listed

    done = served.cli("snapshot", "diff", "previous", "current", "--data", data)
    assert done.stdout == 'kind\tname\tdifference\tbefore\tafter\nrule\tonly\ttext\t"first"\t"second"\n'
    assert served.cli("snapshot", "diff", first[:6], served.folder / "rules", "--data", data).stdout == done.stdout
    assert served.cli("snapshot", "diff", "current", second[:8], "--data", data).stdout == "no difference\n"
    diff = served.json("snapshot", "diff", "previous", "current", "--data", data)
    assert diff["rules"]["changed"] == [
        {"name": "only", "changes": [{"field": "text", "before": '"first"', "after": '"second"'}]}
    ]

    done = served.cli("snapshot", "rollback", "previous", "--reason", "wrong prices")
    assert done.stdout == f"snapshot {first[:12]} runs; held until the files give another than {second[:12]}\n"
    assert served.shown() == {"first"}
    told = served.cli("snapshot", "show").stdout
    assert "\nheld\tsince " in told
    assert f"by rollback: wrong prices\nset aside\t{second}\n" in told
    assert served.json("snapshot", "reload")["hold"] is None
    assert served.shown() == {"second"}
    none = served.cli("snapshot", "rollback", "zz")
    assert (none.returncode, none.stdout) == (1, "")
    assert "keeps no snapshots whose digest begins with zz" in none.stderr


def test_the_command_line_runs_a_canary_and_overrides(serve: Callable[[], Served]) -> None:
    served = serve()
    other = served.folder / "candidate"
    other.mkdir()
    (other / "all.yaml").write_text(BASE + RULE.replace("TEXT", "candidate"))
    done = served.cli("canary", "start", other, "--percent", "100", "--reason", "try it")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" decides for 100 % of the subjects\n")
    assert served.shown() == {"candidate"}
    assert served.json("canary", "show")["percent"] == 100
    assert "canary's share\t100 % since " in served.cli("canary", "show").stdout
    assert "decides for 0.5 %" in served.cli("canary", "share", "0.5").stdout
    assert served.cli("canary", "promote").returncode == 0
    assert served.shown() == {"candidate"}
    assert served.cli("canary", "show").stdout == "no canary runs\n"
    assert served.cli("canary", "drop").stderr.startswith("error: no canary runs")
    (other / "all.yaml").write_text("rulez: []")
    done = served.cli("canary", "start", other, "--percent", "5")
    assert (done.returncode, done.stdout) == (1, "")
    assert "unknown key `rulez`" in done.stderr

    assert served.cli("override", "off", "only", "--for", "2h", "--reason", "complaints").stdout.startswith(
        "only is off"
    )
    assert served.shown() == {"default"}
    assert served.cli("override", "list").stdout.splitlines()[1].startswith("rule\tonly\t")
    assert re.search(r"only\toverridden\t.*: complaints", served.cli("explain", "someone", "home").stdout)
    assert [each["name"] for each in served.json("override", "list")] == ["only"]
    assert served.cli("override", "clear", "only").stdout == "only is on again\n"
    assert served.cli("override", "list").stdout == "nothing is switched off\n"
    assert "did you mean `only`?" in served.cli("override", "off", "onyl", "--for", "1h").stderr
    for wrong in (("--for", "soon"), (), ("--for", "1h", "--until", "2030-01-01T00:00:00Z")):
        assert served.cli("override", "off", "only", *wrong).returncode == 2


def test_a_model_goes_back_alone_on_every_worker_and_over_restarts(serve: Callable[[], Served], tmp_path: Path) -> None:
    worth = tmp_path / "models" / "worth"
    for version, factor in ((1, 10.0), (2, 100.0)):
        write_model(worth / f"v{version}", "worth", version, times(factor))
    replace(worth / "versions.yaml", "live: v1\n")
    replace(tmp_path / "rules" / "rule.yaml", RULE.replace("TEXT", '"is ${models.worth.score}"'))
    served = serve()
    served.client.update_profile("someone", set={"age": 3.0})
    first = served.shown()
    replace(worth / "versions.yaml", "live: v2\n")
    assert served.client.reload().last_reload is not None
    second = served.shown()
    assert (len(first), len(second)) == (1, 1)
    assert first != second
    done = served.cli("snapshot", "rollback", "--model", "worth", "--reason", "too dear")
    assert done.stdout.startswith("version 1 of model worth runs; held until the files give another than "), done.stderr
    assert served.shown() == first
    assert "model held\tworth: 1 since " in served.cli("snapshot", "show").stdout
    served = serve()
    assert served.shown() == first
    (held,) = served.json("snapshot", "show")["models"]
    assert (held["name"], held["version"], held["reason"]) == ("worth", 1, "too dear")
    again = served.cli("snapshot", "rollback", "--model", "worth", "--version", "2")
    assert again.stdout == "model worth runs as the files give it\n"
    assert served.shown() == second
    for wrong in ((), ("previous", "--model", "worth"), ("previous", "--version", "2")):
        assert served.cli("snapshot", "rollback", *wrong).returncode == 2
