"""`arbiter model retrain`: trains on the log, and what passes the gate goes live; nothing else ever changes."""

from __future__ import annotations

import fcntl
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from arbiter.cli.app import app
from arbiter.cli.trainingdata import declarations, table_of
from arbiter.errors import AuthorError
from arbiter.models.loader import load_directory
from arbiter.models.versions import read_versions, with_live
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Store
from arbiter.runtime.loader import Loader
from arbiter.training.declared import read_declarations
from arbiter.training.examples import History, assemble
from arbiter.training.reading import read_spec
from arbiter.training.retraining import WORKSHOP, Busy, Retrained, Wanted, retrain
from arbiter.training.table import TrainingFailed
from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DAY = 24 * 3600 * 1_000_000
START = 20_000 * DAY  # midnight of a day in 2024
RULES = """\
schema: {events: {buy: {}}}
features: {buys: {count: buy, window: 30d}}
actions: {show: {}}
decisions: {home: }
rules: [{id: keen, decision: home, when: models.again.probability > 0.5, then: {action: show}}]
"""
SPEC = """\
name: again
version: 3
kind: propensity
source: {store: data}
rules: rules
rows: {every: 10d, times: 3}
label: {count: buy, window: 10d}
validation: {latest: 0.3}
inputs: [{name: buys, from: features.buys}]
estimator: logistic_regression
gate: {metric: log_loss, worse_by: 10}
"""
SLOW = 1e6  # what a row may take: here nothing is measured


class Shop:
    """A store with a log, rules and a directory of models."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.models = home / "models"
        (home / "rules").mkdir()
        (home / "rules" / "r.yaml").write_text(RULES, "utf-8")
        (home / "again.yaml").write_text(SPEC, "utf-8")

    def live(self, days: Sequence[int]) -> None:
        """Days on which half of the customers buy, each of them more often the higher its number is."""
        declared = declarations(self.spec()[0], self.home)
        with Store.open(self.home / "data" / "store", clock=lambda: START, background=False) as store:
            store.use_features(FeatureSet(declared.features))
            store.ingest(
                [
                    Event(f"e{day}", f"u{number}", "buy", START + day * DAY + number)
                    for day in days
                    for number in range(60)
                    if day == 0 or (number * 7 + day * 13) % 60 < number
                ]
            )

    def spec(self) -> tuple[Any, bytes]:
        content = (self.home / "again.yaml").read_bytes()
        return read_spec(content, "again.yaml"), content

    def retrain(self, day: int, *, latency: float = SLOW, keep: int = 0) -> Retrained:
        """Retrain as on this day."""
        spec, content = self.spec()
        declared = declarations(spec, self.home)
        wanted = Wanted(spec, content, declared.features, declared, latency, keep)

        def read(asked: Any) -> Any:
            source = type(asked.source)(store="data", until=START + day * DAY)
            return table_of(msgspec.structs.replace(asked, source=source), self.home, declared)

        return retrain(self.models, wanted, read)

    def served(self) -> tuple[int, list[str]]:
        """The version that a server would serve, 0 for none, and what it would complain of."""
        loaded = load_directory(self.models)
        model = loaded.models.get("again")
        return 0 if model is None else model.version, [each.message for each in loaded.found]

    def folders(self) -> list[str]:
        return sorted(path.name for path in (self.models / "again").iterdir() if not path.name.startswith("."))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def arbiter(*words: object) -> int:
    """Run the command in this process; its exit code."""
    with pytest.raises(SystemExit) as ended:
        app(["model", "retrain", *map(str, words)], prog_name="arbiter")
    return int(ended.value.code or 0)


def test_what_passes_goes_live_once_and_what_does_not_changes_nothing(shop: Shop) -> None:
    shop.live(range(40))
    first = shop.retrain(40)
    assert (first.outcome, first.live, first.before, first.made) == ("promoted", 3, 0, 3)
    assert {each.name: each.ok for each in first.checks} == {
        "files": True, "parity": True, "latency": True, "inputs": True, "outputs": None, "figures": True,
        "metric": None,
    }  # fmt: skip
    assert shop.served() == (3, [])
    assert json.loads((shop.models / "again" / "v3" / "gate.json").read_bytes())[0]["name"] == "files"

    again = shop.retrain(41)  # a day later there is no new moment, so nothing new to learn
    assert (again.outcome, again.live, again.made) == ("unchanged", 3, 0)
    assert shop.folders() == ["v3", "versions.yaml"]

    shop.live(range(40, 50))
    refused = shop.retrain(50, latency=0)
    assert (refused.outcome, refused.live, refused.made) == ("refused", 3, 4)
    assert [each.name for each in refused.checks if each.ok is False] == ["latency"]
    assert refused.folder == (shop.models / "again" / WORKSHOP / "v4").as_posix()
    assert (shop.served(), shop.folders()) == ((3, []), ["v3", "versions.yaml"])

    second = shop.retrain(50)
    assert (second.outcome, second.live, second.before) == ("promoted", 4, 3)
    assert {each.name for each in second.checks if each.ok} >= {"outputs", "metric"}
    assert second.metrics["compared"]["version"] == 3
    assert (shop.served(), shop.folders()) == ((4, []), ["v3", "v4", "versions.yaml"])
    assert shop.retrain(50).outcome == "unchanged"

    # Whoever went back had a reason: the same rows do not bring that version back.
    (shop.models / "again" / "versions.yaml").write_text("live: v3 # calmer\n", "utf-8")
    stays = shop.retrain(50)
    assert (stays.outcome, stays.live, stays.said) == (
        "unchanged", 3, "version 4 is of the same rows and the same spec, and is not live: somebody set it aside",
    )  # fmt: skip
    shop.live(range(50, 60))
    third = shop.retrain(60, keep=2)
    assert (third.outcome, third.live, third.before, third.removed) == ("promoted", 5, 3, [])
    assert shop.folders() == ["v3", "v4", "v5", "versions.yaml"]
    assert (shop.models / "again" / "versions.yaml").read_text() == "live: v5 # calmer\n"


def test_a_server_follows_by_itself_and_versions_beyond_the_newest_go(shop: Shop) -> None:
    loader = Loader(shop.home / "rules", shop.models, None)
    for days in (40, 50, 60):
        shop.live(range(days - 40 if days == 40 else days - 10, days))
        found = shop.retrain(days, keep=2)
        assert found.outcome == "promoted"
        attempt = loader.look()
        assert attempt is not None
        assert attempt.built is not None
        assert attempt.built.snapshot.models["again"].version == found.live
    assert (found.removed, shop.folders()) == ([3], ["v4", "v5", "versions.yaml"])


def test_who_was_killed_in_between_left_nothing_live_and_the_next_one_finishes(shop: Shop) -> None:
    shop.live(range(50))
    shop.retrain(40)
    place = shop.models / "again"
    # Killed while it wrote: a draft that nobody reads.
    (place / WORKSHOP / ".v4.new").mkdir(parents=True)
    (place / WORKSHOP / ".v4.new" / "model.onnx").write_bytes(b"half")
    assert shop.served() == (3, [])
    assert shop.retrain(50).live == 4
    assert not (place / WORKSHOP / ".v4.new").exists()
    # Killed between the move and the word that makes it live.
    (place / "v4" / ".passed").touch()
    (place / "versions.yaml").write_text("live: v3\n", "utf-8")
    assert shop.served() == (3, [])
    after = shop.retrain(50)
    assert (after.outcome, after.live, shop.served()) == ("unchanged", 4, (4, []))
    assert not (place / "v4" / ".passed").exists()


def test_what_stands_in_the_way_is_said_and_nothing_is_trained(shop: Shop) -> None:
    shop.live(range(40))
    with pytest.raises(TrainingFailed, match="there is no row to learn from"):
        shop.retrain(0)
    place = shop.models / "again"
    with (place / ".retraining").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="another retraining"):
            shop.retrain(40)
    assert shop.retrain(40).live == 3
    (place / "v3").rename(place / "v2")
    (place / "v2" / "manifest.yaml").write_text(
        (place / "v2" / "manifest.yaml").read_text().replace("version: 3", "version: 2"), "utf-8"
    )
    (place / "v1").mkdir()
    for name in ("manifest.yaml", "model.onnx"):
        (place / "v1" / name).write_bytes((place / "v2" / name).read_bytes())
    (place / "versions.yaml").write_text("live: v2\ncanary: {version: v1, share: 0.5}\n", "utf-8")
    with pytest.raises(Busy, match=r"version 1 of .* is tried on a share"):
        shop.retrain(40)
    for name in ("manifest.yaml", "model.onnx"):
        (place / "v2" / name).rename(place / name)
    with pytest.raises(Busy, match="move its files into a folder of their version"):
        shop.retrain(40)


def test_its_exit_code_tells_a_scheduler_what_came_of_it(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    spec, report = shop.home / "again.yaml", shop.home / "report.json"
    spec.write_text(SPEC.replace("data}", "data, until: 2024-11-13T00:00:00Z}"), "utf-8")
    shop.live(range(60))
    words = (spec, "--out", shop.models, "--report", report)
    assert arbiter(*words, "--latency", 0) == 1
    assert json.loads(report.read_bytes())["outcome"] == "refused"
    capsys.readouterr()
    assert arbiter(*words, "--latency", SLOW, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told, told["outcome"]) == (json.loads(report.read_bytes()), "promoted")
    assert arbiter(*words, "--latency", SLOW) == 0
    said = "again: unchanged: version 3 is of the same rows and the same spec, and is live\n"
    assert capsys.readouterr().out == said
    for wrong in (SPEC.replace("source: {store: data}", "source: {store: none}"), "name: again\n"):
        spec.write_text(wrong, "utf-8")
        assert arbiter(*words) == 2
        assert capsys.readouterr().out == ""


def test_moments_every_so_often_are_the_last_ones_whose_labels_are_known() -> None:
    spec = read_spec(SPEC.replace("store: data", "events: log.jsonl").encode(), "again.yaml")
    rules = read_declarations({"r.yaml": RULES.encode()}, "rules").features
    events = [Event(f"e{day}", "ann", "buy", START + day * DAY) for day in range(50)]
    for until, expected in ((39, [0, 10, 20]), (40, [10, 20, 30]), (49, [10, 20, 30]), (50, [20, 30, 40])):
        table = assemble(spec, [History("ann", events)], rules, until=START + until * DAY)
        assert [(at - START) // DAY for at in table.times or ()] == expected, until


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("{every: 10d}", "`every` and `times` go together"),
        ("{every: 10d, times: 2, each: buy}", "rows are made in one of these ways"),
        ("{every: soon, times: 2}", "`every` must be a duration"),
        ("{every: 10d, times: 0}", "`times` must be from 1 to 1000"),
    ],
)
def test_mistakes_in_rows_every_so_often_are_shown(rows: str, message: str) -> None:
    with pytest.raises(AuthorError) as caught:
        read_spec(SPEC.replace("{every: 10d, times: 3}", rows).encode(), "again.yaml")
    assert message in caught.value.diagnostics[0].message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("live: v2\n", "live: v7\n"),
        ("# ours\r\nlive: 2 # since May\r\n", "# ours\r\nlive: v7 # since May\r\n"),
        ('canary: {version: v3, share: 0.1}\nlive: "v2"', "canary: {version: v3, share: 0.1}\nlive: v7"),
        ("{live: v2}", "{live: v7}"),
        ("no file of versions", "live: v7\n"),
    ],
)  # fmt: skip
def test_another_version_is_named_as_live_and_nothing_else_changes(content: str, expected: str) -> None:
    found = with_live(content.encode(), 7)
    assert found.decode() == expected
    read = read_versions(found, "versions.yaml")[0]
    assert read is not None
    assert read.live == 7
