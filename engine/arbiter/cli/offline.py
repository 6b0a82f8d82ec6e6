"""An engine in this process: what `check`, and `decide` and `explain` without a server, stand on.

Law: puts runtime parts together and decides nothing itself. Imported late, since it brings onnxruntime and LMDB.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.cli.answers import Answer, Given, Judged
from arbiter.errors import AuthorError, NotFound, did_you_mean
from arbiter.profiles.store import Store
from arbiter.runtime.engine import Engine
from arbiter.runtime.keyfiles import read_secrets
from arbiter.runtime.loader import Loader
from arbiter.runtime.sources import Names, read_sources
from arbiter.types import Request, from_micros, to_micros

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from arbiter.cli.answers import Question
    from arbiter.config.options import Profiles
    from arbiter.errors import Diagnostic
    from arbiter.snapshot import Snapshot
    from arbiter.types import Decision


def load(
    rules: Path, models: Path | None, versions: Mapping[str, int] | None = None
) -> tuple[Snapshot | None, list[Diagnostic]]:
    """Load as a server would, but with these `versions` of models, by name, in place of those that are live. The
    snapshot is None when the files hold an error.

    Files are named by paths that a terminal can open: the directory as it was given, then the place in it. Raises
    NotFound for a version that is not there, AuthorError for one that the rules cannot do with.
    """
    loader = Loader(rules, models, None, _names(rules, models))
    attempt = loader.load()
    built, found = attempt.built, list(attempt.diagnostics)
    if built is None:
        return None, found
    for name, version in (versions or {}).items():
        files = loader.version_files(name, version) if name in built.snapshot.models else None
        if files is None:
            raise NotFound(f"there is no version {version} of a model `{name}` in {models}", field="model")
        built = loader.exchange(built, name, *files)
    return built.snapshot, found


def read_test_files(rules: Path) -> Mapping[str, bytes]:
    """The files below that hold tests of rules, by their path. Raises AuthorError for one that cannot be read."""
    sources = read_sources(rules, None, Names(rules.as_posix(), ""), with_tests=True)
    if sources.refused:
        raise AuthorError(sources.refused)
    return sources.tests


def read_rule_files(rules: Path, models: Path | None) -> Mapping[str, bytes]:
    """The files that make a rule set, by their path below `rules`, as they are now."""
    return read_sources(rules, models, _names(rules, models)).rules


def fingerprint(rules: Path, models: Path | None) -> str:
    """A name for the content of both directories."""
    return read_sources(rules, models, _names(rules, models)).fingerprint


def _names(rules: Path, models: Path | None) -> Names:
    return Names(rules.as_posix(), "" if models is None else models.as_posix())


@contextlib.contextmanager
def engine(rules: Path, models: Path | None, data: Path | None, profiles: Profiles | None) -> Iterator[Engine]:
    """An engine over `data`, a server's data directory whose keys `profiles` names, or over empty profiles.

    Nothing is written but what LMDB needs to be read; a server may run on the same directory. Raises AuthorError,
    StoreError, UnusableFile.
    """
    snapshot, found = load(rules, models)
    if snapshot is None:
        raise AuthorError(found)
    with contextlib.ExitStack() as stack:
        place = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arbiter-")))
        secrets = None if profiles is None else read_secrets(profiles)
        store = stack.enter_context(Store.open(place / "store", background=False, secrets=secrets))
        ready = Engine(store)
        ready.activate(snapshot)
        yield ready


def decide(ready: Engine, question: Question, context: dict[str, Any], at: datetime | None) -> list[Answer]:
    """Ask the engine. Raises CallerError."""
    request = Request(
        subject_id=question.subject_id,
        decisions=question.decisions,
        now=ready.clock() if at is None else to_micros(at),
        context={name: value for name, value in context.items() if value is not None},
        slots=question.slots,
        explain=question.explain,
        explain_rules=question.explain_rules,
    )
    snapshot = ready.snapshot
    assert snapshot is not None  # noqa: S101 - `engine` activated one
    return [_answer(decision, request, snapshot) for decision in ready.decide(request)]


def _answer(decision: Decision, request: Request, snapshot: Snapshot) -> Answer:
    known = [rule.id for rule in snapshot.point(decision.point).all_rules]
    for rule in request.explain_rules:
        if rule not in known:
            raise NotFound(f"`{decision.point}` has no rule `{rule}`; {did_you_mean(rule, known) or 'check the id'}")
    return Answer(
        subject_id=request.subject_id,
        decision=decision.point,
        treatments=[Given.of(each) for each in decision.treatments],
        defaulted=decision.defaulted,
        degraded=[f"models.{each.model}" for each in decision.degraded],
        valid_until=None if decision.valid_until is None else from_micros(decision.valid_until),
        snapshot=snapshot.digest,
        explanation=[Judged.of(each) for each in decision.explanation],
        models=list(decision.models),
        experiments=decision.experiments,
        standings=list(decision.standings),
    )
