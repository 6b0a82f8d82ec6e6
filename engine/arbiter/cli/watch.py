"""`arbiter watch`: decisions as all workers of a server make them, with their reasons.

Law: asks and prints; what is told of a decision, the server says.
"""

import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.text import Text

from arbiter.cli.explain import Level
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import err, out, plural
from arbiter.decision.wording import shown
from arbiter.types import ExplainLevel

if TYPE_CHECKING:
    from arbiter.client import WatchedDecision

Point = Annotated[
    list[str] | None, typer.Option("--decision", metavar="POINT", help="Only of this one; may be given again.")
]
Rule = Annotated[
    list[str] | None, typer.Option("--rule", metavar="ID", help="Only what this rule gave; may be given again.")
]
Whose = Annotated[str, typer.Option("--subject", metavar="SUBJECT", help="Only of this subject.")]
Share = Annotated[float, typer.Option(min=0.0, max=1.0, metavar="PART", help="The part of them to tell, 0 to 1.")]
Most = Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="How many a second at most.")]
Why = Annotated[Level | None, typer.Option(help="Say why, of these rules. [default: do not]")]
Explained = Annotated[
    list[str] | None, typer.Option("--explain-rule", metavar="ID", help="Why, of this rule only; may be given again.")
]
Count = Annotated[int, typer.Option("--count", min=0, help="End after so many; 0: never.")]
Lines = Annotated[bool, typer.Option("--json", help="Print a JSON document a line, as it does into a pipe.")]


@asks_a_server
def watch(
    *,
    decision: Point = None,
    rule: Rule = None,
    subject: Whose = "",
    share: Share = 1.0,
    most: Most = 10,
    explain: Why = None,
    explain_rule: Explained = None,
    count: Count = 0,
    server: Asked,
    as_json: Lines = False,
) -> None:
    """Print decisions as all workers make them, until it is interrupted; it goes on when a server comes back."""
    level = explain or (Level.ALL if explain_rule else None)
    lines = as_json or not out().is_terminal
    told = 0
    with connected(server) as client:
        client.wait_ready()
        watched = client.watch_decisions(
            decisions=decision or (),
            rules=rule or (),
            subject_id=subject,
            share=share,
            most_per_second=most,
            explain=ExplainLevel.NONE if level is None else ExplainLevel[level.name],
            explain_rules=explain_rule or (),
        )
        with watched:
            try:
                for each in watched:
                    if lines:
                        sys.stdout.write(msgspec.json.encode(each).decode() + "\n")
                        sys.stdout.flush()
                    else:
                        _print(each)
                    told += 1
                    if told == count:
                        return
            finally:
                if watched.dropped:
                    err().print(f"{plural(watched.dropped, 'more decision')} were too many to tell", style="yellow")


def _print(each: "WatchedDecision") -> None:
    given = ", ".join(one.rule_id or f"{one.action} (default)" for one in each.treatments)
    line = Text.assemble(
        (f"{shown(each.at)} ", "dim"),
        (each.decision, "bold"),
        f" {each.subject_id or each.reference[:12] or ('(not told)' if each.impersonal else '-')}: ",
        (given or "nothing", "yellow" if each.defaulted or not given else "green"),
    )
    for note in _notes(each):
        line.append(f"  {note}", "dim")
    out().print(line, soft_wrap=True)
    for why in filter(None, each.explanation_text.split("\n")):
        out().print(Text(f"    {why}", "dim"), soft_wrap=True)


def _notes(each: "WatchedDecision") -> list[str]:
    notes = [f"{name}={variant}" for name, variant in each.experiments.items()]
    notes += [f"without {name}" for name in each.degraded]
    if each.canary:
        notes.append(f"canary {each.snapshot[:12]}")
    return notes
