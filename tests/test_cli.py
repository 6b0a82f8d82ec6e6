"""The command line without a server: help, `check`, and decisions in process; by real processes on real files."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).resolve().parent.parent
RULES, MODELS = ROOT / "rules", ROOT / "models"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "engine"), "ARBITER_TARGET": ""}


def arbiter(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a pipe."""
    done = forked.arbiter(*arguments, environment=ENVIRONMENT)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A copy of the example rules, beside the models."""
    (tmp_path / "models").symlink_to(MODELS)
    return Path(shutil.copytree(RULES, tmp_path / "rules"))


def test_help_names_every_command() -> None:
    done = arbiter("--help")
    assert done.returncode == 0
    for command in ("serve", "check", "test", "decide", "explain", "profile", "events", "snapshot", "demo"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("command", ["serve", "check", "decide", "explain", "demo"])
def test_each_command_says_what_it_is_for(command: str) -> None:
    done = arbiter(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage:" in done.stdout


def test_the_version_is_printed() -> None:
    assert arbiter("--version").stdout == "arbiter 0.1.0\n"


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    heavy = {"onnxruntime", "sklearn", "numpy", "grpc", "lmdb", "matplotlib", "cel_expr_python"}
    code = f"import sys, arbiter.cli; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(  # noqa: S603 - the command is ours
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert done.stdout == "\n"


def test_an_unknown_command_is_wrong_usage() -> None:
    done = arbiter("decied")
    assert done.returncode == 2
    assert "No such command 'decied'" in done.stderr


def test_a_choice_that_is_none_is_named_with_those_there_are() -> None:
    done = arbiter("explain", "ann", "home.banner", "--level", "foo")
    assert done.returncode == 2
    assert "Error: Invalid value for '--level': 'foo' is not one of 'winners', 'losers', 'all'.\n" in done.stderr


def test_the_usage_line_shows_assignments_as_they_are_typed() -> None:
    assert "[NAME=VALUE]...\n" in arbiter("profile", "set", "--help").stdout


def test_check_counts_what_a_good_set_holds(rules: Path) -> None:
    done = arbiter("check", rules)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "no mistakes: 3 decisions, 27 rules, 16 segments, 12 features, 2 models, 6 triggers\n"


def test_check_shows_every_mistake_where_it_stands(rules: Path) -> None:
    banner, steps = rules / "store" / "banner.yaml", rules / "onboarding" / "next_step.yaml"
    banner.write_text(banner.read_text().replace("when: segments.champions\n", "when: segments.champoins\n"))
    steps.write_text(steps.read_text().replace("when: features.orders == 0", "when: features.orders =="))
    done = arbiter("check", rules)
    assert done.returncode == 1
    assert (
        f"{banner}:14:11: unknown segment `champoins`\n"
        "   14 |     when: segments.champoins\n"
        "      |           ^^^^^^^^^^^^^^^^^^\n"
        "  hint: did you mean `champions`?\n"
    ) in done.stdout
    assert f"{steps}:" in done.stdout
    assert done.stdout.endswith("2 errors in 2 files\n")


def test_check_knows_the_labels_of_models(rules: Path) -> None:
    segments = rules / "store" / "segments.yaml"
    text = segments.read_text()
    assert text.count('"champions"') == 1
    segments.write_text(text.replace('"champions"', '"champion"'))
    done = arbiter("check", rules)
    assert done.returncode == 1
    assert done.stdout == (
        f"{segments}:4:36: `models.rfm.cluster` is never `champion`\n"
        '    4 |   champions: models.rfm.cluster == "champion"\n'
        "      |                                    ^^^^^^^^^^\n"
        "  hint: did you mean `champions`?\n"
        "1 error in 1 file\n"
    )


def test_check_says_what_a_model_lacks(rules: Path) -> None:
    for file in (*rules.glob("*/*.yaml"), *rules.glob("*/README.md")):
        file.unlink()
    lonely = rules / "store" / "lonely.yaml"
    lonely.write_text('segments:\n  loyal: models.rfm.cluster == "loyal"\n')
    done = arbiter("check", rules)
    assert done.returncode == 1
    assert done.stdout == (
        f"{lonely}:2:10: model `rfm` cannot be used here\n"
        '    2 |   loyal: models.rfm.cluster == "loyal"\n'
        "      |          ^^^^^^^^^^^^^^^^^^\n"
        "  hint: it reads `features.days_since_purchase`, `features.orders_39w`, `features.spend_39w`, which no file "
        "declares: see the model's card\n"
        "1 error in 1 file\n"
    )


def test_check_prints_its_findings_as_json(rules: Path) -> None:
    assert json.loads(arbiter("check", rules, "--json").stdout)["ok"] is True
    banner = rules / "store" / "banner.yaml"
    banner.write_text(banner.read_text().replace("when: segments.champions\n", "when: segments.champoins\n"))
    done = arbiter("check", rules, "--json")
    (found,) = json.loads(done.stdout)["diagnostics"]
    assert done.returncode == 1
    assert (found["line"], found["column"], found["severity"]) == (14, 11, "error")
    assert found["hint"] == "did you mean `champions`?"


def test_check_without_the_models_misses_them(rules: Path) -> None:
    (rules.parent / "models").unlink()
    done = arbiter("check", rules)
    assert done.returncode == 1
    assert "unknown model `rfm`" in done.stdout


def test_check_of_no_directory_is_wrong_usage(tmp_path: Path) -> None:
    done = arbiter("check", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "does not exist" in done.stderr


def test_check_does_not_wait_for_a_pipe(rules: Path) -> None:
    os.mkfifo(rules / "pipe.yaml")
    done = arbiter("check", rules)
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, f"{rules}/pipe.yaml: is no regular file")


def test_check_is_coloured_on_a_terminal_only(rules: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "arbiter.cli", "check", str(rules)]
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "NO_COLOR": ""}
    subprocess.run(command, stdout=theirs, env=environment, check=True)  # noqa: S603 - the command is ours
    os.close(theirs)
    said = os.read(ours, 4096)
    os.close(ours)
    assert b"\x1b[" in said
    assert "\x1b[" not in arbiter("check", rules).stdout


@pytest.mark.parametrize("width", [20, 30, 45])
def test_a_narrow_terminal_shows_every_column(width: int) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "arbiter.cli", "decide", "nobody", "store.home_banner", "--rules", str(RULES)]
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": str(width), "NO_COLOR": "1"}
    subprocess.run(command, stdout=theirs, env=environment, check=True)  # noqa: S603 - the command is ours
    os.close(theirs)
    said = re.sub(r"\x1b\[[0-9;]*m", "", os.read(ours, 4096).decode())
    os.close(ours)
    assert "rule: " in said
    assert "params: banner:" in said
    assert all(len(line) <= width for line in said.splitlines())


def test_decide_in_process_for_somebody_unknown() -> None:
    done = arbiter("decide", "nobody", "store.home_banner", "onboarding.next_step", "--rules", RULES)
    assert done.returncode == 0
    heads, banner, step = (line.split("\t") for line in done.stdout.splitlines())
    assert heads == ["decision", "rule", "action", "params", "priority", "value"]
    assert banner[:3] == ["store.home_banner", "newcomer-welcome", "show_banner"]
    assert step[:2] == ["onboarding.next_step", "onboarding-first-order"]


def test_decide_reads_context_and_prints_json(tmp_path: Path) -> None:
    (tmp_path / "context.json").write_text('{"cart_value": 28.5}')
    written = arbiter(
        "decide", "nobody", "store.home_banner", "--rules", RULES, "--context", '{"cart_value": 28.5}', "--json"
    )
    from_file = arbiter(
        "decide", "nobody", "store.home_banner", "--rules", RULES, "--context", f"@{tmp_path}/context.json", "--json"
    )
    (answer,) = json.loads(written.stdout)
    assert answer["treatments"][0]["rule_id"] == "almost-free-shipping"
    assert answer["treatments"][0]["params"]["banner"] == "free-shipping"
    assert json.loads(from_file.stdout) == [answer]


def test_a_clock_that_is_no_moment_is_wrong_usage() -> None:
    done = arbiter("decide", "nobody", "store.home_banner", "--rules", RULES, "--at", "yesterday")
    assert done.returncode == 2
    assert "`yesterday` is no moment with its zone: write it as 2026-11-20T18:30:00Z" in done.stderr
    done = arbiter("decide", "nobody", "store.home_banner", "--rules", RULES, "--at", "2026-12-24")
    assert done.returncode == 2
    assert "`2026-12-24` is no moment with its zone" in done.stderr


def test_an_unknown_decision_is_refused_with_the_closest_name() -> None:
    done = arbiter("decide", "nobody", "store.home_baner", "--rules", RULES)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("error: there is no decision point `store.home_baner`; did you mean `store.home_banner`?\n")


def test_context_that_is_no_json_is_wrong_usage() -> None:
    done = arbiter("decide", "nobody", "store.home_banner", "--rules", RULES, "--context", '{"device": ')
    assert done.returncode == 2
    assert "Invalid value for --context" in done.stderr


@pytest.mark.parametrize("context", ['{"device": "ios", "device": "web"}', '{"a": {"device": 1, "device": 2}}'])
def test_a_key_given_twice_in_the_context_is_wrong_usage(context: str) -> None:
    done = arbiter("decide", "nobody", "store.home_banner", "--rules", RULES, "--context", context)
    assert done.returncode == 2
    assert "the key `device` is given twice" in done.stderr


def test_options_of_the_process_need_the_rules() -> None:
    done = arbiter("decide", "nobody", "store.home_banner", "--models", MODELS)
    assert done.returncode == 2
    assert "--models and --data go with --rules" in done.stderr


def test_rules_with_mistakes_decide_nothing(rules: Path) -> None:
    (rules / "store" / "segments.yaml").write_text("segments: {loyal: features.nothing > 1}\n")
    done = arbiter("decide", "nobody", "store.home_banner", "--rules", rules)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{rules}/store/segments.yaml:1:" in done.stderr
    assert done.stderr.endswith("error: the files hold mistakes, nothing was loaded\n")


def test_explain_accounts_for_every_rule() -> None:
    done = arbiter("explain", "nobody", "store.home_banner", "--rules", RULES)
    told, _, models = done.stdout.partition("model\tanswered\tfrom\n")
    rows = {row[0]: row[1:] for row in (line.split("\t") for line in told.splitlines()[1:])}
    assert len(rows) == 14
    assert models.splitlines()[1] == (
        "rfm 2\tno output; nothing stands in for `days_since_purchase`\t"
        "days_since_purchase = nothing, orders_39w = 0, spend_39w = 0"
    )
    assert rows["newcomer-welcome"][0] == "won"
    assert rows["summer-clearance"][0] == "disabled"
    assert rows["second-order"][:2] == ["failed", "features.orders == 1 where features.orders = 0"]
    assert rows["champions-early-access"][0] == "unknown"
    assert "for lack of models.rfm.cluster" in rows["champions-early-access"][1]


def test_params_come_sorted_and_a_failure_to_render_says_once_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "decisions: {d: {default: {action: show, params: {b: 1, a: 2, c: 3}}}}\n"
        "rules:\n"
        '  - {id: hello, decision: d, then: {action: show, params: {text: "Hi ${profile.name}"}}}\n'
    )
    asked = ("nobody", "d", "--rules", tmp_path)
    assert arbiter("decide", *asked).stdout.splitlines()[1].split("\t")[3] == "a: 2, b: 1, c: 3"
    said = arbiter("explain", *asked).stdout.splitlines()[1].split("\t")
    assert said[:3] == ["hello", "render_failed", "param `text`: `profile.name` has no value"]


def test_explain_is_narrowed_by_level_and_by_rule() -> None:
    asked = ("explain", "nobody", "store.home_banner", "--rules", RULES, "--json")
    winners = json.loads(arbiter(*asked, "--level", "winners").stdout)["explanation"]
    assert [each["rule_id"] for each in winners] == ["newcomer-welcome"]
    two = json.loads(arbiter(*asked, "--rule", "win-back", "--rule", "second-order").stdout)["explanation"]
    assert {each["rule_id"] for each in two} == {"win-back", "second-order"}
    unknown = arbiter(*asked, "--rule", "win-bakc")
    assert unknown.returncode == 1
    assert unknown.stderr == "error: `store.home_banner` has no rule `win-bakc`; did you mean `win-back`?\n"


def test_explain_says_to_whom_and_on_which_key_a_rule_lost() -> None:
    done = arbiter(
        "explain", "nobody", "store.home_banner", "--rules", RULES, "--level", "losers", "--json",
        "--context", '{"cart_value": 28.5}',
    )  # fmt: skip
    lost = {each["rule_id"]: each for each in json.loads(done.stdout)["explanation"]}["newcomer-welcome"]
    assert (lost["outcome"], lost["lost_to"], lost["lost_on"]) == ("lost", "almost-free-shipping", "priority")


def test_a_server_that_is_not_there_is_named() -> None:
    done = arbiter("decide", "nobody", "store.home_banner", "--target", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr == (
        "error: no server answers at 127.0.0.1:1: start one with `arbiter serve`, or name another with --target "
        "HOST:PORT\n"
    )
