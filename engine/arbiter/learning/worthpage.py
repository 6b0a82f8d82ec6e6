"""What a model's scores were worth, in words and as parts of a page.

Law: figures in, text out; what is not ours is escaped.
"""

from __future__ import annotations

import html
from math import isfinite
from typing import TYPE_CHECKING, Final

from arbiter.learning import page

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.learning.worth import Estimate, Level, Worth

HEADS: Final = ("scores", "decisions", "said", "happened", "95 % interval")
_SIDE, _EDGE = 300, 46
_DARK, _LIGHT = "#1f5fa8", "#c8d7ea"
Row = tuple[str, str, str]


def figures(found: Worth) -> list[Row]:
    """Each figure with its interval and what it is to be compared with."""
    rows = [("AUC", *_said(found.auc), "0.5 by chance")]
    if found.at_training is not None:
        rows[0] = (*rows[0][:3], f"{found.at_training:.4f} at training")
    if found.log_loss is not None and found.gain is not None and found.brier is not None:
        gain = f"{found.gain.value:+.4f} ({_interval(found.gain)})"
        rows.append(("log loss", *_said(found.log_loss), f"better by {gain} than the mean"))
        rows.append(("Brier", *_said(found.brier), ""))
        rows.append(("calibration error", f"{found.calibration_error:.4f}", "", ""))
    return [(name, f"{value}{f' ({interval})' if interval else ''}", beside) for name, value, interval, beside in rows]


def levels(found: Sequence[Level]) -> list[tuple[str, ...]]:
    """Each bin: from which score to which, how many, what was said and what happened."""
    return [
        (
            f"{each.low:.4g} to {each.high:.4g}", f"{each.count:,}", f"{each.predicted:.4g}", f"{each.happened:.4g}",
            f"{each.least:.4g} to {each.most:.4g}",
        )
        for each in found
    ]  # fmt: skip


def summary(found: Worth) -> str:
    """How many there were."""
    return (
        f"{found.happened:,} of {found.decisions:,} decisions for {found.subjects:,} subjects had the outcome, "
        f"{found.happened / found.decisions:.2%}"
    )


def parts(found: Worth, *, probable: bool) -> Iterable[str]:
    """A version on the page."""
    yield page.line(summary(found))
    yield page.alarms(found.alarms, "Nothing is worse than it should be.")
    yield "".join(page.line(f"{each[:1].upper()}{each[1:]}.") for each in found.notes)
    yield _table(("figure", "it is (95 % interval)", "beside"), figures(found))
    yield "<h3>What was said, and what happened</h3>"
    yield _curve(found.levels, probable=probable)
    yield _table(HEADS, levels(found.levels))


def _said(each: Estimate) -> tuple[str, str]:
    return (f"{each.value:.4f}" if isfinite(each.value) else "unknown"), _interval(each)


def _interval(each: Estimate) -> str:
    return f"{each.low:.4f} to {each.high:.4f}" if isfinite(each.low) else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(each)}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _curve(found: Sequence[Level], *, probable: bool) -> str:
    """Shares that happened by the mean score, with their intervals; of probabilities the line where both are equal."""
    low = 0.0 if probable else min(each.predicted for each in found)
    wide = max(each.predicted for each in found) - low
    high = max(each.most for each in found)
    if probable:
        wide = high = max(wide, high)
    wide, high = wide or 1.0, high or 1.0

    def x(value: float) -> float:
        return _EDGE + (value - low) / wide * _SIDE

    def y(value: float) -> float:
        return _SIDE + 10 - value / high * _SIDE

    drawn = [f'<path d="M{_EDGE} 10V{_SIDE + 10}H{_EDGE + _SIDE}" fill="none" stroke="#999"/>']
    if probable:
        drawn.append(
            f'<path d="M{_EDGE} {_SIDE + 10}L{x(wide):.1f} {y(high):.1f}" stroke="#999" stroke-dasharray="3"/>'
        )
    for each in found:
        at = x(each.predicted)
        title = f"<title>said {each.predicted:.4g}, happened {each.happened:.4g} of {each.count:,}</title>"
        drawn.append(
            f'<g>{title}<path d="M{at:.1f} {y(each.least):.1f}V{y(each.most):.1f}" stroke="{_LIGHT}" stroke-width="5"/>'
            f'<circle cx="{at:.1f}" cy="{y(each.happened):.1f}" r="4" fill="{_DARK}"/></g>'
        )
    drawn += [
        f'<text x="0" y="18" font-size="12">{high:.3g}</text>',
        f'<text x="0" y="{_SIDE + 10}" font-size="12">0</text>',
        f'<text x="{_EDGE}" y="{_SIDE + 28}" font-size="12">{low:.3g}</text>',
        f'<text x="{_EDGE + _SIDE - 30}" y="{_SIDE + 28}" font-size="12">{low + wide:.3g}</text>',
    ]
    size = f'width="{_SIDE + 2 * _EDGE}" height="{_SIDE + 34}"'
    return f'<svg {size} role="img" aria-label="what happened, by what was said">{"".join(drawn)}</svg>'
