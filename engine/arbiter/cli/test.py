"""`arbiter test`: runs the tests that authors wrote beside their rules.

Law: loads as a server would, runs each test once, hands the results on to be told; decides nothing about either.
"""

import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from arbiter.cli.check import models_beside
from arbiter.cli.terminal import FINDINGS, USAGE, diagnostic_fields, diagnostic_text, fail, out, print_json
from arbiter.errors import Diagnostic

Place = Annotated[
    Path, typer.Argument(metavar="RULES", help="The rules directory, or one test file in it.", exists=True)
]
Only = Annotated[
    str, typer.Argument(metavar="FILTER", help="Only tests with this text in their file or name, in any case.")
]
Whole = Annotated[
    Path | None,
    typer.Option(
        "--rules", metavar="DIR", exists=True, file_okay=False,
        help="With RULES a file: the rules that it tests. [default: the directory `rules` above it, else its own]",
    ),
]  # fmt: skip
Models = Annotated[
    Path | None,
    typer.Option(help="The models that the rules may name. [default: `models` beside the rules, if it is there]",
                 exists=True, file_okay=False),
]  # fmt: skip
Covered = Annotated[bool, typer.Option("--coverage", help="Say which rules no test exercises.")]
Least = Annotated[
    float | None,
    typer.Option(min=0, max=100, metavar="PERCENT", help="Fail when a smaller share of the rules won in a test."),
]
Junit = Annotated[Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Write JUnit XML there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def run_tests(
    place: Place,
    only: Only = "",
    *,
    rules: Whole = None,
    models: Models = None,
    coverage: Covered = False,
    fail_under: Least = None,
    junit: Junit = None,
    as_json: AsJson = False,
) -> None:
    """Run the tests of rules: every `*.test.yaml` below RULES.

    Ends with 0 when all pass, with 1 when one fails or a file holds a mistake, with 2 when there is nothing to run.
    """
    from arbiter.cli.offline import load, read_test_files  # noqa: PLC0415 - loads onnxruntime
    from arbiter.cli.testreport import Report, Timed, write_junit  # noqa: PLC0415 - as above
    from arbiter.ruletests import Coverage, Runner, read_tests  # noqa: PLC0415 - as above

    directory = rules or (place if place.is_dir() else _rules_above(place))
    if not place.resolve().is_relative_to(directory.resolve()):
        fail(f"{place} does not lie below {directory}", code=USAGE)
    snapshot, found = load(directory, models or models_beside(directory))
    if snapshot is None:
        _tell_mistakes(found, as_json=as_json)
    below = place.resolve().relative_to(directory.resolve()).as_posix()
    files = {
        path: content
        for path, content in read_test_files(directory).items()
        if below in {".", path} or path.startswith(f"{below}/")
    }
    if not files:
        fail(f"there is no test in {place}: tests stand in files that end in .test.yaml", code=USAGE)
    tests, mistakes = read_tests(files, snapshot.ruleset, snapshot.models, folder=directory.as_posix())
    wanted = [each for each in tests if only.casefold() in f"{each.file} {each.name}".casefold()]
    if not wanted and not mistakes:
        fail(f"no test has `{only}` in its file or name, of {len(tests)}", code=USAGE)
    runner = Runner(snapshot)
    whole = snapshot.ruleset
    counted = Coverage(whole.rules, whole.triggers) if coverage or fail_under is not None else None
    results: list[Timed] = []
    begun = time.perf_counter()
    for each in wanted:
        started = time.perf_counter()
        result = runner.run(each, explained=counted is not None)
        results.append(Timed(result, time.perf_counter() - started))
        if counted is not None:
            counted.add(result)
    report = Report(
        folder=directory.as_posix(),
        results=results,
        mistakes=mistakes,
        seconds=time.perf_counter() - begun,
        covered=None if counted is None else counted.rules(),
        fail_under=fail_under,
    )
    if junit is not None:
        write_junit(report, junit)
    if as_json:
        print_json(report.fields())
    else:
        report.print()
    raise typer.Exit(0 if report.ok else FINDINGS)


def _rules_above(file: Path) -> Path:
    """The nearest directory above called `rules`, as it was typed where it can be; else the file's own."""
    for directory in file.parents:
        if directory.name == "rules":
            return directory
    return next((each for each in file.resolve().parents if each.name == "rules"), file.parent)


def _tell_mistakes(found: list[Diagnostic], *, as_json: bool) -> NoReturn:
    """Say why the rules do not load: nothing can be tested."""
    if as_json:
        print_json({"ok": False, "tests": [], "diagnostics": [diagnostic_fields(each) for each in found]})
        raise typer.Exit(FINDINGS)
    for each in found:
        out().print(diagnostic_text(each))
    fail("the rules hold mistakes, nothing was tested")
