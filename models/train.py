"""Train the two example models on the CDNOW record and write their folders: `python models/train.py`.

Law: everything about the models that is not serving. The features are computed here by one plain function, with the
window law of the rule files, so that the store gives the same values at serving time. The script measures before it
writes, and refuses to write a model whose ONNX form does not answer as scikit-learn does. Seeds are fixed: another run
with the same versions of the libraries writes the same bytes.
"""
# ruff: noqa: INP001, T201 - a script, no package, that tells whoever ran it how things went

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from skl2onnx.algebra.onnx_ops import OnnxAdd, OnnxArgMin, OnnxGemm, OnnxLog, OnnxRelu
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "engine"))  # a bare clone has no installed package

from arbiter.datasets import cdnow
from arbiter.models import from_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    Matrix = NDArray[np.float64]

SEED = 1997
# Old enough for every onnxruntime that we run on: left to itself, onnx writes its newest, which an older one refuses.
OPSETS = {"": 17, "ai.onnx.ml": 3}
IR_VERSION = 8
# A probability in float32 has a rounding step of 6e-8; summing the leaves of 100 trees may gather a hundred of them.
TOLERANCE = 1e-5
PARITY_ROWS = 20
FEATURES = {
    "orders_90d": "{count: purchase, window: 90d}",
    "orders_180d": "{count: purchase, window: 180d}",
    "orders_39w": "{count: purchase, window: 39w}",
    "spend_39w": "{sum: purchase.amount, window: 39w}",
    "max_order_39w": "{max: purchase.amount, window: 39w}",
    "days_since_purchase": "{since: purchase, unit: d}",
}
REPURCHASE = tuple(FEATURES)
RFM = ("days_since_purchase", "orders_39w", "spend_39w")
HERE = Path(__file__).resolve().parent


def features(purchases: Sequence[cdnow.Purchase]) -> dict[str, float]:
    """Compute one customer's features at the cut, over windows (cut - W, cut]. There is a purchase before the cut."""
    past = [each for each in purchases if each.at <= cdnow.CUT]

    def within(**span: float) -> list[cdnow.Purchase]:
        return [each for each in past if each.at > cdnow.CUT - timedelta(**span)]

    whole = within(weeks=39)
    return {
        "orders_90d": len(within(days=90)),
        "orders_180d": len(within(days=180)),
        "orders_39w": len(whole),
        "spend_39w": sum(each.amount for each in whole),
        "max_order_39w": max(each.amount for each in whole),
        "days_since_purchase": (cdnow.CUT - max(each.at for each in past)) / timedelta(days=1),
    }


def dataset() -> tuple[dict[str, Matrix], NDArray[np.int64]]:
    """Read the record: a column per feature, and whether each customer bought again after the cut."""
    customers: dict[str, list[cdnow.Purchase]] = defaultdict(list)
    for each in cdnow.load():
        customers[each.customer].append(each)
    rows = [features(purchases) for purchases in customers.values()]
    again = [any(each.at > cdnow.CUT for each in purchases) for purchases in customers.values()]
    columns = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in FEATURES}
    return columns, np.array(again, dtype=np.int64)


def table(columns: dict[str, Matrix], names: Sequence[str]) -> Matrix:
    """Put columns side by side, in float32 steps: what a served model sees."""
    return np.column_stack([columns[name] for name in names]).astype(np.float32).astype(np.float64)


def forest(x: Matrix, y: NDArray[np.int64]) -> RandomForestRegressor:
    """Fit a probability forest: 100 trees on the 0/1 target, whose mean leaf is a probability.

    Squared error on 0/1 splits as Gini impurity does, so this is the classifier's forest. As a regressor it becomes one
    ONNX operator with one output column, which is the cheapest graph to run.
    """
    model = RandomForestRegressor(
        n_estimators=100, max_depth=5, min_samples_leaf=25, max_features="sqrt", random_state=SEED
    )
    return model.fit(x, y)


def calibration(y: NDArray[np.int64], p: Matrix) -> list[tuple[float, float, int, float, float]]:
    """Ten bins of equally many customers: least and greatest probability, count, mean probability, share who bought."""
    bins = np.array_split(np.argsort(p, kind="stable"), 10)
    return [(p[b].min(), p[b].max(), len(b), p[b].mean(), y[b].mean()) for b in bins]


def checked(model: ModelProto) -> bytes:
    """Pin the versions, and return the bytes."""
    versions = {each.domain: each.version for each in model.opset_import}
    if any(version > OPSETS[domain] for domain, version in versions.items()) or model.ir_version > IR_VERSION:
        message = f"opset {versions}, IR {model.ir_version}: newer than {OPSETS}, {IR_VERSION}"
        raise SystemExit(message)
    # Names made from memory addresses or counters would make two runs differ.
    model.producer_name, model.producer_version, model.doc_string, model.graph.name = "skl2onnx", "", "", "model"
    return bytes(model.SerializeToString(deterministic=True))


def heading(name: str, kind: str, description: str) -> str:
    """Write a manifest's first lines."""
    schema = "# yaml-language-server: $schema=../../rules/schema/manifest.schema.json"
    written = "# Written by models/train.py."
    return f"{schema}\n{written}\nname: {name}\nversion: 1\nkind: {kind}\ndescription: {description}"


def manifest(head: str, onnx: bytes, inputs: dict[str, float | None], outputs: str) -> str:
    """Write out a manifest."""
    lines = [head, f"sha256: {hashlib.sha256(onnx).hexdigest()}", "inputs:"]
    for name, default in inputs.items():
        tail = "" if default is None else f", default: {default:g}"
        lines.append(f"  - {{name: {name}, from: features.{name}{tail}}}")
    return "\n".join([*lines, "outputs:", f"  {outputs}", ""])


def features_block(names: Sequence[str]) -> str:
    """Write the `features:` block that a rule file declares for a model."""
    width = max(map(len, names)) + 2
    lines = [f"  {name + ':':<{width}}{FEATURES[name]}" for name in names]
    return "\n".join(["```yaml", "features:", *lines, "```"])


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def card_of(name: str, **values: object) -> str:
    """Fill in the card of a model, of which `cards/` holds the words."""
    return (HERE / "cards" / f"{name}.md").read_text("utf-8").format(**values)


def write(folder: Path, manifest_text: str, onnx: bytes, card: str, parity: dict[str, Any]) -> None:
    """Check that the served model answers the parity rows, then write the whole folder."""
    served = from_bytes(manifest_text.encode(), onnx, file=f"models/{folder.name}/manifest.yaml")
    for row, expected in zip(parity["rows"], parity["answers"], strict=True):
        (answer,) = served.run_one(row)
        same = answer == expected if isinstance(expected, str) else abs(float(answer or 0) - expected) <= TOLERANCE
        if not same:
            message = f"{folder.name}: served {answer!r}, scikit-learn says {expected!r} for {row}"
            raise SystemExit(message)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(onnx)
    (folder / "manifest.yaml").write_text(manifest_text, "utf-8")
    (folder / "CARD.md").write_text(card, "utf-8")
    lines = ["{", f'"inputs": {json.dumps(parity["inputs"])},', '"rows": [']
    lines += [",\n".join(json.dumps(row) for row in parity["rows"]), "],"]
    lines += [f'"answers": {json.dumps(parity["answers"])}', "}", ""]
    (folder / "parity.json").write_text("\n".join(lines), "utf-8")
    print(f"wrote {folder.name}: model.onnx {len(onnx):,} bytes, {served.digest[:12]}")


def repurchase(columns: dict[str, Matrix], y: NDArray[np.int64], out: Path) -> None:
    """Train, measure on customers held out, and write `models/repurchase`."""
    x = table(columns, REPURCHASE)
    train, held = train_test_split(np.arange(len(y)), test_size=0.25, random_state=SEED, stratify=y)
    model = forest(x[train], y[train])
    p = model.predict(x[held])
    base = np.full(len(held), y[train].mean())
    single = x[held][:, REPURCHASE.index("days_since_purchase")]
    onnx = checked(
        to_onnx(model, initial_types=[("features", FloatTensorType([None, x.shape[1]]))], target_opset=OPSETS)
    )
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    scores = session.run(["variable"], {"features": x.astype(np.float32)})[0][:, 0]
    difference = float(np.abs(scores - model.predict(x)).max())
    if difference > TOLERANCE:
        message = f"repurchase: ONNX differs from scikit-learn by {difference:.1e}, more than {TOLERANCE}"
        raise SystemExit(message)
    median = float(np.median(x[train][:, REPURCHASE.index("max_order_39w")]).round(2))
    defaults: dict[str, float | None] = dict.fromkeys(REPURCHASE, 0.0)
    defaults |= {"max_order_39w": median, "days_since_purchase": None}
    about = "Probability that a customer buys again within the next 39 weeks"
    head = heading("repurchase", "propensity", about)
    text = manifest(head, onnx, defaults, "probability: {tensor: variable, type: double}")
    metrics = [
        ("AUC", f"{roc_auc_score(y[held], p):.4f}", "0.5", f"{roc_auc_score(y[held], -single):.4f}"),
        ("log loss", f"{log_loss(y[held], p):.4f}", f"{log_loss(y[held], base):.4f}", ""),
        ("Brier score", f"{brier_score_loss(y[held], p):.4f}", f"{brier_score_loss(y[held], base):.4f}", ""),
    ]
    bins = calibration(y[held], p)
    rows = [(n, f"{lo:.3f} to {hi:.3f}", c, f"{m:.3f}", f"{s:.3f}") for n, (lo, hi, c, m, s) in enumerate(bins, 1)]
    gap = sum(count * abs(mean - share) for _, _, count, mean, share in bins) / len(held)
    card = card_of(
        "repurchase",
        features=features_block(REPURCHASE),
        customers=len(y),
        share=f"{y.mean():.1%}",
        train=len(train),
        held=len(held),
        metrics=markdown(("on customers held out", "model", "base rate", "recency alone"), metrics),
        calibration=markdown(("bin", "probability", "customers", "mean probability", "bought again"), rows),
        gap=f"{gap:.3f}",
        median=f"{median:g}",
        difference=f"{difference:.1e}",
        tolerance=f"{TOLERANCE:g}",
    )
    picks = held[:PARITY_ROWS]
    parity = {"inputs": REPURCHASE, "rows": x[picks].tolist(), "answers": model.predict(x[picks]).tolist()}
    print("\n".join(" ".join(map(str, row)) for row in metrics), f"\nparity {difference:.1e}")
    write(out / "repurchase", text, onnx, card, parity)


def cluster_names(centres: Matrix) -> list[str]:
    """Name five centres, columns as in RFM: recency, orders, spend. The rule stands in the card."""
    recency, orders, spend = centres.T
    names = [""] * len(centres)
    names[int(orders.argmax())] = "champions"
    rest = [index for index, name in enumerate(names) if not name]
    names[min(rest, key=lambda index: spend[index])] = "one_time"
    rest = sorted((index for index, name in enumerate(names) if not name), key=lambda index: recency[index])
    for index, name in zip(rest, ("loyal", "cooling", "lapsed"), strict=True):
        names[index] = name
    return names


def rfm(columns: dict[str, Matrix], y: NDArray[np.int64], out: Path) -> None:
    """Cluster all customers, name the clusters, and write `models/rfm`."""
    x = table(columns, RFM)
    scaler = StandardScaler().fit(np.log1p(x))
    scaled = scaler.transform(np.log1p(x))
    kmeans = KMeans(n_clusters=5, n_init=20, random_state=SEED).fit(scaled)
    labels = kmeans.predict(scaled)
    centres = np.expm1(scaler.inverse_transform(kmeans.cluster_centers_))
    names = cluster_names(centres)
    # The nearest centre c of a scaled row s is the least |c|² - 2 s·c; the scaling goes into the weights.
    weights = (-2 * kmeans.cluster_centers_ / scaler.scale_).T
    offsets = (kmeans.cluster_centers_**2).sum(axis=1) - scaler.mean_ @ weights
    version = OPSETS[""]
    logs = OnnxLog(
        OnnxAdd(OnnxRelu("features", op_version=version), np.ones(1, dtype=np.float32), op_version=version),
        op_version=version,
    )
    graph = OnnxArgMin(
        OnnxGemm(logs, weights.astype(np.float32), offsets.astype(np.float32), op_version=version),
        axis=1,
        keepdims=0,
        op_version=version,
        output_names=["cluster"],
    )
    onnx = checked(
        graph.to_onnx(
            {"features": FloatTensorType([None, len(RFM)])},
            outputs=[("cluster", Int64TensorType([None]))],
            target_opset=version,
        )
    )
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    mismatches = int((session.run(["cluster"], {"features": x.astype(np.float32)})[0] != labels).sum())
    if mismatches:
        message = f"rfm: {mismatches} of {len(x)} customers fall into another cluster in ONNX than in scikit-learn"
        raise SystemExit(message)
    about = "Customer segment by recency, frequency and monetary value"
    head = heading("rfm", "segment", about)
    outputs = f"cluster: {{tensor: cluster, type: string, labels: [{', '.join(names)}]}}"
    text = manifest(head, onnx, {"days_since_purchase": None, "orders_39w": 0.0, "spend_39w": 0.0}, outputs)
    rows = []
    for name in ("champions", "loyal", "cooling", "lapsed", "one_time"):
        index = names.index(name)
        mine = labels == index
        centre = (f"{value:.2f}" for value in centres[index])
        rows.append((f"`{name}`", int(mine.sum()), f"{mine.mean():.1%}", *centre, f"{y[mine].mean():.1%}"))
    head_row = (
        "cluster",
        "customers",
        "share",
        "days since purchase",
        "orders",
        "spend ($)",
        "bought again afterwards",
    )
    card = card_of("rfm", features=features_block(RFM), customers=len(x), clusters=markdown(head_row, rows))
    picks = [index for number in range(5) for index in np.flatnonzero(labels == number)[: PARITY_ROWS // 5]]
    parity = {"inputs": RFM, "rows": x[picks].tolist(), "answers": [names[labels[index]] for index in picks]}
    print("\n".join(" ".join(map(str, row)) for row in rows))
    write(out / "rfm", text, onnx, card, parity)


def main() -> None:
    """Train and write both models."""
    parser = argparse.ArgumentParser(description="Train the example models on the CDNOW record.")
    parser.add_argument("--out", type=Path, default=HERE, help="where to write the model folders")
    out: Path = parser.parse_args().out
    columns, y = dataset()
    repurchase(columns, y, out)
    rfm(columns, y, out)


if __name__ == "__main__":
    main()
