"""`arbiter model`: a training is told by a file and leaves a folder; checks end with 0 or 1; mistakes are sentences."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from arbiter.models import load_models
from arbiter.profiles.consenting import ConsentChange
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Store, Update
from arbiter.training.declared import read_declarations
from arbiter.training.logs import NO_CONSENT
from arbiter.types import ConsentState, Event, to_micros
from tests.training.conftest import text_of

if TYPE_CHECKING:
    from pathlib import Path


DAY = 24 * 3600 * 1_000_000


def arbiter(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "arbiter.cli", "model", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - constant, and paths


def test_from_a_table_to_a_folder_that_loads_and_passes(table: Path, tmp_path: Path) -> None:
    spec, out = table.parent / "train.yaml", tmp_path / "models"
    spec.write_text(text_of("propensity", "logistic_regression"), "utf-8")
    done = arbiter("train", spec, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"{out}/m: written; parity" in done.stdout
    assert sorted(path.name for path in (out / "m").iterdir()) == [
        "CARD.md", "card.png", "manifest.yaml", "metrics.json", "model.onnx", "parity.json", "train.yaml",
    ]  # fmt: skip
    assert (out / "m" / "card.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "m" / "train.yaml").read_bytes() == spec.read_bytes()
    models, found = load_models(out)
    assert (list(models), found) == (["m"], [])
    again = arbiter("train", spec, "--out", out)
    assert (again.returncode, "is there already: say --replace" in again.stderr) == (1, True)
    replaced = arbiter("train", spec, "--out", out, "--replace", "--against", out / "m", "--json")
    metrics = json.loads(replaced.stdout)
    assert metrics["compared"]["metrics"]["auc"]["better_by"] == 0
    checked = arbiter("check", out, "--latency", 1e6, "--json")
    assert checked.returncode == 0, checked.stdout
    (folder,) = json.loads(checked.stdout)
    assert {each["name"]: each["ok"] for each in folder["checks"]}["parity"] is True
    (listed,) = json.loads(arbiter("list", out, "--json").stdout)
    assert (listed["name"], listed["kind"], listed["outputs"]) == ("m", "propensity", ["probability"])
    assert "auc 0." in listed["figures"]
    assert listed["sha256"] == hashlib.sha256((out / "m" / "model.onnx").read_bytes()).hexdigest()
    written = (out / "m" / "manifest.yaml").stat().st_mtime
    assert datetime.fromisoformat(listed["written"]).timestamp() == int(written)
    (out / "m" / "model.onnx").write_bytes(b"no model")
    assert arbiter("check", out).returncode == 1


def bought(number: int, day: int, id_: str) -> dict[str, str]:
    return {"type": "buy", "subject_id": f"u{number}", "at": f"2026-01-{day:02}T00:00:00Z", "id": id_}


LINES = [bought(n, 1 + n % 9, "a") for n in range(200)] + [bought(n, 20 + n % 8, "b") for n in range(0, 200, 3)]


def test_from_a_file_of_events_by_the_features_that_rules_declare(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    rules = "features: {buys: {count: buy}, age: {since: buy, unit: d}}\n"
    (tmp_path / "rules" / "r.yaml").write_text(rules, "utf-8")
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*LINES, *LINES[:9]]), "utf-8")
    spec = tmp_path / "again.yaml"
    spec.write_text(
        "name: again\nversion: 1\nkind: propensity\nsource: {events: log.jsonl, until: 2026-02-01T00:00:00Z}\n"
        "rules: rules\nrows: {at: [2026-01-15T00:00:00Z]}\nlabel: {count: buy, window: 15d}\n"
        "validation: {folds: 3}\n"
        "inputs: [{name: buys, from: features.buys}, {name: age, from: features.age}]\n"
        "estimator: logistic_regression\n",
        "utf-8",
    )
    done = arbiter("train", spec, "--out", tmp_path / "models", "--json")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["rows"] == {"trained_on": 200, "held_out": 200, "left_out": {}}
    assert metrics["positive"]["trained_on"] == pytest.approx(67 / 200)
    card = (tmp_path / "models" / "again" / "CARD.md").read_text("utf-8")
    assert "  age: {since: buy, unit: d}" in card
    spec.write_text(spec.read_text("utf-8").replace("features.age", "features.agee"), "utf-8")
    wrong = arbiter("train", spec, "--out", tmp_path / "models", "--replace")
    assert wrong.returncode == 1
    assert "reads `features.agee`, which the rules do not declare: did you mean `features.age`?" in wrong.stderr


def test_from_the_log_of_a_store_of_those_who_consent(tmp_path: Path) -> None:
    """Whoever bought twice in the first half of January buys again; who does not consent is not learnt from."""
    (tmp_path / "rules").mkdir()
    rules = (
        "schema: {profile: {age: {type: int, purposes: [analytics]}}, events: {buy: {}}}\n"
        "consent: {purposes: [analytics]}\nfeatures: {buys: {count: buy, window: 30d}}\n"
    )
    (tmp_path / "rules" / "r.yaml").write_text(rules, "utf-8")
    declared = read_declarations({"r.yaml": rules.encode()}, "rules")
    start = to_micros(datetime(2026, 1, 1, tzinfo=UTC))
    with Store.open(tmp_path / "data" / "store", clock=lambda: start, background=False) as store:
        store.use_features(FeatureSet(declared.features))
        for number in range(120):
            days = [2, 5, 20] if number % 3 == 0 else [3, 50 + number % 5]
            events = [Event(f"e{day}", f"u{number}", "buy", start + day * DAY) for day in days]
            store.ingest(events)
            store.update(Update(subject_id=f"u{number}", set={"age": 20 + number % 50}))
            if number < 90:
                change = ConsentChange(f"u{number}", "analytics", ConsentState.GRANTED, "form")
                store.set_consent(change)
    spec = tmp_path / "again.yaml"
    spec.write_text(
        "name: again\nversion: 1\nkind: propensity\nsource: {store: data, until: 2026-02-01T00:00:00Z}\nrules: rules\n"
        "rows: {at: [2026-01-10T00:00:00Z]}\nlabel: {count: buy, window: 15d}\nvalidation: {folds: 3}\n"
        "inputs: [{name: buys, from: features.buys}, {name: age, from: profile.age, default: 40}]\n"
        "estimator: {type: random_forest, n_estimators: 10, min_samples_leaf: 2}\n",
        "utf-8",
    )
    done = arbiter("train", spec, "--out", tmp_path / "models", "--json")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["rows"] == {"trained_on": 90, "held_out": 90, "left_out": {NO_CONSENT: 30}}
    assert metrics["held_out"]["auc"]["value"] > 0.9
    checked = arbiter("check", tmp_path / "models", "--rules", tmp_path / "rules", "--latency", 1e6)
    assert "`profile.age` may be used for `analytics` only, which the model's `purposes` do not name" in checked.stdout


def test_mistakes_in_a_training_are_shown_where_they_stand(tmp_path: Path) -> None:
    spec = tmp_path / "t.yaml"
    spec.write_text(text_of("propensity", "kmeans"), "utf-8")
    done = arbiter("train", spec, "--out", tmp_path)
    assert done.returncode == 1
    assert f"{spec}:7:12: `kmeans` makes no propensity" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_there_is_no_model_in_is_said(tmp_path: Path) -> None:
    done = arbiter("check", tmp_path)
    assert (done.returncode, f"there is no model in {tmp_path}" in done.stderr) == (1, True)
