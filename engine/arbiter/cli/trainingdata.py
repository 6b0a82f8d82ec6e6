"""What commands on models read: rules that declare, models in place, and the rows that a spec's source gives.

Law: finds files and opens them; what is made of them stands in `training`.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.cli.terminal import fail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.models import Model
    from arbiter.training.declared import Declarations
    from arbiter.training.examples import History
    from arbiter.training.spec import Spec
    from arbiter.training.table import Table


def declarations(spec: "Spec", folder: Path) -> "Declarations":
    """What the rules declare that a spec in `folder` names; nothing, where it names none. Raises AuthorError."""
    from arbiter.training.declared import Declarations  # noqa: PLC0415 - loads NumPy

    if not spec.rules:
        return Declarations()
    rules = folder / spec.rules
    if not rules.is_dir():
        fail(f"there is no directory {rules}, which the spec names as its `rules`")
    return declared_in(rules)


def declared_in(rules: Path) -> "Declarations":
    """What a rules directory declares. Raises AuthorError."""
    from arbiter.cli.offline import read_rule_files  # noqa: PLC0415 - loads onnxruntime
    from arbiter.training.declared import read_declarations  # noqa: PLC0415

    return read_declarations(read_rule_files(rules, None), rules.as_posix())


def model_in(folder: Path) -> "Model":
    """The model of a folder. Raises AuthorError."""
    from arbiter.models import from_bytes  # noqa: PLC0415 - loads onnxruntime

    manifest, onnx = folder / "manifest.yaml", folder / "model.onnx"
    for each in (manifest, onnx):
        if not each.is_file():
            fail(f"there is no {each}")
    return from_bytes(manifest.read_bytes(), onnx.read_bytes(), file=manifest.as_posix())


def table_of(spec: "Spec", folder: Path, declared: "Declarations") -> "Table":
    """The rows that the source of a spec in `folder` gives. Raises TrainingFailed, StoreError."""
    from arbiter.training.declared import needed_purposes  # noqa: PLC0415 - as above
    from arbiter.training.examples import assemble  # noqa: PLC0415
    from arbiter.training.table import read_table  # noqa: PLC0415

    source = spec.source
    if source.table:
        return read_table(spec, folder / source.table)
    left_out: dict[str, int] = {}
    until = source.until
    if source.store:
        from arbiter.training.logs import read_store  # noqa: PLC0415 - loads LMDB

        now = time.time_ns() // 1000
        until = until or now
        histories = read_store(folder / source.store / "store", needed_purposes(spec, declared), now, left_out)
    else:
        histories = _read_events(source.events, folder)
    table = assemble(spec, histories, declared.features, until=until, defaults=declared.defaults)
    for reason, count in left_out.items():
        table.leave_out(reason, count)
    return table


def _read_events(named: str, folder: Path) -> "Iterator[History]":
    """The subjects of a file of events, or of a data set that is known by name, each once, in the order of ids."""
    from arbiter.cli.eventfile import FORMATS, EventFile  # noqa: PLC0415 - seldom asked for
    from arbiter.datasets import cdnow  # noqa: PLC0415
    from arbiter.training.examples import History  # noqa: PLC0415

    by_subject: dict[str, list[Any]] = {}
    if named == "cdnow":
        for event in cdnow.events(cdnow.load()):
            by_subject.setdefault(event.subject_id, []).append(event)
    else:
        path = folder / named
        if not path.is_file():
            fail(f"there is no file {path}, which the spec names as its events")
        seen: set[tuple[str, str]] = set()
        for row in EventFile(path.as_posix(), FORMATS.get(path.suffix, "jsonl")).rows():
            if row.event is None:
                fail(f"{path}:{row.line}: {row.mistake}")
            if (row.event.subject_id, row.event.id) not in seen:
                seen.add((row.event.subject_id, row.event.id))
                by_subject.setdefault(row.event.subject_id, []).append(row.event)
    for subject in sorted(by_subject):
        yield History(subject, sorted(by_subject[subject], key=lambda event: event.at))
