"""What a soak found, as a table and a plot: `python -m benchmarks.soak.report FILE` prints the table of a result.

Law: says what the result holds and computes nothing that is not in it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.plots import GROUND, INK

_MARKS = {"kill": "#b3261e", "term": "#b3261e", "full disk": "#7a3b00", "clock": "#8e3f97", "bad clients": "#666666"}


def table(result: dict[str, Any]) -> str:
    """A table in Markdown, and what was wrong below it."""
    done, calls = result["done"], result["calls"]
    failed = {name: count for name, count in calls.items() if not name.endswith(" OK")}
    happened = ", ".join(f"{count} {kind}" for kind, count in result["disturbances"].items())
    rows = [
        ("duration, seed", f"{result['minutes']:g} minutes, {result['seed']}"),
        ("calls", f"{sum(calls.values()):,}"),
        ("calls that failed and were made again, by code", _by_code(failed)),
        ("decisions checked against the oracle", f"{done.get('decisions checked', 0):,}"),
        ("wrong decisions, lost writes and other faults", f"{result['faults']}"),
        ("profiles compared with the ledger", f"{done.get('profiles checked', 0):,}"),
        ("writes acknowledged, events in them",
         f"{done.get('writes acknowledged', 0):,}, {done.get('events acknowledged', 0):,}"),
        ("writes whose fate was unknown at first", f"{done.get('writes of unknown fate', 0):,}"),
        ("writes refused while the disk was full", f"{done.get('writes refused, disk full', 0):,}"),
        ("subjects compared after kill -9 of everything", f"{result['audited_subjects']:,}"),
        ("disturbances", happened),
        ("the disk", result["disk"]),
        ("slowest answered call", f"{result['slowest_call_s']} s"),
        ("machine busy", f"{100 * result['machine_busy']:.0f} %"),
        *((f"memory of {each['process'].split()[0]}, {each['minutes']:g} minutes old",
           f"{each['mib_first']} → {each['mib_last']} MiB, {each['mib_per_hour']:+.1f} MiB an hour")
          for each in result["flatness"]),
        ("data at the end", f"{result['data_mib_last']:,} MiB"),
    ]  # fmt: skip
    lines = ["| what | value |", "|---|---:|", *(f"| {what} | {value} |" for what, value in rows)]
    return "\n".join([*lines, *(f"\nFAULT: {fault}" for fault in result["first_faults"])])


def _by_code(failed: dict[str, int]) -> str:
    codes: dict[str, int] = {}
    for name, count in failed.items():
        code = name.partition(" ")[2]
        codes[code] = codes.get(code, 0) + count
    return ", ".join(f"{count:,} {code}" for code, count in sorted(codes.items())) or "none"


def draw(result: dict[str, Any], path: Path) -> None:
    """Memory and calls as time went on, with what happened meanwhile."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and needed only here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    series = result["series"]
    kinds = [*dict.fromkeys(kind for _, kind, _ in series["disturbances"])]
    with mpl.rc_context({"figure.facecolor": GROUND, "axes.facecolor": GROUND, "axes.titlesize": 10}):
        figure, (memory, traffic, events) = plt.subplots(
            3, 1, figsize=(11, 7.5), sharex=True, layout="constrained", height_ratios=(3, 3, 2)
        )
        for each in series["processes"]:
            at = [sample[0] / 60 for sample in each["samples"]]
            colour = INK if each["process"] == "supervisor" else "#0b5fa5"
            memory.plot(at, [sample[1] for sample in each["samples"]], color=colour, linewidth=1.2)
        memory.set(ylabel="MiB of own memory", ylim=(0, None))
        memory.set_title(f"Soak of {result['minutes']:g} minutes: supervisor (black), workers (blue)")
        traffic.plot([at / 60 for at, _ in series["calls_per_s"]], [n for _, n in series["calls_per_s"]],
                     color="#3a7d34", linewidth=1)  # fmt: skip
        traffic.set(ylabel="calls a second", ylim=(0, None))
        for row, kind in enumerate(kinds):
            times = [at / 60 for at, what, _ in series["disturbances"] if what == kind]
            events.eventplot(
                times, lineoffsets=row, linelengths=0.7, linewidths=1.4, colors=_MARKS.get(kind, "#57a3dd")
            )
        events.set(xlabel="minutes", yticks=range(len(kinds)), yticklabels=kinds)
        events.invert_yaxis()
        for axes in (memory, traffic, events):
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def main() -> None:
    """Print the table of a result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.report")
    parser.add_argument("file", type=Path, nargs="?", default=Path("docs/benchmarks/soak/soak.json"))
    print(table(json.loads(parser.parse_args().file.read_text("utf-8"))))


if __name__ == "__main__":
    main()
