"""What the commands about versions share: naming a snapshot, and telling how things stand.

Law: words for versions and what prints them. Asks a server through the client that it is given, or reads a data
directory; changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from arbiter.cli.terminal import FINDINGS, diagnostic_fields, diagnostic_text, err, fail, out, print_json, print_table
from arbiter.decision.wording import shown
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arbiter.client import Client
    from arbiter.runtime.archive import Archive
    from arbiter.serving import Status

DIGITS = 12
PATIENCE_S = 60.0  # a large snapshot is read, and every worker is waited for
CURRENT, PREVIOUS = "current", "previous"
CAUSES = {"files": "files", "rollback": "rollback", "promotion": "canary promoted"}

Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it stands in the history, the state and the log.")]


def named(word: str, digests: Sequence[str], place: str) -> str:
    """The digest that `word` means: its first characters, `current`, or `previous`, the one before. Newest last.

    Ends the command when it means none, or several.
    """
    if word in {CURRENT, PREVIOUS}:
        back = 1 if word == CURRENT else 2
        if len(digests) < back:
            fail(f"{place} keeps no {word} snapshot")
        return digests[-back]
    found = [each for each in digests if each.startswith(word)] if word else []
    if len(found) != 1:
        fail(
            f"{place} keeps {len(found) or 'no'} snapshots whose digest begins with {word}: see `arbiter snapshot list`"
        )
    return found[0]


def kept_by(client: Client, word: str) -> str:
    """The whole digest of a snapshot that a server keeps."""
    return named(word, [each.digest for each in client.snapshots().kept], f"the server at {client.target}")


def archive_in(data: Path) -> Archive:
    """The snapshots in a server's data directory."""
    from arbiter.runtime.archive import Archive  # noqa: PLC0415 - loads onnxruntime

    kept = data / "snapshots"
    if not kept.is_dir():
        raise typer.BadParameter(
            f"{data} is no data directory of a server: it holds no `snapshots`", param_hint="--data"
        )
    return Archive(kept)


def tell(status: Status, done: str, *, as_json: bool) -> None:
    """Say what came of an order. Ends with 1 when a worker has not followed."""
    if as_json:
        print_json(status_fields(status))
    else:
        out().print(done)
    digest = "" if status.snapshot is None else status.snapshot.digest
    behind = [number for number, serves in sorted(status.workers.items()) if serves != digest]
    if behind:
        err().print(f"not yet followed: worker {', '.join(map(str, behind))}; see `arbiter snapshot show`")
        raise typer.Exit(FINDINGS)


def held_until(status: Status) -> str:
    """How long what runs is held, half a sentence; empty when it is what the files give."""
    if status.hold is None:
        return ""
    return f"; held until the files give another than {status.hold.aside[:DIGITS]}"


def status_fields(status: Status) -> dict[str, Any]:
    """The status for JSON: moments as ISO 8601, as everywhere on the command line."""
    fields: dict[str, Any] = msgspec.to_builtins(status, str_keys=True)
    if (runs := status.snapshot) is not None:
        fields["snapshot"]["loaded_at"] = from_micros(runs.loaded_at)
    if (last := status.last_reload) is not None:
        fields["last_reload"]["at"] = from_micros(last.at)
        fields["last_reload"]["diagnostics"] = [diagnostic_fields(each) for each in last.diagnostics]
    if status.hold is not None:
        fields["hold"]["since"] = from_micros(status.hold.since)
    if status.canary is not None:
        fields["canary"] |= {"since": from_micros(status.canary.since), "salt": status.canary.salt}
    for written, override in zip(fields["overrides"], status.overrides, strict=True):
        written |= {"since": from_micros(override.since), "until": from_micros(override.until)}
    for written, held in zip(fields["models"], status.models, strict=True):
        written["since"] = from_micros(held.since)
    return fields


def print_status(status: Status) -> None:
    """Print how things stand as a table, and what was found in the files."""
    rows: list[tuple[str, str]] = []
    if (runs := status.snapshot) is not None:
        rows += [("snapshot", runs.digest), ("live since", shown(from_micros(runs.loaded_at)))]
        rows += [(noun, f"{count:,}") for noun, count in msgspec.structs.asdict(runs.counts).items()]
    rows += [(f"worker {number}", digest[:DIGITS] or "down") for number, digest in sorted(status.workers.items())]
    if (last := status.last_reload) is not None:
        became = "went well" if last.ok else "failed, nothing changed"
        rows.append(("last reload", f"{became}, {shown(from_micros(last.at))}"))
    if (hold := status.hold) is not None:
        rows.append(("held", f"since {shown(from_micros(hold.since))} by {CAUSES[hold.cause]}{because(hold.reason)}"))
        rows.append(("set aside", hold.aside))
    rows += [
        ("model held", f"{each.name}: {each.version} since {shown(from_micros(each.since))}{because(each.reason)}")
        for each in status.models
    ]
    if status.canary is not None:
        rows += canary_rows(status)
    rows += [
        (f"{each.kind} off", f"{each.name} until {shown(from_micros(each.until))}{because(each.reason)}")
        for each in status.overrides
    ]
    print_table(("what", "is"), rows)
    for found in () if last is None else last.diagnostics:
        out().print(diagnostic_text(found))


def canary_rows(status: Status) -> list[tuple[str, str]]:
    """What a table says of the canary; no rows without one."""
    canary = status.canary
    if canary is None:
        return []
    return [
        ("canary", canary.digest),
        ("canary's share", f"{canary.percent:g} % since {shown(from_micros(canary.since))}{because(canary.reason)}"),
    ]


def because(reason: str) -> str:
    """A reason behind a sentence."""
    return f": {reason}" if reason else ""
