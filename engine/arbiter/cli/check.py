"""`arbiter check`: whether a server would load these files.

Law: runs the loader that the server runs, over directories that it changes nothing in.
"""

from pathlib import Path
from typing import Annotated

import typer

from arbiter.cli.terminal import FINDINGS, diagnostic_fields, diagnostic_text, out, plural, print_json
from arbiter.errors import Diagnostic

Rules = Annotated[Path, typer.Argument(metavar="RULES", help="The rules directory.", exists=True, file_okay=False)]
Models = Annotated[
    Path | None,
    typer.Option(help="The models that the rules may name. [default: `models` beside RULES, if it is there]",
                 exists=True, file_okay=False),
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def check(rules: Rules, *, models: Models = None, as_json: AsJson = False) -> None:
    """Say everything that is wrong with a rule set and its models.

    Ends with 0 when a server would load the files and there is nothing to say of them, with 1 otherwise.
    """
    from arbiter.cli.offline import load  # noqa: PLC0415 - loads onnxruntime

    models = models or models_beside(rules)
    snapshot, found = load(rules, models)
    if as_json:
        counts = None if snapshot is None else snapshot.counts()
        listed = [diagnostic_fields(each) for each in found]
        print_json({"ok": not found, "loads": snapshot is not None, "counts": counts, "diagnostics": listed})
    else:
        for each in found:
            out().print(diagnostic_text(each))
        if snapshot is None or found:
            out().print(_tally(found), style="bold")
        else:
            counted = ", ".join(plural(number, noun[:-1]) for noun, number in snapshot.counts().items())
            out().print(f"no mistakes: {counted}", style="green")
    raise typer.Exit(FINDINGS if found else 0)


def models_beside(rules: Path) -> Path | None:
    """The directory `models` beside the rules, when it is there."""
    beside = rules.resolve().parent / "models"
    return beside if beside.is_dir() else None


def _tally(found: list[Diagnostic]) -> str:
    """``2 errors and 1 warning in 1 file``."""
    errors = sum(each.severity == "error" for each in found)
    counts = [plural(n, noun) for n, noun in ((errors, "error"), (len(found) - errors, "warning")) if n]
    return f"{' and '.join(counts)} in {plural(len({each.file for each in found}), 'file')}"
