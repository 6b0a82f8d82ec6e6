"""`arbiter model`: from a table, or the log, to a model that may be served.

Law: reads options and files, and prints; what training and the gate do stands in `training`.
"""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.terminal import FINDINGS, err, fail, out, plural, print_json, print_table
from arbiter.cli.trainingdata import declarations, declared_in, model_in, table_of

model = typer.Typer(name="model", help="Models: train, check, list, report.", no_args_is_help=True)

SpecFile = Annotated[
    Path, typer.Argument(metavar="SPEC", help="The training, a YAML file.", exists=True, dir_okay=False)
]
Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Where the model's folder is to be, a directory of models.")
]
Against = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="The model in place, to measure on the same rows.", exists=True, file_okay=False
    ),
]
Folder = Annotated[
    Path,
    typer.Argument(metavar="[DIR]", help="A model's folder, or a directory of models.", exists=True, file_okay=False),
]
Models = Annotated[Path, typer.Argument(metavar="[DIR]", help="A directory of models.", exists=True, file_okay=False)]
Rules = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The rules that are to use it: compare its inputs.", exists=True, file_okay=False),
]
Latency = Annotated[
    float,
    typer.Option(metavar="TIMES", help="How many times as long as a logistic regression one row may take.", min=0),
]
WORDS = {True: "ok", False: "FAILED", None: "-"}
Replace = Annotated[bool, typer.Option("--replace", help="Replace the folder that is there.")]


@model.command("train")
def train(
    spec: SpecFile, *, to: Out = Path("models"), against: Against = None, replace: Replace = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Train what SPEC says, measure it on rows held out, export it, and write its folder with a card.

    Refuses a model whose exported form does not answer as the original does. Files that SPEC names are found from the
    folder that it lies in.
    """
    from arbiter.training.comparing import with_inputs_of  # noqa: PLC0415 - brings scikit-learn, as all of these
    from arbiter.training.declared import check_inputs  # noqa: PLC0415
    from arbiter.training.folder import check_free, contents, write_folder  # noqa: PLC0415
    from arbiter.training.reading import read_spec  # noqa: PLC0415
    from arbiter.training.run import train as run  # noqa: PLC0415

    content = spec.read_bytes()
    read = read_spec(content, spec.as_posix())
    place = to / read.name
    check_free(place, replace=replace)
    declared = declarations(read, spec.parent)
    if read.rules:
        check_inputs(read, declared)
    current = None if against is None else model_in(against)
    table = table_of(read if current is None else with_inputs_of(read, current), spec.parent, declared)
    trained = run(read, content, table, current)
    write_folder(place, contents(read, content, trained, declared.features), replace=replace)
    if as_json:
        print_json(trained.metrics | {"folder": place.as_posix()})
    else:
        print_metrics(trained.metrics)
        out().print(f"{place}: written; parity {trained.metrics['parity']['difference']:.1e}")


@model.command("check")
def check(
    folder: Folder = Path("models"),
    *,
    rules: Rules = None,
    against: Against = None,
    latency: Latency = 8.0,
    as_json: AsJson = False,
) -> None:
    """Say of a model, or of every model in a directory, whether it may go live, and what to do if not.

    The files are opened in another process with little memory and time, whatever they hold. Ends with 1 when a check
    failed. Checks that were not asked for are said, and fail nothing.
    """
    from arbiter.training.gate import Demands, check_folder  # noqa: PLC0415 - loads NumPy

    declared = None if rules is None else declared_in(rules)
    folders = _folders(folder)
    if against is not None and len(folders) > 1:
        raise typer.BadParameter("one model is in place of one: name the folder of one to check", param_hint="DIR")
    found = {each: check_folder(each, Demands(latency, declared, against)) for each in folders}
    if as_json:
        print_json([{"folder": each.as_posix(), "checks": checks} for each, checks in found.items()])
    else:
        for each, checks in found.items():
            rows = [(WORDS[one.ok], one.name, one.said, one.todo) for one in checks]
            print_table(("", "check", each.as_posix(), "what to do"), rows, prose=(each.as_posix(), "what to do"))
    if any(one.ok is False for checks in found.values() for one in checks):
        raise typer.Exit(FINDINGS)


@model.command("list")
def list_(folder: Models = Path("models"), *, as_json: AsJson = False) -> None:
    """Print the models of a directory, each version: what it is, what it says, how good it was on rows held out."""
    from arbiter.training.gate import summary  # noqa: PLC0415 - loads NumPy

    found = [(summary(each), _standing(each)) for each in _folders(folder)]
    if as_json:
        print_json([{**msgspec.to_builtins(each), "standing": standing} for each, standing in found])
        return
    print_table(
        ("model", "version", "", "kind", "outputs", "on rows held out", "sha256", "written", "mistakes"),
        [
            (
                each.name,
                str(each.version),
                standing,
                each.kind,
                ", ".join(each.outputs),
                each.figures,
                each.sha256[:12],
                each.written.replace("T", " ").partition("+")[0],
                each.mistakes,
            )
            for each, standing in found
        ],
        prose=("on rows held out", "mistakes"),
    )


def _folders(folder: Path) -> list[Path]:
    """The folder of a model, or those of all models in a directory."""
    from arbiter.models.loader import holds_model  # noqa: PLC0415 - loads onnxruntime

    if holds_model(folder):
        return [folder]
    below = [each for each in [folder, *sorted(folder.iterdir())] if each.is_dir() and not each.name.startswith(".")]
    found = [each for place in below for each in ([place] if holds_model(place) else _versions(place))]
    if not found:
        fail(f"there is no model in {folder}: a model is a folder with manifest.yaml and model.onnx")
    return found


def _versions(place: Path) -> list[Path]:
    """The folders of the versions that lie side by side in a model's folder, the lowest first."""
    from arbiter.models.loader import holds_model  # noqa: PLC0415 - loads onnxruntime
    from arbiter.models.versions import version_of  # noqa: PLC0415

    found = [each for each in place.iterdir() if version_of(each.name) and holds_model(each)]
    return sorted(found, key=lambda each: version_of(each.name))


def _standing(folder: Path) -> str:
    """Whether a server takes the model of this folder as live or tries it; empty when it does neither."""
    from arbiter.models.versions import FILE, read_versions, version_of  # noqa: PLC0415 - loads onnxruntime

    file = folder.parent / FILE
    if not version_of(folder.name) or not file.is_file():
        return "" if version_of(folder.name) else "live"
    chosen, _, _ = read_versions(file.read_bytes(), file.as_posix())
    if chosen is not None and chosen.canary is not None and chosen.canary.version == version_of(folder.name):
        return f"canary, {chosen.canary.share:.3g}"
    return "live" if chosen is not None and chosen.live == version_of(folder.name) else ""


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print what a training measured."""
    rows = metrics["rows"]
    err().print(
        f"{plural(rows['trained_on'], 'row')} trained on, {rows['held_out']:,} held out: {metrics['validation']}"
    )
    for reason, count in rows["left_out"].items():
        err().print(f"{count:,} left out: {reason}")
    print_table(
        (f"on the rows {'held out' if rows['held_out'] else 'trained on'}", "model", "95 % interval", "base rate"),
        [
            (
                name,
                f"{figure['value']:.4f}",
                f"{figure['low']:.4f} to {figure['high']:.4f}" if "low" in figure else "",
                f"{metrics['base'][name]:.4f}" if "base" in metrics else "",
            )
            for name, figure in metrics["held_out"].items()
        ],
    )
    if "segments" in metrics:
        print_table(
            ("segment", "rows", "share"),
            [(each["name"], f"{each['rows']:,}", f"{each['share']:.1%}") for each in metrics["segments"]],
        )
    if "metrics" in metrics.get("compared", {}):
        print_table(
            ("beside the model in place", "new", "in place", "better by"),
            [
                (name, f"{each['new']:.4f}", f"{each['old']:.4f}", f"{each['better_by']:.4f}")
                for name, each in metrics["compared"]["metrics"].items()
            ],
        )
