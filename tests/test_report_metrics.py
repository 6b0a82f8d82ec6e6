"""A report by the metrics that rules declare: each outcome counts where its metric says, and as that says."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from statistics import mean
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from arbiter.cli.app import app
from tests.test_report import RULES, WEEK, Known, exposed

if TYPE_CHECKING:
    from pathlib import Path

METRICS = """\
metrics:
  bought: {outcome: bought, within: 7d}
  spent: {outcome: bought, within: 7d, value: amount}
  soon: {outcome: bought, within: 1d, value: count}
  left: {outcome: churn, within: 4w}
"""
DAY = WEEK // 7


class Measured(Known):
    """The same, by rules that declare metrics."""

    rules = RULES + METRICS + "segments: {high: profile.level > 3}\n"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return Measured(tmp_path_factory.mktemp("metrics"))


@pytest.fixture(scope="module")
def told(known: Measured) -> dict[str, Any]:
    code, found = known.report("--data", str(known.folder / "data"))
    assert code == 0
    return found


def effects(told: dict[str, Any], name: str) -> dict[tuple[str, str], dict[str, Any]]:
    trial = next(each for each in told["experiments"] if each["name"] == name)
    return {(each["outcome"], each["take"]): each["found"] for each in trial["effects"]}


def test_metrics_of_the_snapshot_stand_in_place_of_outcomes(known: Measured, told: dict[str, Any]) -> None:
    assert [each["name"] for each in told["metrics"]] == ["bought", "left", "soon", "spent"]
    assert told["outcomes"] == sum(each["kind"] == "outcome" for each in known.happened)
    assert told["unjoined"] == 1
    found = effects(told, "team")
    assert set(found) == {("bought", "any"), ("left", "any"), ("soon", "count"), ("spent", "sum")}
    rows = sorted(exposed(known, "team"), key=lambda each: each[1].at)
    units: dict[str, str] = {}
    first: dict[str, str] = {}
    for head, row in rows:
        assert row.values is not None
        unit = next(str(v) for (_, n, _), v in zip(head.reads, row.values, strict=True) if n == "team")
        units[row.id] = unit
        first.setdefault(unit, row.variants["team"])
    times: dict[int, Counter[str]] = {DAY: Counter(), WEEK: Counter()}
    spent: dict[str, float] = defaultdict(float)
    for within, counted in times.items():
        for each in known.outcomes("bought", within):
            if each["decision"] in units:
                counted[units[each["decision"]]] += 1
                if within == WEEK:
                    spent[units[each["decision"]]] += each["value"]
    assert times[DAY].total() < times[WEEK].total()
    for arm, place in (("new", "arm"), ("control", "control")):
        own = [unit for unit, variant in first.items() if variant == arm]
        assert found["bought", "any"][place] == pytest.approx(mean(times[WEEK][unit] > 0 for unit in own))
        assert found["soon", "count"][place] == pytest.approx(mean(times[DAY][unit] for unit in own))
        assert found["spent", "sum"][place] == pytest.approx(mean(spent[unit] for unit in own))
        assert found["left", "any"][place] == 0


def test_rules_convert_to_metrics(known: Measured, told: dict[str, Any]) -> None:
    seen = 0
    for each in told["rules"]:
        won = {row.id for head, row in known.rows if head.point == each["point"]
               and each["rule"] in {w.rule for w in row.won}}  # fmt: skip
        for name, within in (("bought", WEEK), ("soon", DAY), ("spent", WEEK)):
            mine = {h["decision"] for h in known.outcomes("bought", within) if h["rule"] in {"", each["rule"]}} & won
            assert each["converted"].get(name, 0) == len(mine)
            seen += len(mine)
        assert each["shown"] == len({h["decision"] for h in known.happened if h["kind"] == "exposure"
                                     and h["rule"] in {"", each["rule"]}} & won)  # fmt: skip
    assert seen


def test_within_tells_outcomes_and_rules_tell_theirs(known: Measured, tmp_path: Path) -> None:
    data = ("--data", str(known.folder / "data"))
    _, plain = known.report(*data, "--within", "7d")
    assert plain["metrics"] == []
    assert {outcome for outcome, _ in effects(plain, "tone")} == {"bought", "clicked"}
    (tmp_path / "r.yaml").write_text("metrics: {pressed: {outcome: clicked, within: 1d}}\n")
    _, other = known.report(*data, "--rules", str(tmp_path))
    assert set(effects(other, "tone")) == {("pressed", "any")}
    _, alone = known.report("--data", str(tmp_path / "none"), "--rules", str(tmp_path))
    assert [each["name"] for each in alone["metrics"]] == ["pressed"]


def test_what_metrics_mean_is_said(known: Measured) -> None:
    log, data = str(known.log), str(known.folder / "data")
    done = CliRunner().invoke(app, ["report", log, "--data", data])
    assert done.exit_code == 0
    assert "spent is the amount of bought within 7d" in done.stdout
    assert "soon is how many bought within 1d" in done.stdout
    page = known.folder / "page.html"
    CliRunner().invoke(app, ["report", log, "--data", data, "--html", str(page)])
    assert "left is whether there is a churn within 28d" in page.read_text("utf-8")


def test_rules_without_metrics_and_a_window_beside_them_are_refused(known: Measured, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("decisions: {home: }\n")
    asked = ["report", str(known.log), "--rules", str(tmp_path)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code != 0
    assert "declare no metrics" in done.output
    done = CliRunner().invoke(app, [*asked, "--within", "7d"])
    assert done.exit_code != 0
    assert "leave `--within` out" in " ".join(done.output.split())
    assert json.loads(CliRunner().invoke(app, ["report", str(known.log), "--json"]).stdout)["metrics"] == []


def test_bounds_are_of_metrics_in_the_figure_of_each(known: Measured) -> None:
    data = ("--data", str(known.folder / "data"))
    code, found = known.report(*data, "--guard", "spent>=-1000", "--guard", "bought<=-0.99")
    assert code == 1
    held = {(each["guard"]["outcome"], each["guard"]["take"], each["state"]) for each in found["guards"]}
    assert held == {("spent", "sum", "kept"), ("bought", "any", "broke")}
    for guard, said in (("spend>=0", "did you mean `spent`?"), ("spent:any>=0", "leave `:any` out")):
        done = CliRunner().invoke(app, ["report", str(known.log), *data, "--guard", guard])
        assert done.exit_code != 0
        assert said in " ".join(done.output.replace("\u2502", " ").split())


def test_segments_are_told_by_the_figure_of_each_metric(known: Measured) -> None:
    data = ("--data", str(known.folder / "data"))
    _, found = known.report(*data, "--segments")
    trial = next(each for each in found["experiments"] if each["name"] == "team")
    figures = {(each["outcome"], each["take"]) for part in trial["parts"] for each in part["effects"]}
    assert figures == {("bought", "any"), ("left", "any"), ("soon", "count"), ("spent", "sum")}
    page = known.folder / "page.html"
    done = CliRunner().invoke(app, ["report", str(known.log), *data, "--segments", "--html", str(page)])
    assert "value a unit" in done.stdout[done.stdout.index("team by segment") :]
    assert "spent, value a unit" in page.read_text("utf-8")
