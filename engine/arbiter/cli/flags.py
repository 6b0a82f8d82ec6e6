"""The flags of the commands that take the server's options, and what comes of them.

Law: the one place that knows where options come from on this machine: a file, the environment, the command line.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arbiter.cli.terminal import USAGE, diagnostic_text, err, fail
from arbiter.config.declare import written
from arbiter.config.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arbiter.config.declare import Option
    from arbiter.config.read import Chosen

File = Annotated[
    Path | None,
    typer.Option(
        envvar="ARBITER_CONFIG",
        exists=True,
        dir_okay=False,
        help="A YAML file of options; flags win over what it says.",
    ),
]


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose first argument is a `Chosen`, the flag of every option beside its own."""
    own = [*inspect.signature(command).parameters.values()][1:]
    parameters = {option.name: _parameter(option) for option in OPTIONS.values()}
    config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=File)

    def run(**given: Any) -> None:
        file: Path | None = given.pop("config")
        values = {name: given.pop(parameter.name) for name, parameter in parameters.items()}
        flags = {name: value for name, value in values.items() if value is not None}
        command(chosen(file, flags), **given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    signature = inspect.Signature([config, *own, *parameters.values()])
    run.__signature__ = signature  # type: ignore[attr-defined] # what `inspect.signature` looks for
    return run


def _parameter(option: Option) -> inspect.Parameter:
    default = written(option.default)
    help_ = f"{option.meaning} [default: {default}]" if default else option.meaning
    if option.type is bool:
        both = f"{option.flag}/{option.flag_of(False)}"
        annotation: Any = Annotated[bool | None, typer.Option(both, help=help_)]
    else:
        shown = "|".join(option.words) or option.shown or f"{option.least:.10g}..{option.most:.10g}"
        annotation = Annotated[str | None, typer.Option(option.flag, metavar=shown, help=help_)]
    name = option.name.replace(".", "_")
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def chosen(path: Path | None, flags: Mapping[str, str | bool]) -> Chosen:
    """The options by a file, the environment and flags, or the end of the program with every mistake told."""
    from arbiter.config.read import ConfigFile, choose  # noqa: PLC0415 - brings the YAML reader

    file = None
    if path is not None:
        try:
            file = ConfigFile(path.as_posix(), path.read_bytes())
        except OSError as error:
            raise typer.BadParameter(f"cannot read {path}: {error.strerror}", param_hint="--config") from error
    options, found = choose(file, os.environ, flags)
    if options is None:
        for each in found:
            err().print(diagnostic_text(each))
        fail("the configuration holds mistakes, nothing was started", code=USAGE)
    return options
