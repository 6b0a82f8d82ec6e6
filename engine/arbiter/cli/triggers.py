"""`arbiter triggers`: what there are, how far along a subject is with each, and what they do as they do it.

Law: asks and prints; what triggers mean, the server or the rule files say.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.text import Text

from arbiter.cli.asking import AsJson
from arbiter.cli.check import models_beside
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import err, fail, out, plural, print_json, print_table
from arbiter.decision.wording import shown
from arbiter.errors import AuthorError

if TYPE_CHECKING:
    from arbiter.client import Firing, SubjectStanding, TriggerStanding
    from arbiter.ruleset.triggers import Trigger

triggers = typer.Typer(name="triggers", help="Rules over time: what fires, and when.", no_args_is_help=True)

_TONES = {"pending": "bold yellow", "in progress": "cyan", "spent": "green", "disabled": "dim", "inactive": "dim"}

Rules = Annotated[Path, typer.Argument(metavar="RULES", help="The rules directory.", exists=True, file_okay=False)]
Models = Annotated[
    Path | None,
    typer.Option(help="The models. [default: `models` beside the rules]", exists=True, file_okay=False),
]
Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help="Whose.")]
Only = Annotated[list[str] | None, typer.Option("--trigger", metavar="ID", help="Only this one; may be given again.")]
Tag = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="Only with this tag; may be given again.")]
Whose = Annotated[str, typer.Option("--subject", metavar="SUBJECT", help="Only of this subject.")]
After = Annotated[
    int | None,
    typer.Option(min=0, metavar="POSITION", help="Begin after this position; 0: with the oldest kept. [default: now]"),
]
Count = Annotated[int, typer.Option("--count", min=0, help="End after so many; 0: never.")]
Decisions = Annotated[bool, typer.Option("--decisions", help="With the answers to decisions that were made.")]
Newest = Annotated[int, typer.Option("--firings", min=1, max=100, help="How many of the newest firings of each.")]
Lines = Annotated[bool, typer.Option("--json", help="Print a JSON document a line.")]


@triggers.command("list")
def list_(rules: Rules, *, models: Models = None, as_json: AsJson = False) -> None:
    """Say which triggers the files in RULES declare: what each waits for, and what it does."""
    from arbiter.cli.offline import load  # noqa: PLC0415 - loads onnxruntime and LMDB

    snapshot, found = load(rules, models or models_beside(rules))
    if snapshot is None:
        raise AuthorError(each for each in found if each.severity == "error")
    declared = snapshot.frame.triggers
    if as_json:
        print_json([_listed(each) for each in declared])
        return
    print_table(
        ("trigger", "waits for", "does", "repeat", "on", "where"),
        [_row(each) for each in declared],
        title=plural(len(declared), "trigger"),
        prose=("waits for", "does"),
    )


@triggers.command("explain")
@asks_a_server
def explain(
    subject: Subject, *, trigger: Only = None, firings: Newest = 1, server: Asked, as_json: AsJson = False
) -> None:
    """Say how far along SUBJECT is with each trigger, what it waits for and until when, and what it did last."""
    with connected(server) as client:
        found = client.explain_triggers(subject, triggers=trigger or (), firings=firings)
    if as_json:
        print_json(found)
    else:
        _print_standing(found)


@triggers.command("follow")
@asks_a_server
def follow(
    *,
    trigger: Only = None,
    tag: Tag = None,
    subject: Whose = "",
    after: After = None,
    decisions: Decisions = False,
    count: Count = 0,
    server: Asked,
    as_json: Lines = False,
) -> None:
    """Print what triggers do, as they do it, until it is interrupted; it goes on when a server comes back."""
    from arbiter.client import OutOfRange  # noqa: PLC0415 - brings grpc

    told = 0
    with connected(server) as client:
        client.wait_ready()
        followed = client.subscribe(
            after=after, triggers=trigger or (), tags=tag or (), subject_id=subject, include_decision=decisions
        )
        with followed:
            try:
                for firing in followed:
                    if not told and followed.unknown:
                        names = ", ".join(f"`{name}`" for name in followed.unknown)
                        err().print(f"the rules that run declare no trigger {names}", style="yellow")
                    _print_firing(firing, as_json=as_json)
                    told += 1
                    if told == count:
                        return
            except OutOfRange as error:
                fail(str(error))


def _print_firing(firing: "Firing", *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(firing).decode() + "\n")
        sys.stdout.flush()
        return
    whose = firing.subject_id or firing.pseudonym
    causes = ", ".join(f"{each.type} {shown(each.id)}" for each in firing.causes)
    line = Text.assemble(
        (f"{firing.position} ", "dim"),
        (f"{shown(firing.at)} ", "dim"),
        (firing.trigger, "bold"),
        f" {whose}: ",
        "; ".join(_did(firing)) or "nothing was to be done",
        (f"  because of {causes}", "dim"),
    )
    if firing.dropped:
        line.append(f"  {firing.dropped}", "yellow")
    out().print(line, soft_wrap=True)
    sys.stdout.flush()


def _did(firing: "Firing") -> list[str]:
    """What was done, as ends of a sentence."""
    did = [f"{name} = {shown(value)}" for name, value in firing.set.items()]
    did += [f"no {name}" for name in firing.unset]
    did += [f"{name} + {shown(value)}" for name, value in firing.increment.items()]
    did += [f"in {name}" for name in firing.enter_segments]
    did += [f"out of {name}" for name in firing.leave_segments]
    if firing.emitted is not None and firing.emitted.id:
        did.append(f"emitted {firing.emitted.type}")
    if firing.decision_point:
        rules = [] if firing.decision is None else [each.rule_id or "default" for each in firing.decision.treatments]
        did.append(f"decided {firing.decision_point}{f' ({chr(44).join(rules)})' if rules else ''}")
    return did


def _print_standing(found: "SubjectStanding") -> None:
    for each in found.triggers:
        _print_trigger(each)
    if found.behind:
        out().print(f"triggers have not looked at the newest {plural(found.behind, 'event')} yet", style="yellow")
    if not found.triggers and out().is_terminal:
        out().print("the rules that run declare no triggers", style="yellow")


def _print_trigger(found: "TriggerStanding") -> None:
    first, *rest = found.text.split("\n")
    name, _, said = first.partition(": ")
    out().print(Text.assemble((name, "bold"), ": ", (said, _TONES.get(found.stage, ""))), soft_wrap=True)
    for line in rest:
        out().print(Text(line), soft_wrap=True)


def _listed(trigger: "Trigger") -> dict[str, Any]:
    """A trigger for JSON."""
    from arbiter.ruleset.patterns.words import written_of  # noqa: PLC0415 - loads CEL

    written = {name: list(said) for name, said in written_of(trigger).items()}
    return {"trigger": trigger.id, "kind": trigger.kind, **written, "position": trigger.position}


def _row(trigger: "Trigger") -> tuple[str, ...]:
    from arbiter.ruleset.patterns.words import pattern_text, written_of  # noqa: PLC0415 - loads CEL

    written = written_of(trigger)
    (repeat,), (enabled,) = written["repeat"], written["enabled"]
    does = "; ".join(written["then"])
    return trigger.id, pattern_text(trigger), does, repeat, "yes" if enabled == "true" else "no", trigger.position
