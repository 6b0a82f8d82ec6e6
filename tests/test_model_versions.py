"""Several versions of a model side by side: which is live, and going back to another one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from arbiter.errors import InvalidField, NotFound, VersionConflict
from arbiter.models import load_models
from arbiter.profiles.store import Update
from arbiter.runtime.admin import Rollback, RollbackModel
from arbiter.runtime.archive import Archive
from arbiter.runtime.desk import Desk
from arbiter.runtime.loader import Loader
from arbiter.runtime.local import open_local
from arbiter.runtime.sources import read_sources
from arbiter.runtime.standing import StandingFile
from arbiter.runtime.versions import Versions
from arbiter.types import Request
from tests.conftest import replace
from tests.graphs import times, write_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arbiter.runtime.engine import Engine
    from arbiter.runtime.local import LocalAdmin

RULES = """\
schema: {profile: {age: double, height: double}}
actions: {show: {params: {score: double}}}
decisions: {home: {default: {action: show, params: {score: -1.0}}}}
rules:
  - id: only
    decision: home
    when: models.worth.score > 0
    then: {action: show, params: {score: "${models.worth.score}"}}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Rules that show what a model says: ten times the age in version 1, which is live, a hundred times in 2."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(RULES)
    for version, factor in ((1, 10.0), (2, 100.0)):
        write_model(tmp_path / "models" / "worth" / f"v{version}", "worth", version, times(factor))
    says(tmp_path, "live: v1\n")
    return tmp_path


def says(shop: Path, text: str) -> None:
    replace(shop / "models" / "worth" / "versions.yaml", text)


def refusal(shop: Path) -> list[str]:
    models, found = load_models(shop / "models", folder="models")
    assert models == {}
    return [each.render().partition("\n")[0] for each in found]


class Opened:
    """An engine over a shop, and a subject of age 3."""

    def __init__(self, shop: Path) -> None:
        self.engine: Engine
        self.admin: LocalAdmin
        self.engine, self.admin = open_local(shop / "rules", shop / "models", shop / "data")
        self.engine.store.update(Update("ann", set={"age": 3.0})).result()

    def score(self, subject: str = "ann") -> object:
        (decision,) = self.engine.decide(Request(subject, ("home",), self.engine.clock()))
        return decision.treatments[0].params["score"]

    def reload(self) -> bool:
        """Have the files read as the watcher would: what operators ordered stays."""
        attempt = self.admin._loader.look()
        assert attempt is not None
        self.admin.take(attempt)
        return attempt.built is not None


@pytest.fixture
def opened(shop: Path) -> Iterator[Callable[[], Opened]]:
    """Opens the shop; what was open before is closed."""
    open_now: list[Opened] = []

    def start() -> Opened:
        for each in open_now:
            each.engine.store.close()
        open_now[:] = [Opened(shop)]
        return open_now[0]

    yield start
    for each in open_now:
        each.engine.store.close()


def test_the_version_that_is_said_to_be_live_decides_and_another_word_changes_it(
    shop: Path, opened: Callable[[], Opened]
) -> None:
    running = opened()
    assert running.score() == 30.0
    says(shop, "live: 2\n")
    assert running.reload()
    assert running.score() == 300.0
    says(shop, "live: v3\n")
    assert not running.reload()
    assert running.score() == 300.0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("live: v9\n", "models/worth/versions.yaml:1:7: there is no folder `v9`"),
        ("live: two\n", "models/worth/versions.yaml:1:7: `live` must be a version, `v2` or `2`"),
        ("live: 0\n", "models/worth/versions.yaml:1:7: `live` must be a version, `v2` or `2`"),
        ("live: v01\n", "models/worth/versions.yaml:1:7: `live` must be a version, `v2` or `2`"),
        ("lve: v1\n", "models/worth/versions.yaml:1:1: a file of versions needs the key `live`"),
        ("- v1\n", "models/worth/versions.yaml:1:1: it must be a mapping (`key: value` lines)"),
        ("", "models/worth/versions.yaml: it must be one mapping (`key: value` lines)"),
        ("live: v1\n---\nlive: v2\n", "models/worth/versions.yaml: it must be one mapping (`key: value` lines)"),
    ],
)
def test_a_mistake_in_the_file_of_versions_is_told_with_its_place(shop: Path, text: str, line: str) -> None:
    says(shop, text)
    assert line in refusal(shop)


def test_folders_of_versions_say_which_is_live_and_what_they_are(shop: Path) -> None:
    worth = shop / "models" / "worth"
    (worth / "versions.yaml").unlink()
    (line,) = refusal(shop)
    assert line == "models/worth/versions.yaml: `v1`, `v2` are here, and nothing says which is live"
    write_model(worth, "worth", 3, times(1.0))
    (line,) = refusal(shop)
    assert line.startswith("models/worth/versions.yaml: a model lies in its folder, or in one for each version")
    for name in ("manifest.yaml", "model.onnx"):
        (worth / name).unlink()
    says(shop, "live: v3\n")
    write_model(worth / "v3", "worth", 4, times(1.0))
    assert refusal(shop) == ["models/worth/v3/manifest.yaml:2:10: version 4 lies in a folder called `v3`"]
    write_model(worth / "3", "worth", 3, times(1.0))
    assert refusal(shop) == ["models/worth/v3: `3` and `v3` are both version 3"]


def test_what_is_not_live_is_not_read_and_breaks_nothing(shop: Path) -> None:
    before = read_sources(shop / "rules", shop / "models")
    assert sorted(before.models) == ["worth/v1/manifest.yaml", "worth/v1/model.onnx", "worth/versions.yaml"]
    (shop / "models" / "worth" / "v2" / "model.onnx").write_bytes(b"half a file")
    assert read_sources(shop / "rules", shop / "models") == before
    models, found = load_models(shop / "models")
    assert ([*models], found) == (["worth"], [])


def test_a_rolled_back_snapshot_brings_its_model_back(shop: Path, opened: Callable[[], Opened]) -> None:
    running = opened()
    (first,) = running.engine.snapshots
    says(shop, "live: v2\n")
    assert running.reload()
    shutil.rmtree(shop / "models" / "worth" / "v1")
    running.admin.carry_out(Rollback(digest=first))
    assert running.score() == 30.0


def test_a_model_goes_back_alone_and_the_rules_stay(shop: Path, opened: Callable[[], Opened]) -> None:
    running = opened()
    says(shop, "live: v2\n")
    assert running.reload()
    replace(shop / "rules" / "rules.yaml", RULES.replace("-1.0", "-2.0"))
    assert running.reload()
    shutil.rmtree(shop / "models" / "worth" / "v1")
    status = running.admin.carry_out(RollbackModel(name="worth", reason="too dear"))
    assert running.score() == 30.0
    (held,) = status.models
    assert (held.name, held.version, held.reason) == ("worth", 1, "too dear")
    assert running.score("nobody") == -2.0
    turn = running.admin.history().turns[-1]
    assert (turn.cause, turn.reason) == ("rollback", "model worth from version 2 to 1 (too dear)")


def test_a_held_model_stays_over_changes_of_rules_until_the_files_give_another_model(
    shop: Path, opened: Callable[[], Opened]
) -> None:
    running = opened()
    says(shop, "live: v2\n")
    assert running.reload()
    running.admin.carry_out(RollbackModel(name="worth"))
    replace(shop / "rules" / "rules.yaml", RULES.replace("-1.0", "-2.0"))
    assert running.reload()
    assert running.score() == 30.0
    write_model(shop / "models" / "worth" / "v3", "worth", 3, times(1000.0))
    says(shop, "live: v3\n")
    assert running.reload()
    assert running.score() == 3000.0
    assert running.admin.snapshot_info().models == ()


def test_a_reload_that_is_asked_for_ends_it_and_so_does_going_forward_again(
    shop: Path, opened: Callable[[], Opened]
) -> None:
    running = opened()
    says(shop, "live: v2\n")
    assert running.reload()
    running.admin.carry_out(RollbackModel(name="worth"))
    assert running.admin.reload().models == ()
    assert running.score() == 300.0
    running.admin.carry_out(RollbackModel(name="worth", version=1))
    assert running.admin.carry_out(RollbackModel(name="worth", version=2)).models == ()
    assert running.score() == 300.0


def test_what_cannot_be_gone_back_to_is_refused_and_nothing_changes(shop: Path, opened: Callable[[], Opened]) -> None:
    running = opened()
    order = running.admin.carry_out
    with pytest.raises(NotFound, match="has no model `wort`; did you mean `worth`"):
        order(RollbackModel(name="wort"))
    with pytest.raises(NotFound, match="no model `worth` ran before"):
        order(RollbackModel(name="worth"))
    with pytest.raises(InvalidField, match="version 1 of model `worth` runs"):
        order(RollbackModel(name="worth", version=1))
    with pytest.raises(NotFound, match="version 7 of model `worth` is in no snapshot that is kept"):
        order(RollbackModel(name="worth", version=7))
    write_model(shop / "models" / "worth" / "v3", "worth", 3, times(1.0), outputs="{other: {tensor: y, type: double}}")
    with pytest.raises(InvalidField, match=r"the rules cannot do with that version: rules/rules\.yaml:7:"):
        order(RollbackModel(name="worth", version=3))
    write_model(shop / "models" / "worth" / "v4", "worth", 4, times(1.0), source="profile.weight")
    with pytest.raises(InvalidField, match="the rules cannot do with that version: "):
        order(RollbackModel(name="worth", version=4))
    (first,) = running.engine.snapshots
    says(shop, "live: v2\n")
    assert running.reload()
    order(Rollback(digest=first))
    with pytest.raises(VersionConflict, match="roll back the snapshot, or reload first"):
        order(RollbackModel(name="worth", version=2))
    assert running.score() == 30.0


def test_a_restart_goes_on_with_the_model_that_was_put_in_place(shop: Path) -> None:
    def start() -> tuple[Desk, Loader, Versions]:
        archive, file = Archive(shop / "data" / "snapshots"), StandingFile(shop / "data")
        desk = Desk(archive, file=file)
        desk.stand(file.read())
        loader = Loader(shop / "rules", shop / "models", archive, holds=lambda: desk.standing.models)
        desk.record(loader.load())
        assert desk.running is not None
        loader.runs(desk.running)
        return desk, loader, Versions(desk, loader, archive)

    desk, loader, versions = start()
    says(shop, "live: v2\n")
    attempt = loader.look()
    assert attempt is not None
    desk.record(attempt)
    loader.runs(attempt.built)  # type: ignore[arg-type]
    order = RollbackModel(name="worth")
    versions.apply(order, versions.prepare(order), 1)
    shutil.rmtree(shop / "models" / "worth" / "v1")
    digest = desk.digest
    again, _, _ = start()
    assert again.digest == digest
    assert again.running is not None
    assert again.running.snapshot.models["worth"].version == 1
    assert again.status.models == desk.status.models
