"""A version of a model that is tried on a share of the subjects, beside the one that is live."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from arbiter.decision.hashing import share
from arbiter.models import load_models
from arbiter.profiles.store import Update
from arbiter.runtime.admin import Rollback, RollbackModel
from arbiter.runtime.archive import Archive
from arbiter.runtime.local import open_local
from arbiter.types import ExplainLevel, Request
from tests import forked
from tests.conftest import replace
from tests.graphs import times, write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arbiter.runtime.engine import Engine
    from arbiter.runtime.local import LocalAdmin

RULES = """\
schema:
  profile: {age: double, height: {type: double, purposes: [fitting]}}
  account: {seats: double}
consent: {purposes: [fitting]}
actions: {show: {params: {score: double}}}
decisions:
  home: {default: {action: show, params: {score: -1.0}}}
  side: {default: {action: show, params: {score: -1.0}}}
rules:
  - id: home
    decision: home
    when: models.worth.score > 0
    then: {action: show, params: {score: "${models.worth.score}"}}
  - id: side
    decision: side
    when: models.worth.score > 0
    then: {action: show, params: {score: "${models.worth.score}"}}
"""
SUBJECTS = [f"s{number}" for number in range(120)]


class Shop:
    """An engine over two versions of a model: the first, live, says ten times the age, the second a hundred times."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "rules").mkdir()
        (folder / "rules" / "rules.yaml").write_text(RULES)
        for version, factor in ((1, 10.0), (2, 100.0)):
            write_model(self.version(version), "worth", version, times(factor))
        self.says("live: v1\ncanary: {version: v2, share: 0.3, salt: try}\n")
        self.engine: Engine
        self.admin: LocalAdmin
        self.engine, self.admin = open_local(folder / "rules", folder / "models", folder / "data")
        for subject in SUBJECTS:
            self.engine.store.update(Update(subject, set={"age": 3.0}))
        self.engine.store.update(Update("last", set={"age": 3.0})).result()

    def version(self, number: int) -> Path:
        return self.folder / "models" / "worth" / f"v{number}"

    def says(self, text: str) -> None:
        replace(self.folder / "models" / "worth" / "versions.yaml", text)

    def reload(self) -> None:
        attempt = self.admin._loader.look()
        assert attempt is not None
        assert attempt.built is not None, attempt.diagnostics
        self.admin.take(attempt)

    def request(self, subject: str, *decisions: str, explain: ExplainLevel = ExplainLevel.NONE) -> Request:
        return Request(subject, decisions or ("home",), self.engine.clock(), explain=explain)

    def score(self, subject: str) -> object:
        (decision,) = self.engine.decide(self.request(subject))
        return decision.treatments[0].params["score"]

    def scores(self) -> set[object]:
        return {self.score(subject) for subject in SUBJECTS}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    opened = Shop(tmp_path)
    yield opened
    opened.engine.store.close()


def expected(subject: str, salt: str = "try", part: float = 0.3) -> float:
    return 300.0 if share(salt, subject) < part else 30.0


def test_each_subject_meets_one_version_by_the_published_hash_however_it_is_asked(shop: Shop) -> None:
    wanted = {subject: expected(subject) for subject in SUBJECTS}
    assert set(wanted.values()) == {30.0, 300.0}
    assert {subject: shop.score(subject) for subject in SUBJECTS} == wanted
    batch = shop.engine.decide_batch([shop.request(subject) for subject in SUBJECTS])
    assert [answer[0].treatments[0].params["score"] for answer in batch if isinstance(answer, tuple)] == [
        *wanted.values()
    ]
    for subject in SUBJECTS[:20]:
        page = shop.engine.decide(shop.request(subject, "home", "side"))
        assert page[0].treatments[0].params["score"] == wanted[subject]


def test_a_growing_share_keeps_whom_it_has_and_another_word_ends_it(shop: Shop) -> None:
    before = {subject for subject in SUBJECTS if shop.score(subject) == 300.0}
    shop.says("live: v1\ncanary: {version: v2, share: 0.6, salt: try}\n")
    shop.reload()
    assert before < {subject for subject in SUBJECTS if shop.score(subject) == 300.0}
    shop.says("live: v1\n")
    shop.reload()
    assert shop.scores() == {30.0}
    shop.says("live: v2\n")
    shop.reload()
    assert shop.scores() == {300.0}


def test_without_a_salt_another_version_meets_other_subjects(shop: Shop) -> None:
    shop.says("live: v1\ncanary: {version: v2, share: 0.3}\n")
    shop.reload()
    assert {subject: shop.score(subject) for subject in SUBJECTS} == {
        subject: expected(subject, "model:worth:v2") for subject in SUBJECTS
    }


def test_the_explanation_and_the_figures_say_which_version_scored(shop: Shop) -> None:
    shop.engine.counters.watched = True
    inside = next(subject for subject in SUBJECTS if expected(subject) == 300.0)
    outside = next(subject for subject in SUBJECTS if expected(subject) == 30.0)
    for subject, version in ((inside, 2), (outside, 1)):
        (decision,) = shop.engine.decide(shop.request(subject, explain=ExplainLevel.WINNERS))
        assert [(each.model, each.version) for each in decision.models] == [("worth", version)]
    shop.scores()
    rows = {version: shop.engine.counters.models["worth", version].rows for version in ("1", "2")}
    many = sum(expected(subject) == 300.0 for subject in SUBJECTS)
    assert rows == {"1": len(SUBJECTS) - many + 1, "2": many + 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{version: v1, share: 0.1}", "version 1 is live, and cannot be tried beside itself"),
        ("{version: v9, share: 0.1}", "there is no folder `v9`"),
        ("{version: v2, share: 0}", "`share` must be more than 0 and at most 1"),
        ("{version: v2, share: 1.5}", "`share` must be more than 0 and at most 1"),
        ("{version: v2}", "a canary needs the key `share`"),
        ("{share: 0.1}", "a canary needs the key `version`"),
        ("{version: v2, share: 0.1, slat: x}", "unknown key `slat` in a canary"),
        ("{version: v2, share: 0.1, salt: ''}", "`salt` must have from 1 to 256 bytes"),
        ("v2", "`canary` must be a mapping, this is text"),
        (
            "{version: v3, share: 0.1}",
            "version 3 cannot be tried in place of 1: it has no output `score` of type double",
        ),
    ],
)
def test_a_canary_that_cannot_be_is_told_with_its_place(shop: Shop, text: str, said: str) -> None:
    write_model(shop.version(3), "worth", 3, times(1.0), outputs="{other: {tensor: y, type: double}}")
    shop.says(f"live: v1\ncanary: {text}\n")
    _, found = load_models(shop.folder / "models", folder="models")
    assert (said, "models/worth/versions.yaml", 2) in [(each.message, each.file, each.line) for each in found]


def test_only_so_many_models_have_a_canary_at_once(shop: Shop) -> None:
    for number in range(4):
        for version in (1, 2):
            folder = shop.folder / "models" / f"m{number}" / f"v{version}"
            write_model(folder, f"m{number}", version, times(float(version)))
        (folder.parent / "versions.yaml").write_text("live: v1\ncanary: {version: v2, share: 0.5}\n")
    _, found = load_models(shop.folder / "models", folder="models")
    assert [(each.file, each.message) for each in found] == [
        ("models/worth/versions.yaml", "5 models have a canary, and at most 4 may at once")
    ]


def test_consent_is_to_the_inputs_of_the_version_that_scores(shop: Shop) -> None:
    write_model(shop.version(3), "worth", 3, times(1.0), source="profile.height, default: 7")
    shop.says("live: v1\ncanary: {version: v3, share: 0.3, salt: try}\n")
    shop.reload()
    for subject in SUBJECTS:
        # The purpose was granted by none: what would need it is unknown, and no default stands in for it.
        assert shop.score(subject) == (-1.0 if expected(subject) == 300.0 else 30.0)


def test_a_canary_may_read_what_the_live_version_does_not(shop: Shop) -> None:
    shop.engine.store.update(Update(account_id="acme", set={"seats": 8.0})).result()
    for subject in SUBJECTS:
        shop.engine.store.update(Update(subject, set={"account_id": "acme"}))
    shop.engine.store.update(Update("last", set={"age": 3.0})).result()
    write_model(shop.version(3), "worth", 3, times(1.0), source="account.seats")
    replace(shop.folder / "rules" / "rules.yaml", RULES.replace("age: double,", "age: double, account_id: string,"))
    shop.says("live: v1\ncanary: {version: v3, share: 0.3, salt: try}\n")
    shop.reload()
    assert {subject: shop.score(subject) for subject in SUBJECTS} == {
        subject: 8.0 if expected(subject) == 300.0 else 30.0 for subject in SUBJECTS
    }


def test_a_snapshot_holds_its_canary_on_disk_and_brings_it_back(shop: Shop) -> None:
    (digest,) = shop.engine.snapshots
    shop.says("live: v1\n")
    shop.reload()
    assert shop.scores() == {30.0}
    (other,) = shop.engine.snapshots
    assert other != digest
    read = Archive(shop.folder / "data" / "snapshots").read(digest, {})
    assert [(name, each.model.version, each.share, each.salt) for name, each in read.trials.items()] == [
        ("worth", 2, 0.3, "try")
    ]
    shop.admin.carry_out(Rollback(digest=digest))
    assert shop.scores() == {30.0, 300.0}


def test_a_model_that_goes_back_has_no_canary_until_the_files_give_another(shop: Shop) -> None:
    (held,) = shop.admin.carry_out(RollbackModel(name="worth")).models
    assert held.version == 1
    assert shop.scores() == {30.0}
    shop.says("live: v1\ncanary: {version: v2, share: 0.9, salt: try}\n")
    shop.reload()
    assert shop.scores() == {30.0}
    write_model(shop.version(3), "worth", 3, times(1000.0))
    shop.says("live: v1\ncanary: {version: v3, share: 0.9, salt: try}\n")
    shop.reload()
    assert shop.scores() == {30.0, 3000.0}


def test_the_list_says_of_each_version_whether_it_is_live_or_tried(shop: Shop) -> None:
    write_model(shop.version(10), "worth", 10, times(1.0))
    write_model(shop.folder / "models" / "flat", "flat", 1, times(1.0))
    done = forked.arbiter("model", "list", shop.folder / "models", "--json")
    assert done.returncode == 0, done.stderr
    assert [(each["name"], each["version"], each["standing"]) for each in json.loads(done.stdout)] == [
        ("flat", 1, "live"), ("worth", 1, "live"), ("worth", 2, "canary, 0.3"), ("worth", 10, ""),
    ]  # fmt: skip
