"""The JSON Schema of a training.

Law: shapes only, from the types that `reading` fills; what the data hold is for who reads them.
"""

from __future__ import annotations

from typing import Final, get_args

from arbiter.authoring.scalars import NAME, UNITS
from arbiter.authoring.schemas import (
    Schema,
    boolean,
    closed,
    document,
    either,
    integer,
    listed,
    name,
    named,
    number,
    text,
    whole,
    word,
)
from arbiter.models.manifest import Kind, Root
from arbiter.ruleset.features import AGGREGATES, OF_EVENTS
from arbiter.ruleset.times import TIMESTAMP
from arbiter.training.estimators import KNOWN, METRICS, Number, Parameter
from arbiter.training.reading import (
    CALIBRATE,
    LABEL_REFUSED,
    LARGEST_SHARE,
    LATEST_SEED,
    MOST_FOLDS,
    MOST_TIMES,
    REQUIRED,
)
from arbiter.training.spec import Calibration, Encoding, Impute

_MOMENT: Final = text("A moment, as in 2026-06-01T00:00:00Z.", pattern=whole(TIMESTAMP.pattern))
_DURATION: Final = text("A duration, as in 30d.", pattern=whole("0*[1-9][0-9]*" + f"[{''.join(UNITS)}]"))
_MOST_ROWS: Final = 10**9


def train_schema() -> Schema:
    """The JSON Schema of a `train.yaml`."""
    metrics = dict.fromkeys(metric for each in METRICS.values() for metric in each)
    keys: dict[str, Schema] = {
        "name": name("What rules call the model: `models.NAME.OUTPUT`. The name of its folder."),
        "version": integer("Counts up with each training.", 1, 2**53),
        "kind": word("What the model is for.", get_args(Kind)),
        "description": text("What it says, for people, without a full stop."),
        "purposes": listed("What a subject must have consented to, to be learnt from and to be asked.",
                           name("A purpose.")),
        "source": _source(),
        "rules": text("The rules directory that declares the features, from this file's folder."),
        "rows": _rows(),
        "label": either("What is learnt: a column of the table, or what happens after the row's moment.",
                        text("A column."), _label()),
        "inputs": listed("What the model reads, in this order.", _input(), minItems=1),
        "segments": named(
            "The names of the clusters. Each takes, in turn, the centre with the most or the least of an input among "
            "those that are left; the last may be `rest`.",
            either("By what it is known.",
                   closed("By an input.", {"most": text("An input."), "least": text("An input.")}),
                   word("What is left.", ["rest"])),
            minProperties=2,
        ),
        "estimator": either("What learns.", word("By its name.", KNOWN), *map(_estimator, KNOWN)),
        "seed": integer("What chance begins with: the same gives the same.", 0, LATEST_SEED),
        "validation": _validation(),
        "gate": closed("What the model must keep to.", {
            "tolerance": number("How far the ONNX form may be from the original; 1e-5 when left out.", 0, 0.1),
            "metric": word("What is compared with the model in place.", metrics),
            "worse_by": number("By how much it may be worse; 0 when left out.", 0, 1e9),
        }),
        "card": closed("What the card says beyond figures, in Markdown.", {
            "data": text("On the data."),
            "training": text("On how the model was chosen."),
            "limits": text("On what it is not for."),
        }),
    }  # fmt: skip
    return document("Arbiter training", "What `arbiter model train` is told.", closed("", keys, required=REQUIRED))


def _source() -> Schema:
    keys = {
        "table": text("A CSV or Parquet file, from this file's folder."),
        "events": text("A file of events, as `arbiter events import` reads it, or `cdnow`."),
        "store": text("A server's data directory: its log is read beside the server."),
        "since": _MOMENT | {"description": "From when on the log is whole; rows that look back further are left out."},
        "until": _MOMENT | {"description": "Up to when the log is whole; rows whose label is not known are left out."},
        "time": text("The table's column of times."),
        "subject": text("The table's column that tells subjects apart: one is never on both sides of a validation."),
    }
    one = {"oneOf": [{"required": [each]} for each in ("table", "events", "store")]}
    return closed("Where rows come from.", keys, allOf=[one])


def _rows() -> Schema:
    keys = {
        "at": listed("Every subject at these moments, that has an event by then.", _MOMENT, minItems=1),
        "every": _DURATION | {"description": "Every subject at the last multiples of so long."},
        "times": integer("How many of these moments, up to the last one whose labels are known.", 1, MOST_TIMES),
        "each": name("One row each time that an event of this type happened, as it was just before."),
        "where": text("A condition on `event.X`: which of these events."),
    }
    ways: list[Schema] = [{"required": ["at"]}, {"required": ["every", "times"]}, {"required": ["each"]}]
    return closed("When subjects are looked at.", keys, oneOf=ways)


def _label() -> Schema:
    path = whole(rf"{NAME.pattern}\.{NAME.pattern}")
    taken = [each for each in AGGREGATES if each not in LABEL_REFUSED]
    keys: dict[str, Schema] = {
        each: text(
            f"The {each} of what follows.", pattern=whole(NAME.pattern) if each in OF_EVENTS else path
        )
        for each in taken
    }  # fmt: skip
    keys |= {
        "window": _DURATION | {"description": "How far it looks forward."},
        "where": text("A condition on `event.X`."),
    }
    one = {"oneOf": [{"required": [each]} for each in taken]}
    return closed("A feature that looks forward.", keys, required=["window"], allOf=[one])


def _input() -> Schema:
    scalar: Schema = {"description": "Stands in when the value is missing.", "type": ["string", "number", "boolean"]}
    keys = {
        "name": name("What the model calls it."),
        "from": text("Where serving finds it.", pattern=whole(rf"(?:{'|'.join(get_args(Root))})\.{NAME.pattern}")),
        "column": text("The table's column, if it is not called as the input."),
        "default": scalar,
        "impute": word("What stands in, from the rows trained on.", get_args(Impute)),
        "log": boolean("Take log(1 + x), inside the model."),
        "as": word("How a text becomes numbers.", get_args(Encoding)),
        "categories": listed("The texts that count; others are another one.", text("A text."), minItems=2,
                             uniqueItems=True),
        "least": integer("In how many rows a text must stand to be a category.", 1, _MOST_ROWS),
    }  # fmt: skip
    return closed("An input.", keys, required=["name", "from"])


def _estimator(estimator: str) -> Schema:
    known = KNOWN[estimator]  # type: ignore[index]
    keys = {"type": word("Which.", [estimator])} | {key: _parameter(each) for key, each in known.parameters.items()}
    if "propensity" in known.kinds:
        said = "Of a propensity: the form of a curve from what it says to how often that happens."
        keys[CALIBRATE] = word(said, get_args(Calibration))
    return closed("", keys, required=["type"])


def _parameter(known: Parameter) -> Schema:
    if isinstance(known, Number):
        if known.whole:
            return integer("", int(known.least), int(known.most))
        return number("", known.least, known.most)
    words = word("", known.words)
    return words if known.number is None else either("", words, _parameter(known.number))


def _validation() -> Schema:
    share = (0.01, LARGEST_SHARE)
    keys = {
        "held_out": number("The share of subjects that is drawn and held out.", *share),
        "folds": integer("Each of so many parts is held out in turn, and the model is of all rows.", 2, MOST_FOLDS),
        "latest": number("The share of the latest rows, which is held out.", *share),
        "after": _MOMENT | {"description": "All rows after this moment are held out."},
    }
    return closed("What is held out.", keys, oneOf=[{"required": [each]} for each in keys])
