"""The picture on a model's card.

Law: figures in, PNG out; the same figures give the same bytes with the same matplotlib.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

_INK, _SOFT = "#1f5fa8", "#c8d7ea"


def picture(metrics: dict[str, Any]) -> bytes:
    """Calibration, lift and importance of a guess; sizes and importance of segments."""
    panels: list[Callable[[Axes, dict[str, Any]], None]] = []
    if "bins" in metrics:
        panels += [_calibration, _lift]
    if "segments" in metrics:
        panels.append(_sizes)
    panels.append(_importance)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4 * len(panels), 3.4), dpi=80, layout="constrained")
        FigureCanvasAgg(figure)
        for place, panel in enumerate(panels, 1):
            panel(figure.add_subplot(1, len(panels), place), metrics)
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _calibration(axes: Axes, metrics: dict[str, Any]) -> None:
    bins = metrics["bins"]
    ends = [each[key] for each in bins for key in ("predicted", "happened")]
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=_SOFT, lw=2)
    axes.plot([each["predicted"] for each in bins], [each["happened"] for each in bins], "o-", color=_INK, ms=4)
    axes.set(title="Calibration, rows held out", xlabel="predicted", ylabel="happened")


def _lift(axes: Axes, metrics: dict[str, Any]) -> None:
    lift = metrics["lift"]
    axes.bar(range(1, len(lift) + 1), lift, color=_INK)
    axes.axhline(1, color=_SOFT, lw=2)
    axes.set(title="Lift by decile", xlabel="decile, best first", ylabel="times the mean")


def _sizes(axes: Axes, metrics: dict[str, Any]) -> None:
    segments = metrics["segments"][::-1]
    axes.barh([each["name"] for each in segments], [each["share"] * 100 for each in segments], color=_INK)
    axes.set(title="Segments", xlabel="% of the rows")


def _importance(axes: Axes, metrics: dict[str, Any]) -> None:
    named = sorted(metrics["importance"].items(), key=lambda item: item[1])[-12:]
    axes.barh([name for name, _ in named], [value for _, value in named], color=_INK)
    what = "share of rows that change segment" if "segments" in metrics else "how much worse without"
    axes.set(title="Importance of inputs", xlabel=what)
