"""A new model beside the one in place, on the same rows.

Law: the one in place is asked as serving would ask it, missing values and all; rows that it does not answer are counted
and left out of the comparison.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from arbiter.models.reader import PROMISED
from arbiter.training.estimators import METRICS
from arbiter.training.quality import difference, numbers_of
from arbiter.training.spec import InputSpec
from arbiter.training.table import TrainingFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from arbiter.models import Model
    from arbiter.training.fitting import Fitted
    from arbiter.training.spec import Spec
    from arbiter.training.table import Table

_BESIDE = "beside "  # before the names of columns that only the model in place reads


def with_inputs_of(spec: Spec, current: Model) -> Spec:
    """The spec with what the model in place reads beyond it, so that a table has it too. Raises TrainingFailed."""
    if current.kind != spec.kind:
        raise TrainingFailed(f"a {current.kind} is in place, and a {spec.kind} cannot be compared with it")
    known = {(each.root, each.attribute) for each in spec.inputs}
    more = {
        (each.root, each.attribute): InputSpec(
            f"{_BESIDE}{each.root}.{each.attribute}",
            each.root,
            each.attribute,
            each.attribute,
            encoding="index" if each.categories else None,
        )
        for each in current.inputs
        if (each.root, each.attribute) not in known
    }
    return msgspec.structs.replace(spec, inputs=(*spec.inputs, *more.values()))


def compare(
    spec: Spec,
    current: Model,
    table: Table,
    held: NDArray[np.int64],
    y: NDArray[Any] | None,
    predicted: NDArray[np.float64],
    fitted: Fitted,
) -> dict[str, Any]:
    """How both do on the rows held out."""
    own = {(each.root, each.attribute): each.name for each in spec.inputs}
    columns = [
        table.columns[own.get((each.root, each.attribute), f"{_BESIDE}{each.root}.{each.attribute}")]
        for each in current.inputs
    ]
    encoded = [current.encode([column[row] for column in columns]) for row in held]
    answered = np.array([each is not None for each in encoded], dtype=bool)
    answers = current.run([each for each in encoded if each is not None])
    found: dict[str, Any] = {
        "digest": current.digest,
        "version": current.version,
        "rows": int(answered.sum()),
        "unanswered": int((~answered).sum()),
    }
    if not answers:
        return found
    place = list(current.outputs).index(_OUTPUT[spec.kind])
    said = [answer[place] for answer in answers]
    mine, labels = predicted[answered], None if y is None else y[held][answered]
    if spec.kind in {"class", "segment"}:
        names = np.array([fitted.classes[number] for number in numbers_of(fitted, mine)])
        found["agree"] = float(np.mean(names == np.array(said)))
        if spec.kind == "class" and labels is not None:
            truth = np.array([fitted.classes[number] for number in labels])
            new, old = float(np.mean(names == truth)), float(np.mean(np.array(said) == truth))
            found["metrics"] = {"accuracy": {"new": new, "old": old, "better_by": new - old}}
        return found
    assert labels is not None  # noqa: S101 - these kinds have labels
    old_p = np.array([np.nan if value is None else float(value) for value in said])
    metrics = METRICS[spec.kind]
    found["metrics"] = difference(spec.kind, labels, mine, old_p, spec.seed, metrics)
    return found


_OUTPUT = {"score": "score", **{kind: name for kind, (name, _) in PROMISED.items()}}
