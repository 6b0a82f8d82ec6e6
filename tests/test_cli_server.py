"""The command line beside a server: `serve` in a process of its own, and the commands that ask it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from arbiter.client import Client
from tests import forked
from tests.conftest import replace

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "engine"), "ARBITER_TARGET": ""}
COMMAND = [sys.executable, "-m", "arbiter.cli"]


class Server:
    """`arbiter serve` with one worker, over a copy of the example rules."""

    def __init__(self, place: Path) -> None:
        self.rules = Path(shutil.copytree(ROOT / "rules", place / "rules"))
        self.data = place / "data"
        config = place / "arbiter.yaml"
        config.write_text(f"rules: rules\nmodels: {ROOT / 'models'}\ndata: data\nlog_level: warning\n")
        self.process = subprocess.Popen(  # noqa: S603 - the command is ours
            [*COMMAND, "serve", "--config", str(config), "--listen", "127.0.0.1:0", "--workers", "1"],
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"arbiter ready on (\S+), snapshot [0-9a-f]{12}, 1 worker\n", line)
        assert found, line
        self.target = found[1]

    def ask(self, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in a pipe; it finds the server by the environment."""
        done = forked.arbiter(*arguments, environment={**ENVIRONMENT, "ARBITER_TARGET": self.target}, stdin=stdin)
        assert "Traceback" not in done.stderr
        return done

    def stop(self) -> int:
        """End it as an operator would."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("server"))
    yield started
    assert started.stop() == 0


def days_ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


def test_attributes_are_set_typed_and_read_back(server: Server) -> None:
    done = server.ask(
        "profile", "set", "ann", "first_name=Ann", "age=41", "score=2.5", "vip=true", "tags=[1, 2]",
        "seen=2026-11-20T19:30:00+01:00", "born=1985-02-03",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ann: 7 attributes set, version 1\n")
    known = json.loads(server.ask("profile", "get", "ann", "--json").stdout)
    assert known["attributes"] == {
        "first_name": "Ann",
        "age": 41,
        "score": 2.5,
        "vip": True,
        "tags": [1, 2],
        "seen": "2026-11-20T18:30:00Z",
        "born": "1985-02-03",
    }
    assert known["segments"]["newcomer"] is True
    assert known["segments"]["champions"] is None
    listed = server.ask("profile", "get", "ann").stdout.splitlines()
    assert 'attribute\tprofile.first_name\t"Ann"' in listed
    assert "attribute\tprofile.seen\t2026-11-20T18:30:00Z" in listed
    assert "segment\tsegments.champions\tunknown" in listed


def test_every_verb_can_be_written_and_the_history_told(server: Server) -> None:
    assert server.ask("profile", "set", "hal", "n=1", "tags=[1, 2, 1]").returncode == 0
    done = server.ask(
        "profile", "set", "hal", "code=X1", "--ttl", "code=30m", "--increment", "n=2", "--remove", "tags=1",
        "--append", "seen=a", "--keep", "seen=5", "--add-to-set", "set=1", "--min", "low=4", "--max", "high=4.5",
        "--idempotency-key", "once",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "hal: 1 attribute set, 6 attributes changed, version 2\n")
    known = json.loads(server.ask("profile", "get", "hal", "--history", "--json").stdout)
    assert known["attributes"] == {
        "n": 3, "tags": [2], "code": "X1", "seen": ["a"], "set": [1], "low": 4, "high": 4.5,
    }  # fmt: skip
    assert list(known["expires"]) == ["code"]
    assert [each["version"] for each in known["history"]] == [2, 1]
    listed = server.ask("profile", "get", "hal", "--history").stdout.splitlines()
    assert any(re.fullmatch(r'attribute\tprofile\.code\t"X1" until 2\S+Z', line) for line in listed)
    assert "version\twhen\tby\tattribute\twas\tbecame" in listed
    assert any(re.fullmatch(r"2\t2\S+Z\t\tn\t1\t3", line) for line in listed)
    assert any(re.fullmatch(r'2\t2\S+Z\t\tcode\t\t"X1" until 2\S+Z', line) for line in listed)


@pytest.mark.parametrize("written", ["code", "code=soon", "=30m", "code=0s", "code=1h30m"])
def test_a_time_to_live_that_is_none_is_a_usage_error(server: Server, written: str) -> None:
    done = server.ask("profile", "set", "hal", "code=X1", "--ttl", written)
    assert done.returncode == 2
    assert "no time to live" in done.stderr


def test_what_a_subject_consents_to_is_recorded_and_shown(server: Server) -> None:
    done = server.ask("profile", "consent", "cas", "--grant", "ads", "--deny", "mail", "--source", "form", "--json")
    assert [(each["current"]["state"], each["recorded"]) for each in json.loads(done.stdout)] == [
        ("granted", True),
        ("denied", True),
    ]
    said = server.ask(
        "profile", "consent", "cas", "--revoke", "ads", "--source", "call", "--at", "2031-01-01T00:00:00Z"
    )
    assert (said.returncode, "ahead of the server's clock" in said.stderr) == (1, True)
    said = server.ask("profile", "consent", "cas", "--revoke", "ads", "--source", "call")
    assert said.stdout.splitlines()[-1] == "the rules that run declare no purpose `ads`"
    told = server.ask("profile", "consent", "cas").stdout.splitlines()
    assert [line.split("\t")[:2] for line in told if "\t" in line][1:] == [
        ["ads", "revoked"], ["ads", "granted"], ["mail", "denied"],
    ]  # fmt: skip
    assert "consent\tads\trevoked" in server.ask("profile", "get", "cas").stdout.splitlines()
    wrong = server.ask("profile", "consent", "cas", "--grant", "ads")
    assert (wrong.returncode, "Give --source" in wrong.stderr) == (2, True)


def test_an_attribute_of_another_type_than_declared_is_refused(server: Server) -> None:
    done = server.ask("profile", "set", "gil", "country=7")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: INVALID_ARGUMENT: ")
    assert "country" in done.stderr


def test_an_attribute_is_removed_and_a_stale_version_refused(server: Server) -> None:
    assert json.loads(server.ask("profile", "set", "ben", "country=CA", "--json").stdout)["version"] == 1
    done = server.ask("profile", "set", "ben", "--unset", "country", "--expected-version", 7)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ABORTED: ")
    done = server.ask("profile", "set", "ben", "--unset", "country", "--expected-version", 1)
    assert done.stdout == "ben: 1 attribute unset, version 2\n"
    assert json.loads(server.ask("profile", "get", "ben", "--json").stdout)["attributes"] == {}


def test_an_account_is_set_and_read_by_its_id(server: Server) -> None:
    done = server.ask("profile", "set", "acme", "seats=5", "--account")
    assert (done.returncode, done.stdout) == (0, "acme: 1 attribute set, version 1\n")
    assert "attribute\taccount.seats\t5" in server.ask("profile", "get", "acme", "--account").stdout.splitlines()
    assert json.loads(server.ask("profile", "get", "acme", "--json").stdout)["exists"] is False


def test_an_anonymous_id_is_linked_once(server: Server) -> None:
    server.ask("profile", "set", "device-1", "country=CA")
    done = server.ask("profile", "link", "device-1", "linked")
    assert (done.returncode, done.stdout) == (0, "device-1 stands for linked: 0 events moved, version 2\n")
    again = json.loads(server.ask("profile", "link", "device-1", "linked", "--json").stdout)
    assert (again["known_id"], again["linked"], again["version"]) == ("linked", False, 2)
    done = server.ask("profile", "link", "device-1", "ivy")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: FAILED_PRECONDITION: ")


def test_a_number_too_large_for_the_call_is_a_sentence(server: Server) -> None:
    done = server.ask("decide", "ann", "store.home_banner", "--slots", "99999999999999")
    assert done.returncode == 1
    assert done.stderr.startswith("error: INVALID_ARGUMENT: slots is 99999999999999: the range is 0 to ")
    done = server.ask("profile", "set", "ann", "age=1", "--expected-version", "99999999999999999999")
    assert done.returncode == 1
    assert done.stderr.startswith("error: INVALID_ARGUMENT: expected_version is 99999999999999999999: ")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (("country",), "`country` is no assignment: write name=value"),
        (("country=null",), "an absent value is said by --unset country"),
        (("visits=9223372036854775808",), "an integer must fit 64 bits"),
        (("country=CA", "country=US"), "`country=US`: country is given twice"),
        ((), "nothing to change: give name=value, --unset NAME, or --enter SEGMENT"),
    ],
)
def test_what_is_no_assignment_is_wrong_usage(server: Server, written: tuple[str, ...], said: str) -> None:
    done = server.ask("profile", "set", "ann", *written)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_events_are_imported_once(server: Server, tmp_path: Path) -> None:
    purchase = {
        "type": "purchase",
        "subject_id": "cleo",
        "at": days_ago(3),
        "properties": {"quantity": 1, "amount": 9.5},
    }
    lines = [purchase, purchase, purchase | {"id": "order-7", "at": days_ago(1)}]
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert server.ask("events", "import", file).stdout == "3 events stored\n"
    again = server.ask("events", "import", file, "--batch", 2)
    assert again.stdout == "0 events stored, 3 were there already and were dropped\n"
    features = json.loads(server.ask("profile", "get", "cleo", "--json").stdout)["features"]
    assert features["orders"] == 3
    server.ask("profile", "delete", "cleo", "--yes")
    erased = server.ask("events", "import", file)
    assert erased.stdout == "0 events stored, 3 of erased subjects were dropped\n"


def test_a_file_with_a_mistake_is_not_sent_at_all(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    good = {"type": "purchase", "subject_id": "dora", "at": days_ago(3)}
    typo, no_zone = good | {"typ": 1}, good | {"at": "2026-01-01T00:00:00"}
    file.write_text("\n".join([json.dumps(good), "{", json.dumps(typo), json.dumps(no_zone)]))
    done = server.ask("events", "import", file)
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[0] == "error: these lines are no events, and nothing was sent:"
    assert [line.partition(": ")[0] for line in said[1:]] == [f"{file}:{number}" for number in (2, 3, 4)]
    assert "unknown field `typ`" in said[2]
    assert "`at` names no zone: write 2026-01-01T00:00:00Z for UTC" in said[3]
    assert json.loads(server.ask("profile", "get", "dora", "--json").stdout)["exists"] is False


def test_an_event_that_the_server_refuses_is_named_by_its_line(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    good = {"type": "purchase", "subject_id": "elsa", "at": days_ago(3), "properties": {"quantity": 1, "amount": 9.5}}
    bad = good | {"properties": {"quantity": "one", "amount": 9.5}}
    file.write_text("\n".join(["", *[json.dumps(good)] * 3, json.dumps(bad), json.dumps(good)]))
    done = server.ask("events", "import", file, "--batch", 2)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {file}:5: properties.quantity is ")
    assert done.stderr.endswith("; the events of the lines before 4 are stored, no other: mend it and import again\n")
    assert json.loads(server.ask("profile", "get", "elsa", "--json").stdout)["features"]["orders"] == 2
    file.write_text(json.dumps(good | {"type": "No Name"}))
    done = server.ask("events", "import", file)
    assert done.stderr.startswith(f"error: {file}:1: `No Name` is no name")
    assert "; nothing was stored: " in done.stderr


def test_events_come_from_standard_input(server: Server) -> None:
    line = json.dumps({"type": "purchase", "subject_id": "flo", "at": days_ago(3)})
    assert server.ask("events", "import", "-", stdin=f"{line}\n{line}\n").stdout == "2 events stored\n"
    assert "\n<stdin>:2: " in server.ask("events", "import", "-", stdin=f"{line}\n{{\n").stderr


def test_the_purchase_record_is_imported_from_its_own_format(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "record.txt"
    file.write_text("_id date quantity amount\n09001 1997-09-20 2 30.00\n09001 1997-09-20 2 30.00\n")
    done = server.ask("events", "import", file, "--format", "cdnow", "--shift-to", "now", "--json")
    assert {"events": 2, "accepted": 2, "duplicates": 0}.items() <= json.loads(done.stdout).items()
    features = json.loads(server.ask("profile", "get", "09001", "--json").stdout)["features"]
    assert (features["orders_90d"], features["pieces"]) == (2, 4)


def test_a_server_decides_and_explains(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    bought = {
        "type": "purchase",
        "subject_id": "emil",
        "at": days_ago(3),
        "properties": {"quantity": 1, "amount": 60.0},
    }
    file.write_text(json.dumps(bought))
    assert server.ask("events", "import", file).returncode == 0
    banner, step = json.loads(
        server.ask("decide", "emil", "store.home_banner", "onboarding.next_step", "--json").stdout
    )
    assert step["treatments"][0]["rule_id"] == "onboarding-thank-a-big-start"
    assert banner["snapshot"] == step["snapshot"]
    assert banner["decision_id"]
    asked = ("explain", "emil", "onboarding.next_step", "--json")
    rows = {each["rule_id"]: each for each in json.loads(server.ask(*asked).stdout)["explanation"]}
    assert rows["onboarding-rate-it"]["outcome"] == "lost"
    assert rows["onboarding-rate-it"]["lost_to"] == "onboarding-thank-a-big-start"
    assert rows["onboarding-rate-it"]["lost_on"] == "specificity"
    later = (datetime.now(UTC) + timedelta(days=40)).isoformat()
    then = json.loads(server.ask(*asked, "--at", later, "--level", "winners").stdout)
    assert [each["rule_id"] for each in then["explanation"]] == ["onboarding-come-back"]
    refused = server.ask("explain", "emil", "onboarding.next_step", "--rule", "nothing")
    assert refused.returncode == 1
    assert "has no rule `nothing`" in refused.stderr
    refused = server.ask("decide", "emil", "store.home_baner")
    assert refused.returncode == 1
    assert "did you mean `store.home_banner`?" in refused.stderr


def test_decisions_are_told_as_they_are_made(server: Server) -> None:
    told = threading.Event()

    def decide() -> None:
        with Client(server.target) as client:
            while not told.wait(0.02):
                client.decide("nobody", "onboarding.next_step")

    deciding = threading.Thread(target=decide)
    deciding.start()
    try:
        words = ("watch", "--decision", "onboarding.next_step", "--explain", "winners")
        lines = server.ask(*words, "--count", 2, "--most", 100).stdout.splitlines()
        at_a_terminal = {**ENVIRONMENT, "ARBITER_TARGET": server.target, "FORCE_COLOR": "1"}
        shown = forked.arbiter(*words, "--count", 1, environment=at_a_terminal).stdout
    finally:
        told.set()
        deciding.join()
    first, second = map(json.loads, lines)
    assert first["decision"] == second["decision"] == "onboarding.next_step"
    assert first["id"] != second["id"]
    (given,) = [each["rule_id"] for each in first["treatments"]]
    assert [each["rule_id"] for each in first["explanation"]] == [given]
    head, why = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert re.fullmatch(rf"\S+ onboarding\.next_step [0-9a-f-]+: {given}", head)
    assert why.strip().startswith(f"{given} won")


def test_what_became_of_a_decision_is_told_by_hand(server: Server) -> None:
    (answer,) = json.loads(server.ask("decide", "flora", "store.home_banner", "--json").stdout)
    given = answer["decision_id"]
    assert json.loads(server.ask("outcomes", "shown", given, "--json").stdout) == {"result": "accepted"}
    bought = ("outcomes", "record", given, "purchase", "--value", "9.5", "--idempotency-key", "7", "--at", days_ago(0))
    assert server.ask(*bought).stdout == "recorded\n"
    assert server.ask(*bought).stdout == "recorded before: nothing changed\n"
    cut = server.ask("outcomes", "shown", given[:-4])
    assert cut.returncode == 1
    assert "is no id of a decision" in cut.stderr
    assert server.ask("profile", "delete", "flora", "--yes").returncode == 0
    gone = server.ask("outcomes", "record", given, "click", "--json")
    assert (gone.returncode, json.loads(gone.stdout)) == (1, {"result": "subject_erased"})
    assert "erased after the decision" in gone.stderr


def test_what_is_held_is_exported_and_erased(server: Server, tmp_path: Path) -> None:
    assert server.ask("profile", "set", "gina", "first_name=Gina", "seen=2026-11-20T18:30:00Z").returncode == 0
    lines = "".join(
        f'{{"id": "g{n}", "subject_id": "gina", "type": "order", "at": "{days_ago(1)}"}}\n' for n in range(3)
    )
    assert server.ask("events", "import", "-", stdin=lines).returncode == 0
    exported = json.loads(server.ask("profile", "export", "gina").stdout)
    assert exported["subject_id"] == "gina"
    assert exported["erased_at"] is None
    (profile,) = exported["holdings"]["profile"]
    assert profile["attributes"] == {"first_name": "Gina", "seen": "2026-11-20T18:30:00Z"}
    assert [event["id"] for event in exported["holdings"]["events"]] == ["g0", "g1", "g2"]
    file = tmp_path / "gina.json"
    assert server.ask("profile", "export", "gina", "--out", file).returncode == 0
    assert json.loads(file.read_text("utf-8"))["holdings"] == exported["holdings"]
    assert file.stat().st_mode & 0o777 == 0o600
    there = server.ask("profile", "export", "gina", "--out", file)
    assert (there.returncode, "File exists" in there.stderr) == (1, True)

    unasked = server.ask("profile", "delete", "gina")
    assert (unasked.returncode, "give --yes" in unasked.stderr) == (2, True)
    assert json.loads(server.ask("profile", "get", "gina", "--json").stdout)["exists"] is True
    erased = json.loads(server.ask("profile", "delete", "gina", "--yes", "--json").stdout)
    assert (erased["erased"]["events"], erased["pseudonym"]) == (3, exported["pseudonym"])
    assert json.loads(server.ask("profile", "get", "gina", "--json").stdout)["exists"] is False
    assert "nothing was held" in server.ask("profile", "delete", "gina", "--yes").stdout
    left = json.loads(server.ask("profile", "export", "gina").stdout)
    assert left["holdings"] == {}
    assert left["erased_at"] is not None


def test_profiles_are_read_from_the_data_of_a_server_that_runs(server: Server) -> None:
    assert server.ask("profile", "set", "finn", "favourite_genre=jazz").returncode == 0
    asked = ("decide", "finn", "store.home_banner", "--json")
    (online,) = json.loads(server.ask(*asked).stdout)
    (offline,) = json.loads(
        server.ask(*asked, "--rules", ROOT / "rules", "--models", ROOT / "models", "--data", server.data).stdout
    )
    assert offline["treatments"] == online["treatments"]
    assert offline["snapshot"] == online["snapshot"]


def test_snapshots_are_listed_and_shown(server: Server) -> None:
    (kept,) = json.loads(server.ask("snapshot", "list", "--data", server.data, "--json").stdout)
    state = json.loads(server.ask("snapshot", "show", "--json").stdout)
    assert state["snapshot"]["digest"] == kept["digest"]
    assert state["workers"] == {"0": kept["digest"]}
    assert state["last_reload"]["ok"] is True
    assert datetime.fromisoformat(state["snapshot"]["loaded_at"]).tzinfo is not None
    shown = server.ask("snapshot", "show").stdout
    assert f"snapshot\t{kept['digest']}\n" in shown
    assert "last reload\twent well" in shown
    files = server.ask("snapshot", "show", kept["digest"][:6], "--data", server.data).stdout
    assert "\nrules/store/banner.yaml\t" in files
    none = server.ask("snapshot", "show", "zz", "--data", server.data)
    assert none.returncode == 1
    assert "keeps no snapshots whose digest begins with zz" in none.stderr


def test_a_failed_reload_is_shown_and_is_a_finding(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        banner = server.rules / "store" / "banner.yaml"
        good = banner.read_text()
        replace(banner, good.replace("when: segments.champions\n", "when: segments.champoins\n"))
        waits = [sys.executable, "-c", WAIT, server.target]
        subprocess.run(waits, env=ENVIRONMENT, check=True, timeout=30)  # noqa: S603 - the command is ours
        done = server.ask("snapshot", "show")
        assert done.returncode == 1
        assert "last reload\tfailed, nothing changed" in done.stdout
        assert "\nrules/store/banner.yaml:14:11: unknown segment `champoins`\n" in done.stdout
        (found,) = json.loads(server.ask("snapshot", "show", "--json").stdout)["last_reload"]["diagnostics"]
        assert (found["file"], found["line"], found["severity"]) == ("rules/store/banner.yaml", 14, "error")
        assert server.ask("decide", "nobody", "store.home_banner").returncode == 0
    finally:
        assert server.stop() == 0


# Until the server has looked at the file.
WAIT = """
import sys, time
from arbiter.client import Client
with Client(sys.argv[1]) as client:
    while client.snapshot().last_reload.ok:
        time.sleep(0.01)
"""


def test_a_data_directory_serves_once(server: Server) -> None:
    done = server.ask("serve", "--data", server.data, "--listen", "127.0.0.1:0", "--rules", server.rules)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        f"error: the data directory {server.data} is in use by another `arbiter serve`: stop that one, or "
        in done.stderr
    )


def test_a_server_does_not_start_on_mistakes(server: Server, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.yaml").write_text("decisons: {}\n")
    done = server.ask("serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0", "--rules", tmp_path / "rules",
                      "--models", "")  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "did you mean `decisions`?" in done.stderr
    assert done.stderr.endswith("error: the files hold mistakes, nothing was loaded\n")
