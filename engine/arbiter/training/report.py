"""How a model's inputs and outputs are spread over the profiles that are stored, beside what they were at training.

Law: reads a store and asks a model as serving would; writes nothing. What is compared with is in the model's own file.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.learning.drift import Drift, drift_of, read_baseline
from arbiter.models.model import BASELINE
from arbiter.training.examples import Reader
from arbiter.training.table import TrainingFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.learning.drift import Baseline
    from arbiter.models import Model
    from arbiter.training.declared import Declarations
    from arbiter.training.examples import History

_AT_ONCE = 1000


class Report(msgspec.Struct, frozen=True):
    """A model over the profiles of a moment (µs): each input, each output, how many are `unknown`, and all alarms.

    `left_out` counts subjects that were not looked at, by reason; `requested` are the inputs that are not stored with a
    subject: those of requests and accounts.
    """

    model: str
    version: int
    digest: str
    at: int
    subjects: int
    unknown: int
    trained_on: int
    inputs: list[Drift]
    outputs: list[Drift]
    requested: list[str]
    left_out: dict[str, int]
    alarms: list[str]


def baseline_of(model: Model) -> Baseline:
    """What the model's file says of its training. Raises TrainingFailed where it says nothing, or nothing readable."""
    if not model.baseline:
        raise TrainingFailed(f"the model's file has no `{BASELINE}`: train it with `arbiter model train`")
    try:
        return read_baseline(model.baseline)
    except (msgspec.DecodeError, ValueError) as error:
        raise TrainingFailed(f"the `{BASELINE}` in the model's file is wrong: {error}") from error


def report(
    model: Model,
    histories: Iterable[History],
    declared: Declarations,
    now: int,
    left_out: dict[str, int],
) -> Report:
    """Ask the model about every subject at `now` (µs). Raises TrainingFailed, ModelFailure."""
    baseline = baseline_of(model)
    known = {each.name for each in declared.features}
    wanted = [each.attribute for each in model.inputs if each.root == "features"]
    for name in wanted:
        if name not in known:
            raise TrainingFailed(f"the model reads `features.{name}`, which the rules do not declare")
    reader = Reader(declared.features, dict.fromkeys(wanted))
    columns: dict[str, list[Any]] = {each.name: [] for each in model.inputs}
    answers: list[tuple[Any, ...]] = []
    rows: list[list[Any]] = []
    subjects = unknown = 0
    for history in histories:
        subjects += 1
        (features,) = reader.at(history.events, [now])
        attributes = history.attributes(now) or {}
        of = {"features": features, "profile": attributes, "account": {}, "context": {}}
        values = []
        for each in model.inputs:
            name = f"{each.root}.{each.attribute}"
            values.append(of[each.root].get(each.attribute, declared.defaults.get(name)))
            columns[each.name].append(values[-1])
        row = model.encode(values, now)
        if row is None:
            unknown += 1
        else:
            rows.append(row)
        if len(rows) == _AT_ONCE:
            answers += model.run(rows)
            rows = []
    answers += model.run(rows)
    if not subjects:
        raise TrainingFailed("there is no subject with an event in the store")
    requested = [each.name for each in model.inputs if each.root in {"context", "account"}]
    inputs = [
        drift_of(each.name, baseline.inputs[each.name], columns[each.name], baseline.rows)
        for each in model.inputs
        if each.name not in requested and each.name in baseline.inputs
    ]
    outputs = [
        drift_of(name, baseline.outputs[name], [answer[place] for answer in answers], baseline.rows)
        for place, name in enumerate(model.outputs)
        if name in baseline.outputs and answers
    ]
    alarms = [f"`{each.name}`: {alarm}" for each in (*inputs, *outputs) for alarm in each.alarms]
    return Report(
        model.name,
        model.version,
        model.digest,
        now,
        subjects,
        unknown,
        baseline.rows,
        inputs,
        outputs,
        requested,
        left_out,
        alarms,
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse }} td, th {{ padding: .2em .8em .2em 0; text-align: left }}
.alarm {{ color: #b00 }} svg {{ display: block; margin: .3em 0 1.5em }} small {{ color: #666 }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""
_BAR, _HIGH, _WIDE = 24, 90, 9


def page(found: Report, when: str) -> str:
    """The report as one page of HTML that needs nothing beside it."""
    alarms = "".join(f'<li class="alarm">{html.escape(each)}</li>' for each in found.alarms)
    left = "; ".join(f"{count:,} left out: {html.escape(reason)}" for reason, count in found.left_out.items())
    body = [f"<p>{found.subjects:,} subjects at {when}; unknown for {found.unknown:,}. {left}</p>"]
    body.append(f"<p>Compared with {found.trained_on:,} rows that it was trained on.</p>")
    body.append(f"<ul>{alarms}</ul>" if alarms else "<p>Nothing has shifted.</p>")
    for heading, parts in (("Outputs", found.outputs), ("Inputs", found.inputs)):
        body.append(f"<h2>{heading}</h2>")
        body += [_part(each) for each in parts]
    if found.requested:
        named = ", ".join(html.escape(each) for each in found.requested)
        body.append(f"<p><small>Not compared, since it is not stored with a subject: {named}.</small></p>")
    return _PAGE.format(title=html.escape(f"Model {found.model}, version {found.version}"), body="".join(body))


def _part(each: Drift) -> str:
    index = "none" if each.psi is None else f"{each.psi:.3f} (by chance up to {each.chance:.3f})"
    tone = ' class="alarm"' if each.alarms else ""
    return (
        f"<h3{tone}>{html.escape(each.name)}</h3><p>Stability index {index}; missing {each.missing:.1%}, were "
        f"{each.missing_before:.1%}; out of range {each.outside:.1%}.</p>{_bars(each)}"
    )


def _bars(each: Drift) -> str:
    """Shares by bin: light as they were, dark as they are."""
    most = max([*each.before, *each.now, 1e-9])
    parts = []
    for number, (name, then, now) in enumerate(zip(each.bins, each.before, each.now, strict=True)):
        for shift, share, tone in ((0, then, "#c8d7ea"), (_WIDE, now, "#1f5fa8")):
            high = share / most * _HIGH
            title = f"<title>{html.escape(name)}: {share:.1%}</title>"
            parts.append(
                f'<rect x="{number * _BAR + shift}" y="{_HIGH - high:.1f}" width="{_WIDE}" height="{high:.1f}" '
                f'fill="{tone}">{title}</rect>'
            )
    wide = len(each.bins) * _BAR
    return f'<svg width="{wide}" height="{_HIGH}" role="img" aria-label="shares by bin">{"".join(parts)}</svg>'
