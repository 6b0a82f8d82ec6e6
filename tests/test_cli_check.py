"""`arbiter check` beyond mistakes: findings in text, JSON and SARIF, what is ignored, watching, and costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.lint.finding import KINDS
from tests import forked
from tests.conftest import replace

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "engine"), "NO_COLOR": "1"}
RULES = """\
schema: {profile: {age: int}}
decisions:
  home: {default: {action: none}}
rules:
  - {id: grown, decision: home, priority: 1, when: profile.age >= 18, then: {action: a}}
  - {id: retired, decision: home, when: profile.age >= 65, then: {action: b}}
  - {id: even, decision: home, priority: 2, when: profile.age % 2 == 0, then: {action: c}}
"""


def arbiter(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return forked.arbiter(*arguments, environment=ENVIRONMENT, cwd=cwd)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A rules directory whose name needs quoting in a URI, with one finding, in a directory of its own."""
    folder = tmp_path / "my rules"
    folder.mkdir()
    (folder / "home.yaml").write_text(RULES)
    return folder


def test_a_finding_is_shown_as_a_mistake_is(rules: Path) -> None:
    done = arbiter("check", rules)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        f"{rules}/home.yaml:6:10: warning: rule `retired` can never win: whenever it matches, `grown` matches too and "
        "has the higher priority, 1 against 0 [never-wins]\n"
        "    6 |   - {id: retired, decision: home, when: profile.age >= 65, then: {action: b}}\n"
        "      |          ^^^^^^^\n"
        "  example: profile.age = 65: `grown` wins\n"
        "  hint: let `retired` come first, narrow `grown`, or remove one of the two\n"
        "1 warning in 1 file\n"
    )


def test_a_kind_of_finding_can_be_ignored(rules: Path) -> None:
    done = arbiter("check", rules, "--ignore", "never-wins", "--ignore", "tie")
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "no mistakes")
    unknown = arbiter("check", rules, "--ignore", "never-win")
    assert unknown.returncode == 2
    assert "there is no finding `never-win`; did you mean `never-wins`?" in unknown.stderr


def test_a_finding_in_json_has_its_subject(rules: Path) -> None:
    done = arbiter("check", rules, "--json")
    told = json.loads(done.stdout)
    (found,) = told["diagnostics"]
    assert (done.returncode, told["ok"], told["loads"]) == (1, False, True)
    assert (found["code"], found["severity"], found["line"]) == ("never-wins", "warning", 6)
    assert found["subject"]["profile"] == {"age": 65}
    assert found["outcome"] == "`grown` wins"


def sarif(rules: Path, cwd: Path) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(arbiter("check", rules, "--sarif", cwd=cwd).stdout)
    return log


def test_sarif_has_what_the_standard_requires(rules: Path) -> None:
    log = sarif(rules, rules.parent)
    assert (log["version"], log["$schema"].rpartition("/")[2]) == ("2.1.0", "sarif-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "arbiter"
    assert [rule["id"] for rule in driver["rules"]] == ["mistake", *KINDS]
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"].endswith(".")
        assert rule["help"]["text"]
        assert rule["help"]["markdown"]
        assert rule["defaultConfiguration"]["level"] in {"error", "warning"}
    (result,) = run["results"]
    assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "never-wins"
    assert result["level"] == "warning"
    assert result["message"]["text"].startswith("rule `retired` can never win")
    (place,) = result["locations"]
    assert place["physicalLocation"]["region"] == {
        "startLine": 6, "startColumn": 10, "endColumn": 17, "snippet": {"text": RULES.splitlines()[5]},
    }  # fmt: skip
    assert run["columnKind"] == "unicodeCodePoints"


@pytest.mark.parametrize("given", ["relative", "absolute"])
def test_sarif_names_files_from_where_it_was_called(rules: Path, given: str) -> None:
    log = sarif(Path(rules.name) if given == "relative" else rules, rules.parent)
    (result,) = log["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "my%20rules/home.yaml"


def test_sarif_tells_mistakes_as_errors(rules: Path) -> None:
    (rules / "home.yaml").write_text(RULES.replace("profile.age >= 65", "profile.aeg >= 65"))
    (result,) = sarif(rules, rules.parent)["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("mistake", "error")
    assert "did you mean `age`?" in result["message"]["text"]


def test_a_clean_set_gives_an_empty_log() -> None:
    done = arbiter("check", "rules", "--sarif")
    assert done.returncode == 0
    assert json.loads(done.stdout)["runs"][0]["results"] == []


def test_formats_exclude_each_other(rules: Path) -> None:
    assert arbiter("check", rules, "--json", "--sarif").returncode == 2
    assert arbiter("check", rules, "--cost", "--sarif").returncode == 2


@pytest.fixture
def watching(rules: Path) -> Iterator[subprocess.Popen[str]]:
    """A running `arbiter check --watch`."""
    command = [sys.executable, "-m", "arbiter.cli", "check", str(rules), "--watch"]
    with subprocess.Popen(  # noqa: S603 - the command is ours
        command, stdout=subprocess.PIPE, text=True, env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}
    ) as process:
        yield process
        process.kill()


def up_to_the_prompt(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        if line.startswith("watching"):
            break
        lines.append(line)
    return "".join(lines)


def test_watching_checks_again_after_a_change_and_ends_well(rules: Path, watching: subprocess.Popen[str]) -> None:
    assert up_to_the_prompt(watching).endswith("1 warning in 1 file\n")
    replace(rules / "home.yaml", RULES.replace("retired, decision: home,", "retired, decision: home, priority: 3,"))
    assert up_to_the_prompt(watching).startswith("no mistakes: ")
    replace(rules / "home.yaml", RULES.replace("age >= 65", "aeg >= 65"))
    assert up_to_the_prompt(watching).endswith("1 error in 1 file\n")
    watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 0


def test_cost_says_what_the_index_leaves_and_why(rules: Path) -> None:
    done = arbiter("check", rules, "--cost", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0
    costs = {rule["rule"]: (rule["tests"], rule["residual"]) for rule in told["rules"]}
    assert costs == {
        "grown": (1, []),
        "retired": (1, []),
        "even": (0, [{"text": "profile.age % 2 == 0", "why": "computes"}]),
    }
    (point,) = told["decisions"]
    assert (point["decision"], point["rules"], point["share_with_models"]) == ("home", 3, 0.0)
    assert point["match"]["median"] <= point["match"]["p99"]
    assert 0 < point["survivors"] <= point["most_survivors"] <= 3


def test_cost_tells_which_models_may_run() -> None:
    done = arbiter("check", "rules", "--cost")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("decision\trules\tmatch µs\tp99\tdecide µs\tp99\t")
    bundle = next(line.split("\t") for line in lines if line.startswith("cooling-bundle\t"))
    assert bundle[2].startswith('models.rfm.cluster == "cooling" (reads models.rfm); models.repurchase.probability >= ')
    assert bundle[3] == "repurchase, rfm"
