"""A report as one page of HTML with its plots, which needs nothing beside it.

Law: a report in, text out; all that is not ours is escaped.
"""

from __future__ import annotations

import html
from math import isfinite
from typing import TYPE_CHECKING

from arbiter.learning import page
from arbiter.learning.report.words import (
    TAKES,
    figure,
    flows_said,
    guard_interval,
    guard_said,
    interval,
    lost_to,
    over_time,
    ratio_said,
    reach_said,
    share,
    summary,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.learning.report.terms import Effect, Reach, RuleFigures, RuleInSegment, SegmentFigures, Told, Trial

_LINE, _LABEL, _LONG = 22, 300, 420
_SHOWN = 100  # rules of a decision point, of which there may be many
_DARK, _LIGHT, _ALARM = "#1f5fa8", "#c8d7ea", "#b00"


def page_of(told: Told) -> str:
    """The whole page."""
    body = [page.line(each) for each in summary(told)]
    for trial in told.experiments:
        body += _trial(trial, told.level)
    if told.guards:
        body += _guards(told)
    for each in told.segments:
        body += _segment(each)
    if told.rules_by_segment:
        body += _by_segment(told.rules_by_segment)
    for reach in told.reach:
        body += _point(reach, [each for each in told.rules if each.point == reach.point])
    return page.page("What was decided, and what came of it", body)


def _trial(trial: Trial, level: float) -> Iterable[str]:
    yield page.heading(f"Experiment {trial.name}")
    said = "; ".join(ratio_said(trial))
    wrong = trial.ratio is not None and trial.ratio.suspect
    yield f'<p class="alarm">{html.escape(said)}</p>' if wrong else page.line(said)
    expected = {} if trial.ratio is None else trial.ratio.expected
    counts = trial.units if trial.ratio is None else trial.ratio.counts
    yield _bars(
        "units by variant; the line is what is expected",
        [(name, [(counts.get(name, 0), _DARK)], expected.get(name)) for name in counts],
    )
    for outcome in dict.fromkeys(each.outcome for each in trial.effects):
        own = [each for each in trial.effects if each.outcome == outcome]
        yield f"<h3>{html.escape(outcome)}, against {html.escape(trial.control)}</h3>"
        yield _table(
            ("figure", "variant", "it has", trial.control, "difference", f"{level:.0%} interval", "lift"),
            [
                (
                    TAKES[each.take], each.variant, figure(each.take, each.found.arm),
                    figure(each.take, each.found.control), figure(each.take, each.found.difference),
                    interval(each), share(each.found.lift),
                )
                for each in own
            ],
        )  # fmt: skip
        for take in dict.fromkeys(each.take for each in own):
            yield _forest([(f"{TAKES[take]}, {each.variant}", each) for each in own if each.take == take])
    yield from _parts(trial)


def _guards(told: Told) -> Iterable[str]:
    yield page.heading("Bounds")
    yield from (
        f'<p class="alarm">{html.escape(each.experiment)}.{html.escape(each.variant)} broke '
        f"{html.escape(guard_said(each.guard))}</p>"
        for each in told.broken
    )
    yield _table(
        ("experiment", "variant", "bound", "difference to the control", "which"),
        [
            (each.experiment, each.variant, each.state, guard_interval(each), guard_said(each.guard))
            for each in told.guards
        ],
    )


def _parts(trial: Trial) -> Iterable[str]:
    if not trial.parts:
        return
    yield f"<h3>{html.escape(trial.name)} by segment</h3>"
    yield page.line("By where units were when it first mattered. Many looks: some intervals leave out 0 by chance.")
    for outcome, take in dict.fromkeys((each.outcome, each.take) for part in trial.parts for each in part.leading):
        yield page.line(f"{outcome}, {TAKES[take]}")
        yield _forest([
            (f"{part.segment}, {each.variant} ({part.units.get(each.variant, 0):,})", each)
            for part in trial.parts for each in part.leading if each.outcome == outcome
        ])  # fmt: skip


def _segment(found: SegmentFigures) -> Iterable[str]:
    yield page.heading(f"Segment {found.segment}")
    yield _bars(
        "people seen (light), and of these inside (dark)",
        [(at, [(known, _LIGHT), (inside, _DARK)], None) for at, known, inside in over_time(found)],
    )
    yield page.line(flows_said(found))
    moments = [at for at, _, _ in over_time(found)]
    yield (
        _table(
            ("from", "to", "stayed", "left", "came"),
            [
                (one, other, f"{stayed:,}", f"{left:,}", f"{came:,}")
                for one, other, stayed, left, came in zip(
                    moments, moments[1:], found.stayed, found.left, found.came, strict=False
                )
            ],
        )
        if found.stayed
        else ""
    )


def _by_segment(rules: Sequence[RuleInSegment]) -> Iterable[str]:
    yield page.heading("Rules by segment")
    outcomes = sorted({name for each in rules for name in each.converted})
    won = [each for each in rules if each.won or each.eligible]
    if len(won) > _SHOWN:
        yield page.line(f"The first {_SHOWN} of {len(won):,}; the report as JSON has all.")
    yield _table(
        ("segment", "decision point", "rule", "eligible", "won", "subjects", "shown", *outcomes),
        [
            (
                each.segment, each.point, each.rule or "default",
                "" if each.eligible is None else f"{each.eligible:,} of {each.looked:,}", f"{each.won:,}",
                f"{each.subjects:,}", f"{each.shown:,}",
                *(f"{each.converted.get(name, 0):,}" for name in outcomes),
            )
            for each in won[:_SHOWN]
        ],
    )  # fmt: skip


def _point(reach: Reach, rules: Sequence[RuleFigures]) -> Iterable[str]:
    yield page.heading(f"Decision point {reach.point}")
    if len(rules) > _SHOWN:
        yield page.line(f"The {_SHOWN} that won most of {len(rules):,} rules; the report as JSON has all.")
    rules = rules[:_SHOWN]
    outcomes = sorted({name for each in rules for name in each.converted})
    yield _table(
        ("rule", "eligible", "won", "subjects", "shown", *outcomes, "lost to"),
        [
            (
                each.rule or "default", "" if each.eligible is None else f"{each.eligible:,} of {each.looked:,}",
                f"{each.won:,}", f"{each.subjects:,}", f"{each.shown:,}",
                *(f"{each.converted.get(name, 0):,}" for name in outcomes), lost_to(each),
            )
            for each in rules
        ],
    )  # fmt: skip
    yield _bars(
        "decisions that a rule won (light), and of these shown (dark)",
        [(each.rule or "default", [(each.won, _LIGHT), (each.shown, _DARK)], None) for each in rules],
    )
    for said in reach_said(reach):
        yield page.line(said)
    yield _bars(
        "subjects by how many different rules they got",
        [(f"{number}", [(count, _DARK)], None) for number, count in sorted(reach.different.items())],
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(each)}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _bars(said: str, rows: Sequence[tuple[str, Sequence[tuple[int, str]], float | None]]) -> str:
    """A line for each row: bars over each other, and where one is expected a mark."""
    most = max([1.0, *(count for _, own, _ in rows for count, _ in own), *(mark or 0.0 for _, _, mark in rows)])
    parts = []
    for number, (name, own, mark) in enumerate(rows):
        top = number * _LINE
        parts.append(_text(0, top + 15, name))
        parts += [
            f'<rect x="{_LABEL}" y="{top}" width="{count / most * _LONG:.1f}" height="{_LINE - 5}" fill="{tone}">'
            f"<title>{html.escape(name)}: {count:,}</title></rect>"
            for count, tone in own
        ]
        if mark is not None:
            x = _LABEL + mark / most * _LONG
            parts.append(f'<path d="M{x:.1f} {top - 1}v{_LINE - 3}" stroke="{_ALARM}" stroke-width="2"/>')
        parts.append(_text(_LABEL + _LONG + 8, top + 15, " / ".join(f"{count:,}" for count, _ in own)))
    return f"<p><small>{html.escape(said)}</small></p>{_drawn(said, len(rows) * _LINE, parts)}" if rows else ""


def _forest(effects: Sequence[tuple[str, Effect]]) -> str:
    """Differences with their intervals around a line where nothing differs, each with its name."""
    known = [(name, each) for name, each in effects if isfinite(each.found.low) and isfinite(each.found.high)]
    if not known:
        return ""
    reach = max(max(abs(each.found.low), abs(each.found.high)) for _, each in known) or 1.0
    middle = _LABEL + _LONG / 2
    parts = [f'<path d="M{middle} 0v{len(known) * _LINE}" stroke="#999" stroke-dasharray="3 3"/>']
    for number, (name, each) in enumerate(known):
        top = number * _LINE + _LINE / 2
        low, at, high = (
            middle + value / reach * _LONG / 2 for value in (each.found.low, each.found.difference, each.found.high)
        )
        tone = _ALARM if each.found.sure and each.found.high < 0 else _DARK if each.found.sure else "#6b7a88"
        title = f"<title>{html.escape(name)}: {html.escape(interval(each))}</title>"
        parts.append(_text(0, top + 4, name))
        parts.append(_text(_LABEL + _LONG + 8, top + 4, interval(each)))
        parts.append(
            f'<g stroke="{tone}" fill="{tone}">{title}<path d="M{low:.1f} {top}H{high:.1f}" stroke-width="3"/>'
            f'<circle cx="{at:.1f}" cy="{top}" r="4.5"/></g>'
        )
    return _drawn("differences with intervals", len(known) * _LINE, parts)


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x}" y="{y}" font-size="12">{html.escape(text)}</text>'


def _drawn(said: str, high: int, parts: Sequence[str]) -> str:
    wide = _LABEL + _LONG + 170
    box = f'width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" style="max-width: 100%; height: auto"'
    return f'<svg {box} role="img" aria-label="{html.escape(said)}">{"".join(parts)}</svg>'
