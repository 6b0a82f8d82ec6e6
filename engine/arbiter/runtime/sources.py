"""Reads the authored directories into memory, all of one moment.

Law: bytes only; nothing is parsed. Both directories are read as one, and read again until nothing moved meanwhile,
because Kubernetes swaps a symbolic link and editors and `git checkout` write file after file. Names that begin with a
dot or end as editors' scraps do are not there at all.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from arbiter.errors import Diagnostic
from arbiter.models.graph import MAX_MODEL_BYTES
from arbiter.models.versions import FILE as VERSIONS
from arbiter.models.versions import FORM as VERSIONS_FORM
from arbiter.models.versions import read_versions, version_of
from arbiter.ruleset.load import RULE_FILE, is_rule_file, is_table_file, is_test_file
from arbiter.serving import SnapshotFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from arbiter.models.model import Model
    from arbiter.models.trial import Trial

MODEL_FILES = ("manifest.yaml", "model.onnx")
CANARY = "canary"  # the folder, in that of a model, of the version that is tried, among the files of a snapshot
MOST_BYTES = 256 << 20  # of all rule files, some million rules: all of them stay in memory
MOST_MODEL_BYTES = 16 * MAX_MODEL_BYTES
MOST_LEVELS = 64  # of folders; `os.walk` takes a call for each
_SCRAPS = ("~", ".swp", ".swx", ".swo", ".tmp", ".bak", ".orig")
_ATTEMPTS = 20
_DOUBTFUL_ATTEMPTS = 10
_PAUSE_S = 0.02

_Stamp = tuple[str, int, int, int]


class Names(msgspec.Struct, frozen=True):
    """What stands before the path of a rule file and of a model's file wherever people read it."""

    rules: str
    models: str


class Sources(msgspec.Struct, frozen=True):
    """Authored files by their posix path below their directory.

    `refused` says what could not be read, a directory that is not there for one. `fingerprint` names the content,
    whatever the clock says. `tests` are the rules' own, where they were asked for.
    """

    names: Names

    rules: Mapping[str, bytes]
    models: Mapping[str, bytes]
    refused: tuple[Diagnostic, ...]
    fingerprint: str
    tests: Mapping[str, bytes] = {}

    def files(self) -> tuple[SnapshotFile, ...]:
        """What the files were, named as diagnostics name them."""
        named = {_shown(self.names.rules, path): content for path, content in self.rules.items()}
        named |= {_shown(self.names.models, path): content for path, content in self.models.items()}
        return tuple(
            SnapshotFile(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
            for path, content in sorted(named.items())
        )


def paths_of(name: str) -> tuple[str, str]:
    """The paths of a model's manifest and graph among a snapshot's model files."""
    return f"{name}/{MODEL_FILES[0]}", f"{name}/{MODEL_FILES[1]}"


def files_by_model(
    files: Mapping[str, bytes], models: Mapping[str, Model], trials: Mapping[str, Trial]
) -> dict[str, bytes]:
    """The files of these models by ``NAME/FILE``, and of those that are tried by ``NAME/canary/FILE``, in whatever
    folders of versions they lie. `files` are `Sources`'.
    """
    found: dict[str, bytes] = {}
    for path, content in files.items():
        name, _, below = path.partition("/")
        between, _, file = below.rpartition("/")
        if file not in MODEL_FILES or name not in models:
            continue
        if not between or version_of(between) == models[name].version:
            found[f"{name}/{file}"] = content
        elif name in trials and version_of(between) == trials[name].model.version:
            found[f"{name}/{CANARY}/{file}"] = content
    return found


def exchanged(files: Mapping[str, bytes], name: str, manifest: bytes, onnx: bytes) -> dict[str, bytes]:
    """The files of a snapshot's models with these in place of that model's, and of what is tried beside it."""
    others = {path: content for path, content in files.items() if path.partition("/")[0] != name}
    return others | dict(zip(paths_of(name), (manifest, onnx), strict=True))


def ignored(name: str) -> bool:
    """Whether a file of this name is no author's work: hidden, or an editor's scrap."""
    return name.startswith((".", "#")) or name.endswith(_SCRAPS)


def names_of(rules: Path, models: Path | None) -> Names:
    """The directories' own names, or ``rules`` and ``models`` where these would not tell the two apart."""
    first, second = (path.absolute().name if path else "models" for path in (rules, models))
    unfit = first == second or not {first, second}.isdisjoint({"", ".."})
    return Names("rules", "models") if unfit else Names(first, second)


def _shown(name: str, path: str) -> str:
    return PurePosixPath(name, path).as_posix()


def read_sources(rules: Path, models: Path | None, names: Names | None = None, *, with_tests: bool = False) -> Sources:
    """Read both directories as they stood at one moment. Without `names` the directories' own are used.

    The tests of rules are part of it only `with_tests`: else nothing that is done to them is a change.

    A directory that is not there, or without a rule file, and a file that cannot be read become diagnostics in
    `refused`. When files keep moving for half a second, what was read last is returned: whoever watches comes again.
    """
    names = names or names_of(rules, models)
    attempt = 0
    while True:
        attempt += 1
        before = _stamps(rules, models)
        refused: list[Diagnostic] = []
        contents = (
            _read(rules, names.rules, _is_of_rules, RULE_FILE.max_bytes, refused, MOST_BYTES),
            _read_models(models, names.models, refused),
        )
        tests = _read(rules, names.rules, is_test_file, RULE_FILE.max_bytes, refused, MOST_BYTES) if with_tests else {}
        # Gone between listing and reading, or empty: somebody is probably writing; but it may be meant so.
        doubtful = bool(refused) or not all(contents[0].values())
        settled = before == _stamps(rules, models) and not (doubtful and attempt < _DOUBTFUL_ATTEMPTS)
        if settled or attempt >= _ATTEMPTS:
            refused += _missing(rules, models, names, contents[0])
            return Sources(
                names, *contents, tuple(dict.fromkeys(refused)), _fingerprint(*contents, tests, refused), tests
            )
        time.sleep(_PAUSE_S)


def _is_of_rules(path: str) -> bool:
    return is_rule_file(path) or is_table_file(path)


def _read_models(directory: Path | None, name: str, refused: list[Diagnostic]) -> dict[str, bytes]:
    """The files that say which versions are live or tried, and those of these: what else lies there is nobody's yet."""
    said = _read(directory, name, _says_versions, VERSIONS_FORM.max_bytes, refused, MOST_MODEL_BYTES)
    read: dict[str, frozenset[int]] = {}
    for path, content in said.items():
        chosen, _, _ = read_versions(content, path)
        read[path.partition("/")[0]] = chosen.read if chosen else frozenset()

    def wanted(path: str) -> bool:
        folder, _, below = path.partition("/")
        between, _, file = below.rpartition("/")
        if file not in MODEL_FILES:
            return False
        if not between:
            return True
        version = version_of(between)
        # Versions of which none is said to be live are a mistake: where they are is all that matters of them.
        return version in read[folder] if folder in read else version > 0 and file == MODEL_FILES[0]

    return said | _read(directory, name, wanted, MAX_MODEL_BYTES, refused, MOST_MODEL_BYTES)


def _says_versions(path: str) -> bool:
    return path.count("/") == 1 and path.endswith(f"/{VERSIONS}")


def _missing(rules: Path, models: Path | None, names: Names, read: Mapping[str, bytes]) -> Iterator[Diagnostic]:
    if not rules.is_dir():
        yield Diagnostic(file=names.rules, message="the rules directory does not exist", hint="name it with --rules")
    elif not any(map(is_rule_file, read)):
        yield Diagnostic(
            file=names.rules, message="the rules directory holds no rule file", hint="rule files end in .yaml or .yml"
        )
    if models is not None and not models.is_dir():
        yield Diagnostic(
            file=names.models,
            message="the models directory does not exist",
            hint='name it with --models, or have none: --models ""',
        )


def _walk(directory: Path | None, failed: Callable[[OSError], None] | None = None) -> Iterator[tuple[str, Path]]:
    """Every file below, links followed, each real directory once. `failed` hears of folders that cannot be listed."""
    if directory is None or not directory.is_dir():
        return
    seen: set[str] = set()
    for folder, folders, names in os.walk(directory, onerror=failed, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if len(Path(folder).parts) - len(directory.parts) >= MOST_LEVELS:
            if folders and failed is not None:
                message = f"more than {MOST_LEVELS} folders inside each other"
                failed(OSError(errno.ENAMETOOLONG, message, folder))
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not ignored(name):
                path = Path(folder, name)
                yield path.relative_to(directory).as_posix(), path


def _read(
    directory: Path | None,
    name: str,
    wanted: Callable[[str], bool],
    limit: int,
    refused: list[Diagnostic],
    most: int,
) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    left = most

    def failed(error: OSError) -> None:
        # Without it the rules of a folder would go as if somebody had removed them.
        below = os.path.relpath(error.filename, directory)
        refused.append(Diagnostic(file=_printable(_shown(name, below)), message=f"cannot be listed: {error.strerror}"))

    for below, path in _walk(directory, failed):
        if wanted(below):
            shown = _printable(_shown(name, below))
            if shown != _shown(name, below):
                refused.append(Diagnostic(file=shown, message="its name is not UTF-8", hint="rename or remove it"))
                continue
            try:
                content = _content(path, limit)
            except OSError as error:
                refused.append(Diagnostic(file=shown, message=f"cannot be read: {error.strerror}"))
                continue
            if content is None:
                refused.append(Diagnostic(file=shown, message="is no regular file"))
            else:
                contents[below] = content
                left -= len(content)
            if left < 0:
                message = f"the files of the directory have more than {most:,} bytes, and no more are read"
                refused.append(Diagnostic(file=name, message=message, hint="remove what is not needed"))
                break
    return contents


def _printable(named: str) -> str:
    """The name, if it is UTF-8: other bytes arrive as lone surrogates, which cannot be told to another process."""
    return named.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _content(path: Path, limit: int) -> bytes | None:
    """At most one byte more than `limit`, so that whoever checks the size sees that it is too much.

    None for what is no regular file: a pipe would be waited for, and a device may never end.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        return file.read(limit + 1) if stat.S_ISREG(os.fstat(handle).st_mode) else None


def _stamps(rules: Path, models: Path | None) -> list[_Stamp]:
    stamps: list[_Stamp] = []
    for directory in (rules, models):
        for name, path in _walk(directory):
            try:
                found = path.stat()
            except OSError:
                continue
            stamps.append((name, found.st_ino, found.st_mtime_ns, found.st_size))
    return stamps


def _fingerprint(
    rules: Mapping[str, bytes], models: Mapping[str, bytes], tests: Mapping[str, bytes], refused: Iterable[Diagnostic]
) -> str:
    digest = hashlib.blake2b(digest_size=16)
    said = {each.file: each.message.encode() for each in refused}
    for kind, files in ((b"r", rules), (b"m", models), (b"t", tests), (b"x", said)):
        for path, content in sorted(files.items()):
            name = path.encode(errors="surrogateescape")
            digest.update(b"%b%d:%b%d:" % (kind, len(name), name, len(content)))
            digest.update(content)
    return digest.hexdigest()
