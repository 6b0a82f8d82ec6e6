"""What a model's scores were worth as metrics, for the collector of text files that runs beside Prometheus.

Law: figures in, one file out, which is there whole or as it was. Whatever is not known has no series.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

if TYPE_CHECKING:
    from pathlib import Path

    from arbiter.learning.worth import Estimate, Worth
    from arbiter.runtime.scored import Told

_LABELS: Final = ("arbiter_model_name", "arbiter_model_version", "arbiter_outcome")
_SAID: Final = {
    "arbiter_model_auc": "The area under the curve of a model's scores, by the outcomes of decisions.",
    "arbiter_model_auc_low": "The lower end of its 95 % interval.",
    "arbiter_model_auc_high": "The upper end of its 95 % interval.",
    "arbiter_model_auc_at_training": "The area under the curve on the rows that training held out.",
    "arbiter_model_log_loss": "The log loss of a model's probabilities, by the outcomes of decisions.",
    "arbiter_model_brier": "Their mean squared distance from what happened.",
    "arbiter_model_calibration_error": "Their mean distance from what happened, over bins of like probabilities.",
    "arbiter_model_predicted": "The mean of a model's scores.",
    "arbiter_model_happened": "The share of the decisions that had the outcome.",
    "arbiter_model_judged_decisions": "The decisions that a model was judged by.",
    "arbiter_model_outcome_alarms": "Ways in which scores are not as they should be: they rank worse, or are off.",
    "arbiter_model_judged_seconds": "The time of the newest decision that a model was judged by.",
}


def write_metrics(path: Path, model: str, outcome: str, told: Told) -> None:
    """Write the newest figures of each version. Raises OSError."""
    registry = CollectorRegistry()
    gauges = {name: Gauge(name, said, _LABELS, registry=registry) for name, said in _SAID.items()}
    for each in told.versions:
        figures = _figures(each.worth) | {"arbiter_model_judged_seconds": each.last / 1e6}
        for name, value in figures.items():
            if isfinite(value):
                gauges[name].labels(model, str(each.version), outcome).set(value)
    write_to_textfile(str(path), registry)


def _figures(worth: Worth) -> dict[str, float]:
    found = {
        "arbiter_model_auc": worth.auc.value,
        "arbiter_model_auc_low": worth.auc.low,
        "arbiter_model_auc_high": worth.auc.high,
        "arbiter_model_auc_at_training": worth.at_training,
        "arbiter_model_log_loss": _value(worth.log_loss),
        "arbiter_model_brier": _value(worth.brier),
        "arbiter_model_calibration_error": worth.calibration_error,
        "arbiter_model_predicted": worth.predicted,
        "arbiter_model_happened": worth.happened / worth.decisions,
        "arbiter_model_judged_decisions": float(worth.decisions),
        "arbiter_model_outcome_alarms": float(len(worth.alarms)),
    }
    return {name: value for name, value in found.items() if value is not None}


def _value(each: Estimate | None) -> float | None:
    return None if each is None else each.value
