"""`python -m benchmarks.readme`: write the README's figures from what lies in docs/benchmarks; `--check` only compares.

Law: measures nothing. Every figure of the README comes through here, so that none is older than the committed results.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.soak.report import table
from benchmarks.thresholds import thresholds

if TYPE_CHECKING:
    from benchmarks.thresholds import Bound

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
RESULTS = HERE.parent / "docs" / "benchmarks" / "results.json"
# Runs of their own, on a machine that may be another: never mixed with the figures of the first. By folder.
APART = {
    "docs/benchmarks/grpc": """**Over gRPC.** Another run, and another machine of the same name: what it takes for a
whole decision in process says how it compares with the one above.""",
    "docs/benchmarks/store": """**The store, up to ten million profiles.** Another run, on a machine of the same name.
[How it is measured, and what to mind.](docs/benchmarks.md#ten-million-profiles)""",
}
SOAK = "docs/benchmarks/soak"
BEGIN = "<!-- benchmarks: written by `python -m benchmarks.readme` -->\n"
END = "<!-- /benchmarks -->\n"

# What the README shows: where it lies in the results, what it is, its unit.
FIGURES = (
    (("decision", "whole_us", "p50"), "a whole decision in process, median (1)", "µs"),
    (("decision", "whole_us", "p99"), "the same, 99th percentile", "µs"),
    (("decision", "floor_us"), "what no engine could leave out of it, by hand with the same libraries", "µs"),
    (("matching", "match_us", "100"), "matching 100 rules", "µs"),
    (("matching", "match_us", "10000"), "matching 10,000 rules", "µs"),
    (("comparison", "narrow_us", "ours, best rule", "100000"), "the best of 100,000 narrow rules (3)", "µs"),
    (("comparison", "narrow_us", "zen-engine, loaded", "10000"), "the best of 10,000, zen-engine loaded (4)", "µs"),
    (("comparison", "narrow_us", "ours, best rule", "10000"), "the same, by ours", "µs"),
    (("comparison", "broad_us", "generated Python", "10000"), "10,000 broad rules, generated Python", "µs"),
    (("comparison", "broad_us", "ours, best rule", "10000"), "the same, by ours", "µs"),
    (("reload", "quiet_ms", "p99"), "a decision over gRPC under steady load, 99th percentile (5)", "ms"),
    (("reload", "reloading_ms", "p99"), "the same while 10,000 rules reload every second", "ms"),
    (("reload", "live_ms", "p50"), "from a changed file to decisions by it, of 10,000 rules", "ms"),
    (
        ("serving", "calls_per_second", "32 streams", "inline, model"),
        "decisions over gRPC, one core, the model for everybody (2)",
        "a second",
    ),
    (
        ("serving", "calls_per_second", "32 streams", "inline"),
        "the same, the model for one person in eight",
        "a second",
    ),
    (("serving", "calls_per_second", "32 streams", "no-op, sync"), "calls that do nothing, grpcio's own", "a second"),
    (("serving", "calls_per_second", "32 streams", "no-op, aio"), "the same, `grpc.aio`", "a second"),
    (("serving", "p50_us", "1 stream", "inline, model"), "a decision over gRPC, one call at a time, median (2)", "µs"),
    (("serving", "p50_us", "1 stream", "no-op, sync"), "a call that does nothing, grpcio's own server", "µs"),
    (("batches", "decisions_per_second", "100"), "decisions in batches of 100", "a second"),
    (("profiles", "decisions_per_second", "1000000"), "decisions over a million profiles, no model", "a second"),
    (("workers", "decisions_per_second", "2"), "decisions by two workers, the load on the same two cores", "a second"),
    (("updates", "calls_per_second", "updates alone"), "updates over gRPC, each on disk when answered", "a second"),
    (("updates", "calls_per_second", "updates beside the other"), "the same beside decisions", "a second"),
    (("updates", "calls_per_second", "decisions beside the other"), "and the decisions beside them", "a second"),
    (("store", "read_us", "30 attributes, 20 features"), "reading a profile of 30 attributes and 20 features", "µs"),
    (("store", "writes_per_second", "64 in flight"), "updates on disk, 64 in flight", "a second"),
    (("store", "writes_per_second", "one by one"), "the same, one by one", "a second"),
    (("store", "events_per_second", "20 features"), "events on disk, each counted in 20 features", "a second"),
    (("profiles_10m", "read_us", "10000", "p50"), "a read of 10,000 profiles, median (6)", "µs"),
    (("profiles_10m", "read_us", "10000000", "p50"), "a read of ten million", "µs"),
    (("profiles_10m", "read_us", "10000000", "p99"), "the same, 99th percentile", "µs"),
    (("profiles_10m", "first_read_us", "10000000", "p50"), "the same of pages not used before, median", "µs"),
    (("profiles_10m", "cold_read_us", "10000000", "p50"), "the same from the disk, median", "µs"),
    (("profiles_10m", "cold_read_us", "10000000", "p99"), "the same from the disk, 99th percentile", "µs"),
    (("profiles_10m", "decide_us", "10000", "p50"), "a decision over 10,000 profiles, median", "µs"),
    (("profiles_10m", "decide_us", "10000000", "p50"), "a decision over ten million", "µs"),
    (("profiles_10m", "updates", "10000000", "a second, alone"), "updates of ten million, 64 in flight", "a second"),
    (
        ("profiles_10m", "updates", "10000000", "µs of a decision beside updates, p99"),
        "a decision beside them, 99th percentile",
        "µs",
    ),
    (
        ("profiles_10m", "filled", "10000000", "profiles a second, in order"),
        "profiles a second, written in the order of their keys",
        "a second",
    ),
    (
        ("profiles_10m", "over_grpc", "10000000", "new people a second"),
        "new people over gRPC, in any order, 64 in flight",
        "a second",
    ),
    (("profiles_10m", "over_grpc", "10000000", "MB of its own"), "memory of a worker's own over ten million", "MB"),
    (("profiles_10m", "filled", "10000000", "hot bytes a profile"), "on disk a profile, what decisions read", "bytes"),
    (("profiles_10m", "filled", "10000000", "cold bytes a profile"), "and the states behind its features", "bytes"),
)
# Shown where the results have their benchmark; the note's number is what the figures refer to.
NOTES = {
    "decision": "(1) Protobuf in and out, a profile of 30 attributes from the store, 1,000 rules, "
    "a model of 100 trees.",
    "serving": "(2) The same rules and model, the server on one core and the load on the other; many at "
    "once are 32 streams of one connection.",
    "comparison": "(3) Narrow rules have four to six conditions on nine attributes; a person meets one of 100,000 "
    "or none; a broad rule is met by one person in twenty-five, so that the first in order is soon found. (4) Its "
    "fastest use: its own loader prepares a table, where a decision that was created once goes through the rows.",
    "reload": "(5) One worker, a fixed rate of calls from another process.",
    "profiles_10m": "(6) In process, of subjects drawn at random, in memory unless it says otherwise; 30 "
    "attributes and six features; decisions by 1,000 rules, without a model.",
}
PLOTS = {
    "matching": ["![One decision as rules grow](docs/benchmarks/matching.png)"],
    "comparison": ["![The best rule for a person, as rules grow](docs/benchmarks/comparison.png)"],
    "reload": ["![Decisions while rules reload](docs/benchmarks/reload.png)"],
    "serving": ["![A decision over gRPC beside calls that do nothing](docs/benchmarks/serving.png)"],
    "latency": ["![How long a decision takes as more of them come](docs/benchmarks/latency.png)"],
    "overload": ["![What is answered of more than a server can answer](docs/benchmarks/overload.png)"],
    "decision": ["![What each microsecond of a decision buys](docs/benchmarks/decision.png)"],
    "profiles_10m": ["![The store as profiles grow](docs/benchmarks/profiles_10m.png)"],
}
RATIOS = {
    "match_10000_over_100": "matching 10,000 rules over matching 100",
    "zen_engine_created_over_ours_1000": "zen-engine, a decision created once, over ours: the best of 1,000 rules",
    "zen_engine_created_over_ours_10000": "the same of 10,000",
    "zen_engine_loaded_over_ours_1000": "zen-engine, the table in its loader, over ours: the best of 1,000 rules",
    "zen_engine_loaded_over_ours_10000": "the same of 10,000",
    "durable_rules_over_ours_1000": "durable-rules over ours: the best of 1,000 rules (it takes no 10,000)",
    "generated_python_over_ours_1000": "generated Python over ours: the best of 1,000 rules",
    "generated_python_over_ours_10000": "the same of 10,000",
    "generated_python_choosily_over_ours_1000": "generated Python that knows which conditions few people pass, 1,000",
    "generated_python_choosily_over_ours_10000": "the same, 10,000",
    "best_rule_100000_over_100": "the best of 100,000 rules over the best of 100",
    "all_rules_100000_over_100": "all that hold of 100,000 rules over all of 100",
    "hard_index_100000_over_100": "what the index leaves of 100,000 hard rules over 100",
    "hard_best_rule_100000_over_100": "the best of 100,000 hard rules over the best of 100",
    "hard_all_rules_100000_over_100": "all that hold of 100,000 hard rules over all of 100",
    "narrow_resident_gigabytes": "memory of 100,000 narrow rules in a worker, GB",
    "hard_resident_gigabytes": "memory of 100,000 hard rules in a worker, GB",
    "memory_after_all_over_after_half": "memory of triggers after five million events over after half of them",
    "log_over_bare_reading": "bare reading of a log over 200 triggers that catch up on it, events a second",
    "triggers_2000_over_200": "an event through 2,000 triggers, which make ten times as much of it, over 200",
    "cold_seconds": "compiling 10,000 rules from 100 files, cold, seconds",
    "one_file_seconds": "the same when one file changed, seconds",
    "p99_reloading_over_quiet": "99th percentile of decisions while reloading over quiet",
    "failed_calls": "calls that failed while rules reloaded",
    "mixed_answers": "answers that mixed two snapshots",
    "whole_over_floor": "a whole decision over what no engine could leave out",
    "repurchase_over_session_run": "a row through a model over onnxruntime's plain call, `repurchase`",
    "rfm_over_session_run": "the same, `rfm`",
    "read_over_bare_lmdb": "reading a profile over a bare LMDB get and decode",
    "drawn_over_hash": "drawing one of two variants in a part of a layer, over one published hash",
    "uneven_over_hash": "the same of two in 9 to 1",
    "three_over_hash": "the same of three in 3 to 2 to 1",
    "beside_over_without": "a decision that reads no experiment, in a rule set with and without some",
    "answer_to_firing_p99_ms": "from the answer to an event to the firing at who follows, 99th percentile, ms",
    "decision_p99_on_over_off": "99th percentile of decisions beside 2,000 events a second, with triggers over without",
    "hiding_over_read": "what hiding six attributes and four features adds to a decision, over the read of the profile",
    "read_us": "reading a profile of 30 attributes and 20 features, µs, in the quickest of nine rounds",
    "grouped_writes_per_commit": "updates that share a commit, 64 in flight",
    "one_by_one_over_grouped": "updates a second one by one over 64 in flight",
    "context_map_over_json": "reading `context` over reading the same as `context_json`",
    "inline_throughput_over_noop": "decisions over gRPC, the model when needed, over grpcio's no-ops, 32 streams",
    "inline_cpu_over_noop": "the server's processor time of such a decision over a no-op's",
    "inline_median_over_noop": "the median of such a decision over a no-op's, one stream",
    "inline_model_throughput_over_noop": "the same, the model for everybody",
    "inline_model_cpu_over_noop": "the server's processor time of a decision over a no-op's",
    "inline_model_median_over_noop": "the median of a decision over a no-op's, one stream",
    "stock_throughput_over_noop": "decisions on the stock transport, the model when needed, over no-ops, 32 streams",
    "stock_cpu_over_noop": "their processor time",
    "stock_median_over_noop": "their median, one stream",
    "stock_model_throughput_over_noop": "the same, the model for everybody",
    "stock_model_cpu_over_noop": "their processor time",
    "stock_model_median_over_noop": "their median, one stream",
    "p99_at_half_over_p50_at_a_tenth": "99th percentile at half of the capacity over the median at a tenth",
    "closed_goodput_at_ten_times_the_knee": "answers of ten times the callers that a server needs over its best",
    "closed_p99_over_fair_share": "their 99th percentile over their fair share of waiting",
    "open_goodput_at_1.3": "answers in time at 1.3 times of what a server can answer, over that",
    "batches_of_100_decisions_per_second": "decisions a second in batches of 100",
    "batches_of_100_over_1": "the same over batches of one",
    "throughput_100000_rules_over_10": "decisions over gRPC by 100,000 rules over decisions by 10",
    "throughput_1000000_profiles_over_1000": "decisions over a million profiles over decisions over a thousand",
    "read_p50_10000000_over_10000": "a read of ten million profiles over one of 10,000, medians",
    "first_read_p50_10000000_over_10000": "the same of pages that were not used before",
    "decide_p50_10000000_over_10000": "a decision over ten million profiles over one over 10,000, medians",
    "updates_10000000_over_10000": "updates a second of ten million profiles over those of 10,000",
    "updates_per_commit_of_10000000": "updates that share a commit, of ten million, 64 in flight",
    "throughput_10000000_profiles_over_10000": "decisions a second over gRPC, ten million profiles over 10,000",
    "two_workers_over_one": "decisions by two workers over one, the load on the same two cores",
    "cpu_on_over_off": "processor time of a decision with all telemetry on, over that with none",
    "updates_per_second": "updates a second over gRPC, each on disk when answered",
    "together_over_alone": "decisions and updates beside each other, each as a share of itself alone, summed",
    "trees_add_us": "what needing a model of 100 trees adds to a decision, in µs",
    "eight_over_one": "a decision that needs eight logistic models over one that needs one",
    "eight_add_over_one_adds": "the same of what they add to one that needs none",
    "apart_over_eight": "a decision that runs eight models one by one over one that runs them as one graph",
    "estimates_that_hold_the_truth": "off-policy estimates of a real log whose interval holds what was seen, a share",
}


def figures(results: dict[str, Any], bounds: dict[str, dict[str, Bound]], folder: str = "docs/benchmarks") -> str:
    """The text of one run, whose plots are in `folder`. Benchmarks that were not run are left out; raises KeyError when
    one of the others lacks a figure that the README shows.
    """
    machine = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    processor = f"{machine['cores']} cores of {machine['processor']}"
    names = f"{' '.join(name for name in results if name != 'machine')} " if folder != "docs/benchmarks" else ""
    where = (
        f"By `python -m benchmarks {names}--out {folder}`, all on one machine: {processor}, {machine['system']}, "
        f"Python {machine['python']}; {packages}."
    )
    lines = [
        *textwrap.wrap(where, 120, break_on_hyphens=False),
        "",
        "| what | measured | |",
        "|---|--:|---|",
    ]
    for path, what, unit in (each for each in FIGURES if each[0][0] in results):
        value: Any = results
        for step in path:
            value = value[step]
        lines.append(f"| {what} | {value:,.{_digits(value)}f} | {unit} |")
    notes = " ".join(note for name, note in NOTES.items() if name in results)
    lines += ["", *textwrap.wrap(notes, 120, break_on_hyphens=False), ""]
    lines += ["Times differ from machine to machine; ratios within one run are what is asserted:", ""]
    lines += ["| ratio | measured | must be |", "|---|--:|--:|"]
    for name, result in results.items():
        for ratio, value in result.get("ratios", {}).items() if name != "machine" else ():
            lines.append(f"| {RATIOS[ratio]} | {value:,.2f} | {bounds.get(name, {}).get(ratio, '')} |")
    plots = (line for name, shown in PLOTS.items() if name in results for line in shown)
    lines += ["", *(line.replace("(docs/benchmarks/", f"({folder}/") for line in plots), ""]
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
        block = f"\n{figures(results, thresholds())}\n"
    for folder, said in APART.items():
        of_its_own = README.parent / folder / "results.json"
        if of_its_own.exists():
            results = json.loads(of_its_own.read_text("utf-8"))
            block += f"{said}\n\n{figures(results, thresholds(), folder)}\n"
    soak = README.parent / SOAK / "soak.json"
    if soak.exists():
        block += (
            "**Everything at once, while all goes wrong.** Found by `make soak` "
            "([what it does](docs/development.md#soak)):\n\n"
            f"{table(json.loads(soak.read_text('utf-8')))}\n\n"
            f"![Memory and calls of a soak]({SOAK}/soak.png)\n\n"
        )
    return f"{before}{begin}{block}{end}{after}"


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 when the README is not up to date")
    arguments = parser.parse_args()
    page = README.read_text("utf-8")
    fresh = written(page)
    if arguments.check and page != fresh:
        sys.exit("README.md's figures are not those in docs/benchmarks: run `python -m benchmarks.readme`")
    if not arguments.check:
        README.write_text(fresh, "utf-8")


if __name__ == "__main__":
    main()
