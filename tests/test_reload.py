"""Reloading in one process, and the archive of snapshots: good files replace, bad ones change nothing."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arbiter.errors import AuthorError, StoreError
from arbiter.runtime.archive import Archive
from arbiter.runtime.desk import Desk
from arbiter.runtime.loader import Loader
from arbiter.runtime.local import LocalAdmin, open_engine, open_local
from arbiter.telemetry.counters import Counters
from arbiter.types import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.runtime.engine import Engine
    from arbiter.serving import Status

SHIPPED = Path(__file__).parent.parent / "models"

ACTIONS = "actions: {show: {params: {text: string}}}\n"
POINT = "decisions: {home: {slots: 1, order: [priority], default: {action: show, params: {text: nothing}}}}\n"


def rule(text: str) -> str:
    then = f"{{action: show, params: {{text: {text}}}}}"
    return f"rules: [{{id: only, decision: home, priority: 1, when: 'true', then: {then}}}]\n"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "base.yaml").write_text(ACTIONS + POINT)
    (folder / "rule.yaml").write_text(rule("first"))
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The shipped models' manifests and graphs, in a place where they can be changed."""
    for name in ("rfm", "repurchase"):
        (tmp_path / "models" / name).mkdir(parents=True)
        for file in ("manifest.yaml", "model.onnx"):
            shutil.copy(SHIPPED / name / file, tmp_path / "models" / name / file)
    return tmp_path / "models"


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def local(rules: Path, models: Path, tmp_path: Path, counters: Counters) -> Iterator[tuple[Engine, LocalAdmin]]:
    engine, admin = open_local(rules, models, tmp_path / "data", counters=counters)
    yield engine, admin
    engine.store.close()


def shown(engine: Engine) -> str:
    (decision,) = engine.decide(Request("someone", ("home",), engine.clock()))
    text = decision.treatments[0].params["text"]
    assert isinstance(text, str)
    return text


def test_a_good_change_is_served(local: tuple[Engine, LocalAdmin], rules: Path, counters: Counters) -> None:
    engine, admin = local
    assert shown(engine) == "first"
    before = admin.snapshot_info()
    (rules / "rule.yaml").write_text(rule("second"))
    assert shown(engine) == "first"
    after = admin.reload()
    assert shown(engine) == "second"
    assert before.snapshot is not None
    assert after.snapshot is not None
    assert after.last_reload is not None
    assert after.last_reload.ok
    assert after.last_reload.changed
    assert after.snapshot.digest != before.snapshot.digest
    assert after.workers == {0: after.snapshot.digest}
    assert after.snapshot.counts.rules == 1
    assert [file.path for file in after.snapshot.files] == [
        *(f"models/{name}/{file}" for name in ("repurchase", "rfm") for file in ("manifest.yaml", "model.onnx")),
        "rules/base.yaml",
        "rules/rule.yaml",
    ]
    assert (counters.reloads_ok, counters.reloads_failed) == (2, 0)
    assert counters.snapshot_digest == after.snapshot.digest


def test_a_bad_change_changes_nothing_and_is_reported_until_it_is_mended(
    local: tuple[Engine, LocalAdmin], rules: Path, counters: Counters, caplog: pytest.LogCaptureFixture
) -> None:
    engine, admin = local
    heard: list[Status] = []
    admin.watch(heard.append)
    good = admin.snapshot_info().snapshot
    (rules / "rule.yaml").write_text(rule("second").replace("priority", "priorty"))
    (rules / "more.yaml").write_text("rules: [")
    with caplog.at_level(logging.ERROR, "arbiter.reload"):
        status = admin.reload()
    assert shown(engine) == "first"
    assert status.snapshot == good
    report = status.last_reload
    assert report is not None
    assert not report.ok
    assert not report.changed
    assert {each.file for each in report.diagnostics} == {"rules/more.yaml", "rules/rule.yaml"}
    assert list(report.diagnostics) == sorted(report.diagnostics)
    assert heard[-1] == status
    assert (counters.reloads_ok, counters.reloads_failed, counters.last_reload_ok) == (1, 1, False)
    (record,) = caplog.records
    assert "\nrules/rule.yaml:1:36: unknown key `priorty`" in record.getMessage()
    assert record.__dict__["diagnostics"] == report.diagnostics

    (rules / "more.yaml").unlink()
    (rules / "rule.yaml").write_text(rule("second"))
    mended = admin.reload().last_reload
    assert mended is not None
    assert mended.ok
    assert counters.last_reload_ok
    assert shown(engine) == "second"


def test_the_same_files_give_the_same_digest_wherever_they_lie(
    local: tuple[Engine, LocalAdmin], rules: Path, models: Path, tmp_path: Path
) -> None:
    shutil.copytree(rules, tmp_path / "elsewhere")
    shutil.copytree(models, tmp_path / "other")
    engine = open_engine(tmp_path / "elsewhere", tmp_path / "other", tmp_path / "data2")
    engine.store.close()
    here = local[0].snapshot
    assert here is not None
    assert engine.snapshot is not None
    assert engine.snapshot.digest == here.digest


def test_a_comment_changes_the_files_and_not_the_snapshot(local: tuple[Engine, LocalAdmin], rules: Path) -> None:
    engine, admin = local
    before, running = admin.snapshot_info().snapshot, engine.snapshot
    (rules / "rule.yaml").write_text(rule("first") + "# a comment\n")
    after = admin.reload()
    assert before is not None
    assert after.snapshot is not None
    assert after.last_reload is not None
    assert not after.last_reload.changed
    assert after.snapshot.digest == before.digest
    assert after.snapshot.loaded_at == before.loaded_at
    assert after.snapshot.files != before.files
    assert engine.snapshot is running


def test_a_changed_model_is_loaded_and_an_unchanged_one_kept(local: tuple[Engine, LocalAdmin], models: Path) -> None:
    engine, admin = local
    before = engine.snapshot
    manifest = models / "rfm" / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("version: 1", "version: 2"))
    report = admin.reload().last_reload
    assert report is not None
    assert report.ok
    assert before is not None
    assert engine.snapshot is not None
    assert engine.snapshot.models["rfm"].version == 2
    assert engine.snapshot.models["repurchase"] is before.models["repurchase"]


def test_a_broken_model_is_refused(local: tuple[Engine, LocalAdmin], models: Path) -> None:
    engine, admin = local
    running = engine.snapshot
    (models / "rfm" / "model.onnx").write_bytes(b"not a model")
    report = admin.reload().last_reload
    assert report is not None
    assert not report.ok
    assert report.first_error.startswith("models/rfm/manifest.yaml:")
    assert engine.snapshot is running


def test_validate_checks_and_changes_nothing(local: tuple[Engine, LocalAdmin]) -> None:
    engine, admin = local
    before = admin.snapshot_info()
    uses_a_model = rule("x").replace("'true'", "models.rfm.cluster == 'loyal'").encode()
    features = (
        b"features:\n  days_since_purchase: {since: purchase, unit: d}\n"
        b"  orders_39w: {count: purchase, window: 39w}\n  spend_39w: {sum: purchase.amount, window: 39w}\n"
    )
    files = {"a.yaml": (ACTIONS + POINT).encode(), "b/c.yaml": uses_a_model}
    (lacks,) = admin.validate(files)
    assert lacks.message == "model `rfm` cannot be used here"
    assert admin.validate(files | {"features.yaml": features}) == []
    mistyped = uses_a_model.replace(b"loyal", b"royal")
    (found,) = admin.validate(files | {"features.yaml": features, "b/c.yaml": mistyped})
    assert (found.file, found.hint) == ("b/c.yaml", "did you mean `loyal`?")
    (found,) = admin.validate({"a.yaml": b"rulez: []"})
    assert found.render().startswith("a.yaml:1:1: unknown key `rulez`")
    assert admin.snapshot_info() == before
    assert shown(engine) == "first"


def test_broken_files_at_the_start_are_the_author_s_error(rules: Path, tmp_path: Path) -> None:
    (rules / "rule.yaml").write_text("rules: [")
    with pytest.raises(AuthorError) as raised:
        open_engine(rules, None, tmp_path / "data")
    assert raised.value.diagnostics[0].file == "rules/rule.yaml"


def test_an_emptied_directory_is_refused(local: tuple[Engine, LocalAdmin], rules: Path) -> None:
    for file in rules.iterdir():
        file.unlink()
    report = local[1].reload().last_reload
    assert report is not None
    assert report.first_error == "rules: the rules directory holds no rule file"
    assert shown(local[0]) == "first"


def test_the_archive_gives_back_what_was_loaded(local: tuple[Engine, LocalAdmin], tmp_path: Path) -> None:
    running = local[0].snapshot
    assert running is not None
    archive = Archive(tmp_path / "data" / "snapshots")
    read = archive.read(running.digest, {})
    assert read.digest == running.digest
    assert running.ruleset == read.ruleset
    assert {name: model.digest for name, model in read.models.items()} == {
        name: model.digest for name, model in running.models.items()
    }
    kept = archive.read(running.digest, {model.digest: model for model in running.models.values()})
    assert kept.models["rfm"] is running.models["rfm"]


@pytest.mark.parametrize("file", ["image.msgpack", "meta.json", "models/rfm/model.onnx", "a part"])
@pytest.mark.parametrize("damage", ["cut", "gone", "no UTF-8"])
def test_a_damaged_snapshot_is_refused_and_mended_by_the_next_load(
    local: tuple[Engine, LocalAdmin], tmp_path: Path, file: str, damage: str
) -> None:
    engine, admin = local
    assert engine.snapshot is not None
    archive = Archive(tmp_path / "data" / "snapshots")
    snapshots = tmp_path / "data" / "snapshots"
    path = (
        snapshots / "parts" / min(engine.snapshot.parts)
        if file == "a part"
        else (snapshots / engine.snapshot.digest / file)
    )
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "no UTF-8":
        content = path.read_bytes()
        path.write_bytes(content.replace(b"home", b"\xff\xff\xff\xff").replace(b"format", b"\xff" * 6) + b"\xff")
    else:
        path.unlink()
    with pytest.raises(StoreError, match=f"snapshot {engine.snapshot.digest[:12]}"):
        archive.read(engine.snapshot.digest, {})
    admin.reload()
    assert archive.read(engine.snapshot.digest, {}).digest == engine.snapshot.digest


def test_another_rule_set_under_a_snapshot_s_name_is_refused(
    local: tuple[Engine, LocalAdmin], rules: Path, tmp_path: Path
) -> None:
    engine, admin = local
    assert engine.snapshot is not None
    first = engine.snapshot.digest
    (rules / "rule.yaml").write_text(rule("second"))
    admin.reload()
    folder = tmp_path / "data" / "snapshots"
    shutil.copy(folder / engine.snapshot.digest / "image.msgpack", folder / first / "image.msgpack")
    with pytest.raises(StoreError, match="is damaged"):
        Archive(folder).read(first, {})


def test_the_last_good_start_skips_what_is_damaged(rules: Path, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "snapshots")
    loader, desk = Loader(rules, None, archive), Desk(archive)
    digests = []
    for text in ("one", "two"):
        (rules / "rule.yaml").write_text(rule(text))
        attempt = loader.look()
        assert attempt is not None
        desk.record(attempt)
        digests.append(desk.digest)
    again = Loader(rules, None, archive).last_good()
    assert again is not None
    assert again.snapshot.digest == digests[1]
    (tmp_path / "snapshots" / digests[1] / "image.msgpack").write_bytes(b"")
    again = Loader(rules, None, archive).last_good()
    assert again is not None
    assert again.snapshot.digest == digests[0]
    shutil.rmtree(tmp_path / "snapshots")
    assert Loader(rules, None, archive).last_good() is None


@pytest.mark.parametrize("damage", [None, b"", b"[{"])
def test_a_history_that_cannot_be_read_costs_no_snapshot(
    rules: Path, tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    archive = Archive(tmp_path / "snapshots")
    loader, desk = Loader(rules, None, archive), Desk(archive)
    digests = []
    for text in ("one", "two", "three"):
        (rules / "rule.yaml").write_text(rule(text))
        attempt = loader.look()
        assert attempt is not None
        desk.record(attempt)
        digests.append(desk.digest)
    for second, digest in enumerate(digests):
        os.utime(tmp_path / "snapshots" / digest / "meta.json", (second, second))
    history = tmp_path / "snapshots" / "history.json"
    if damage is None:
        history.unlink()
    else:
        history.write_bytes(damage)
    assert [(entry.digest, entry.at) for entry in archive.history()] == [
        (digest, 1_000_000 * second) for second, digest in enumerate(digests)
    ]
    assert "the history of snapshots cannot be read" in caplog.text
    again = Loader(rules, None, archive).last_good()
    assert again is not None
    assert again.snapshot.digest == digests[2]
    archive.adopt(digests[0], 9_000_000)
    caplog.clear()
    assert [entry.digest for entry in archive.history()] == [digests[1], digests[2], digests[0]]
    assert not caplog.records
    assert archive.read(digests[1], {}).digest == digests[1]


def test_the_last_snapshots_are_kept_and_a_return_to_one_counts_as_new(rules: Path, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "snapshots", kept=4)
    loader, desk = Loader(rules, None, archive), Desk(archive)
    digests = {}
    for number in (0, 1, 2, 3, 0, 4, 5):
        (rules / "rule.yaml").write_text(rule(f"n{number}"))
        attempt = loader.look()
        assert attempt is not None
        desk.record(attempt)
        digests[number] = desk.digest
    expected = [digests[n] for n in (3, 0, 4, 5)]
    assert [entry.digest for entry in archive.history()] == expected
    assert [entry.digest for entry in archive.turns()] == [digests[n] for n in (0, 3, 0, 4, 5)]
    snapshots = tmp_path / "snapshots"
    assert {path.name for path in snapshots.iterdir() if path.is_dir()} == {*expected, "parts"}
    used = {part for digest in expected for part in archive.read(digest, {}).parts}
    assert {path.name for path in (snapshots / "parts").iterdir()} == used


def test_the_turns_of_two_snapshots_that_alternate_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    archive = Archive(tmp_path / "snapshots", kept=2)
    for at in range(100):
        archive.adopt("ab"[at % 2], at, "rollback", f"turn {at}")
    assert [(turn.at, turn.reason) for turn in archive.turns()] == [(at, f"turn {at}") for at in range(80, 100)]
    assert [(entry.digest, entry.at) for entry in archive.history()] == [("a", 98), ("b", 99)]


def test_an_untouched_directory_is_not_loaded_again(rules: Path, tmp_path: Path) -> None:
    loader = Loader(rules, None, Archive(tmp_path / "snapshots"))
    assert loader.look() is not None
    assert loader.look() is None
    assert loader.load().built is not None


def test_what_a_full_disk_kept_from_loading_is_loaded_once_there_is_room(
    rules: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive, now = Archive(tmp_path / "snapshots"), [0.0]
    loader, desk = Loader(rules, None, archive, clock=lambda: now[0]), Desk(archive)
    first = loader.look()
    assert first is not None
    desk.record(first)
    (rules / "rule.yaml").write_text(rule("first") + "# a comment\n")
    full = tmp_path / "snapshots" / desk.digest / ".meta.json"
    full.symlink_to("/dev/full")  # where the new meta.json is written first
    caplog.clear()
    failed = loader.look()
    assert failed is not None
    assert failed.built is None
    (found,) = failed.diagnostics
    expected = f"data/snapshots: cannot write snapshot {desk.digest[:12]}: the disk of the data directory is full"
    assert found.render().partition("\n")[0] == expected
    desk.record(failed)
    now[0] = 2.0
    assert loader.look() is None  # tried again, and not told again
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is None
    full.unlink()
    now[0] = 5.9
    assert loader.look() is None  # it waits for twice as long now
    now[0] = 6.0
    mended = loader.look()
    assert mended is not None
    assert mended.built is not None
    assert loader.look() is None


def test_what_fails_for_outside_reasons_is_tried_less_and_less_often(rules: Path, tmp_path: Path) -> None:
    nowhere, now = tmp_path / "nowhere", [0.0]
    nowhere.mkdir()
    archive = Archive(nowhere)
    nowhere.rmdir()
    nowhere.write_text("no directory")
    loader = Loader(rules, None, archive, clock=lambda: now[0])
    attempt = loader.look()
    assert attempt is not None
    assert isinstance(attempt.fault, StoreError)
    tried = []
    for second in range(200):
        now[0] = float(second)
        before = loader._fault
        assert loader.look() is None
        tried += [second] * (loader._fault is not before)
    assert tried == [2, 6, 14, 30, 62, 122, 182]
    (rules / "rule.yaml").write_text(rule("second"))
    assert loader.look() is not None  # other files are tried at once
    now[0] = 200.0
    again = loader.load()  # and so are these when somebody asks
    assert again.fault is not None
    nowhere.unlink()
    nowhere.mkdir()
    assert loader.load().built is not None


def test_of_thousands_of_findings_the_first_hundred_are_told(
    local: tuple[Engine, LocalAdmin], rules: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, admin = local
    many = "\n".join(f"unknown{number}: 1" for number in range(1234))
    (rules / "rule.yaml").write_text(many)
    report = admin.reload().last_reload
    assert report is not None
    assert len(report.diagnostics) == 101
    assert report.diagnostics[99].file == "rules/rule.yaml"
    assert report.diagnostics[100].render() == "…: and 1,134 more"
    assert report.first_error.startswith("rules/rule.yaml:1:1: ")
    assert caplog.records[-1].getMessage().endswith("…: and 1,134 more")
    assert admin.validate({"a.yaml": many.encode()})[100].render() == "…: and 1,134 more"


def test_snapshots_that_went_are_freed_without_the_collector(local: tuple[Engine, LocalAdmin], rules: Path) -> None:
    engine, admin = local
    went = []
    gc.disable()
    try:
        for text in ("second", "third"):
            assert engine.snapshot is not None
            engine.decide(Request("someone", ("home",), engine.clock()))
            went.append(weakref.ref(engine.snapshot))
            (rules / "rule.yaml").write_text(rule(text))
            admin.reload()
        assert [each() for each in went] == [None, None]
    finally:
        gc.enable()
