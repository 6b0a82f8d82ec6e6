"""What a model said in the decisions of a log, and whether it happened.

Law: each row is decided again by the snapshot of then, so that the score is that of the version that was asked, from
the inputs of then; a decision that did not ask the model tells nothing of it. Judged in `learning.worth`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from arbiter.errors import NotFound, did_you_mean
from arbiter.learning.chance import normal_quantile
from arbiter.learning.worth import Marks, Trained, Worth, worth
from arbiter.runtime.replaying import OfThen

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from arbiter.learning.logged import Head, Row
    from arbiter.models.manifest import Scalar
    from arbiter.models.model import Model
    from arbiter.snapshot import Snapshot

_NUMBERS = ("double", "int", "bool")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a log: the `model`, and its `output`, empty for the one that its kind promises; which decisions
    had the `outcome`, and which were `shown`, None for all. With `rule` only decisions that delivered it count, with
    `point` those of one decision point; those of `until` (µs) and later are too young to know, None for none.
    """

    model: str
    happened: Container[str]
    output: str = ""
    shown: Container[str] | None = None
    rule: str = ""
    point: str = ""
    until: int | None = None
    marks: Marks = Marks()


class VersionWorth(msgspec.Struct, frozen=True, kw_only=True):
    """A version, of which output, and what it was worth; `first` and `last` are the µs of its decisions. `probable`
    where the output is a probability.
    """

    version: int
    digest: str
    output: str
    probable: bool
    first: int
    last: int
    worth: Worth


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a log says of a model: each version, the lowest first, and how many decisions tell nothing of it, by why."""

    versions: list[VersionWorth]
    left_out: dict[str, int]

    @property
    def alarms(self) -> list[str]:
        """All of them, by version."""
        return [f"version {each.version}: {alarm}" for each in self.versions for alarm in each.worth.alarms]


class _Version:
    """What one version said: scores, whether it happened, and whose they are."""

    def __init__(self, model: Model, output: str) -> None:
        self.model = model
        self.output = output
        self.scores = array("d")
        self.happened = array("b")
        self.whose = array("q")
        self.first, self.last = 0, 0


class Scored:
    """Takes the rows of a log. `opened` gives a snapshot by its digest, and raises StoreError where it is gone."""

    def __init__(self, asked: Asked, opened: Callable[[str], Snapshot]) -> None:
        self._asked = asked
        self._then = OfThen(opened)
        self._versions: dict[str, _Version] = {}
        self._subjects: dict[str, int] = {}
        self._left_out: Counter[str] = Counter()

    def add(self, head: Head, row: Row) -> None:
        """A decision. Raises NotFound where the output is no number."""
        asked = self._asked
        mine = (not asked.point or head.point == asked.point) and (
            not asked.rule or any(each.rule == asked.rule for each in row.won)
        )
        why = self._why_not(row)
        if mine and why:
            self._left_out[why] += 1
        # What a page delivered before is part of what is decided next, so its decisions are all decided again.
        if row.values is None or not (row.page or (mine and not why)):
            return
        again = self._then.of(head.snapshot)
        if again is None:
            self._left_out["snapshot gone"] += mine and not why
            return
        view = again.view(head, row)
        again.as_it_was(head, row, view)
        if mine and not why:
            self._take(row, again.decided_by(row).models.get(asked.model), view.models.get(asked.model))

    def _why_not(self, row: Row) -> str:
        asked = self._asked
        if row.values is None:
            return "impersonal"
        if asked.until is not None and row.at >= asked.until:
            return "too young"
        if asked.shown is not None and row.id not in asked.shown:
            return "not shown"
        return ""

    def _take(self, row: Row, model: Model | None, outputs: Mapping[str, Scalar] | None) -> None:
        if model is None or outputs is None:
            self._left_out["model not asked" if model else "model not there"] += 1
            return
        version = self._of(model)
        score = outputs.get(version.output)
        if score is None:
            self._left_out["no score"] += 1
            return
        version.scores.append(float(score))
        version.happened.append(row.id in self._asked.happened)
        # Of whom nothing is stored, nobody knows who that is: each counts for one.
        name = row.subject or f" {len(self._subjects)}"
        version.whose.append(self._subjects.setdefault(name, len(self._subjects)))
        version.first, version.last = min(version.first or row.at, row.at), max(version.last, row.at)

    def told(self) -> Told:
        """What came of it."""
        versions = []
        for each in sorted(self._versions.values(), key=lambda own: (own.model.version, own.first)):
            if not each.scores:
                continue
            probable = is_probability(each.model, each.output)
            found = worth(
                np.frombuffer(each.happened, np.int8), np.frombuffer(each.scores), np.frombuffer(each.whose, np.int64),
                probable=probable, trained=trained_of(each.model) if probable else None, marks=self._asked.marks,
            )  # fmt: skip
            versions.append(
                VersionWorth(
                    version=each.model.version,
                    digest=each.model.digest,
                    output=each.output,
                    probable=probable,
                    first=each.first,
                    last=each.last,
                    worth=found,
                )
            )
        return Told(versions=versions, left_out=dict(sorted(self._left_out.items())))

    def _of(self, model: Model) -> _Version:
        found = self._versions.get(model.digest)
        if found is None:
            found = self._versions[model.digest] = _Version(model, output_of(model, self._asked.output))
        return found


def output_of(model: Model, wanted: str = "") -> str:
    """The output of which scores are taken: the one that is wanted, else a propensity's probability, else the first
    that is a double. Raises NotFound where there is none, or it is no number.
    """
    numbers = [name for name, kind in model.outputs.items() if kind in _NUMBERS]
    if wanted in numbers:
        return wanted
    if wanted:
        hint = did_you_mean(wanted, numbers) or f"numbers are {', '.join(numbers) or 'none of its outputs'}"
        raise NotFound(
            f"model `{model.name}`, version {model.version}, has no output `{wanted}` that is a number; {hint}",
            field="output",
        )
    if model.kind == "propensity":
        return "probability"
    doubles = [name for name in numbers if model.outputs[name] == "double"]
    if model.kind == "score" and doubles:
        return doubles[0]
    raise NotFound(
        f"model `{model.name}`, version {model.version}, is a {model.kind}, which says no probability of an outcome; "
        "name the output that is to be judged",
        field="output",
    )


def is_probability(model: Model, output: str) -> bool:
    """Whether an output promises how likely something is: then it is held to that, and not only to the order."""
    return model.kind == "propensity" and output == "probability"


class _Figure(msgspec.Struct):
    value: float
    low: float
    high: float


class _HeldOut(msgspec.Struct):
    auc: _Figure | None = None


class _Rows(msgspec.Struct):
    held_out: int = 0


class _Training(msgspec.Struct):
    rows: _Rows = msgspec.field(default_factory=_Rows)
    held_out: _HeldOut = msgspec.field(default_factory=_HeldOut)


def trained_of(model: Model) -> Trained | None:
    """What the model's file says of its area under the curve on rows that were held out; None where it does not."""
    try:
        said = msgspec.json.decode(model.training or "{}", type=_Training)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    found = said.held_out.auc
    if found is None or not said.rows.held_out:
        return None
    return Trained(found.value, (found.high - found.low) / (2 * normal_quantile(0.975)))
