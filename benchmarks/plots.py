"""Plots of what was measured, as PNG files.

Law: on a ground of their own, so that they read the same on a light page and on a dark one; lines named where they end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import load_plots, store_plots

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Our lines, then the others' (subject, label, colour), told apart by lightness too.
COMPARED = (
    ("ours, best rule", "Arbiter, best rule", "#0b5fa5"),
    ("ours, all rules", "Arbiter, all rules that hold", "#57a3dd"),
    ("generated Python", "generated Python", "#3a7d34"),
    ("zen-engine, created", "zen-engine, decision created once", "#7a3b00"),
    ("zen-engine, loaded", "zen-engine, table in its loader", "#d9822b"),
    ("durable-rules", "durable-rules", "#8e3f97"),
)
GROUND, INK = "#fbfbf9", "#2b2b2b"


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what `results` has figures for; the files written."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and needed only here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    written = []
    for name, (size, fill) in (_PLOTS | load_plots.PLOTS | store_plots.PLOTS).items():
        if name not in results:
            continue
        with mpl.rc_context({"figure.facecolor": GROUND, "axes.facecolor": GROUND, "axes.titlesize": 10}):
            figure = plt.figure(figsize=size, layout="constrained")
            fill(figure, results)
            for axes in figure.axes:
                axes.spines[["top", "right"]].set_visible(False)
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=130, bbox_inches="tight")
            plt.close(figure)
        written.append(path)
    return written


def _matching(axes: Axes, results: dict[str, Any]) -> None:
    for key, label in (("decide_us", "whole decision core"), ("match_us", "matching alone")):
        points = results["matching"][key]
        axes.plot([int(size) for size in points], list(points.values()), marker="o", label=label)
    axes.set(xscale="log", xlabel="rules at the decision point", ylabel="µs per decision", ylim=(0, None))
    axes.set_title(f"One decision as rules grow ({results['machine']['processor']})")
    axes.grid(alpha=0.3)
    axes.legend()


def _comparison(axes: Axes, results: dict[str, Any]) -> None:
    took = results["comparison"]["narrow_us"]
    ends = []
    for subject, label, colour in COMPARED:
        points = {int(size): value for size, value in took.get(subject, {}).items()}
        if points:
            axes.plot(list(points), list(points.values()), marker="o", markersize=4, color=colour)
            ends.append((max(points), points[max(points)], label, colour))
    axes.set(xscale="log", yscale="log", xlabel="rules at the decision point", ylabel="µs per answer")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,g}")
    axes.set_title(f"Which rule is best for this person? ({results['machine']['processor']})")
    axes.grid(alpha=0.25, which="major")
    # Names stand at the ends of their lines, moved apart where two ends are close.
    last = 0.0
    for x, y, label, colour in sorted(ends, key=lambda end: end[:2]):
        height = max(y, last * 1.75) if x == max(end[0] for end in ends) else y
        last = height if x == max(end[0] for end in ends) else last
        axes.annotate(
            label, (x, y), (x * 1.25, height), color=colour, fontsize=9, va="center", annotation_clip=False
        )  # fmt: skip


def _reload(axes: Axes, results: dict[str, Any]) -> None:
    series = results["reload"]["series"]
    at, middle, longest = zip(*series["latency"], strict=True)
    for name, start, end in series["phases"]:
        if name == "reloading":
            axes.axvspan(start, end, color="#d9822b", alpha=0.12, linewidth=0)
    axes.scatter(at, longest, s=6, color="#7a3b00", linewidth=0)
    axes.plot(at, middle, color="#0b5fa5", linewidth=1)
    axes.set(yscale="log", xlabel="seconds", ylabel="ms of a call")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.plot(series["changes"], [0.02] * len(series["changes"]), "|", color=INK, transform=axes.get_xaxis_transform())
    axes.plot(series["live"], [0.06] * len(series["live"]), "|", color="#3a7d34", transform=axes.get_xaxis_transform())
    rate = results["reload"]["load"]["calls a second"]
    axes.set_title(f"Decisions while 10,000 rules reload every second, {rate} calls a second")
    notes = (
        ("longest call of 100 ms", "#7a3b00", 0.93), ("median of 100 ms", "#0b5fa5", 0.85),
        ("a reload is live", "#3a7d34", 0.10), ("a file changes", INK, 0.02),
    )  # fmt: skip
    for text, colour, height in notes:
        axes.text(1.01, height, text, color=colour, fontsize=9, transform=axes.transAxes)
    axes.text(1.01, 0.5, "shaded: reloading", color="#a65e14", fontsize=9, transform=axes.transAxes)
    axes.grid(alpha=0.25)


def _decision(axes: Axes, results: dict[str, Any]) -> None:
    left = 0.0
    for name, value in results["decision"]["parts_us"].items():
        axes.barh([0], [value], left=left, label=f"{name} {value:.1f}")
        left += value
    axes.set(yticks=[], xlabel="µs, medians of one run")
    axes.set_title("What each microsecond of a decision buys")
    axes.legend(ncols=4, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.35))


def _alone(fill: Callable[[Axes, dict[str, Any]], None]) -> Callable[[Figure, dict[str, Any]], None]:
    """A plot of one panel."""
    return lambda figure, results: fill(figure.subplots(), results)


_PLOTS: dict[str, tuple[tuple[float, float], Callable[[Figure, dict[str, Any]], None]]] = {
    "matching": ((7, 3.6), _alone(_matching)),
    "comparison": ((7, 4.4), _alone(_comparison)),
    "reload": ((8, 3.4), _alone(_reload)),
    "decision": ((7, 2.4), _alone(_decision)),
}
