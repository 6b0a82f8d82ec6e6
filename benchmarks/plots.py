"""Plots of what was measured, as PNG files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what `results` has figures for; the files written."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and needed only here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    written = []
    if "matching" in results:
        figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
        for key, label in (("decide_us", "whole decision core"), ("match_us", "matching alone")):
            points = results["matching"][key]
            axes.plot([int(size) for size in points], list(points.values()), marker="o", label=label)
        axes.set(xscale="log", xlabel="rules at the decision point", ylabel="µs per decision", ylim=(0, None))
        axes.set_title(f"One decision as rules grow ({results['machine']['processor']})", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend()
        path = folder / "matching.png"
        figure.savefig(path, dpi=130)
        plt.close(figure)
        written.append(path)
    if "decision" in results:
        parts = results["decision"]["parts_us"]
        figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
        left = 0.0
        for name, value in parts.items():
            axes.barh([0], [value], left=left, label=f"{name} {value:.1f}")
            left += value
        axes.set(yticks=[], xlabel="µs, medians of one run")
        axes.set_title("What each microsecond of a decision buys", fontsize=10)
        axes.legend(ncols=4, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.35))
        path = folder / "decision.png"
        figure.savefig(path, dpi=130, bbox_inches="tight")
        plt.close(figure)
        written.append(path)
    return written
