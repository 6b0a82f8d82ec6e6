"""Plots of calls over gRPC: each fills a figure of several panels.

Law: as in `plots`, which draws them. Axes of amounts begin at zero; where times are on a logarithmic axis, its ticks
say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, STOCK, THEIRS, WARN, INK = "#0b5fa5", "#57a3dd", "#8a8a84", "#d9822b", "#2b2b2b"
_LABELS = {
    "no-op, sync": ("no-op, grpcio's sync server", THEIRS),
    "no-op, aio": ("no-op, grpc.aio", THEIRS),
    "inline": ("decision, model when needed, inline", OURS),
    "inline, model": ("decision, model always, inline", OURS),
    "stock": ("decision, model when needed, stock", STOCK),
    "stock, model": ("decision, model always, stock", STOCK),
}


def _serving(figure: Figure, results: dict[str, Any]) -> None:
    told = results["serving"]
    left, right = figure.subplots(1, 2, sharey=True)
    names = list(reversed(_LABELS))
    for axes, values, label in (
        (left, told["calls_per_second"]["32 streams"], "calls a second, 32 streams"),
        (right, told["p50_us"]["1 stream"], "µs of a call, median, one stream"),
    ):
        bars = axes.barh(
            [_LABELS[name][0] for name in names],
            [values[name] for name in names],
            color=[_LABELS[name][1] for name in names],
        )
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        axes.set(xlabel=label, xlim=(0, max(values.values()) * 1.18))
        axes.xaxis.set_major_formatter("{x:,g}")
    figure.suptitle("A decision over gRPC beside calls that do nothing: one core for the server", fontsize=10)


def _latency(figure: Figure, results: dict[str, Any]) -> None:
    told = results["latency"]
    axes = figure.subplots()
    rates = [float(fraction) * told["capacity"] for fraction in told["us"]["p50"]]
    for (name, values), colour, up in zip(told["us"].items(), (OURS, STOCK, WARN), (0, -3, 5), strict=True):
        took = [value / 1000 for value in values.values()]
        axes.plot(rates, took, marker="o", markersize=4, color=colour)
        axes.annotate(name, (rates[-1], took[-1]), (6, up), textcoords="offset points", color=colour, va="center")
    axes.axvline(told["capacity"], color=INK, linewidth=0.8, linestyle=":")
    axes.text(
        told["capacity"], 0.98, "capacity ", ha="right", va="top", fontsize=8, transform=axes.get_xaxis_transform()
    )
    axes.set(yscale="log", xlabel="calls a second that come, at random moments", xlim=(0, None))
    axes.set_ylabel("ms from when a call was due")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,g}")
    axes.set_title("How long a decision takes as more of them come", fontsize=10)
    axes.grid(alpha=0.25)


def _overload(figure: Figure, results: dict[str, Any]) -> None:
    told = results["overload"]
    (closed, opened), (closed_p99, opened_p99) = figure.subplots(2, 2, sharex="col")
    knee = told["knee_streams"]
    callers, goodput = _points(told["closed_goodput"])
    best, most = max(goodput), max(*goodput, *told["open_goodput"].values())
    beyond = told["at_ten_times_the_knee"]
    closed.plot([10 * knee], [beyond["goodput"]], marker="D", markersize=5, color=WARN)
    closed_p99.plot([10 * knee], [beyond["p99_ms"]], marker="D", markersize=5, color=WARN)
    closed.plot(callers, goodput, marker="o", markersize=4, color=OURS)
    closed.axhline(0.9 * best, color=INK, linewidth=0.8, linestyle=":")
    closed.annotate("0.9 of the best", (callers[0], 0.9 * best), (0, -11), textcoords="offset points", fontsize=8)
    closed_p99.plot(*_points(told["closed_p99_ms"]), marker="o", markersize=4, color=OURS)
    for axes in (closed, closed_p99):
        axes.axvline(knee, color=WARN, linewidth=0.8)
        axes.axvline(10 * knee, color=WARN, linewidth=0.8, linestyle="--")
    closed.annotate("knee", (knee, 0), (3, 4), textcoords="offset points", color=WARN, fontsize=8)
    closed.annotate("ten times", (10 * knee, 0), (3, 4), textcoords="offset points", color=WARN, fontsize=8)
    fractions, reached = _points(told["open_goodput"])
    capacity = told["open_capacity"]
    opened.plot(fractions, [fraction * capacity for fraction in fractions], color=THEIRS, linestyle="--", linewidth=1)
    opened.annotate("asked", (fractions[-1], fractions[-1] * capacity), (-4, 0), textcoords="offset points",
                    ha="right", va="bottom", color=THEIRS, fontsize=8)  # fmt: skip
    opened.plot(fractions, reached, marker="o", markersize=4, color=OURS)
    opened.axhline(0.8 * capacity, color=INK, linewidth=0.8, linestyle=":")
    opened.annotate(
        "0.8 of the capacity", (fractions[0], 0.8 * capacity), (0, 3), textcoords="offset points", fontsize=8
    )
    deaf, left = _points(told["open_goodput_deaf"])
    opened.plot(deaf, left, marker="o", markersize=4, color=WARN)
    opened.annotate("deaf callers", (deaf[-1], left[-1]), (-4, -4), textcoords="offset points",
                    ha="right", va="top", color=WARN, fontsize=8)  # fmt: skip
    opened_p99.plot(*_points(told["open_p99_ms_deaf"]), marker="o", markersize=4, color=WARN)
    opened_p99.plot(*_points(told["open_p99_ms"]), marker="o", markersize=4, color=OURS)
    for axes in (closed, opened):
        axes.set_ylim(0, 1.1 * max(most, fractions[-1] * capacity))
        axes.yaxis.set_major_formatter("{x:,g}")
    closed.set(title="closed loop", ylabel="OK answers a second", xscale="log")
    opened.set(title="open loop, answered in time")
    closed_p99.set(xlabel="callers", ylabel="99th percentile of OK, ms", ylim=(0, None), xscale="log")
    closed_p99.xaxis.set_major_formatter("{x:,g}")
    opened_p99.set(xlabel="calls asked, of what the server can answer", ylim=(0, None))
    for axes in figure.axes:
        axes.grid(alpha=0.25)


def _batches(figure: Figure, results: dict[str, Any]) -> None:
    _growth(figure, results["batches"]["decisions_per_second"], "decisions in a batch", "Decisions in batches")


def _rule_counts(figure: Figure, results: dict[str, Any]) -> None:
    told = results["rule_counts"]["decisions_per_second"]
    _growth(figure, told, "rules at the decision point", "Decisions over gRPC as rules grow")


def _profiles(figure: Figure, results: dict[str, Any]) -> None:
    told = results["profiles"]["decisions_per_second"]
    _growth(figure, told, "stored profiles", "Decisions over gRPC as profiles grow")


def _growth(figure: Figure, told: Mapping[str, float], of_what: str, title: str) -> None:
    axes: Axes = figure.subplots()
    sizes, rates = _points(told)
    axes.plot(sizes, rates, marker="o", markersize=4, color=OURS)
    axes.set(xscale="log", xlabel=of_what, ylabel="decisions a second", ylim=(0, max(rates) * 1.1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,g}")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)


def _points(told: Mapping[str, float]) -> tuple[list[float], list[float]]:
    return [float(key) for key in told], list(told.values())


PLOTS: dict[str, tuple[tuple[float, float], Callable[[Figure, dict[str, Any]], None]]] = {
    "serving": ((8.4, 2.8), _serving),
    "latency": ((6.4, 3.6), _latency),
    "overload": ((8.4, 5.0), _overload),
    "batches": ((5.2, 3.0), _batches),
    "rule_counts": ((5.2, 3.0), _rule_counts),
    "profiles": ((5.2, 3.0), _profiles),
}
