"""`arbiter fmt`: authored files in the one form.

Law: finds files, reads and writes them; how they look is for `authoring.format`. A file is replaced whole or not at
all, keeps its permissions, and is not written when nothing changes.
"""

from __future__ import annotations

import difflib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from arbiter.cli.terminal import FINDINGS, USAGE, diagnostic_text, err, fail, out, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.errors import Diagnostic

Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[PATHS]...", help="Files, or directories whose files are meant. [default: `rules`, and "
                   "`models` if it is there]", show_default=False),
]  # fmt: skip
Check = Annotated[bool, typer.Option("--check", help="Write nothing; end with 1 when a file would change.")]
Diff = Annotated[bool, typer.Option("--diff", help="As --check, and show what would change.")]
Stdin = Annotated[
    bool, typer.Option("--stdin", help="From standard input to standard output; PATHS may name the file that it is.")
]
_MODELS = "models"


def fmt(paths: Paths = None, *, check: Check = False, diff: Diff = False, stdin: Stdin = False) -> None:
    """Lay out rule files, their tests and model manifests: order of keys, indentation, quotes and brackets.

    What files say stays, and so does every comment. A file that is no sound YAML is shown and left as it is. Ends with
    1 when there is such a file, or when with --check or --diff a file would change.
    """
    if stdin:
        _pipe(paths or [], show=check or diff)
        return
    changed = unsound = same = 0
    for path in _files(paths):
        before = _read(path)
        after, found = _formatted(path.as_posix(), before)
        if after is None:
            unsound += 1
            for each in found:
                err().print(diagnostic_text(each))
        elif after == before:
            same += 1
        else:
            changed += 1
            if diff:
                _show(path.as_posix(), before, after)
            else:
                print(path.as_posix())
            if not (check or diff):
                _write(path, after)
    if changed or same:
        would = " would change" if check or diff else " changed"
        err().print(f"{plural(changed, 'file')}{would}, {same:,} as they should be")
    if unsound or (changed and (check or diff)):
        raise SystemExit(FINDINGS)


def _pipe(paths: list[Path], *, show: bool) -> None:
    if len(paths) > 1:
        fail("--stdin takes at most one path: the name of what is read", code=USAGE)
    name = paths[0].as_posix() if paths else "stdin.yaml"
    before = sys.stdin.buffer.read()
    after, found = _formatted(name, before)
    if after is None:
        for each in found:
            err().print(diagnostic_text(each))
        raise SystemExit(FINDINGS)
    if not show:
        sys.stdout.buffer.write(after)
        sys.stdout.buffer.flush()
    elif after != before:
        _show(name, before, after)
        raise SystemExit(FINDINGS)


def _formatted(name: str, content: bytes) -> tuple[bytes | None, list[Diagnostic]]:
    from arbiter.authoring.format import format_file  # noqa: PLC0415 - with the next
    from arbiter.cli.kinds import kind_of_file, style_of  # noqa: PLC0415 - loads onnxruntime

    kind = kind_of_file(name)
    return format_file(name, content, kind.form, style_of(kind))


def _files(paths: list[Path] | None) -> Iterator[Path]:
    """The files that are meant, each once: of a directory those that a server would read."""
    from arbiter.ruleset.load import SUFFIXES  # noqa: PLC0415 - loads onnxruntime
    from arbiter.runtime.sources import ignored  # noqa: PLC0415 - as above

    given = paths or [Path("rules"), *([Path(_MODELS)] if Path(_MODELS).is_dir() else [])]
    seen = set()
    for path in given:
        if not path.exists():
            hint = "" if paths else "; say which files or directories are meant"
            fail(f"there is no `{path.as_posix()}`{hint}", code=USAGE)
        if path.is_file() and path.suffix not in SUFFIXES:
            fail(f"`{path.as_posix()}` is no YAML file: its name ends in neither .yaml nor .yml", code=USAGE)
        for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
            hidden = any(ignored(part) for part in each.relative_to(path).parts)
            if each.suffix in SUFFIXES and each.is_file() and not hidden and each.resolve() not in seen:
                seen.add(each.resolve())
                yield each


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"{path.as_posix()}: cannot be read: {error.strerror}")


def _write(path: Path, content: bytes) -> None:
    """Replace a file at once, behind a symbolic link the file that it leads to."""
    target = path.resolve()
    try:
        # Its name begins with a dot, so that no server reads it.
        handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            shutil.copymode(target, name)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        fail(f"{path.as_posix()}: cannot be written: {error.strerror}")


def _show(name: str, before: bytes, after: bytes) -> None:
    old, new = (content.decode("utf-8-sig").splitlines() for content in (before, after))
    for line in difflib.unified_diff(old, new, name, name, lineterm=""):
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        out().print(Text(line, style), soft_wrap=True)
