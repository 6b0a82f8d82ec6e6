"""`arbiter profile`: what is known of a subject, and changing it.

Law: asks and prints.
"""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import out, plural, print_json, print_table
from arbiter.cli.values import read_assignments, read_durations, read_moment, read_numbers
from arbiter.decision.wording import shown, unconsented
from arbiter.types import ConsentState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbiter.client import AttributeChange, ProfileAnswer

_ALL = (1 << 32) - 1  # versions: more than any server keeps

profile = typer.Typer(name="profile", help="What is known of a subject, and changing it.", no_args_is_help=True)

Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help="Whose profile.")]
Account = Annotated[bool, typer.Option("--account", help="The id is an account's: a company's, a household's.")]
Anonymous = Annotated[str, typer.Argument(metavar="ANONYMOUS", help="The id that is to stand for the other.")]
Known = Annotated[str, typer.Argument(metavar="KNOWN", help="The id under which the subject is known.")]
Assignments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME=VALUE",
        help="Attributes to set. A value is JSON where it is JSON (41, 2.5, true, [1, 2]), a moment where "
        "it is one with its zone (2026-11-20T18:30:00Z), else text.",
    ),
]
Several = list[str] | None
_AGAIN = "May be given again."


def _each(flag: str, metavar: str, help_: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=f"{help_} {_AGAIN}")


Unset = Annotated[Several, _each("--unset", "NAME", "Remove it.")]
Increment = Annotated[Several, _each("--increment", "NAME=NUMBER", "Add a number; absent counts as 0.")]
Append = Annotated[Several, _each("--append", "NAME=VALUE", "Add to the end of a list.")]
AddToSet = Annotated[Several, _each("--add-to-set", "NAME=VALUE", "Add to a list that does not hold it yet.")]
Remove = Annotated[Several, _each("--remove", "NAME=VALUE", "Take out of a list.")]
Min = Annotated[Several, _each("--min", "NAME=VALUE", "Make it this, if that is smaller.")]
Max = Annotated[Several, _each("--max", "NAME=VALUE", "Make it this, if that is larger.")]
Keep = Annotated[Several, _each("--keep", "NAME=COUNT", "Of a list that is added to, keep the newest so many.")]
Ttl = Annotated[Several, _each("--ttl", "NAME=DURATION", "What is written goes after 30m, 12h, 7d.")]
Enter = Annotated[Several, _each("--enter", "SEGMENT", "Put the subject into a managed segment.")]
Leave = Annotated[Several, _each("--leave", "SEGMENT", "Take it out of one.")]
Version = Annotated[
    int | None, typer.Option(min=0, help="Refuse unless the profile has this version; 0: was never changed.")
]

Granted = Annotated[list[str] | None, typer.Option("--grant", metavar="PURPOSE", help="Granted; may be given again.")]
Denied = Annotated[list[str] | None, typer.Option("--deny", metavar="PURPOSE", help="Refused; may be given again.")]
Revoked = Annotated[
    list[str] | None, typer.Option("--revoke", metavar="PURPOSE", help="Granted no longer; may be given again.")
]
Source = Annotated[str, typer.Option(metavar="TEXT", help="Where it was said: a form and its version, a call centre.")]
Said = Annotated[
    str, typer.Option(metavar="MOMENT", help="When it was said, as in 2026-12-24T18:00:00Z. [default: now]")
]


Past = Annotated[bool, typer.Option("--history", help="Tell who changed what, as far back as the server keeps it.")]
Key = Annotated[str, typer.Option("--idempotency-key", metavar="KEY", help="Make sending it again harmless.")]


@profile.command("get")
@asks_a_server
def get(
    subject: Subject, *, account: Account = False, history: Past = False, server: Asked, as_json: AsJson = False
) -> None:
    """Print attributes, features and segments, as a decision would see them now."""
    versions = _ALL if history else 0
    with connected(server) as client:
        if account:
            known = client.get_profile(account_id=subject, history=versions)
        else:
            known = client.get_profile(subject, history=versions)
    if as_json:
        print_json(known)
        return
    rows: list[tuple[str, str, str]] = []
    root = "account" if account else "profile"
    for name, value in sorted(known.attributes.items()):
        until = f" until {shown(known.expires[name])}" if name in known.expires else ""
        rows.append(("attribute", f"{root}.{name}", shown(value) + until))
    for name, value in sorted(known.features.items()):
        note = ", being rewritten for all" if name in known.rebuilding else ""
        rows.append(("feature", f"features.{name}", shown(value) + note))
    rows += [
        ("segment", f"segments.{name}", "unknown" if value is None else shown(value))
        for name, value in sorted(known.segments.items())
    ]
    rows += [("consent", each.purpose, each.state) for each in known.consents]
    print_table(("kind", "name", "value"), rows, title=f"{subject}, version {known.version}")
    if known.denied:
        out().print(f"decisions do not see all of it: {unconsented(known.denied)}")
    if not known.exists and out().is_terminal:
        out().print(f"nothing is stored on this {'account' if account else 'subject'}", style="yellow")
    if history:
        _print_history(known)


def _print_history(known: "ProfileAnswer") -> None:
    heads = ("version", "when", "by", "attribute", "was", "became")
    rows = [
        (str(each.version), shown(each.at), each.by, *told)
        for each in known.history
        for told in _told(each.changes) or [("", "", "")]
    ]
    print_table(heads, rows, title="history", prose=("was", "became"))


def _told(changes: "Mapping[str, AttributeChange]") -> list[tuple[str, str, str]]:
    told = []
    for name, change in sorted(changes.items()):
        until = f" until {shown(change.expires_at)}" if change.expires_at else ""
        was, became = ("" if value is None else shown(value) for value in (change.before, change.after))
        told.append((name, was, became + until))
    return told


@profile.command("set")
@asks_a_server
def set_(
    subject: Subject,
    assignments: Assignments = None,
    *,
    account: Account = False,
    unset: Unset = None,
    increment: Increment = None,
    append: Append = None,
    add_to_set: AddToSet = None,
    remove: Remove = None,
    min_: Min = None,
    max_: Max = None,
    keep: Keep = None,
    ttl: Ttl = None,
    enter: Enter = None,
    leave: Leave = None,
    expected_version: Version = None,
    idempotency_key: Key = "",
    server: Asked,
    as_json: AsJson = False,
) -> None:
    """Change attributes in one step, as in `arbiter profile set 42 country=CA age=41`. Answered when it is on disk."""
    given: dict[str, list[str] | None] = {
        "set": assignments,
        "increment": increment,
        "append": append,
        "add_to_set": add_to_set,
        "remove": remove,
        "min": min_,
        "max": max_,
    }
    verbs: dict[str, Any] = {verb: read_assignments(written or ()) for verb, written in given.items()}
    if not any(verbs.values()) and not unset and not enter and not leave:
        raise typer.BadParameter("nothing to change: give name=value, --unset NAME, or --enter SEGMENT")
    with connected(server) as client:
        version = client.update_profile(
            "" if account else subject,
            account_id=subject if account else "",
            **verbs,
            unset=unset or (),
            keep=read_numbers(keep or ()),
            ttl=read_durations(ttl or ()),
            enter_segments=enter or (),
            leave_segments=leave or (),
            expected_version=expected_version,
            idempotency_key=idempotency_key,
        )
    if as_json:
        print_json({"account_id" if account else "subject_id": subject, "version": version})
        return
    # What holds now; whether it held before is not known here.
    counts = {"set": len(verbs.pop("set")), "unset": len(unset or ()), "changed": sum(map(len, verbs.values()))}
    holds = [f"{plural(number, 'attribute')} {what}" for what, number in counts.items() if number]
    holds += [f"{what} {', '.join(names)}" for what, names in (("in", enter), ("out of", leave)) if names]
    out().print(f"{subject}: {', '.join(holds)}, version {version}", style="green")


@profile.command("consent")
@asks_a_server
def consent(
    subject: Subject,
    *,
    grant: Granted = None,
    deny: Denied = None,
    revoke: Revoked = None,
    source: Source = "",
    at: Said = "",
    server: Asked,
    as_json: AsJson = False,
) -> None:
    """Record what a subject says of purposes, as in `arbiter profile consent 42 --grant ads --source call-centre`.

    Answered when it is on disk. With no purpose: print all that the subject ever said.
    """
    said = [
        (purpose, state)
        for state, purposes in (
            (ConsentState.GRANTED, grant), (ConsentState.DENIED, deny), (ConsentState.REVOKED, revoke),
        )
        for purpose in purposes or ()
    ]  # fmt: skip
    if len({purpose for purpose, _ in said}) != len(said):
        raise typer.BadParameter("a purpose is given twice: one of the two is meant")
    if said and not source:
        raise typer.BadParameter("where was it said? Give --source, as in --source call-centre")
    moment = read_moment(at, "--at") if at else None
    with connected(server) as client:
        done = [client.set_consent(subject, purpose, state, source=source, at=moment) for purpose, state in said]
        consents = tuple(each.current for each in done)
        if not said:
            consents = client.get_profile(subject, consent_history=True).consents
    if as_json:
        print_json(done if said else consents)
        return
    print_table(
        ("purpose", "state", "said", "source", "recorded", "by"),
        [(c.purpose, c.state, shown(c.at), c.source, shown(c.recorded_at), c.recorded_by) for c in consents],
        title=f"{subject}, {'as it stands now' if said else 'all that was said'}",
    )
    for each in done:
        if not each.declared:
            out().print(f"the rules that run declare no purpose `{each.current.purpose}`", style="yellow")


@profile.command("link")
@asks_a_server
def link(anonymous: Anonymous, known: Known, *, server: Asked, as_json: AsJson = False) -> None:
    """Let an anonymous id stand for a known one: profiles and events become one, for good. Again it changes nothing."""
    with connected(server) as client:
        done = client.link_identity(anonymous, known)
    if as_json:
        print_json({"anonymous_id": anonymous, "known_id": known} | msgspec.structs.asdict(done))
    elif done.linked:
        dropped = f", {plural(done.duplicates, 'duplicate')} dropped" if done.duplicates else ""
        moved = f"{plural(done.events, 'event')} moved{dropped}, version {done.version}"
        out().print(f"{anonymous} stands for {known}: {moved}", style="green")
    else:
        out().print(f"{anonymous} and {known} were one already, version {done.version}")
