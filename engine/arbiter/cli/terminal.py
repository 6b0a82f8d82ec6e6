"""What every command prints with: tables and colours on a terminal, plain lines in a pipe, JSON on request.

Law: the only module that knows whether a terminal is there. Answers go to standard output, everything else (progress,
errors) to standard error, so that a pipe receives answers and nothing more.
"""

from __future__ import annotations

import contextlib
import sys
import time
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from arbiter.errors import Diagnostic

FINDINGS = 1
USAGE = 2
_TOLD_EVERY_S = 5.0
_PROSE = 16  # columns below which a sentence is no longer read with ease


@cache
def out() -> Console:
    """The console of standard output. In a pipe a line is as long as it is, and nothing is coloured."""
    return _console(stderr=False)


@cache
def err() -> Console:
    """The console of standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, soft_wrap=not stream.isatty())


def fail(message: str, *, code: int = FINDINGS) -> NoReturn:
    """Say what is wrong on standard error, and end with `code`."""
    err().print(Text.assemble(("error: ", "bold red"), message))
    raise SystemExit(code)


def print_json(answer: Any) -> None:
    """Print one JSON document: indented on a terminal, one line in a pipe. Moments become ISO 8601, bytes base64."""
    encoded = msgspec.json.encode(answer)
    text = msgspec.json.format(encoded).decode() if out().is_terminal else encoded.decode()
    sys.stdout.write(text + "\n")


def print_table(
    heads: Sequence[str], rows: Iterable[Sequence[str | Text]], *, title: str = "", prose: Sequence[str] = ()
) -> None:
    """Print rows under heads: a ruled table on a terminal, columns parted by tabs in a pipe, where no title is said.

    The columns named in `prose` give way on a narrow terminal; where names and numbers would have to as well, each row
    is told over several lines.
    """
    rows = list(rows)
    if not out().is_terminal:
        for row in (heads, *rows):
            sys.stdout.write("\t".join(_one_line(cell) for cell in row) + "\n")
        return
    columns = zip(heads, *rows, strict=True)
    widths = [max(cell_len(_one_line(cell)) for cell in column) for column in columns]
    least = [min(wide, _PROSE) if head in prose else wide for head, wide in zip(heads, widths, strict=True)]
    if sum(least) + 2 * len(heads) > out().width:
        _print_records(heads, rows, title)
        return
    from rich import box  # noqa: PLC0415 - a pipe needs none of it
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold", pad_edge=False,
                  padding=(0, 1, 0, 0))  # fmt: skip
    for head in heads:
        table.add_column(head, overflow="fold", no_wrap=head not in prose)
    for row in rows:
        table.add_row(*row)
    out().print(table)


def _print_records(heads: Sequence[str], rows: Iterable[Sequence[str | Text]], title: str) -> None:
    if title:
        out().print(Text(title, "bold"))
    for row in rows:
        for head, cell in zip(heads, row, strict=True):
            if cell:
                out().print(Text.assemble((f"{head}: ", "bold"), cell), overflow="fold")
        out().print()


def _one_line(cell: str | Text) -> str:
    return " ".join((cell.plain if isinstance(cell, Text) else cell).split())


@contextlib.contextmanager
def bar(total: int, noun: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error while the block runs; call what it gives with how many more are done.

    In a pipe it is a plain line now and then, and none where all is done soon.
    """
    if not err().is_terminal:
        yield _told(total, noun)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(noun), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda more: progress.advance(task, more)


def _told(total: int, noun: str) -> Callable[[int], None]:
    """What tells progress in plain lines."""
    done, told_at = 0, time.monotonic()

    def advance(more: int) -> None:
        nonlocal done, told_at
        done += more
        if time.monotonic() - told_at >= _TOLD_EVERY_S:
            told_at = time.monotonic()
            sys.stderr.write(f"{done:,} of {total:,} {noun}\n")

    return advance


def diagnostic_fields(found: Diagnostic) -> dict[str, Any]:
    """A diagnostic for JSON: its severity is always said."""
    fields: dict[str, Any] = msgspec.to_builtins(found)
    return fields | {"severity": found.severity}


def diagnostic_text(found: Diagnostic) -> Text:
    """A diagnostic with its place, its underline and its hint coloured."""
    tone = "red" if found.severity == "error" else "yellow"
    first, *rest = found.render().split("\n")
    place, colon, sentence = first.partition(": ")
    text = Text.assemble((place, "bold"), colon, (sentence, tone))
    for line in rest:
        style = "cyan" if line.startswith("  hint:") else tone if set(line) <= set(" |^\t") else ""
        text.append("\n").append(line, style)
    return text


def plural(count: int, noun: str) -> str:
    """``1 rule``, ``2 rules``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
