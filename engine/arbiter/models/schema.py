"""The JSON Schemas of a model's manifest, and of the file that says which of its versions is live.

Law: shapes only, from the types that `reader` and `versions` fill; what lies beside these files is for `loader` to
compare.
"""

from __future__ import annotations

from typing import get_args

from arbiter.authoring.scalars import INT64, NAME, UNITS
from arbiter.authoring.schemas import Schema, closed, document, either, integer, listed, named, text, whole, word
from arbiter.models.manifest import (
    Form,
    Impute,
    Kind,
    Manifest,
    OutputType,
    Outside,
    Reduction,
    Root,
    Training,
    Unseen,
)  # fmt: skip
from arbiter.models.reader import DIGEST, INPUT_KEYS, OUTPUT_KEYS, REQUIRED
from arbiter.models.versions import FOLDER, SALT_BYTES, Share, Versions


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
        "An input of the model: a column of its matrix, or several, or a tensor.",
        {
            "name": _name("The name of the input in `model.onnx`."),
            "from": source,
            "default": {key: value for key, value in default.items() if key != "minLength"},
            "as": word(
                "What enters: the number, the place among `categories`, a column for each of these, or whether the "
                "value is missing.",
                get_args(Form),
            ),
            "categories": listed(
                "What the value may be, in the order of the codes: all texts, all whole numbers or all booleans.",
                {"type": ["string", "integer", "boolean"]},
                minItems=2,
                uniqueItems=True,
            ),
            "unseen": word("What a value that is none of the categories does.", get_args(Unseen)),
            "impute": word("Stands in when the value is missing, in place of `default`.", get_args(Impute)),
            "training": closed(
                "What the input was like in the data of the training.",
                {key: {"type": "number"} for key in Training.__struct_fields__},
            ),
            "unit": word("The value is a time: its age enters, in this unit.", UNITS),
            "range": listed(
                "The least and the greatest number that is believed.", {"type": "number"}, minItems=2, maxItems=2
            ),
            "outside": word("What is done with a number beyond `range`.", get_args(Outside)),
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
            "reduce": word(
                "The least or greatest of all columns, or its place, in place of `index`.", get_args(Reduction)
            ),
        },
        required=["tensor", "type"],
    )
    for schema, read in ((each, INPUT_KEYS), (output, OUTPUT_KEYS)):
        if schema["properties"].keys() != set(read):
            raise KeyError(*(schema["properties"].keys() ^ set(read)))
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


def versions_schema() -> Schema:
    """The JSON Schema of a `versions.yaml`."""
    canary = closed(
        "Another version that is tried on a share of the subjects.",
        {
            "version": _version("Which one: the name of its folder."),
            "share": {
                "description": "Of the subjects: 0.1 is a tenth of them.",
                "type": "number",
                "exclusiveMinimum": 0,
                "maximum": 1,
            },
            "salt": {
                **_scalar("Whom it meets; `model:NAME:vVERSION` when left out."),
                "maxLength": SALT_BYTES,
            },
        },
        required=["version", "share"],
    )
    keys = {"live": _version("The version that serves: the name of its folder."), "canary": canary}
    if keys.keys() != set(Versions.__struct_fields__) or canary["properties"].keys() != set(Share.__struct_fields__):
        raise KeyError(*keys, *canary["properties"])
    return document("Arbiter model versions", "Which version of a model is live.", closed("", keys, required=["live"]))


def _version(description: str) -> Schema:
    return either(description, text("", pattern=whole(FOLDER.pattern)), integer("", 1, INT64[-1]))
