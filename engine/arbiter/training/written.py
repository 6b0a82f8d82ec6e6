"""The manifest of a trained model, as text.

Law: says what was prepared and exported, in the form that `models.reader` reads; computes nothing.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from arbiter.authoring.format import Style, format_file
from arbiter.models.loader import MANIFEST
from arbiter.models.reader import FORM
from arbiter.models.schema import manifest_schema
from arbiter.ruleset.schema import FOLDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.training.fitting import Fitted
    from arbiter.training.matrix import Prepared
    from arbiter.training.spec import Spec

_FIGURES: Final = {"mean": "mean", "median": "median", "min": "low", "max": "high", "deviation": "deviation"}
_HEAD: Final = (
    "# yaml-language-server: $schema=../../rules/schema/manifest.schema.json\n# Written by `arbiter model train`."
)


def manifest_of(spec: Spec, fitted: Fitted, prepared: Sequence[Prepared], onnx: bytes) -> bytes:
    """The bytes of `manifest.yaml`."""
    lines = [_HEAD, f"name: {spec.name}", f"version: {spec.version}", f"kind: {spec.kind}"]
    if spec.description:
        lines.append(f"description: {text(spec.description)}")
    if spec.purposes:
        lines.append(f"purposes: [{', '.join(spec.purposes)}]")
    lines += [f"sha256: {hashlib.sha256(onnx).hexdigest()}", "inputs:"]
    lines += [f"  - {_flow(_input(each))}" for each in prepared]
    lines += ["outputs:", *(f"  {name}: {_flow(value)}" for name, value in _outputs(fitted).items()), ""]
    written = "\n".join(lines).encode()
    return format_file(MANIFEST, written, FORM, Style(manifest_schema(), FOLDED))[0] or written


def _input(each: Prepared) -> dict[str, Any]:
    spec = each.spec
    found: dict[str, Any] = {"name": each.name, "from": f"{spec.root}.{spec.attribute}"}
    if each.default is not None:
        found["default"] = each.default
    figures = {"missing": _rounded(each.baseline["missing"])}
    if spec.encoding is not None:
        found |= {"categories": list(each.categories), "as": spec.encoding, "unseen": "other"}
    else:
        figures |= {key: _rounded(each.baseline[of]) for key, of in _FIGURES.items()}
    return found | {"training": figures}


def _rounded(figure: float) -> float:
    """A figure with the digits that people read."""
    return float(f"{figure:.6g}")


def _outputs(fitted: Fitted) -> dict[str, dict[str, Any]]:
    words = list(fitted.classes)
    match fitted.kind:
        case "propensity" if hasattr(fitted.model, "predict_proba") and not (fitted.scaling or fitted.curve):
            return {"probability": {"tensor": "probabilities", "index": 1, "type": "double"}}
        case "propensity":
            return {"probability": {"tensor": "probability", "type": "double"}}
        case "score":
            return {"score": {"tensor": "score", "type": "double"}}
        case "class":
            label = {"label": {"tensor": "label", "type": "string", "labels": words}}
            return label | {"probability": {"tensor": "probability", "type": "double"}}
        case _:
            number = "distance" if fitted.estimator.name == "kmeans" else "probability"
            cluster = {"cluster": {"tensor": "cluster", "type": "string", "labels": words}}
            return cluster | {number: {"tensor": number, "type": "double"}}


def _flow(value: Any) -> str:
    """A value as YAML writes it on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(each) for each in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:  # noqa: PLR2004 - exact as an integer
        return str(int(value))
    return text(value) if isinstance(value, str) else repr(value)


def text(value: str) -> str:
    """A text as YAML reads it back: bare where it is a word, else in quotes, as JSON has them."""
    bare = value.replace("_", "a").replace(" ", "a").replace(".", "a").isalnum() and value[:1].isalpha()
    known = value.lower() in {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "inf", "nan"}
    return value if bare and not known and value == value.strip() else json.dumps(value, ensure_ascii=False)
