"""What a model folder says about itself, as typed values.

Law: plain frozen data, the shape of `manifest.yaml`; no reading, no ONNX. `reader` turns text into these.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Root = Literal["features", "profile", "account", "context"]
Kind = Literal["segment", "propensity", "class", "score"]
OutputType = Literal["double", "int", "bool", "string"]
Scalar = float | int | bool | str


class Input(msgspec.Struct, frozen=True):
    """One input of a model: the value of `root`.`attribute`.

    `default` stands in when that value is missing; None means that a missing value makes every output unknown.
    """

    name: str
    root: Root
    attribute: str
    default: Scalar | None = None


class Output(msgspec.Struct, frozen=True):
    """One output: where it lies in the ONNX graph and what it is in expressions.

    `index` is the column of `tensor` when that holds several per row. With `labels` the tensor holds integers 0, 1, 2 …
    and the output is the label at that position.
    """

    name: str
    tensor: str
    type: OutputType
    index: int = 0
    labels: tuple[str, ...] = ()


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
