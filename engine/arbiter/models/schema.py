"""The JSON Schema of a model's manifest.

Law: shapes only, from the types that `reader` fills; what the file beside it holds is for `loader` to compare.
"""

from __future__ import annotations

from typing import get_args

from arbiter.authoring.scalars import INT64, NAME
from arbiter.authoring.schemas import Schema, closed, document, integer, listed, named, text, whole, word
from arbiter.models.manifest import Kind, Manifest, OutputType, Root
from arbiter.models.reader import DIGEST, REQUIRED


def _scalar(description: str) -> Schema:
    """A text as it is written, as the reader takes it: a number or a boolean in its place is its text."""
    return {"description": description, "type": ["string", "number", "boolean"], "minLength": 1}


def _name(description: str) -> Schema:
    """A name: `true` is one too, since the reader takes what is written."""
    return {"description": description, "type": ["string", "boolean"], "pattern": whole(NAME.pattern)}


def manifest_schema() -> Schema:
    """The JSON Schema of a `manifest.yaml`."""
    path = whole(rf"(?:{'|'.join(get_args(Root))})\.{NAME.pattern}")
    model_name = _name("What rules call it: `models.NAME.OUTPUT`. The name of its folder.")
    source = text("Where the value comes from: `features.X`, `profile.X`, `account.X` or `context.X`.", pattern=path)
    default = _scalar("Stands in when the value is missing. Without it a missing value makes every output unknown.")
    each = closed(
        "An input of the model.",
        {
            "name": _name("The name of the input in `model.onnx`."),
            "from": source,
            "default": {key: value for key, value in default.items() if key != "minLength"},
        },
        required=["name", "from"],
    )
    output = closed(
        "An output of the model.",
        {
            "tensor": _scalar("The name of the tensor in `model.onnx`."),
            "type": word("Its type in expressions.", get_args(OutputType)),
            "index": integer("The column, where the tensor has several per row.", 0),
            "labels": listed("The tensor holds 0, 1, 2 …, and the output is the label at that place.", _scalar("")),
        },
        required=["tensor", "type"],
    )
    said = "What a model folder says about itself."
    keys = {
        "name": model_name,
        "version": integer("Counts up with each training.", 1, INT64[-1]),
        "kind": word("What the model is for.", get_args(Kind)),
        "description": _scalar("For people."),
        "purposes": listed(
            "What a subject must have consented to, all of it, for the model to be asked.",
            _name("A purpose, declared in a rule file under `consent`."),
            minItems=1,
            uniqueItems=True,
        ),
        "sha256": text("The SHA-256 of `model.onnx`, in hexadecimal.", pattern=whole(DIGEST.pattern)),
        "inputs": listed("What it reads, in the order of the model's inputs.", each, minItems=1),
        "outputs": named("What it says, by the name that rules use.", output, minProperties=1),
    }
    if keys.keys() != set(Manifest.__struct_fields__):
        raise KeyError(*(keys.keys() ^ set(Manifest.__struct_fields__)))
    return document("Arbiter model manifest", said, closed("", keys, required=REQUIRED))
