"""The picture at the end: who got what, how long decisions took, and the moment at which the answers changed.

Law: data in, a file out. The only module that imports matplotlib, which comes with the extra `demo`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_SERIES = ("#2a78d6", "#eb6834", "#1baf7a", "#eda100", "#e87ba4", "#008300", "#4a3aa7", "#e34948")
_INK, _SOFT, _GRID, _PAPER, _REST = "#0b0b0b", "#52514e", "#e4e3df", "#fcfcfb", "#b5b4ae"

DEFAULT = "(default)"


class Answered(msgspec.Struct, frozen=True):
    """One decision of the background: when it was answered (s, on the demo's clock), how long it took (s), and what it
    said: 0 for the answer before the edit, 1 for the one after.
    """

    at: float
    took: float
    said: int


class Moment(msgspec.Struct, frozen=True):
    """Something that was done to the rule file, at `at` (s, on the demo's clock)."""

    at: float
    label: str


def draw(
    path: Path,
    *,
    got: Mapping[str, Mapping[str, int]],
    latencies: Sequence[float],
    watched: Sequence[Answered],
    moments: Sequence[Moment],
    took_ms: float,
) -> None:
    """Write the picture to `path`; its ending says in which format.

    `got` counts, by segment, the rules that won; `latencies` are seconds; `took_ms` lies between the edit and the first
    changed answer.
    """
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and needed at the very end only

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    with plt.rc_context(_STYLE):
        figure = plt.figure(figsize=(12, 8.2), layout="constrained")
        axes = figure.subplot_mosaic([["got", "latency"], ["change", "change"]], height_ratios=[1.15, 1])
        _who_got_what(axes["got"], got)
        _latency(axes["latency"], latencies)
        _change(axes["change"], watched, moments, took_ms)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=140)
        plt.close(figure)


_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "figure.facecolor": _PAPER,
    "axes.facecolor": _PAPER,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _SOFT,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.titlecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "legend.frameon": False,
    "legend.labelcolor": _SOFT,
}


def _who_got_what(axes: Axes, got: Mapping[str, Mapping[str, int]]) -> None:
    segments = list(got)
    totals: dict[str, int] = {}
    for won in got.values():
        for rule, count in won.items():
            totals[rule] = totals.get(rule, 0) + count
    # Colours are few: the rules that won most have one each, the rest share grey.
    ranked = sorted(totals, key=lambda rule: (-totals[rule], rule))
    colours = dict(zip((rule for rule in ranked if rule != DEFAULT), _SERIES, strict=False)) | {DEFAULT: _REST}
    left = dict.fromkeys(segments, 0.0)
    for rule in ranked:
        shares = [100 * won.get(rule, 0) / sum(won.values()) for won in got.values()]
        starts = [left[segment] for segment in segments]
        label = rule if rule in colours else None
        axes.barh(segments, shares, left=starts, height=0.66, color=colours.get(rule, _REST), label=label,
                  edgecolor=_PAPER, linewidth=1.5)  # fmt: skip
        for segment, share in zip(segments, shares, strict=True):
            left[segment] += share
    axes.set(title="Who got what on the home page, by segment", xlabel="% of the customers asked for", xlim=(0, 100))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=8, handlelength=1, handleheight=1)


def _latency(axes: Axes, latencies: Sequence[float]) -> None:
    ordered = sorted(latencies)
    micros = [1e6 * took for took in ordered]
    # The share of slower calls on a log scale gives the tail, which is what matters, as much room as the middle.
    slower = [1 - place / len(ordered) for place in range(len(ordered))]
    axes.plot(micros, slower, color=_SERIES[0], linewidth=2)
    axes.set(
        title=f"Latency of {len(ordered):,} decisions over gRPC, as the client saw it",
        xlabel="µs",
        ylabel="share of calls that took longer",
        xscale="log",
        yscale="log",
        ylim=(0.5 / len(ordered), 1.3),
        xlim=(micros[0] / 1.2, micros[-1] * 2),  # room for the last label
    )
    _plain_numbers(axes.xaxis, "{x:,.0f}")
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)):
        at = percentile(ordered, share) * 1e6
        axes.plot([at], [1 - share], "o", color=_SERIES[0], markeredgecolor=_PAPER, markersize=7)
        axes.annotate(f"{name}  {at:,.0f} µs", (at, 1 - share), xytext=(8, 4), textcoords="offset points", color=_INK)


def _change(axes: Axes, watched: Sequence[Answered], moments: Sequence[Moment], took_ms: float) -> None:
    zero = moments[0].at if moments else 0.0
    for said, label in ((0, "the answer before the edit"), (1, "the answer after it")):
        chosen = [each for each in watched if each.said == said]
        axes.plot(
            [each.at - zero for each in chosen],
            [each.took * 1e6 for each in chosen],
            linestyle="none",
            marker=".",
            markersize=4,
            alpha=0.55,
            color=_SERIES[said],
            label=label,
        )
    axes.set(
        title=f"A rule file is edited while decisions flow: the answer changes {took_ms:.0f} ms later",
        xlabel="seconds since the edit",
        ylabel="latency, µs",
        yscale="log",
    )
    top = axes.get_ylim()[1]
    for moment in moments:
        axes.axvline(moment.at - zero, color=_SOFT, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(moment.label, (moment.at - zero, top), xytext=(5, -12), textcoords="offset points", color=_INK)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), markerscale=3, ncols=2)
    _plain_numbers(axes.yaxis, "{x:,.0f}")


def _plain_numbers(axis: Axis, form: str) -> None:
    """Let a logarithmic axis say 2,000 and not a power of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(form)
    axis.set_minor_formatter(NullFormatter())


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
