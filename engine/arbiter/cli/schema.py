"""`arbiter schema`: JSON Schemas of authored files, for editors.

Law: writes what the code knows. The files in `rules/schema/` were written by it, and a test holds them to the code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from arbiter.cli.terminal import FINDINGS, err, plural

Directory = Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Where to write them.", file_okay=False)]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; end with 1 when a file is not what it should be.")]


def schema(directory: Directory = Path("rules/schema"), *, check: Check = False) -> None:
    """Write the JSON Schemas of rule files, tests, model manifests and the server's configuration.

    An editor that reads `# yaml-language-server: $schema=schema/rules.schema.json` at the top of a file then says what
    is wrong while people type. Prints the files that it wrote; files that are as they should be are not touched.
    """
    stale = [(path, content) for path, content in published(directory) if _content(path) != content]
    for path, content in stale:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        print(path.as_posix())
    if check and stale:
        err().print(f"{plural(len(stale), 'schema')} to write anew: arbiter schema {directory.as_posix()}")
        raise SystemExit(FINDINGS)


def published(directory: Path) -> list[tuple[Path, bytes]]:
    """Each schema's file in the directory and what it is to hold."""
    from arbiter.cli.kinds import KINDS  # noqa: PLC0415 - loads onnxruntime

    return [
        (directory / kind.published, msgspec.json.format(msgspec.json.encode(kind.schema()), indent=2) + b"\n")
        for kind in KINDS
    ]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
