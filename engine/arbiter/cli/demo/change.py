"""A rule file is edited, broken and mended while decisions flow.

Law: writes the demo's copy of one file, and proves from what was answered meanwhile that the right things happened.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from arbiter.cli.demo.plot import Answered, Moment
from arbiter.cli.demo.scene import gets
from arbiter.cli.demo.stage import StepFailed, require
from arbiter.cli.terminal import diagnostic_text
from arbiter.decision.wording import shown

if TYPE_CHECKING:
    from pathlib import Path

    from arbiter.cli.demo.flow import Call, Flow
    from arbiter.cli.demo.scene import Scene
    from arbiter.serving import ReloadReport

EDITED_RULE = "champions-early-access"
_FILE = "store/banner.yaml"
_EDIT = (
    ("banner: early-access,", "banner: listening-party,"),
    (
        "headline: Yours first. Next week's releases are open to you today}",
        "headline: Tonight at eight. Hear it first}",
    ),
)
_BREAK = ("when: segments.champions\n", "when: segments.champoins\n")
_AT_MOST_S = 1.0
_PATIENCE_S = 10.0
_LOOK_S = 0.002
_SPAN_S, _SPAN_QUICKLY_S = 2.0, 0.6


class Change(msgspec.Struct, frozen=True):
    """What came of it. `took_ms` lies between the write and the first changed answer."""

    took_ms: float
    watched: list[Answered]
    moments: list[Moment]


def edit_break_mend(scene: Scene, flow: Flow, watched: str) -> Change:
    """Do all three to the file beneath `flow`, which asks for `watched`. Raises StepFailed."""
    stage, span = scene.stage, _SPAN_QUICKLY_S if scene.quick else _SPAN_S
    path = scene.rules / _FILE
    good = path.read_text("utf-8")
    edited = _replaced(good, *_EDIT)
    broken = _replaced(edited, _BREAK)
    _let_flow(flow, span)

    stage.step("A rule file is edited while decisions flow")
    before = _last(flow, watched)
    written = _write(path, edited)
    first = _first_other(flow, watched, before, written)
    took = first.at - written
    _say_edit(scene)
    stage.done(
        f"{took * 1e3:.0f} ms after the write began, customer {watched} gets {gets(first.given)} "
        f"{shown(first.given.params['headline'])} instead of {gets(before.given)}"
    )
    # A quick run is a test's, which may share its machine with many others.
    require(scene.quick or took < _AT_MOST_S, f"the change took {took:.2f} s to be live, more than a second")
    _let_flow(flow, span)

    stage.step("The file is broken on purpose")
    was_broken = _write(path, broken)
    report = _reload(scene, ok=False)
    stage.say(f"GetSnapshot, {(time.perf_counter() - was_broken) * 1e3:.0f} ms after the write:")
    for found in report.diagnostics:
        stage.say(diagnostic_text(found))
    line = broken[: broken.index(_BREAK[1])].count("\n") + 1
    error = report.diagnostics[0]
    require(
        (error.file, error.line) == (f"{scene.rules.name}/{_FILE}", line) and "champoins" in error.message,
        f"the error is not the one that was made in {_FILE}:{line}",
    )
    count = _let_flow(flow, span)
    stage.done(f"{count:,} decisions since, all by the last good snapshot {first.snapshot[:12]}")

    stage.step("The file is mended")
    mended = _write(path, edited)
    _reload(scene, ok=True)
    stage.done(f"loaded again {(time.perf_counter() - mended) * 1e3:.0f} ms after the write")
    _let_flow(flow, span)
    flow.stop()
    _prove(flow, before, first, was_broken)
    by_new = sum(call.snapshot == first.snapshot for call in flow.calls)
    stage.done(
        f"{len(flow.calls):,} decisions in all this time, {len(flow.calls) - by_new:,} by the old rules and "
        f"{by_new:,} by the new: none failed, none mixed the two"
    )
    return Change(
        took * 1e3,
        [Answered(c.at, c.took, int(c.given == first.given)) for c in flow.calls if c.customer == watched],
        [Moment(written, "edited"), Moment(was_broken, "broken"), Moment(mended, "mended")],
    )


def _replaced(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        require(text.count(old) == 1, f"{_FILE} no longer holds exactly one `{old.strip()}`: the demo edits that text")
        text = text.replace(old, new)
    return text


def _write(path: Path, text: str) -> float:
    """Write the file; the moment just before."""
    began = time.perf_counter()
    path.write_text(text, "utf-8")
    return began


def _say_edit(scene: Scene) -> None:
    scene.stage.say(f"rules/{_FILE}, rule {EDITED_RULE}:")
    for old, new in _EDIT:
        scene.stage.say(f"  [red]- {old.rstrip('},')}[/red]\n  [green]+ {new.rstrip('},')}[/green]")


def _let_flow(flow: Flow, seconds: float) -> int:
    """Wait, and count what was decided meanwhile; something must have been."""
    before = len(flow.calls)
    time.sleep(seconds)
    count = len(flow.calls) - before
    require(not flow.failures, f"a decision failed: {flow.failures[:1]}")
    require(count, "no decision was made for a while: the server hangs")
    return count


def _last(flow: Flow, watched: str) -> Call:
    return next(call for call in reversed(flow.calls) if call.customer == watched)


def _first_other(flow: Flow, watched: str, before: Call, since: float) -> Call:
    """The first answer for `watched` that differs from `before`."""
    seen = len(flow.calls)
    while time.perf_counter() < since + _PATIENCE_S:
        for call in flow.calls[seen:]:
            seen += 1
            if call.customer == watched and call.given != before.given:
                return call
        require(not flow.failures, f"a decision failed: {flow.failures[:1]}")
        time.sleep(_LOOK_S)
    raise StepFailed(f"{_PATIENCE_S:.0f} s after the edit the answer is still the old one")


def _reload(scene: Scene, *, ok: bool) -> ReloadReport:
    """What the server says of its last reload, once that went as expected."""
    until = time.perf_counter() + _PATIENCE_S
    while time.perf_counter() < until:
        report = scene.client.snapshot().last_reload
        if report is not None and report.ok == ok:
            return report
        time.sleep(_LOOK_S)
    raise StepFailed(
        f"{_PATIENCE_S:.0f} s after the write the server does not say that it {'mended' if ok else 'broke'}"
    )


def _prove(flow: Flow, before: Call, after: Call, broken_at: float) -> None:
    """No answer is mixed: the snapshot that it names and what it says belong together, and the old one stays away."""
    require(not flow.failures, f"{len(flow.failures)} decisions failed, the first with: {flow.failures[:1]}")
    promised = {before.snapshot: before.given.params, after.snapshot: after.given.params}
    require(len(promised) == 2, "the edit made no other snapshot")  # noqa: PLR2004 - before and after
    for call in flow.calls:
        require(call.snapshot in promised, f"snapshot {call.snapshot[:12]} decided, and nobody made it")
        if call.given.rule_id == EDITED_RULE:
            require(
                call.given.params == promised[call.snapshot],
                f"mixed: snapshot {call.snapshot[:12]} answered {call.given.params}",
            )
        require(
            call.at < broken_at or call.snapshot == after.snapshot,
            "the old rules decided again after the file was broken",
        )
