"""Tests of rules: every case of cases/ruletests, word for word; the shipped rules' own tests; `arbiter test`.

A case is a file. Lines `=== PATH` begin a file of a rule set, `=== expected` begins what is wrong with its tests as a
server that requires them would say, or `ok`. A case without rules has those of shop.yaml. To add a case, write one and
run this test: it shows what is said now; paste it once it is what should be said.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.models.failure import ModelFailure
from arbiter.models.model import Model
from arbiter.ruleset.load import is_rule_file, load_ruleset
from arbiter.ruletests import Coverage, Runner, failed_tests, read_tests
from arbiter.ruletests.compare import alike
from arbiter.ruletests.coverage import Reach, percent
from arbiter.ruletests.expect import KEYS, REASON_KEYS, REASONS, TREATMENT_KEYS
from arbiter.ruletests.files import TEST_KEYS
from arbiter.runtime.loader import Loader
from arbiter.runtime.sources import read_sources
from arbiter.snapshot import Snapshot
from tests import forked

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "cases" / "ruletests"
CASES = sorted(FOLDER.glob("*.case"))
SHOP = {"shop.yaml": (FOLDER / "shop.yaml").read_text("utf-8")}
GOOD = """\
tests:
  - name: an age is worth something
    decision: home
    now: 2026-06-01T12:00:00Z
    events: [{type: order, at: 36h ago, amount: 1}]
    expect: {treatments: [{rule: offer, value: 1.5}]}
"""
BAD = """\
defaults: {decision: cart, now: 2026-06-01T12:00:00Z}
tests:
  - name: cart
    context: {total: 10.0}
    cases: [{name: a total of 10, expect: {treatments: [cheaper]}}]
"""


def built(files: Mapping[str, str], models: Mapping[str, Model]) -> Snapshot:
    ruleset, found = load_ruleset(
        {path: text.encode() for path, text in files.items()},
        {name: model.outputs for name, model in models.items()},
        {name: model.labels for name, model in models.items()},
    )
    assert ruleset is not None, [each.render() for each in found]
    return Snapshot(ruleset, models)


def sections(case: Path) -> dict[str, str]:
    parts = re.split(r"^=== (.+)\n", case.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# Good and bad test files for the rules of shop.yaml.
TEXTS = [text for case in CASES for path, text in sections(case).items() if path == "a.test.yaml"]


@pytest.fixture(scope="session")
def shop_snapshot(shipped_models: dict[str, Model]) -> Snapshot:
    return built(SHOP, shipped_models)


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_a_test_file_gives_exactly_these_diagnostics(case: Path, shipped_models: dict[str, Model]) -> None:
    files = sections(case)
    expected = files.pop("expected")
    tests = {path: text.encode() for path, text in files.items()}
    rules = {"rules.yaml": files["rules.yaml"]} if "rules.yaml" in files else SHOP
    found = failed_tests(tests, built(rules, shipped_models))
    assert ("".join(f"{each.render()}\n" for each in found) or "ok\n") == expected


def test_there_are_cases() -> None:
    assert len(CASES) >= 12


TOKENS = [
    "null",
    "{}",
    "[]",
    "''",
    "3d ago",
    "-1",
    "1e308",
    "9223372036854775807",
    "true",
    "*a",
    "&a",
    ":",
    "{",
    "]",
    "@",
]


@settings(max_examples=250, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_written_gives_diagnostics_and_never_an_exception(
    data: st.DataObject, shop_snapshot: Snapshot
) -> None:
    """The words of good test files, some of them replaced, dropped or moved."""
    text = data.draw(st.sampled_from(TEXTS))
    words = re.split(r"(\W)", text)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(words) - 1))
        words[place] = data.draw(st.sampled_from([*TOKENS, "", *words[:60]]))
    for found in failed_tests({"a.test.yaml": "".join(words).encode()}, shop_snapshot):
        assert found.line > 0
        assert found.message


def test_a_rule_set_is_the_same_with_its_tests_and_without(shipped_models: dict[str, Model]) -> None:
    one = built(SHOP, shipped_models)
    two = built(SHOP | {"shop.test.yaml": "tests: [nonsense", "a/b.test.yml": "x"}, shipped_models)
    assert one.digest == two.digest
    assert not is_rule_file("a/b.test.yaml")
    assert is_rule_file("a/test.yaml")


def test_a_model_that_fails_breaks_its_tests_and_no_other(
    shipped_models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Any:
        raise ModelFailure("model rfm failed: no memory")

    monkeypatch.setattr(Model, "score", fails)
    text = b"""
defaults: {decision: home, now: 2026-06-01T12:00:00Z, events: [{type: order, at: 1d ago}]}
tests:
  - {name: asks the model, expect: {treatments: [offer]}}
  - {name: pins it, models: {rfm: {}}, expect: {treatments: [offer]}}
"""
    snapshot = built(SHOP, shipped_models)
    tests, found = read_tests({"a.test.yaml": text}, snapshot.ruleset, shipped_models)
    assert not found
    asks, pins = [Runner(snapshot).run(test) for test in tests]
    assert (asks.passed, pins.passed) == (False, True)
    assert asks.broken == "model rfm failed: no memory"
    (said,) = failed_tests({"a.test.yaml": text}, snapshot)
    assert said.message == "the test `asks the model` cannot be run: model rfm failed: no memory"


def test_models_run_where_they_are_not_pinned(shipped_models: dict[str, Model]) -> None:
    monthly = [f"{{type: order, at: {days}d ago, amount: 50}}" for days in range(2, 240, 20)]
    text = f"""
tests:
  - name: the model knows a good customer
    decision: home
    now: 2026-06-01T12:00:00Z
    events: [{", ".join(monthly)}]
    expect: {{includes: [likely]}}
"""
    assert failed_tests({"a.test.yaml": text.encode()}, built(SHOP, shipped_models)) == []


def test_coverage_says_how_far_each_rule_got(shipped_models: dict[str, Model]) -> None:
    text = b"""
defaults: {decision: home, now: 2026-06-01T12:00:00Z, models: {rfm: {}}, expect: {defaulted: false}}
tests:
  - {name: one, features: {orders: 1, spend_30d: 60.0}}
  - {name: two, profile: {tier: gold, name: Ada}}
"""
    snapshot = built(SHOP, shipped_models)
    tests, _ = read_tests({"a.test.yaml": text}, snapshot.ruleset, shipped_models)
    coverage, runner = Coverage(snapshot.ruleset.rules), Runner(snapshot)
    for test in tests:
        coverage.add(runner.run(test, explained=True))
    assert {each.rule_id: each.reach for each in coverage.rules()} == {
        "greet": Reach.WON,
        "thank": Reach.WON,
        "offer": Reach.ELIGIBLE,
        "soon": Reach.JUDGED,
        "nobody": Reach.JUDGED,
        "likely": Reach.JUDGED,
        "cheaper": Reach.UNASKED,
        "cheapest": Reach.UNASKED,
    }
    assert percent(coverage.rules()) == 25.0
    assert {each.file for each in coverage.rules()} == {"shop.yaml"}
    assert percent([]) == 100.0


@pytest.mark.parametrize(
    ("wanted", "got", "same"),
    [
        (1, 1.0, True),
        (0.3, 0.1 + 0.2, True),
        (0.3, 0.3001, False),
        (True, 1, False),
        (1, True, False),
        ("a", "a", True),
        ([1, 2.0], [1.0, 2], True),
        ([1], [1, 2], False),
        ({"a": 0.3}, {"a": 0.1 + 0.2}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ("2026-06-01T14:00:00+02:00", datetime(2026, 6, 1, 12, tzinfo=UTC), True),
        ("2026-06-01", datetime(2026, 6, 1, tzinfo=UTC), False),
        ("AAE=", b"\0\1", True),
        (5, "5", False),
    ],
)
def test_a_value_is_the_one_that_is_written(*, wanted: Any, got: Any, same: bool) -> None:
    assert alike(wanted, got) is same


def arbiter(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command line in a pipe."""
    done = forked.arbiter(*arguments, cwd=cwd)
    assert "Traceback" not in done.stderr
    return done


def test_the_tests_of_the_shipped_rules_pass_and_every_rule_wins_in_one() -> None:
    done = arbiter("test", "rules", "--fail-under", 100)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    said = r"^(\d+) of \1 rules won in a test, (\d+) of \2 triggers fired, 100.0 %$"
    assert re.search(said, done.stdout, re.MULTILINE)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with rules, models and tests, of which one fails."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "rules" / "sub").mkdir(parents=True)
    (tmp_path / "rules" / "shop.yaml").write_text(SHOP["shop.yaml"])
    (tmp_path / "rules" / "sub" / "good.test.yaml").write_text(GOOD)
    (tmp_path / "rules" / "bad.test.yaml").write_text(BAD)
    return tmp_path


def test_a_failed_test_is_told_with_what_was_expected_what_came_and_why(shop: Path) -> None:
    done = arbiter("test", "rules", cwd=shop)
    assert (done.returncode, done.stderr) == (1, "")
    *lines, last = done.stdout.splitlines()
    assert (
        lines
        == """\
FAILED cart / a total of 10
rules/bad.test.yaml:5:44: treatments: not as expected
    5 |     cases: [{name: a total of 10, expect: {treatments: [cheaper]}}]
      |                                            ^^^^^^^^^^
  expected  cheaper
       got  nothing
   because  cheaper FAILED: context.total > 20.0  where context.total = 10

file\ttests\tfailed
rules/bad.test.yaml\t1\t1
rules/sub/good.test.yaml\t1\t0""".splitlines()
    )
    assert re.fullmatch(r"2 tests, 1 failed, in \d\.\d\d s", last)


def test_json_holds_the_whole_story(shop: Path) -> None:
    done = arbiter("test", "rules", "--json", "--coverage", cwd=shop)
    assert done.returncode == 1
    story = json.loads(done.stdout)
    assert (story["ok"], story["passed"], story["failed"], story["diagnostics"]) == (False, 1, 1, [])
    (failed,) = [each for each in story["tests"] if not each["passed"]]
    assert (failed["file"], failed["line"], failed["name"]) == ("rules/bad.test.yaml", 5, "cart / a total of 10")
    (mismatch,) = failed["mismatches"]
    assert (mismatch["what"], mismatch["expected"], mismatch["got"]) == ("treatments", ["cheaper"], ["nothing"])
    assert mismatch["why"][0]["outcome"] == "failed"
    reached = {each["rule_id"]: each["reach"] for each in story["coverage"]["rules"]}
    assert (reached["offer"], reached["cheaper"], len(reached)) == ("won", "judged", 8)


def test_junit_has_a_case_for_each_test(shop: Path) -> None:
    (shop / "rules" / "wrong.test.yaml").write_text("tests: 1\n")
    arbiter("test", "rules", "--junit", "junit.xml", cwd=shop)
    root = ET.parse(shop / "junit.xml").getroot()  # noqa: S314 - we wrote it
    suites = {suite.get("name"): (suite.get("tests"), suite.get("failures"), suite.get("errors")) for suite in root}
    assert suites == {
        "rules/bad.test.yaml": ("1", "1", "0"),
        "rules/sub/good.test.yaml": ("1", "0", "0"),
        "rules/wrong.test.yaml": ("1", "0", "1"),
    }
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.text
    assert "cheaper FAILED: context.total > 20.0" in failure.text


def test_one_file_a_folder_or_a_part_of_the_names_can_be_asked_for(shop: Path) -> None:
    for arguments, code, said in [
        (("rules/sub/good.test.yaml",), 0, "1 test, all passed"),
        (("good.test.yaml",), 0, "1 test, all passed"),
        (("rules/sub", "--rules", "rules"), 0, "1 test, all passed"),
        (("rules", "AGE"), 0, "1 test, all passed"),
        (("rules", "bad.test"), 1, "1 test, 1 failed"),
    ]:
        done = arbiter("test", *arguments, cwd=shop / "rules/sub" if arguments[0] == "good.test.yaml" else shop)
        assert (done.returncode, done.stderr) == (code, ""), arguments
        assert done.stdout.splitlines()[-1].startswith(said)


def test_nothing_to_run_is_wrong_usage(shop: Path) -> None:
    for arguments, said in [
        (("rules", "no such name"), "no test has `no such name` in its file or name, of 2"),
        (("rules/shop.yaml",), "there is no test in rules/shop.yaml: tests stand in files that end in .test.yaml"),
        (("models", "--rules", "rules"), "models does not lie below rules"),
        (("nowhere",), "does not exist"),
        (("rules", "--fail-under", "101"), "Input should be less than or equal to 100"),
    ]:
        done = arbiter("test", *arguments, cwd=shop)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr


def test_too_little_coverage_fails(shop: Path) -> None:
    (shop / "rules" / "bad.test.yaml").unlink()
    done = arbiter("test", "rules", "--fail-under", "13", cwd=shop)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "too few rules are tested: 12.5 % of 13 %"
    assert "cheaper\tno test asks its decision\trules/shop.yaml:" in done.stdout
    assert arbiter("test", "rules", "--fail-under", "12.5", cwd=shop).returncode == 0


def test_rules_that_do_not_load_are_not_tested(shop: Path) -> None:
    (shop / "rules" / "more.yaml").write_text("rules: 1\n")
    done = arbiter("test", "rules", cwd=shop)
    assert (done.returncode, done.stderr) == (1, "error: the rules hold mistakes, nothing was tested\n")
    assert done.stdout.startswith("rules/more.yaml:1:8: `rules` must be a list")
    story = json.loads(arbiter("test", "rules", "--json", cwd=shop).stdout)
    assert (story["ok"], len(story["diagnostics"])) == (False, 1)


def test_mistakes_in_a_test_file_leave_the_other_files_their_tests(shop: Path) -> None:
    (shop / "rules" / "bad.test.yaml").write_text(BAD.replace("cheaper", "cheeper"))
    done = arbiter("test", "rules", cwd=shop)
    assert done.returncode == 1
    assert "unknown rule `cheeper`" in done.stdout
    assert "1 test, all passed, 1 mistake in files whose tests were not run" in done.stdout


def test_a_loader_that_requires_tests_keeps_what_runs_until_they_pass(shop: Path) -> None:
    rules, models = shop / "rules", shop / "models"
    (rules / "bad.test.yaml").unlink()
    loader = Loader(rules, models, None, require_tests=True)
    first = loader.look()
    assert first is not None
    assert first.built is not None
    assert loader.look() is None
    (rules / "bad.test.yaml").write_text(BAD)
    second = loader.look()
    assert second is not None
    assert second.built is None
    (said,) = second.diagnostics
    assert (said.file, said.line, said.severity) == ("rules/bad.test.yaml", 5, "error")
    assert said.message == "the test `cart / a total of 10` fails: treatments: expected cheaper, got nothing"
    assert said.hint == "`cheaper` FAILED: context.total > 20.0"
    (rules / "bad.test.yaml").write_text(BAD.replace("{total: 10.0}", "{total: 30.0}"))
    third = loader.look()
    assert third is not None
    assert third.built is not None
    assert third.built.snapshot.digest == first.built.snapshot.digest


def test_a_loader_that_does_not_care_reads_no_tests(shop: Path) -> None:
    loader = Loader(shop / "rules", shop / "models", None)
    first = loader.look()
    assert first is not None
    assert first.built is not None
    (shop / "rules" / "bad.test.yaml").write_text("tests: [nonsense")
    assert loader.look() is None
    assert read_sources(shop / "rules", None).tests == {}


def test_files_that_are_sent_are_tested_where_tests_are_required(shop: Path) -> None:
    files = {"shop.yaml": SHOP["shop.yaml"].encode(), "bad.test.yaml": BAD.encode()}
    for required in (True, False):
        loader = Loader(shop / "rules", shop / "models", None, require_tests=required)
        (shop / "rules" / "bad.test.yaml").unlink(missing_ok=True)
        loader.load()
        staged, found = loader.stage(files)
        assert (staged is None) is required
        assert [each.file for each in found] == ["bad.test.yaml"] * required
        assert [each.file for each in loader.validate(files)] == ["bad.test.yaml"] * required


def test_a_server_that_requires_tests_does_not_begin_with_rules_that_fail_theirs(shop: Path) -> None:
    done = arbiter("serve", "--require-tests", "--listen", "127.0.0.1:0", "--workers", 1, cwd=shop)
    assert (done.returncode, done.stdout) == (1, "")
    assert "rules/bad.test.yaml:5:44: the test `cart / a total of 10` fails: treatments: expected" in done.stderr
    (shop / "arbiter.yaml").write_text("require_tests: true\n")
    done = arbiter("serve", "--config", "arbiter.yaml", "--listen", "127.0.0.1:0", "--workers", 1, cwd=shop)
    assert (done.returncode, done.stdout) == (1, "")


def test_the_rules_page_lists_every_key_of_a_test() -> None:
    page = (ROOT / "docs" / "rules.md").read_text("utf-8")
    section = page[page.index("## Testing rules") : page.index("## Lint")]
    given, expected = section.split("What `expect` does not name is not compared:")
    listed = {
        name for row in re.findall(r"^\| (`.+?) \| ", given, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert listed == set(TEST_KEYS)
    assert set(re.findall(r"^\| `(\w+)` \|", expected, re.MULTILINE)) == set(KEYS)
    assert all(f"`{key}`" in expected for key in (*TREATMENT_KEYS, *REASON_KEYS))
    assert all(re.search(rf"\b{reason}\b", expected) for reason in REASONS)
