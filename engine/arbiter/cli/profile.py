"""`arbiter profile`: what is known of a subject, and changing it.

Law: asks and prints.
"""

from typing import Annotated

import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import out, plural, print_json, print_table
from arbiter.cli.values import read_assignments
from arbiter.decision.wording import shown

profile = typer.Typer(name="profile", help="What is known of a subject, and changing it.", no_args_is_help=True)

Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help="Whose profile.")]
Account = Annotated[bool, typer.Option("--account", help="The id is an account's: a company's, a household's.")]
Assignments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME=VALUE",
        help="Attributes to set. A value is JSON where it is JSON (41, 2.5, true, [1, 2]), a moment where "
        "it is one with its zone (2026-11-20T18:30:00Z), else text.",
    ),
]
Unset = Annotated[list[str] | None, typer.Option("--unset", metavar="NAME", help="Remove it; may be given again.")]
Version = Annotated[
    int | None, typer.Option(min=0, help="Refuse unless the profile has this version; 0: was never changed.")
]


@profile.command("get")
@asks_a_server
def get(subject: Subject, *, account: Account = False, server: Asked, as_json: AsJson = False) -> None:
    """Print attributes, features and segments, as a decision would see them now."""
    with connected(server) as client:
        known = client.get_profile(account_id=subject) if account else client.get_profile(subject)
    if as_json:
        print_json(known)
        return
    rows: list[tuple[str, str, str]] = []
    root = "account" if account else "profile"
    rows += [("attribute", f"{root}.{name}", shown(value)) for name, value in sorted(known.attributes.items())]
    rows += [("feature", f"features.{name}", shown(value)) for name, value in sorted(known.features.items())]
    rows += [
        ("segment", f"segments.{name}", "unknown" if value is None else shown(value))
        for name, value in sorted(known.segments.items())
    ]
    print_table(("kind", "name", "value"), rows, title=f"{subject}, version {known.version}")
    if not known.exists and out().is_terminal:
        out().print(f"nothing is stored on this {'account' if account else 'subject'}", style="yellow")


@profile.command("set")
@asks_a_server
def set_(
    subject: Subject,
    assignments: Assignments = None,
    *,
    account: Account = False,
    unset: Unset = None,
    expected_version: Version = None,
    server: Asked,
    as_json: AsJson = False,
) -> None:
    """Change attributes in one step, as in `arbiter profile set 42 country=CA age=41`. Answered when it is on disk."""
    values = read_assignments(assignments or ())
    if not values and not unset:
        raise typer.BadParameter("nothing to change: give name=value, or --unset NAME")
    with connected(server) as client:
        version = client.update_profile(
            "" if account else subject,
            account_id=subject if account else "",
            set=values,
            unset=unset or (),
            expected_version=expected_version,
        )
    if as_json:
        print_json({"account_id" if account else "subject_id": subject, "version": version})
    else:
        # What holds now; whether it held before is not known here.
        counts = ((len(values), "set"), (len(unset or ()), "unset"))
        holds = [f"{plural(number, 'attribute')} {what}" for number, what in counts if number]
        out().print(f"{subject}: {', '.join(holds)}, version {version}", style="green")
