"""`arbiter check`: whether a server would load these files, and what is odd about them.

Law: runs the loader that the server runs, then the lint, over directories that it changes nothing in.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from arbiter.cli.terminal import FINDINGS, diagnostic_fields, diagnostic_text, out, plural, print_json
from arbiter.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection

    from arbiter.errors import Diagnostic
    from arbiter.lint.run import Noted
    from arbiter.snapshot import Snapshot

Rules = Annotated[Path, typer.Argument(metavar="RULES", help="The rules directory.", exists=True, file_okay=False)]
Models = Annotated[
    Path | None,
    typer.Option(help="The models that the rules may name. [default: `models` beside RULES, if it is there]",
                 exists=True, file_okay=False),
]  # fmt: skip
Ignored = Annotated[
    list[str] | None, typer.Option("--ignore", metavar="CODE", help="Say nothing of this kind; may be given again.")
]
Watched = Annotated[bool, typer.Option("--watch", help="Check again whenever a file changes, until Ctrl-C.")]
Costs = Annotated[
    bool, typer.Option("--cost", help="Say of each rule what the index answers, and measure typical decisions.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AsSarif = Annotated[bool, typer.Option("--sarif", help="Print a SARIF 2.1.0 log, for code review.")]


class Checked(msgspec.Struct, frozen=True):
    """What came of one look at the files. `snapshot` is None when a server would not load them."""

    snapshot: Snapshot | None
    noted: tuple[Noted, ...]

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """What there is to say."""
        return [each.diagnostic for each in self.noted]


def check(
    rules: Rules,
    *,
    models: Models = None,
    ignore: Ignored = None,
    watch: Watched = False,
    cost: Costs = False,
    as_json: AsJson = False,
    sarif: AsSarif = False,
) -> None:
    """Say everything that is wrong with a rule set and its models, and what can never happen in it.

    Ends with 0 when a server would load the files and there is nothing to say of them, with 1 otherwise. A comment
    `# arbiter: allow CODE`, at the end of a line or above it, accepts what is found there.
    """
    ignored = _known(ignore or ())
    if as_json + sarif + watch > 1:
        raise typer.BadParameter("--json, --sarif and --watch cannot be given together")
    if cost and (sarif or watch):
        raise typer.BadParameter("--cost goes with --json, or alone")
    models = models or models_beside(rules)
    if watch:
        _watch(rules, models, ignored)
        return
    checked = look(rules, models, ignored, linted=not cost)
    if sarif:
        from arbiter.cli.sarif import sarif_log  # noqa: PLC0415 - seldom asked for

        sys.stdout.write(sarif_log(checked.noted) + "\n")
    elif cost and checked.snapshot is not None:
        from arbiter.cli.cost import print_costs  # noqa: PLC0415 - seldom asked for

        print_costs(checked.snapshot, as_json=as_json)
        return
    elif as_json:
        print_json(_document(checked))
    else:
        _print(checked)
    raise typer.Exit(FINDINGS if checked.noted else 0)


def look(rules: Path, models: Path | None, ignored: Collection[str] = (), *, linted: bool = True) -> Checked:
    """Load the files as a server would, and lint what loads."""
    # They load onnxruntime.
    from arbiter.cli.offline import load, read_rule_files  # noqa: PLC0415
    from arbiter.lint.run import Names, Noted, lint  # noqa: PLC0415

    snapshot, found = load(rules, models)
    noted = [Noted(each) for each in found]
    if snapshot is not None and linted:
        names = Names(rules.as_posix(), "" if models is None else models.as_posix())
        now = time.time_ns() // 1_000_000_000 * 1_000_000
        noted += lint(snapshot, read_rule_files(rules, models), now, names, ignored)
    return Checked(snapshot, tuple(sorted(noted, key=lambda each: each.diagnostic)))


def models_beside(rules: Path) -> Path | None:
    """The directory `models` beside the rules, when it is there."""
    above = rules.resolve().parent
    beside = (rules.parent if rules.parent.resolve() == above else above) / "models"
    return beside if beside.is_dir() else None


def _known(codes: Collection[str]) -> frozenset[str]:
    from arbiter.lint.finding import KINDS  # noqa: PLC0415 - brings the decision core

    for code in codes:
        if code not in KINDS:
            hint = did_you_mean(code, KINDS) or f"the codes are {', '.join(KINDS)}"
            raise typer.BadParameter(f"there is no finding `{code}`; {hint}", param_hint="'--ignore'")
    return frozenset(codes)


def _document(checked: Checked) -> dict[str, Any]:
    """What `--json` prints."""
    listed = []
    for each in checked.noted:
        fields = diagnostic_fields(each.diagnostic)
        if each.finding is not None and each.finding.subject is not None:
            fields |= {"subject": each.finding.subject.fields(), "outcome": each.finding.outcome}
        listed.append(fields)
    counts = None if checked.snapshot is None else checked.snapshot.counts()
    return {
        "ok": not checked.noted, "loads": checked.snapshot is not None, "counts": counts, "diagnostics": listed,
    }  # fmt: skip


def _print(checked: Checked) -> None:
    for each in checked.diagnostics:
        out().print(diagnostic_text(each))
    if checked.snapshot is None or checked.noted:
        out().print(_tally(checked.diagnostics), style="bold")
    else:
        counted = ", ".join(plural(number, noun[:-1]) for noun, number in checked.snapshot.counts().items())
        out().print(f"no mistakes: {counted}", style="green")


def _tally(found: list[Diagnostic]) -> str:
    """``2 errors and 1 warning in 1 file``."""
    errors = sum(each.severity == "error" for each in found)
    counts = [plural(n, noun) for n, noun in ((errors, "error"), (len(found) - errors, "warning")) if n]
    return f"{' and '.join(counts)} in {plural(len({each.file for each in found}), 'file')}"


def _watch(rules: Path, models: Path | None, ignored: Collection[str]) -> None:
    """Check now, and again after every change, until interrupted."""
    from arbiter.cli.offline import fingerprint  # noqa: PLC0415 - loads onnxruntime
    from arbiter.runtime.watcher import Watcher  # noqa: PLC0415 - as above

    seen = ""

    def again() -> None:
        nonlocal seen
        content = fingerprint(rules, models)
        if content == seen:
            return
        seen = content
        checked = look(rules, models, ignored)
        if out().is_terminal:
            out().clear()
        _print(checked)
        out().print("watching, Ctrl-C ends", style="dim")

    again()
    watcher = Watcher([path for path in (rules, models) if path is not None], again)
    watcher.start()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        watcher.stop()
