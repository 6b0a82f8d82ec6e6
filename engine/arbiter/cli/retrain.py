"""`arbiter model retrain`: the command that a scheduler calls.

Law: reads options and files, and prints; what is done stands in `training.retraining`. Its exit code tells a scheduler
what came of it: 0 a new version is live, or there is nothing new to learn from; 1 the gate refused it; 2 nothing was
trained, and what is live stays.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.model import WORDS, Latency, Out, Rules, SpecFile, print_metrics
from arbiter.cli.terminal import FINDINGS, USAGE, diagnostic_text, err, fail, out, print_json, print_table
from arbiter.cli.trainingdata import declarations, declared_in, table_of
from arbiter.errors import ArbiterError, AuthorError

if TYPE_CHECKING:
    from arbiter.training.retraining import Retrained

Keep = Annotated[
    int,
    typer.Option(metavar="N", help="Remove all versions but the newest N, and never the live one or the one before it; "
                                   "0 keeps all.", min=0),
]  # fmt: skip
ReportFile = Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write the report there, as JSON.")]


def retrain(
    spec: SpecFile, *, to: Out = Path("models"), rules: Rules = None, latency: Latency = 8.0, keep: Keep = 0,
    report: ReportFile = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Train SPEC again on what is known by now; the new version goes live if the gate lets it.

    The model's folder has its versions side by side. The new one is measured on the same rows as the one in place, and
    a server that watches the directory follows by itself. Where rows and spec are as they were, nothing is done.
    Ends with 0 when a new version is live or there is nothing new, with 1 when the gate refused it, and with 2 when
    nothing was trained.
    """
    try:
        found = _retrained(spec, to, rules, latency, keep)
        if report is not None:
            report.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    except AuthorError as error:
        for each in error.diagnostics:
            err().print(diagnostic_text(each))
        fail("the files hold mistakes, nothing was trained", code=USAGE)
    except (ArbiterError, OSError) as error:
        fail(str(error), code=USAGE)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found.outcome == "refused":
        raise typer.Exit(FINDINGS)


def _retrained(spec: Path, models: Path, rules: Path | None, latency: float, keep: int) -> "Retrained":
    from arbiter.training.declared import check_inputs  # noqa: PLC0415 - brings scikit-learn, as all of these
    from arbiter.training.reading import read_spec  # noqa: PLC0415
    from arbiter.training.retraining import Wanted  # noqa: PLC0415
    from arbiter.training.retraining import retrain as run  # noqa: PLC0415

    content = spec.read_bytes()
    read = read_spec(content, spec.as_posix())
    declared = declarations(read, spec.parent)
    if read.rules:
        check_inputs(read, declared)
    of_rules = declared_in(rules) if rules is not None else declared if read.rules else None
    wanted = Wanted(read, content, declared.features, of_rules, latency, keep)
    return run(models, wanted, lambda asked: table_of(asked, spec.parent, declared))


def _print(found: "Retrained") -> None:
    if found.metrics:
        print_metrics(found.metrics)
    if found.checks:
        rows = [(WORDS[one.ok], one.name, one.said, one.todo) for one in found.checks]
        print_table(("", "check", found.folder, "what to do"), rows, prose=(found.folder, "what to do"))
    for version in found.removed:
        err().print(f"version {version} was removed")
    out().print(f"{found.model}: {found.outcome}: {found.said}")
