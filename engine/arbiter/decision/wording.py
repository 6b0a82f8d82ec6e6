"""Values in words for people.

Law: the one way in which explanations and tables write a value; never how a language would. Knows nothing of decisions.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbiter.types import ExperimentOutcome, ModelInput, ModelOutcome


def shown(value: Any) -> str:
    """A value as people read it: doubles short, texts in quotes, moments as RFC 3339 to the second."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.6g}"
        case str():
            return msgspec.json.encode(value).decode()
        case bytes():
            return f"base64 {base64.b64encode(value).decode()}"
        case datetime():
            return f"{value:%Y-%m-%dT%H:%M:%S}Z"
        case timedelta():
            return f"{value.total_seconds():g}s"
        case list():
            return f"[{', '.join(map(shown, value))}]"
        case dict():
            return f"{{{', '.join(f'{name}: {shown(each)}' for name, each in value.items())}}}"
    return str(value)


def unconsented(denied: Mapping[str, Iterable[str]]) -> str:
    """What lacks consent, and to what."""
    return "; ".join(f"{name} lacks consent to {' and '.join(purposes)}" for name, purposes in denied.items())


def stood(experiment: ExperimentOutcome) -> str:
    """How a subject stands with an experiment."""
    if experiment.variant:
        said = f"experiment {experiment.name} is {shown(experiment.variant)}, {experiment.standing}"
        return said + (", and it mattered" if experiment.mattered else "")
    behind = f": {experiment.detail}" if experiment.detail else ""
    return f"experiment {experiment.name} is without the subject, by its {experiment.standing}{behind}"


def answered(model: ModelOutcome) -> str:
    """What a model answered, or why it answered nothing."""
    said = ", ".join(f"{name} = {shown(value)}" for name, value in model.outputs.items()) or "no output"
    return "; ".join(part for part in (said, model.detail, unconsented(model.denied)) if part)


def entered(model: ModelOutcome) -> str:
    """What a model saw."""
    return ", ".join(map(_entered, model.inputs))


def _entered(each: ModelInput) -> str:
    if each.withheld:
        return f"{each.name} is withheld"
    value = "nothing" if each.value is None else shown(each.value)
    return f"{each.name} = {value}" + (f", for which {shown(each.columns[0])} stands in" if each.imputed else "")
