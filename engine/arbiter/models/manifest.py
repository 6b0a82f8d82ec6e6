"""What a model folder says about itself, as typed values.

Law: plain frozen data, the shape of `manifest.yaml`; no reading, no ONNX. `reader` turns text into these.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

Root = Literal["features", "profile", "account", "context"]
Kind = Literal["segment", "propensity", "class", "score"]
OutputType = Literal["double", "int", "bool", "string"]
Form = Literal["number", "index", "onehot", "missing"]
Impute = Literal["mean", "median", "nan"]
Unseen = Literal["unknown", "other", "error"]
Outside = Literal["missing", "clip"]
Reduction = Literal["min", "max", "argmin", "argmax"]
Scalar = float | int | bool | str


class Training(msgspec.Struct, frozen=True):
    """What an input was like in the data that the model was trained on; `missing` is a share."""

    mean: float | None = None
    median: float | None = None
    min: float | None = None
    max: float | None = None
    deviation: float | None = None
    missing: float | None = None


class Input(msgspec.Struct, frozen=True):
    """One input of a model: the value of `root`.`attribute`, as a column of the graph's matrix, or as a tensor.

    `form` says what enters: the number, the place of the value among `categories`, a column for each of these, or
    whether the value is missing. `default`, or the training's mean or median, or NaN, stands in for a value that is
    missing; without them it makes every output unknown. `unit` is in µs: the value is a time, and its age enters. A
    number beyond `low` and `high` is missing, or is clipped.
    """

    name: str
    root: Root
    attribute: str
    default: Scalar | None = None
    form: Form = "number"
    impute: Impute | None = None
    training: Training = Training()
    categories: tuple[Scalar, ...] = ()
    unseen: Unseen = "unknown"
    unit: int = 0
    low: float | None = None
    high: float | None = None
    outside: Outside = "missing"

    @property
    def width(self) -> int:
        """How many columns it takes."""
        return len(self.categories) if self.form == "onehot" else 1

    @property
    def stand_in(self) -> Scalar | None:
        """What stands in for a missing value; None where nothing may."""
        match self.impute:
            case "nan":
                return math.nan
            case "mean":
                return self.training.mean
            case "median":
                return self.training.median
        return self.default


class Output(msgspec.Struct, frozen=True):
    """One output: where it lies in the ONNX graph and what it is in expressions.

    `index` is the column of `tensor` when that holds several per row; with `reduce` it is the least or greatest of
    them, or that one's place. With `labels` it is an integer 0, 1, 2 … and the output the label at that position.
    """

    name: str
    tensor: str
    type: OutputType
    index: int = 0
    labels: tuple[str, ...] = ()
    reduce: Reduction | None = None


class Manifest(msgspec.Struct, frozen=True):
    """A whole manifest. `sha256` is that of the `model.onnx` beside it, in hexadecimal.

    Without the subject's consent to all of the `purposes` its outputs are unknown.
    """

    name: str
    version: int
    kind: Kind
    sha256: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    description: str = ""
    purposes: tuple[str, ...] = ()
