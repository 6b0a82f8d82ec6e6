"""`python -m benchmarks`: measure, print a table, write `results.json` and plots, and fail below the thresholds.

`python -m benchmarks NAME...` runs only these. `thresholds.json` bounds ratios, by benchmark; a bare time is printed
beside the machine it was taken on, and not asserted. The exceptions are promised as they are: how long ten thousand
rules may take to compile, how much memory 100,000 may take, how many updates and batched decisions a second there are,
and how long a read may take.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import machine
from benchmarks.plots import draw
from benchmarks.thresholds import thresholds

if TYPE_CHECKING:
    from benchmarks.thresholds import Bound

HERE = Path(__file__).parent
NAMES = (
    "matching", "comparison", "scale", "compiling", "reload",
    "decision", "model_latency", "store", "consent", "experiments", "wire",
    "serving", "latency", "overload", "batches", "rule_counts", "profiles", "workers", "updates", "telemetry",
    "kafka", "linking", "needing", "swapping", "openbandit", "triggers", "firing",
    "recording",
)  # fmt: skip
LARGE = ("profiles_10m", "trigger_memory")  # only when named


def main() -> int:
    """Run the benchmarks named on the command line; 1 when a ratio is beyond its threshold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        choices=[*NAMES, *LARGE, []],
        help=f"of {', '.join(NAMES)}, which all run when none is given, or of {', '.join(LARGE)}, only when named",
    )
    parser.add_argument("--out", type=Path, default=HERE / "out", help="where results and plots go")
    arguments = parser.parse_args()
    console = Console(width=100)
    results: dict[str, Any] = {"machine": machine()}
    for name in arguments.names or NAMES:
        with console.status(f"measuring {name}"):
            results[name] = importlib.import_module(f"benchmarks.{name}").run()
    console.print_json(data=results["machine"])
    failed = _print(console, results, thresholds())
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    for plot in draw(results, arguments.out):
        console.print(f"plot: {plot.name}")
    return 1 if failed else 0


def _print(console: Console, results: dict[str, Any], bounds: dict[str, dict[str, Bound]]) -> list[str]:
    figures = Table(title="figures of this run")
    figures.add_column("what")
    figures.add_column("value", justify="right")
    ratios = Table(title="ratios, which are asserted")
    for heading in ("ratio", "measured", "must be", ""):
        ratios.add_column(heading, justify="left" if heading == "ratio" else "right")
    failed = []
    for name, result in results.items():
        if name == "machine":
            continue
        for group, value in result.items():
            if group not in {"ratios", "series"}:
                for key, cell in _flat(value):
                    shown = f"{cell:,.2f}" if isinstance(cell, float) else str(cell)
                    figures.add_row(f"{name}: {group} {key}".rstrip(), shown)
        for ratio, measured in result.get("ratios", {}).items():
            bound = bounds.get(name, {}).get(ratio)
            good = bound is None or bound.holds(measured)
            said = "" if bound is None else str(bound)
            ratios.add_row(f"{name}: {ratio}", f"{measured:.2f}", said, "ok" if good else "NOT KEPT")
            if not good:
                failed.append(f"{name}: {ratio}")
    console.print(figures)
    console.print(ratios)
    return failed


def _flat(value: Any, before: str = "") -> list[tuple[str, Any]]:
    """Figures under the names that lead to them."""
    if not isinstance(value, dict):
        return [(before, value)]
    return [pair for key, cell in value.items() for pair in _flat(cell, f"{before}, {key}" if before else str(key))]


if __name__ == "__main__":
    sys.exit(main())
