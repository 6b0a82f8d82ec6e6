"""`arbiter store`: the data of a server on its disk: copies, compaction, checks, figures.

Law: works on a data directory, beside a server or without one; what it does with a store stands in `profiles`.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.rekey import rekey
from arbiter.cli.terminal import FINDINGS, out, plural, print_json, print_table
from arbiter.errors import AuthorError

if TYPE_CHECKING:
    from arbiter.profiles.checking import Checked
    from arbiter.profiles.inspecting import Inspected
    from arbiter.profiles.recounting import Recounted

store = typer.Typer(
    name="store", help="The profiles and events on a server's disk: copies, checks, figures.", no_args_is_help=True
)

Data = Annotated[Path, typer.Option(metavar="DIR", help="The server's data directory.")]
To = Annotated[Path, typer.Argument(metavar="TO", help="The folder to make; it must not be there.")]
Copy = Annotated[Path, typer.Argument(metavar="COPY", help="A folder that `arbiter store backup` made.")]
Place = Annotated[
    Path | None, typer.Argument(metavar="[COPY]", help="A copy to check, instead of the store of a server.")
]
Features = Annotated[
    Path | None,
    typer.Option(
        metavar="RULES",
        help="Also count the features of these rules anew, of everybody, from the log. Takes long for many.",
        exists=True,
        file_okay=False,
    ),
]
Models = Annotated[
    Path | None,
    typer.Option(
        help="With --features: the models that the rules name. [default: `models` beside the rules]",
        exists=True,
        file_okay=False,
    ),
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Replace the store that is there; its data are kept beside the new ones.")
]
Size = Annotated[
    str, typer.Argument(metavar="[SIZE]", help="The quota, as in 128GiB; `default` is what a server comes with.")
]
_SIZE = re.compile(r"(?:([1-9][0-9]{0,6})(MiB|GiB|TiB)|default)")
_SHIFTS = {"MiB": 20, "GiB": 30, "TiB": 40}


@store.command("backup")
def backup(to: To, *, data: Data = Path("data"), as_json: AsJson = False) -> None:
    """Copy the store as it is now, while a server goes on. The copy is on disk and verified when this ends."""
    from arbiter.profiles.copies import back_up  # noqa: PLC0415 - loads LMDB

    done = back_up(data / "store", to)
    if as_json:
        print_json(done)
    else:
        out().print(f"{done.path}: {done.entries:,} entries, {done.size_bytes:,} bytes, verified")


@store.command("restore")
def restore(copy: Copy, *, data: Data = Path("data"), replace: Replace = False, as_json: AsJson = False) -> None:
    """Put a copy of a store where a server finds it. The server must be stopped."""
    from arbiter.profiles.copies import restore as put_back  # noqa: PLC0415 - loads LMDB

    done = put_back(copy, data / "store", replace=replace)
    if as_json:
        print_json(done)
        return
    out().print(f"{done.path}: restored, {done.size_bytes:,} bytes")
    if done.kept:
        out().print(f"what was there is in {done.kept}")


@store.command("compact")
def compact(*, data: Data = Path("data"), as_json: AsJson = False) -> None:
    """Write the store anew, without what was deleted, while a server goes on."""
    from arbiter.profiles.compaction import compact_store  # noqa: PLC0415 - loads LMDB
    from arbiter.profiles.copies import data_of  # noqa: PLC0415

    data_of(data / "store")
    done = compact_store(data / "store")
    if as_json:
        print_json(done)
        return
    out().print(
        f"generation {done.generation}: {done.entries:,} entries, {done.bytes_before:,} bytes before, "
        f"{done.bytes_after:,} now; writes waited {done.waited_s * 1e3:.0f} ms"
    )
    if done.held_open:
        out().print("a process has not left the old generation yet, whose files go when it does")


@store.command("check")
def check(
    copy: Place = None,
    *,
    data: Data = Path("data"),
    features: Features = None,
    models: Models = None,
    as_json: AsJson = False,
) -> None:
    """Check the whole file, and that all records can be read and belong together.

    A store that a server uses is copied first. Ends with 1 when something is not well.
    """
    from arbiter.profiles.checking import check_store  # noqa: PLC0415 - loads LMDB

    place = copy or data / "store"
    found = check_store(place)
    # What a damaged file would be counted to says nothing.
    recounted = None if features is None or found.count else _recount(place, features, models)
    if as_json:
        more = {} if features is None else {"features": recounted}
        print_json({**msgspec.structs.asdict(found), **more})
    else:
        _print_checked(found)
        if recounted is not None:
            _print_recounted(recounted)
    if found.count or (recounted is not None and recounted.count):
        raise typer.Exit(FINDINGS)


def _recount(place: Path, rules: Path, models: Path | None) -> "Recounted":
    from arbiter.cli.check import models_beside  # noqa: PLC0415 - as the next ones, which load onnxruntime
    from arbiter.cli.offline import load  # noqa: PLC0415
    from arbiter.profiles.features import FeatureSet  # noqa: PLC0415
    from arbiter.profiles.recounting import recount  # noqa: PLC0415
    from arbiter.runtime.engine import wall_clock  # noqa: PLC0415

    snapshot, found = load(rules, models or models_beside(rules))
    if snapshot is None:
        raise AuthorError(found)
    return recount(place, FeatureSet(snapshot.frame.computed), wall_clock)


def _print_recounted(found: "Recounted") -> None:
    if found.count:
        print_table(
            ("where", "key", "feature", "stored", "counted", "of its events"),
            [
                (each.where, each.key, each.feature, _told(each.stored), _told(each.counted),
                 "some have left the log" if each.thinned else "all are in the log")
                for each in found.differences
            ],
        )  # fmt: skip
        out().print(f"{plural(found.count, 'feature')} of {plural(found.subjects, 'subject')} not as counted")
        out().print("To count one anew, take it out of the rules until all records are rewritten, and put it back")
    else:
        out().print(f"features of {plural(found.subjects, 'subject')} as counted from the log")
    if found.waiting:
        out().print(f"{plural(found.waiting, 'subject')} not written with these features since; decisions count theirs")


def _told(value: object) -> str:
    return "none" if value is None else str(value)


def _print_checked(found: "Checked") -> None:
    if found.count:
        print_table(
            ("where", "key", "what"),
            [(each.where or "file", each.key, each.what) for each in found.findings],
            prose=("what",),
        )
        out().print(f"{found.path}: {plural(found.count, 'finding')}")
        out().print("Stop the server, keep this store, and restore a backup: arbiter store restore COPY --replace")
    else:
        out().print(f"{found.path}: {plural(found.pages, 'page')}, {sum(found.entries.values()):,} entries, well")


@store.command("quota")
def quota(size: Size = "", *, data: Data = Path("data"), as_json: AsJson = False) -> None:
    """Print how many bytes of data the store may hold, or change it; a server obeys with its next write."""
    from arbiter.profiles.quota import set_quota  # noqa: PLC0415 - loads LMDB

    found = set_quota(data / "store", _read_size(size) if size else None)
    if as_json:
        print_json(found)
    else:
        whose = "its own quota" if found.chosen else "the quota of a server"
        out().print(f"{found.used_bytes:,} of {found.quota_bytes:,} bytes, {whose}")


def _read_size(written: str) -> int:
    found = _SIZE.fullmatch(written)
    if found is None:
        raise typer.BadParameter("a size is a whole number and a unit, as in 128GiB, or `default`", param_hint="SIZE")
    return 0 if found[1] is None else int(found[1]) << _SHIFTS[found[2]]


store.command("rekey")(rekey)


@store.command("stat")
def stat(*, data: Data = Path("data"), as_json: AsJson = False) -> None:
    """Print how large the store is, what it holds, and who reads it."""
    from arbiter.profiles.copies import open_existing  # noqa: PLC0415 - loads LMDB
    from arbiter.profiles.inspecting import inspect  # noqa: PLC0415

    environment = open_existing(data / "store")
    try:
        found = inspect(environment)
    finally:
        environment.handle.close()
    if as_json:
        print_json(found)
    else:
        _print_stat(found)


def _print_stat(found: "Inspected") -> None:
    holding = [each for each in found.readers if each.behind is not None]
    rows = [
        ("generation", str(found.generation)),
        ("schema", str(found.schema)),
        ("file", f"{found.file_bytes:,} bytes"),
        ("pages", f"{found.pages:,} of {found.page_bytes:,} bytes, {found.free_pages:,} free"),
        ("map", f"{found.map_bytes:,} bytes"),
        ("readers", f"{len({each.pid for each in found.readers})} processes, {len(holding)} reading"),
        ("oldest read", f"{max((each.behind or 0 for each in holding), default=0):,} transactions ago"),
        ("erased since it was compacted", "yes" if found.erased else "no"),
        *(
            (f"under the previous key {each.check[:8]}", f"{each.subjects:,} ids, {each.erased:,} erased ones")
            for each in found.previous
        ),
        *(("beside it", name) for name in found.others),
    ]
    print_table(("what", "value"), rows)
    print_table(
        ("database", "entries", "pages", "bytes"),
        [
            (name, f"{each.entries:,}", f"{each.pages:,}", f"{each.size_bytes:,}")
            for name, each in found.databases.items()
        ],
    )
