"""`python -m benchmarks.readme`: write the README's figures from docs/benchmarks/results.json; `--check` only compares.

Law: measures nothing. Every figure of the README comes through here, so that none is older than the committed results.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
RESULTS = HERE.parent / "docs" / "benchmarks" / "results.json"
BEGIN = "<!-- benchmarks: written by `python -m benchmarks.readme` -->\n"
END = "<!-- /benchmarks -->\n"

# What the README shows: where it lies in the results, what it is, its unit.
FIGURES = (
    (("decision", "whole_us", "p50"), "a whole decision in process, median (1)", "µs"),
    (("decision", "whole_us", "p99"), "the same, 99th percentile", "µs"),
    (("decision", "floor_us"), "what no engine could leave out of it, by hand with the same libraries", "µs"),
    (("matching", "match_us", "100"), "matching 100 rules", "µs"),
    (("matching", "match_us", "10000"), "matching 10,000 rules", "µs"),
    (("serving", "decision_us", "p50"), "a decision over gRPC, median (2)", "µs"),
    (("serving", "decision_us", "p99"), "the same, 99th percentile", "µs"),
    (("serving", "noop_us", "p50"), "a call that does nothing, on grpcio's own server, median (2)", "µs"),
    (("store", "read_us", "30 attributes, 20 features"), "reading a profile of 30 attributes and 20 features", "µs"),
    (("store", "writes_per_second", "64 in flight"), "updates on disk, 64 in flight", "a second"),
    (("store", "events_per_second", "20 features"), "events on disk, each counted in 20 features", "a second"),
)
NOTES = (
    "(1) Protobuf in and out, a profile of 30 attributes from the store, 1,000 rules, a model of 100 trees. "
    "(2) The same\nrules and model, one call at a time on one connection, the caller on the other core."
)
RATIOS = {
    "match_10000_over_100": "matching 10,000 rules over matching 100",
    "whole_over_floor": "a whole decision over what no engine could leave out",
    "repurchase_over_session_run": "a row through a model over onnxruntime's plain call, `repurchase`",
    "rfm_over_session_run": "the same, `rfm`",
    "read_over_bare_lmdb": "reading a profile over a bare LMDB get and decode",
    "one_by_one_over_grouped": "updates a second one by one over 64 in flight",
    "context_map_over_json": "reading `context` over reading the same as `context_json`",
    "decision_over_noop": "a decision over gRPC over a call that does nothing",
}


def figures(results: dict[str, Any], thresholds: dict[str, dict[str, float]]) -> str:
    """The block's text. Raises KeyError when the results lack a figure that the README shows."""
    machine = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    processor = f"{machine['cores']} cores of {machine['processor']}"
    where = (
        f"By `python -m benchmarks --out docs/benchmarks`, all on one machine: {processor}, {machine['system']}, "
        f"Python {machine['python']}; {packages}."
    )
    lines = [
        *textwrap.wrap(where, 120, break_on_hyphens=False),
        "",
        "| what | measured | |",
        "|---|--:|---|",
    ]
    for path, what, unit in FIGURES:
        value: Any = results
        for step in path:
            value = value[step]
        lines.append(f"| {what} | {value:,.{_digits(value)}f} | {unit} |")
    lines += ["", NOTES, "", "Times differ from machine to machine; ratios within one run are what is asserted:", ""]
    lines += ["| ratio | measured | at most |", "|---|--:|--:|"]
    for name, result in results.items():
        for ratio, value in result.get("ratios", {}).items() if name != "machine" else ():
            limit = thresholds.get(name, {}).get(ratio)
            lines.append(f"| {RATIOS[ratio]} | {value:.2f} | {'' if limit is None else f'{limit:g}'} |")
    lines += [
        "",
        "![One decision as rules grow](docs/benchmarks/matching.png)",
        "![What each microsecond of a decision buys](docs/benchmarks/decision.png)",
        "",
    ]
    return "\n".join(lines)


def _digits(value: float) -> int:
    return 1 if value < 100 else 0


def written(page: str) -> str:
    """The page with the figures of the committed results, or a sentence where there are none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"README.md lacks the markers {BEGIN.strip()} and {END.strip()}")
    block = "\nNone are committed yet; `make bench` prints yours.\n\n"
    if RESULTS.exists():
        results = json.loads(RESULTS.read_text("utf-8"))
        thresholds = json.loads((HERE / "thresholds.json").read_text("utf-8"))
        block = f"\n{figures(results, thresholds)}\n"
    return f"{before}{begin}{block}{end}{after}"


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 when the README is not up to date")
    arguments = parser.parse_args()
    page = README.read_text("utf-8")
    fresh = written(page)
    if arguments.check and page != fresh:
        sys.exit("README.md's figures are not those of docs/benchmarks/results.json: run `python -m benchmarks.readme`")
    if not arguments.check:
        README.write_text(fresh, "utf-8")


if __name__ == "__main__":
    main()
