"""How a model's inputs and outputs are spread over the profiles that are stored, beside what they were at training.

Law: reads a store and asks a model as serving would; writes nothing. What is compared with is in the model's own file.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.learning.drift import Drift, drift_of, read_baseline
from arbiter.learning.page import alarms, heading, line, moves, part, sizes
from arbiter.learning.page import page as whole
from arbiter.models.model import BASELINE
from arbiter.training.examples import Reader
from arbiter.training.flows import Flow, Flows
from arbiter.training.table import TrainingFailed
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from arbiter.learning.drift import Baseline
    from arbiter.models import Answer, Model
    from arbiter.models.rows import Row
    from arbiter.training.declared import Declarations
    from arbiter.training.examples import History

_AT_ONCE = 1000


class Report(msgspec.Struct, frozen=True):
    """A model over the profiles of a moment (µs): each input, each output, how many are `unknown`, and all alarms.

    `left_out` counts subjects that were not looked at, by reason; `requested` are the inputs that are not stored with a
    subject: those of requests and accounts. `flows` are how outputs with labels, such as segments, went over time.
    """

    model: str
    version: int
    digest: str
    at: int
    subjects: int
    unknown: int
    trained_on: int
    inputs: list[Drift]
    outputs: list[Drift]
    requested: list[str]
    left_out: dict[str, int]
    alarms: list[str]
    flows: list[Flow] = []


def baseline_of(model: Model) -> Baseline:
    """What the model's file says of its training. Raises TrainingFailed where it says nothing, or nothing readable."""
    if not model.baseline:
        raise TrainingFailed(f"the model's file has no `{BASELINE}`: train it with `arbiter model train`")
    try:
        return read_baseline(model.baseline)
    except (msgspec.DecodeError, ValueError) as error:
        raise TrainingFailed(f"the `{BASELINE}` in the model's file is wrong: {error}") from error


def report(
    model: Model,
    histories: Iterable[History],
    declared: Declarations,
    now: int,
    left_out: dict[str, int],
    before: Sequence[int] = (),
) -> Report:
    """Ask the model about every subject at `now` (µs), and as it was at the moments `before` that, which rise: for how
    outputs with labels went over time. Raises TrainingFailed, ModelFailure.
    """
    baseline = baseline_of(model)
    known = {each.name for each in declared.features}
    wanted = [each.attribute for each in model.inputs if each.root == "features"]
    for name in wanted:
        if name not in known:
            raise TrainingFailed(f"the model reads `features.{name}`, which the rules do not declare")
    asking = _Asking(model, Reader(declared.features, dict.fromkeys(wanted)), declared, [*before, now])
    left = iter(histories)
    while some := list(islice(left, _AT_ONCE)):
        asking.take(some)
    if not asking.subjects:
        raise TrainingFailed("there is no subject with an event in the store")
    requested = [each.name for each in model.inputs if each.root in {"context", "account"}]
    inputs = [
        drift_of(each.name, baseline.inputs[each.name], asking.columns[each.name], baseline.rows)
        for each in model.inputs
        if each.name not in requested and each.name in baseline.inputs
    ]
    outputs = [
        drift_of(name, baseline.outputs[name], [answer[place] for answer in asking.answers], baseline.rows)
        for place, name in enumerate(model.outputs)
        if name in baseline.outputs and asking.answers
    ]
    found = [f"`{each.name}`: {alarm}" for each in (*inputs, *outputs) for alarm in each.alarms]
    return Report(
        model.name,
        model.version,
        model.digest,
        now,
        asking.subjects,
        asking.unknown,
        baseline.rows,
        inputs,
        outputs,
        requested,
        left_out,
        found,
        asking.flows.found() if before else [],
    )


class _Asking:
    """A model that is asked about subjects at moments (µs), which rise: `columns` and `answers` are of the last one."""

    def __init__(self, model: Model, reader: Reader, declared: Declarations, moments: list[int]) -> None:
        self._model = model
        self._reader = reader
        self._defaults = declared.defaults
        self._last = len(moments) - 1
        self.columns: dict[str, list[Any]] = {each.name: [] for each in model.inputs}
        self.answers: list[Answer] = []
        self.flows = Flows(model, moments)
        self.subjects = self.unknown = 0

    def take(self, histories: Sequence[History]) -> None:
        """Ask about some subjects, in one run. Raises ModelFailure."""
        rows: list[Row] = []
        whose: list[tuple[int, int]] = []
        for number, history in enumerate(histories):
            for moment, (at, values) in enumerate(self._read(history)):
                row = self._model.encode(values, at)
                if moment == self._last:
                    self.unknown += row is None
                    for each, value in zip(self._model.inputs, values, strict=True):
                        self.columns[each.name].append(value)
                if row is not None:
                    rows.append(row)
                    whose.append((number, moment))
        said = dict(zip(whose, self._model.run(rows), strict=True))
        self.subjects += len(histories)
        self.answers += [answer for (_, moment), answer in said.items() if moment == self._last]
        for number, history in enumerate(histories):
            self.flows.add([said.get((number, moment)) for moment in range(self._last + 1)], history.events[0].at)

    def _read(self, history: History) -> Iterator[tuple[int, list[Any]]]:
        """What the model would read of a subject at each moment; of attributes that are not known any more nothing."""
        moments = self.flows.moments
        for at, features in zip(moments, self._reader.at(history.events, moments), strict=True):
            of = {"features": features, "profile": history.attributes(at) or {}, "account": {}, "context": {}}
            names = [(each.root, each.attribute) for each in self._model.inputs]
            yield at, [of[root].get(name, self._defaults.get(f"{root}.{name}")) for root, name in names]


def page(found: Report, when: str) -> str:
    """The report as one page of HTML that needs nothing beside it."""
    left = "; ".join(f"{count:,} left out: {reason}" for reason, count in found.left_out.items())
    body = [line(f"{found.subjects:,} subjects at {when}; unknown for {found.unknown:,}. {left}")]
    body.append(line(f"Compared with {found.trained_on:,} rows that it was trained on."))
    body.append(alarms(found.alarms))
    for flow in found.flows:
        moments = [day(each) for each in flow.moments]
        body.append(sizes(flow.output, moments, flow.words, flow.sizes))
        for number, counts in enumerate(flow.moves):
            body.append(moves(f"From {moments[number]} to {moments[number + 1]}:", flow.words, counts))
    for title, parts in (("Outputs", found.outputs), ("Inputs", found.inputs)):
        body.append(heading(title))
        body += [part(each) for each in parts]
    if found.requested:
        body.append(line(f"Not compared, since it is not stored with a subject: {', '.join(found.requested)}."))
    return whole(f"Model {found.model}, version {found.version}", body)


def day(at: int) -> str:
    """A moment (µs) as people read it."""
    return from_micros(at).strftime("%Y-%m-%d %H:%M")
