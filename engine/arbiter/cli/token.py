"""`arbiter token`: API tokens, made here and stored hashed.

Law: the only place that ever holds a token in the clear, for as long as it takes to print it once.
"""

from __future__ import annotations

import enum
import secrets
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from arbiter.authoring.scalars import IDENTIFIER
from arbiter.cli.terminal import err, fail
from arbiter.errors import AuthorError

_PREFIX = "arb_"  # so that whoever scans for leaked secrets finds it
_BYTES = 32

token = typer.Typer(name="token", help="API tokens: made here, stored hashed.", no_args_is_help=True)


class Role(enum.StrEnum):
    """What a caller may do."""

    DECIDE = "decide"
    WRITE = "write"
    FOLLOW = "follow"
    PRIVACY = "privacy"
    ADMIN = "admin"


Name = Annotated[str, typer.Option(metavar="NAME", help="Who will use it; the audit log calls them so.")]
Roles = Annotated[list[Role], typer.Option("--role", help="What its owner may do; give it once for each role.")]
Days = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=3650, help="Days after which it expires. [default: never]")
]
File = Annotated[
    Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Append the entry to this file of callers.")
]


@token.command("new")
def new(*, name: Name, role: Roles, days: Days = None, file: File = None) -> None:
    """Make an API token and print it, once: only its hash is stored.

    With --file its entry is added to that file of callers, which `arbiter serve --auth-tokens` reads; a running server
    takes it in within a second. Without, the entry is printed too, on standard error, for you to put there.
    """
    if not IDENTIFIER.fullmatch(name):
        hint = "use 1 to 256 letters, digits and `_ - . : /`"
        raise typer.BadParameter(f"{name!r} cannot be the name of a caller: {hint}", param_hint="--name")
    made = _PREFIX + secrets.token_urlsafe(_BYTES)
    until = None if days is None else datetime.now(UTC) + timedelta(days=days)
    entry = entry_of(name, sorted(set(role)), sha256(made.encode()).hexdigest(), until)
    if file is None:
        err().print(f"callers:\n{entry}", end="", markup=False)
    else:
        _append(file, entry)
    print(made)


def entry_of(name: str, roles: list[Role], digest: str, until: datetime | None) -> str:
    """The lines of one caller in a file of callers."""
    lines = [f'  - name: "{name}"', f"    roles: [{', '.join(roles)}]", f"    sha256: {digest}"]
    if until is not None:
        lines.append(f"    expires: {until:%Y-%m-%dT%H:%M:%SZ}")
    return "".join(f"{line}\n" for line in lines)


def _append(file: Path, entry: str) -> None:
    from arbiter.durable import replace  # noqa: PLC0415 - the next loads grpc
    from arbiter.server.auth.callers import read_callers  # noqa: PLC0415

    file = file.resolve()
    try:
        before = file.read_bytes() if file.exists() else b""
        after = (before if before.strip() else b"callers:\n") + entry.encode()
        try:
            # An entry goes to the end, which must be the list's: what would not read well is not written.
            read_callers(file, after)
        except AuthorError as error:
            fail(f"{file} was left as it is, for with the new entry it would not be sound:\n{error}")
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
        # A server reads the old file or the new one, never half of it.
        replace(file, after)
        file.chmod(mode)
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror or error}; no token was made")
