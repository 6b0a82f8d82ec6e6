"""A whole decision in process: protobuf both ways, 30 attributes from LMDB, 1,000 rules, a model of 100 trees.

Besides the attributes, the record holds the six features that the model reads; a request carries no context, whose
price `wire` tells.

`parts_us` times the parts alone and beside the whole, so that each microsecond has a name. The ratio that is asserted
is the whole over `floor`: the work that no engine could leave out (parse the request, fetch and decode the record, run
the forest, write the answer), done by hand with the same libraries.
"""

from __future__ import annotations

import itertools
import random
import tempfile
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import numpy as np

from arbiter.config.limits import Limits
from arbiter.decision.walk import Need, Walk
from arbiter.expr.view import View
from arbiter.models import load_models
from arbiter.models.session import open_session
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.engine import Engine, wall_clock
from arbiter.server.decisions import DecisionService
from arbiter.snapshot import Snapshot
from arbiter.telemetry.counters import Counters
from arbiter.types import Event
from arbiter.v1 import decision_pb2
from benchmarks.conditions import POINT
from benchmarks.measure import alternate, percentiles
from benchmarks.population import profile, rule_file

ROOT = Path(__file__).parent.parent
RULES, PEOPLE, CALLS = 1_000, 1_000, 20_000
DAY = 86_400_000_000
MODEL = "repurchase"
# As the model's card asks for.
FEATURES = b"""
features:
  orders_90d: {count: purchase, window: 90d}
  orders_180d: {count: purchase, window: 180d}
  orders_39w: {count: purchase, window: 39w}
  spend_39w: {sum: purchase.amount, window: 39w}
  max_order_39w: {max: purchase.amount, window: 39w}
  days_since_purchase: {since: purchase, unit: d}
"""


def run() -> dict[str, Any]:
    """The median and percentiles of a decision, what its parts cost, and the ratio to the floor."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "store") as store:
        engine = _engine(store)
        people = add_people(store)
        service = DecisionService(engine, Limits(), Counters())
        asked = itertools.cycle(
            [decision_pb2.DecideRequest(subject_id=person, decision=POINT).SerializeToString() for person in people]
        )
        subjects = {
            "whole": lambda: service.decide(next(asked)),
            "floor": _floor(Path(folder) / "floor", asked),
            **_parts(engine, people),
        }
        took = alternate(subjects)
        tail = percentiles(subjects["whole"], CALLS)
    parts = {name: took[name] for name in ("profile", "match", "model")}
    parts["walk"] = took["match and walk"] - took["match"]
    parts["protobuf and the rest"] = took["whole"] - sum(parts.values())
    return {
        "whole_us": {"median of rounds": took["whole"], **tail},
        "floor_us": took["floor"],
        "parts_us": parts,
        "ratios": {"whole_over_floor": took["whole"] / took["floor"]},
    }


def _engine(store: Store) -> Engine:
    models, found = load_models(ROOT / "models")
    files = {
        "features.yaml": FEATURES,
        "bench.yaml": rule_file(RULES, model=f"models.{MODEL}.probability"),
    }
    ruleset, mistakes = load_ruleset(files, {name: m.outputs for name, m in models.items()})
    if ruleset is None:
        raise SystemExit("\n".join(d.render() for d in [*found, *mistakes]))
    engine = Engine(store)
    engine.activate(Snapshot(ruleset, models))
    return engine


def add_people(store: Store) -> list[str]:
    """Store `PEOPLE` profiles of thirty attributes and five purchases each; the ids."""
    draw, now = random.Random(3), wall_clock()
    people = [f"customer-{number}" for number in range(PEOPLE)]
    written = [store.update(Update(subject_id=person, set=profile(draw))) for person in people]
    events = [
        Event(f"{person}-{n}", person, "purchase", now - draw.randint(1, 200) * DAY, {"amount": draw.random() * 50})
        for person in people
        for n in range(5)
    ]
    for start in range(0, len(events), 500):
        store.ingest(events[start : start + 500]).result()
    for future in written:
        future.result()
    return people


def _parts(engine: Engine, people: list[str]) -> dict[str, Any]:
    """The parts of the same decisions, each alone."""
    snapshot = engine.snapshot
    if snapshot is None:
        raise SystemExit("no snapshot")
    point, now, store = snapshot.points[POINT], wall_clock(), engine.store
    readers, viewers, scorers, walkers = (itertools.cycle(people) for _ in range(4))
    views = {}
    for person in people:
        read = store.read(person, now)
        views[person] = View(read.attributes, {}, read.features, now)
    match, row, model = point.index.match, snapshot.rows[MODEL], snapshot.models[MODEL]
    if any(row(view) is None for view in views.values()):
        raise SystemExit("a customer lacks an input of the model")
    scores = {"probability": 0.3}

    def walk() -> None:
        view = views[next(walkers)]
        view.models = {}
        steps = Walk(point, view, "someone")
        if isinstance(steps.advance(), Need):
            view.models = {MODEL: scores}
            steps.advance()

    return {
        "profile": lambda: store.read(next(readers), now),
        "match": lambda: match(views[next(viewers)]),
        "model": lambda: model.run_one(row(views[next(scorers)]) or ()),
        "match and walk": walk,
    }


def _floor(folder: Path, asked: Any) -> Any:
    """The least that any engine would do, by hand."""
    environment = lmdb.open(str(folder), map_size=1 << 28)
    record = msgspec.msgpack.encode([1, profile(random.Random(1)), {f"feature{n}": float(n) for n in range(6)}])
    with environment.begin(write=True) as txn:
        txn.put(b"key", record)
    session = open_session((ROOT / "models" / MODEL / "model.onnx").read_bytes())
    tensor = session.get_inputs()[0]
    outputs = [session.get_outputs()[0].name]
    decode = msgspec.msgpack.Decoder().decode
    treatment = decision_pb2.Treatment(rule_id="rule-1", action="show", priority=1)

    def floor() -> bytes:
        request = decision_pb2.DecideRequest.FromString(next(asked))
        with environment.begin() as txn:
            _, _, features = decode(txn.get(b"key") or b"")
        row = np.array([list(features.values())[: tensor.shape[1]]], dtype=np.float32)
        session.run(outputs, {tensor.name: row})
        return decision_pb2.DecideResponse(
            decision_id=request.subject_id, treatments=[treatment], snapshot="0" * 32, decision=request.decision
        ).SerializeToString()

    return floor
