"""The dashboard and the alert rules ask for metrics and labels that a real server exports, and for nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from arbiter.telemetry import instruments
from arbiter.telemetry.counters import Counters
from arbiter.telemetry.instruments import INSTRUMENTS
from arbiter.telemetry.prometheus import exposition, label_of, name_of
from arbiter.telemetry.totals import attributes_of, joined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.telemetry.instrument import Instrument

DEPLOY = Path(__file__).parent.parent.parent / "docs" / "deploy"
# What Prometheus adds to what it scrapes, and to histograms.
THEIRS = {"job", "instance", "le"}
WORDS = {
    "avg", "by", "count", "histogram_quantile", "increase", "max", "min", "rate", "scalar", "sum", "topk", "without",
}  # fmt: skip
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class Query:
    """What a PromQL expression reads: metrics with the labels that select their series, and those that group them."""

    def __init__(self, expression: str) -> None:
        text = re.sub(r"\$__rate_interval", "5m", expression)
        self.grouped = {
            label for labels in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", text)
            for label in NAME.findall(labels)
        }  # fmt: skip
        text = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", "", text)
        self.read: dict[str, set[str]] = {}
        for name, selector in re.findall(
            r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{([^}]*)\})?", re.sub(r"\[[^]]*\]", "", text)
        ):
            if name not in WORDS:
                self.read.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))


def endings(instrument: Instrument) -> tuple[str, ...]:
    """What follows an instrument's name in the names of its samples."""
    return {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}.get(instrument.kind, ("",))


def exported() -> dict[str, set[str]]:
    """Every sample's name that a scrape can hold, with its labels."""
    found: dict[str, set[str]] = {}
    for each in INSTRUMENTS:
        labels = {label_of(attribute) for attribute in attributes_of(each)}
        for ending in endings(each):
            found[name_of(each) + ending] = labels | ({"le"} if ending == "_bucket" else set())
    return found


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text("utf-8"))
    return read


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yaml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str, str]]:
    """Where each stands, itself, and the text that names its labels."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]
    for rule in alerts():
        yield rule["alert"], rule["expr"], " ".join(rule["annotations"].values())


@pytest.mark.parametrize(("place", "expression", "text"), list(expressions()))
def test_an_expression_asks_for_what_is_exported(place: str, expression: str, text: str) -> None:
    query, known = Query(expression), exported()
    assert query.read, place
    assert query.read.keys() <= known.keys(), place
    labels = set.union(*(known[name] for name in query.read)) | THEIRS
    for name, selected in query.read.items():
        assert selected <= known[name] | THEIRS, f"{place}: {name}"
    assert query.grouped <= labels, place
    shown = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", text)) | set(re.findall(r"\$labels\.(\w+)", text))
    assert shown <= labels, place


def test_the_dashboard_shows_every_metric_that_tells_of_arbiter() -> None:
    shown = {name for _, expression, _ in expressions() for name in Query(expression).read}
    missing = [each.name for each in INSTRUMENTS if not shown & {name_of(each) + ending for ending in endings(each)}]
    assert missing == ["cpython.gc.collected_objects"]


def test_panels_do_not_overlap_and_alerts_say_what_to_do() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    for rule in alerts():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "description"}


def everything() -> Counters:
    """Counters in which nothing is missing."""
    counters = Counters(last_reload_at=1, snapshot_at=1, snapshot_digest="digest", last_reload_mistakes=1)
    for counts in (
        counters.shed, counters.errors, counters.decisions, counters.defaulted, counters.canary_decisions,
        counters.by_snapshot, counters.wins, counters.sampled, counters.matches, counters.unknowns,
        counters.consumed, counters.consumer_errors, counters.trigger_firings, counters.trigger_passed,
        counters.trigger_set_aside, counters.log_dropped,
    ):  # fmt: skip
        counts["any"] += 1
    for pairs in (counters.degraded, counters.outcomes):
        pairs["any", "other"] += 1
    counters.durations["any"].add(20_000)
    counters.calls["any", "INTERNAL"].add(20_000)
    counters.models["any", "1"].runs += 1
    counters.model_values["any", "1", "field", "bin"] += 1
    counters.model_drift["any", "1", "field"] = 0.5
    counters.model_alarms["any", "1", "field"] = 1
    counters.consumer_lags["any", "other"] = 1
    counters.consumer_paused = "any"
    return counters


def test_the_names_are_those_of_the_exposition() -> None:
    counters = everything()
    readings = [
        ("supervisor", instruments.read(counters, "supervisor")), ("worker-0", instruments.read(counters, "worker")),
    ]  # fmt: skip
    text, _ = exposition(joined(readings, {}))
    scraped: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            scraped.setdefault(sample.name, set()).update(sample.labels)
    assert scraped == exported()


def test_nothing_of_the_rules_is_a_label_that_operators_could_not_bound() -> None:
    counters = Counters()
    for number in range(3_000):
        counters.wins[f"rule-{number}"] += 2
    points = dict(instruments.read(counters, "worker")["arbiter.rule.wins"])
    assert len(points) == 1_001
    assert points[("rule-0",)] == 2
    assert points[("_OTHER",)] == 4_000
