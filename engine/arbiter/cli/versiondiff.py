"""The difference of two versions as the command line tells it.

Law: finds the two sides, kept snapshots or directories, and lays out what `ruleset.diff` says. Imported late, since it
brings onnxruntime.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from arbiter.cli import offline
from arbiter.cli.check import models_beside
from arbiter.cli.versions import CURRENT, PREVIOUS, archive_in, named
from arbiter.errors import AuthorError
from arbiter.ruleset.diff import difference

if TYPE_CHECKING:
    from arbiter.ruleset.diff import Diff, Section
    from arbiter.snapshot import Snapshot

_KINDS = {
    "decisions": "decision",
    "rules": "rule",
    "segments": "segment",
    "features": "feature",
    "triggers": "trigger",
    "experiments": "experiment",
    "models": "model",
    "declarations": "declaration",
}


def difference_between(a: str, b: str, data: Path, models: Path | None) -> Diff:
    """What differs between the versions that `a` and `b` name. Raises AuthorError for a directory with errors."""
    before, after = _version(a, data, models), _version(b, data, models)
    digests = [{name: model.digest for name, model in each.models.items()} for each in (before, after)]
    return difference(before.ruleset, after.ruleset, *digests)


def rows_of(found: Diff) -> list[tuple[str, str, str, str, str]]:
    """The rows of a table: kind, name, what differs, before, after."""
    return [row for name, kind in _KINDS.items() for row in _rows(kind, getattr(found, name))]


def _rows(kind: str, section: Section) -> list[tuple[str, str, str, str, str]]:
    return [
        *((kind, name, "gone", "", "") for name in section.gone),
        *((kind, name, "added", "", "") for name in section.added),
        *(
            (kind, each.name, change.field, change.before, change.after)
            for each in section.changed
            for change in each.changes
        ),
    ]


def _version(word: str, data: Path, models: Path | None) -> Snapshot:
    path = Path(word)
    if word not in {CURRENT, PREVIOUS} and path.is_dir():
        snapshot, found = offline.load(path, models or models_beside(path))
        if snapshot is None:
            raise AuthorError(found)
        return snapshot
    archive = archive_in(data)
    return archive.read(named(word, [each.digest for each in archive.history()], str(data)), {})
