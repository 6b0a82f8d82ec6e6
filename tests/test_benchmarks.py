"""The benchmarks hold together: what is asserted is measured and named, what is started answers, what is drawn is."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arbiter.bench import Load, drive
from benchmarks import __main__ as program
from benchmarks import readme, servers
from benchmarks.plots import draw
from benchmarks.thresholds import thresholds

if TYPE_CHECKING:
    from collections.abc import Callable

# What they are compared with is an extra that tests do without.
WITHOUT_RIVALS = sorted({*program.NAMES, *program.LARGE} - {"comparison", "scale"})
SERVERS: dict[str, tuple[Callable[..., None], Callable[[Path], tuple[object, ...]]]] = {
    "no-op, sync": (servers.noop_sync, lambda _: ()),
    "no-op, aio": (servers.noop_aio, lambda _: ()),
    "ours": (servers.decisions, lambda home: (home, servers.ordinary("inline"))),
}


@pytest.mark.parametrize("name", WITHOUT_RIVALS)
def test_every_benchmark_is_a_module_that_says_how_it_measures(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert callable(module.run)
    assert module.__doc__


def test_every_bound_is_of_a_benchmark_and_named_in_the_readme() -> None:
    bounds = thresholds()
    assert set(bounds) <= {*program.NAMES, *program.LARGE}
    assert not {ratio for ratios in bounds.values() for ratio in ratios} - set(readme.RATIOS)


@pytest.mark.parametrize("name", SERVERS)
def test_servers_that_are_compared_answer_every_question(name: str, tmp_path: Path) -> None:
    serve, arguments = SERVERS[name]
    with servers.started(serve, *arguments(tmp_path / "home")) as target:
        (result,) = drive(Load(target, servers.DECIDE, servers.questions(), streams=4, seconds=0.2, warmup=0))
    assert result.ended[0] > 0
    assert result.failed == 0


def test_what_was_measured_is_drawn(tmp_path: Path) -> None:
    results = json.loads((Path(readme.RESULTS)).read_text("utf-8"))
    names = ("no-op, sync", "no-op, aio", "inline", "inline, model", "stock", "stock, model")
    curve = {"1": 100.0, "10": 200.0, "100": 150.0}
    results["serving"] = {
        "calls_per_second": {"32 streams": dict.fromkeys(names, 1000.0)},
        "p50_us": {"1 stream": dict.fromkeys(names, 200.0)},
    }
    results["latency"] = {
        "capacity": 1000.0,
        "us": {name: {"0.1": 1.0, "0.9": 9.0} for name in ("p50", "p99", "p99.9")},
    }
    results["overload"] = {
        "knee_streams": 2, "at_ten_times_the_knee": {"goodput": 150.0, "p99_ms": 3.0}, "open_capacity": 150.0,
        "closed_goodput": curve, "closed_p99_ms": curve, "open_goodput": curve, "open_p99_ms": curve,
        "open_goodput_deaf": curve, "open_p99_ms_deaf": curve,
    }  # fmt: skip
    for name in ("batches", "rule_counts", "profiles"):
        results[name] = {"decisions_per_second": curve}
    both = {"p50": 4.0, "p99": 9.0}
    updates = {"a second, alone": 9000.0, "a second, beside decisions": 5000.0}
    of_sizes = {"read_us": both, "decide_us": both, "cold_read_us": both, "updates": updates}
    results["profiles_10m"] = {group: {"10000": each, "10000000": each} for group, each in of_sizes.items()}
    drawn = {path.stem for path in draw(results, tmp_path)}
    grpc = {"serving", "latency", "overload", "batches", "rule_counts", "profiles"}
    assert {*grpc, "reload", "profiles_10m"} <= drawn
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in drawn)
