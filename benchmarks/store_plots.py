"""Plots of the store by its size: each fills a figure of several panels.

Law: as in `plots`, which draws them. Axes of amounts and of short times begin at zero; where times are on a logarithmic
axis, its ticks say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.load_plots import OURS, STOCK, WARN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BOTH = (("p50", "-"), ("p99", ":"))


def _profiles_10m(figure: Figure, results: dict[str, Any]) -> None:
    told = results["profiles_10m"]
    cached, cold, writing = figure.subplots(1, 3)
    lines = (("read_us", "read", OURS), ("decide_us", "decision", WARN))
    for group, label, colour in lines:
        for name, style in _BOTH:
            _line(cached, told[group], name, f"{label}, {name}", colour, style)
    highest = max(each["p99"] for group, *_ in lines for each in told[group].values())
    cached.set(title="in memory", ylabel="µs, in process", ylim=(0, 1.5 * highest))
    for name, style in _BOTH:
        _line(cold, told["cold_read_us"], name, f"read, {name}", OURS, style)
    cold.set(title="nothing in memory", ylabel="µs, in process", yscale="log")
    for name, label, colour in (
        ("a second, alone", "alone", OURS),
        ("a second, beside decisions", "beside decisions", STOCK),
    ):
        _line(writing, told["updates"], name, label, colour, "-")
    writing.set(title="updates on disk, 64 in flight", ylabel="a second", ylim=(0, None))
    for axes in figure.axes:
        axes.set(xscale="log", xlabel="stored profiles")
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle("The store as profiles grow", fontsize=10)


def _line(
    axes: Axes, told: Mapping[str, Mapping[str, float]], name: str, label: str, colour: str, style: str
) -> None:  # fmt: skip
    axes.plot(
        [float(size) for size in told],
        [each[name] for each in told.values()],
        marker="o",
        markersize=4,
        color=colour,
        linestyle=style,
        label=label,
    )


PLOTS: dict[str, tuple[tuple[float, float], Callable[[Figure, dict[str, Any]], None]]] = {
    "profiles_10m": ((10.5, 3.4), _profiles_10m),
}
