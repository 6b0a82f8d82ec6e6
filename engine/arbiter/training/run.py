"""One training: rows are parted, something is fitted, measured on what it has not seen, exported, and compared with its
ONNX form on every row.

Law: a spec and a table in, the files of a model folder out; the same give the same bytes. Nothing is written here, and
nothing is returned that does not answer as the original does.
"""

from __future__ import annotations

import hashlib
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from arbiter.models import from_bytes
from arbiter.training import quality
from arbiter.training.comparing import compare
from arbiter.training.estimators import METRICS
from arbiter.training.export import INPUT, export
from arbiter.training.fitting import fit
from arbiter.training.matrix import answerable, matrix, prepare, raw_rows, spread
from arbiter.training.parity import Parity, expected_of, parity_of
from arbiter.training.splitting import split
from arbiter.training.table import TrainingFailed
from arbiter.training.written import manifest_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from arbiter.models import Model
    from arbiter.training.fitting import Fitted
    from arbiter.training.matrix import Prepared
    from arbiter.training.spec import Spec
    from arbiter.training.splitting import Split
    from arbiter.training.table import Table

_LIBRARIES = {
    "lightgbm": ("lightgbm", "onnxmltools"),
    "xgboost": ("xgboost", "onnxmltools"),
}


class Trained(msgspec.Struct, frozen=True):
    """What came of it: `onnx`, `manifest` and `parity` as they are to be written, and all that was measured."""

    onnx: bytes
    manifest: bytes
    parity: Parity
    metrics: dict[str, Any]


class Origin(NamedTuple):
    """What a model is made of: the SHA-256 of the rows that it learnt from, and of its spec."""

    data_sha256: str
    spec_sha256: str


def origin_of(spec: Spec, content: bytes, table: Table) -> Origin:
    """What a training of `spec`, whose file has this `content`, would be made of. Raises TrainingFailed."""
    own = {each.name: table.columns[each.name] for each in spec.inputs}
    left = answerable(spec.inputs, msgspec.structs.replace(table, columns=own))
    return Origin(left.digest(), hashlib.sha256(content).hexdigest())


def train(spec: Spec, content: bytes, table: Table, current: Model | None = None) -> Trained:
    """Train what `spec`, whose file has this `content`, asks for. `table` may have columns beyond its inputs, for
    `current`, the model in place, which is measured on the same rows. Raises TrainingFailed.
    """
    table = answerable(spec.inputs, table)
    y, classes = _labels(spec, table)
    ahead = 0 if spec.label is None or isinstance(spec.label, str) else spec.label.window or 0
    stratify = spec.kind in {"propensity", "class"}
    parts = split(spec.validation, table, y, spec.seed, stratify=stratify, ahead=ahead)
    runs = [_Run(spec, table, y, train_, held, classes) for train_, held in parts.parts]
    final = runs[0] if len(runs) == 1 else _Run(spec, table, y, np.arange(table.rows), parts.parts[0][1], classes)
    metrics = _measured(spec, table, y, parts, runs, final)
    if current is not None:
        held = np.concatenate([run.held for run in runs])
        predicted = np.concatenate([run.predicted for run in runs])
        metrics["compared"] = compare(spec, current, table, held, y, predicted, final.fitted)
    onnx, manifest = _exported(spec, content, table, final, metrics)
    model = from_bytes(manifest, onnx, file=f"{spec.name}/manifest.yaml")
    parity = _parity(spec, table, final, model)
    digest = hashlib.sha256(onnx).hexdigest()
    metrics = {"name": spec.name, "version": spec.version, "kind": spec.kind, "sha256": digest} | metrics
    metrics["gate"] = {"metric": spec.gate.metric or METRICS[spec.kind][0], "worse_by": spec.gate.worse_by}
    metrics["parity"] = {"rows": table.rows, "difference": parity.difference, "tolerance": parity.tolerance}
    return Trained(onnx, manifest, parity, metrics)


class _Run:
    """One fit on `train` rows, and what it says of the `held` ones."""

    def __init__(
        self, spec: Spec, table: Table, y: NDArray[Any] | None, train_: Any, held: Any, classes: tuple[str, ...]
    ) -> None:
        self.train, self.held = train_, held
        self.prepared: list[Prepared] = prepare(spec.inputs, table, train_)
        self.x = matrix(self.prepared, table)
        logs = [each.spec.log for each in self.prepared for _ in range(each.width)]
        labels = None if y is None or spec.kind == "segment" else y[train_]
        self.fitted: Fitted = fit(
            spec.kind, spec.estimator, spec.seed, self.x[train_], labels, logs, len(spec.segments),
            None if table.subjects is None else np.unique(table.subjects, return_inverse=True)[1][train_],
        )  # fmt: skip
        self.fitted.classes = classes if spec.kind != "segment" else _names(spec, self.fitted, self.prepared)
        self.predicted = self.fitted.predict(self.x[held])


def _labels(spec: Spec, table: Table) -> tuple[NDArray[Any] | None, tuple[str, ...]]:
    """The labels as numbers, and the words of classes in their order."""
    if table.label is None:
        return None, ()
    if spec.kind == "class":
        classes = tuple(sorted(set(table.label)))
        place = {each: number for number, each in enumerate(classes)}
        return np.array([place[each] for each in table.label], dtype=np.int64), classes
    if spec.kind == "propensity":
        return np.array(table.label, dtype=np.int64), ()
    return np.array(table.label, dtype=np.float64), ()


def _names(spec: Spec, fitted: Fitted, prepared: Sequence[Prepared]) -> tuple[str, ...]:
    """The segments' names in the order of the clusters: each name in turn takes its own from what is left."""
    columns = [column for each in prepared for column in each.columns]
    names = [""] * len(spec.segments)
    for each in spec.segments:
        left = [number for number, name in enumerate(names) if not name]
        if each.input:
            values = fitted.centres[:, columns.index(each.input)]
            sign = -1.0 if each.most else 1.0
            left.sort(key=lambda number: (sign * values[number], number))
        names[left[0]] = each.name
    return tuple(names)


def _measured(
    spec: Spec, table: Table, y: NDArray[Any] | None, parts: Split, runs: Sequence[_Run], final: _Run
) -> dict[str, Any]:
    """All figures but those of the file."""
    held = np.concatenate([run.held for run in runs])
    found: dict[str, Any] = {
        "rows": {
            "trained_on": len(final.train),
            "held_out": len(held) * spec.validation.holds_out,
            "left_out": table.left_out,
        },
        "validation": parts.said,
    }
    if spec.kind == "segment":
        found["segments"] = quality.segments(final.fitted, final.prepared, final.x, table.label)
        found["held_out"] = {"silhouette": {"value": quality.silhouette(final.fitted, final.x[held], spec.seed)}}
    else:
        assert y is not None  # noqa: S101 - every other kind has labels
        predicted = np.concatenate([run.predicted for run in runs])
        found["held_out"] = quality.guesses(spec.kind, y[held], predicted, spec.seed)
        found["base"] = quality.base(spec.kind, y[final.train], y[held])
        found |= quality.curves(spec.kind, y[held], predicted)
        if spec.kind == "propensity":
            found["positive"] = {"trained_on": float(y[final.train].mean()), "held_out": float(y[held].mean())}
    first = runs[0]
    labels = None if y is None else y[first.held]
    found["importance"] = quality.importance(first.fitted, first.prepared, first.x[first.held], labels, spec.seed)
    return found


def _exported(spec: Spec, content: bytes, table: Table, final: _Run, metrics: dict[str, Any]) -> tuple[bytes, bytes]:
    """The ONNX file with what it says of itself, and the manifest beside it."""
    trained = final.fitted.predict(final.x[final.train])
    names = ("sklearn", "skl2onnx", "onnx", "numpy", *_LIBRARIES.get(spec.estimator.name, ()))
    said: dict[str, Any] = {
        "schema": {
            "name": spec.name,
            "version": spec.version,
            "kind": spec.kind,
            "input": INPUT,
            "columns": [column for each in final.prepared for column in each.columns],
            "inputs": {each.name: f"{each.spec.root}.{each.spec.attribute}" for each in final.prepared},
        },
        "classes": list(final.fitted.classes),
        "baseline": {
            "rows": len(final.train),
            "inputs": {each.name: each.baseline for each in final.prepared},
            "outputs": _outputs_spread(final, trained),
        },
        "training": {
            "estimator": spec.estimator.name,
            "parameters": spec.estimator.parameters,
            **({"calibrate": spec.estimator.calibrate} if spec.estimator.calibrate else {}),
            "seed": spec.seed,
            "rows": metrics["rows"],
            "held_out": metrics["held_out"],
        },
        **origin_of(spec, content, table)._asdict(),
        "libraries": {name: import_module(name).__version__ for name in names},
    }
    metadata = {
        f"arbiter.{key}": value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()
        for key, value in said.items()
    }
    onnx = export(final.fitted, final.x.shape[1], metadata)
    return onnx, manifest_of(spec, final.fitted, final.prepared, onnx)


def _outputs_spread(final: _Run, trained: NDArray[np.float64]) -> dict[str, Any]:
    """How the answers on the training rows are spread, by output."""
    if final.fitted.kind in {"propensity", "score"}:
        return {"probability" if final.fitted.kind == "propensity" else "score": spread(trained)}
    numbers = quality.numbers_of(final.fitted, trained)
    shares = np.bincount(numbers, minlength=len(final.fitted.classes)) / len(numbers)
    label = "label" if final.fitted.kind == "class" else "cluster"
    number = "distance" if final.fitted.estimator.name == "kmeans" else "probability"
    best = trained.min(axis=1) if number == "distance" else trained.max(axis=1)
    return {
        label: {"shares": dict(zip(final.fitted.classes, map(float, shares), strict=True))},
        number: spread(best),
    }


def _parity(spec: Spec, table: Table, final: _Run, model: Model) -> Parity:
    """Compare the served form with the original on every row, and keep some rows. Raises TrainingFailed."""
    expected = expected_of(final.fitted, final.fitted.predict(final.x), spec.gate.tolerance)
    rows = raw_rows(final.prepared, table, range(table.rows))
    found = parity_of(model, rows, expected, spec.gate.tolerance, [int(row) for row in final.held])
    if not found.kept:
        raise TrainingFailed(
            f"the ONNX form is not the model: over {table.rows:,} rows it differs by up to {found.difference:.1e} "
            f"(allowed are {spec.gate.tolerance:g}), and puts {found.misplaced:,} rows elsewhere. Converters err in "
            "places: choose another estimator or other parameters, or allow more with `gate: {tolerance: …}`"
        )
    return found
