"""The program `arbiter`: its commands, and what becomes of an error.

Law: the one place that knows every command. A mistake of whoever types becomes a sentence and an exit code, never a
traceback: 0 well, 1 findings or a refusal, 2 wrong usage. A traceback is a fault of ours.
"""

import re
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from arbiter import __version__
from arbiter.cli.audience import audience
from arbiter.cli.bandit import bandit
from arbiter.cli.bench import bench
from arbiter.cli.canary import canary
from arbiter.cli.check import check
from arbiter.cli.config import config
from arbiter.cli.consume import consume
from arbiter.cli.decide import decide
from arbiter.cli.demo import demo
from arbiter.cli.events import events
from arbiter.cli.explain import explain
from arbiter.cli.fmt import fmt
from arbiter.cli.health import health
from arbiter.cli.model import model
from arbiter.cli.modelreport import report as model_report
from arbiter.cli.outcomes import outcomes
from arbiter.cli.override import override
from arbiter.cli.privacy import delete, export
from arbiter.cli.profile import profile
from arbiter.cli.replay import replay, shadow
from arbiter.cli.report import report
from arbiter.cli.retrain import retrain
from arbiter.cli.schema import schema
from arbiter.cli.serve import serve
from arbiter.cli.snapshot import snapshot
from arbiter.cli.status import status
from arbiter.cli.store import store
from arbiter.cli.terminal import diagnostic_text, err, fail
from arbiter.cli.test import run_tests
from arbiter.cli.token import token
from arbiter.cli.triggers import triggers
from arbiter.cli.watch import watch
from arbiter.errors import ArbiterError, AuthorError, did_you_mean

_INTERRUPTED = 130
_CHOICE = re.compile(r"'(.*)' is not one of (.+)\.", re.DOTALL)


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Run the command. What pydantic puts before a mistake is no word for whoever typed it, the closest is."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            choice = _CHOICE.fullmatch(error.message)
            if choice and (near := did_you_mean(choice[1], re.findall(r"'([^']+)'", choice[2]))):
                error.message += f" {near[0].upper()}{near[1:]}".replace("`", "'")
            raise


# Typer draws boxes around its help: on a terminal only.
app = typer.Typer(
    name="arbiter",
    cls=_Commands,
    help="A real-time decision engine: rules, models and profiles behind one gRPC call.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (serve, check, fmt, schema, decide, explain, status, health):
    app.command()(command)
app.command("test")(run_tests)
app.add_typer(config)
profile.command("export")(export)
profile.command("delete")(delete)
app.add_typer(profile)
events.command("consume")(consume)
app.add_typer(events)
model.command("report")(model_report)
model.command("retrain")(retrain)
app.add_typer(model)
app.add_typer(snapshot)
app.add_typer(canary)
app.add_typer(override)
app.add_typer(store)
app.add_typer(token)
app.add_typer(triggers)
app.add_typer(outcomes)
app.add_typer(bandit)
app.command()(audience)
app.command()(replay)
app.command()(shadow)
app.command()(report)
app.command()(watch)
app.command()(bench)
app.command()(demo)


def _version(*, wanted: bool) -> None:
    if wanted:
        print(f"arbiter {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *, version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True)
) -> None:
    pass


def main() -> None:
    """Run the command that `sys.argv` names, and end the process with its exit code."""
    try:
        app(prog_name="arbiter")
    except AuthorError as error:
        for found in error.diagnostics:
            err().print(diagnostic_text(found))
        fail("the files hold mistakes, nothing was loaded")
    except ArbiterError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
