"""From the bytes of a `train.yaml` to a `Spec`, or to every mistake in it.

Law: here is every mistake that can be seen in the file alone, each with its place, all in one pass. What the data or
the rule set lack is for who reads those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast, get_args

import msgspec

from arbiter.authoring.blocks import Block, check_name, one_of
from arbiter.authoring.documents import Form, read_documents
from arbiter.authoring.nodes import Mapping, Node, Scalar, kind_of
from arbiter.authoring.report import Report
from arbiter.authoring.scalars import NAME
from arbiter.errors import AuthorError, did_you_mean
from arbiter.expr.check import Scope
from arbiter.models.manifest import Kind
from arbiter.ruleset.declarations import Declared
from arbiter.ruleset.expressions import Expressions
from arbiter.ruleset.features import FeatureReader
from arbiter.ruleset.times import duration_micros, rfc3339
from arbiter.training.estimators import KNOWN, METRICS, Number, Word
from arbiter.training.inputs import read_input
from arbiter.training.spec import Calibration, Estimator, Gate, Moments, SegmentName, Source, Spec, Validation, Words
from arbiter.types import to_micros

if TYPE_CHECKING:
    from collections.abc import Mapping as Mapped

    from arbiter.ruleset.rules import Feature
    from arbiter.training.estimators import Parameter
    from arbiter.training.spec import EstimatorName, InputSpec, Metric

FORM: Final = Form("a training", 1 << 20, "a training names its data, and does not hold them")
REQUIRED: Final = ("name", "version", "kind", "source", "inputs", "estimator")
KEYS: Final = (
    *("name", "version", "kind", "description", "purposes", "source", "rules", "rows", "label", "inputs"),
    *("segments", "estimator", "seed", "validation", "gate", "card"),
)
SOURCES: Final = ("table", "events", "store")
OF_SOURCE: Final = (*SOURCES, "since", "until", "time", "subject")
ROWS: Final = ("at", "every", "each")
MOST_TIMES: Final = 1000
CALIBRATE: Final = "calibrate"
WAYS: Final = ("held_out", "folds", "latest", "after")
LABEL_REFUSED: Final = frozenset({"ratio", "since", "decay"})
LARGEST_SHARE: Final = 0.9
MOST_FOLDS: Final = 50
LATEST_SEED: Final = 2**32 - 1


def read_spec(content: bytes, file: str) -> Spec:
    """Read `content`; `file` is how diagnostics name it. Raises AuthorError with every mistake."""
    report = Report()
    roots = read_documents(file, content, FORM, report)
    spec = None
    if roots is not None and (not roots or not isinstance(roots[0], Mapping)):
        report.whole(file, f"a training is a mapping: it has {one_of(KEYS)}")
    elif roots:
        for root in roots[1:]:
            report.at(root, "a training is one document, and here begins another", "remove the line `---` before it")
        spec = _Reader(report).spec(cast("Mapping", roots[0]))
    if report or spec is None:
        raise AuthorError(report.found)
    return spec


class _Reader:
    """Takes the document apart. What is refused is reported, and something harmless stands in for it."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def spec(self, node: Mapping) -> Spec:
        """Read the whole document."""
        block = Block(node, self._report, what="a training", keys=KEYS)
        for key in REQUIRED:
            block.require(key, f"a training needs {one_of(REQUIRED)}")
        kind = cast("Kind", self._word(block, "kind", get_args(Kind)))
        estimator = self._estimator(block, kind)
        source, time, subject = self._source(block)
        label = self._label(block, source, kind)
        inputs = self._inputs(block, source, estimator)
        moments = self._moments(block, source)
        self._check_inputs(block, source, inputs, moments)
        return Spec(
            name=self._name(block, "name", "a model"),
            version=block.integer("version", 1, 2**53) or 1,
            kind=kind,
            description=self._text(block, "description"),
            purposes=tuple(sorted({self._scalar_name(node, path) for path, node in block.items("purposes")})),
            source=source,
            time=time,
            subject=subject,
            rules=self._text(block, "rules"),
            moments=moments,
            label=label,
            inputs=inputs,
            segments=self._segments(block, kind, inputs),
            estimator=estimator,
            seed=block.integer("seed", 0, LATEST_SEED) or 0,
            validation=self._validation(block, source, time, kind),
            gate=self._gate(block, kind),
            card=self._words(block),
        )

    def _source(self, block: Block) -> tuple[Source, str, str]:
        inner = self._inner(block, "source", "a source", OF_SOURCE)
        if inner is None:
            return Source(table="?"), "", ""
        said = [key for key in SOURCES if inner.has(key)]
        if len(said) != 1:
            inner.refuse(inner.node, f"a source is one of {one_of(SOURCES)}", "say one of them")
        table, events, store = (self._text(inner, key) for key in SOURCES)
        for key in ("time", "subject"):
            if inner.has(key) and not table:
                inner.refuse(inner.key(key), f"`{key}` names a column of a table, and events have their own", key=key)
        for key in ("since", "until"):
            if inner.has(key) and table:
                inner.refuse(inner.key(key), f"`{key}` says how far a log is whole, and a table is no log", key=key)
        since, until = self._moment(inner, "since"), self._moment(inner, "until")
        source = Source(table=table, events=events, store=store, since=since, until=until)
        return source, self._text(inner, "time"), self._text(inner, "subject")

    def _moments(self, block: Block, source: Source) -> Moments:
        inner = self._inner(block, "rows", "rows", ("at", "every", "times", "each", "where"))
        if inner is None:
            if source.logged and not block.has("rows"):
                hint = "`rows: {at: [2026-06-01T00:00:00Z]}`, `{every: 30d, times: 6}`, or `{each: EVENT}`"
                block.require("rows", f"events become rows at moments: write {hint}")
            return Moments()
        if not source.logged:
            block.refuse(block.key("rows"), "`rows` is for events, and a table has its rows", "remove it", "rows")
        if sum(inner.has(key) for key in ROWS) != 1:
            inner.refuse(inner.node, f"rows are made in one of these ways: {one_of(ROWS)}", "say one of them")
        if inner.has("times") != inner.has("every"):
            hint = "`{every: 30d, times: 6}` is the last six such moments by which the label is known"
            inner.refuse(inner.node, "`every` and `times` go together", hint)
        times = [self._instant(node, path) for path, node in inner.items("at", "write `[2026-06-01T00:00:00Z]`")]
        where = inner.get("where")
        if where is not None and not inner.has("each"):
            inner.refuse(inner.key("where"), "`where` goes with `each`", key="where")
        expressions = Expressions(self._report, Scope(roots={"event": None}), {})
        read = expressions.read(where, "`where`", "rows.where", expect="bool") if where is not None else None
        at = tuple(sorted({at for at in times if at is not None}))
        return Moments(
            at=at,
            every=self._duration(inner, "every"),
            times=inner.integer("times", 1, MOST_TIMES) or 0,
            each=self._text(inner, "each"),
            where=read,
        )

    def _label(self, block: Block, source: Source, kind: Kind) -> str | Feature | None:
        node = block.get("label")
        if node is None:
            if kind in {"propensity", "class", "score"} and not block.has("label"):
                block.require("label", f"a {kind} is learnt from what is known to have happened")
            return None
        if isinstance(node, Mapping) and source.logged:
            reader = FeatureReader(self._report, Declared(self._report))
            (feature,) = reader.read_all({"label": block.node.entries["label"]}, whole=True)
            if feature is not None and feature.window is None:
                hint = "add `window: 30d`, say: it looks forward from the row's moment"
                block.refuse(node, "a label needs a window", hint, "label")
            if feature is not None and feature.aggregate in LABEL_REFUSED:
                block.refuse(node, f"a label cannot be a `{feature.aggregate}`", "count, sum, last, say", "label")
            return feature
        if isinstance(node, Mapping):
            block.refuse(node, "a table's label is a column: write its name", key="label")
            return None
        if source.logged:
            hint = "`{count: purchase, window: 30d}`, say: it looks forward"
            block.refuse(node, "of events, a label is a feature of what happens next", hint, "label")
            return None
        scalar = block.text("label")
        return scalar.text if scalar is not None else None

    def _inputs(self, block: Block, source: Source, estimator: Estimator) -> tuple[InputSpec, ...]:
        items = list(block.items("inputs", "write `- {name: age, from: profile.age}`"))
        if block.has("inputs") and not items and not self._report:
            block.refuse(block.key("inputs"), "a model needs at least one input", key="inputs")
        found: dict[str, InputSpec] = {}
        for path, node in items:
            each = read_input(node, path, self._report, source, trees=KNOWN[estimator.name].trees)
            if each is None:
                continue
            if each.name in found:
                self._report.at(node, f"the input `{each.name}` stands here twice", "remove one of the two", path)
            found[each.name] = each
        return tuple(found.values())

    def _check_inputs(self, block: Block, source: Source, inputs: tuple[InputSpec, ...], moments: Moments) -> None:
        asked = source.logged and not moments.each and any(each.root == "context" for each in inputs)
        if asked and block.has("inputs"):
            hint = "`rows: {each: EVENT}` takes it from the event's properties"
            block.refuse(block.key("inputs"), "nothing is asked at given moments, so there is no context", hint)
        computed = source.logged and any(each.root == "features" for each in inputs)
        if computed and not block.has("rules"):
            block.require("rules", "name the rules directory that declares the features, relative to this file")

    def _segments(self, block: Block, kind: Kind, inputs: tuple[InputSpec, ...]) -> tuple[SegmentName, ...]:
        if kind != "segment":
            if block.has("segments"):
                block.refuse(block.key("segments"), f"a {kind} has no segments", "remove it", "segments")
            return ()
        block.require("segments", "name each cluster by its centre: `champions: {most: orders}`")
        mapping = block.mapping("segments", "write `champions: {most: orders}`")
        if mapping is None:
            return ()
        named: list[SegmentName] = []
        for name, entry in mapping.entries.items():
            path = f"segments.{name}"
            check_name(entry.key, "a segment", self._report, path)
            last = len(named) == len(mapping.entries) - 1
            named.append(self._segment(name, entry.node, path, inputs, last=last))
        if len(named) < 2:  # noqa: PLR2004 - one cluster says nothing
            block.refuse(block.key("segments"), "there must be two segments at least", key="segments")
        return tuple(named)

    def _segment(
        self, name: str, node: Node | None, path: str, inputs: tuple[InputSpec, ...], *, last: bool
    ) -> SegmentName:
        if last and isinstance(node, Scalar) and node.text == "rest":
            return SegmentName(name)
        hint = "`{most: INPUT}` or `{least: INPUT}`" + (", or `rest`, since it is the last" if last else "")
        if not isinstance(node, Mapping):
            if node is not None:
                self._report.at(node, "a segment says by what its centre is known", hint, path)
            return SegmentName(name)
        block = Block(node, self._report, what="a segment", path=path, keys=("most", "least"))
        if block.has("most") == block.has("least"):
            block.refuse(node, "a segment has the most or the least of an input", hint)
            return SegmentName(name)
        key = "most" if block.has("most") else "least"
        scalar = block.text(key)
        known = [each.name for each in inputs if each.encoding is None]
        if scalar is not None and scalar.text not in known:
            near = did_you_mean(scalar.text, known) or f"numbers are {one_of(known)}"
            block.refuse(scalar, f"there is no input `{scalar.text}` that is a number", near, key)
        return SegmentName(name, scalar.text if scalar is not None else "", key == "most")

    def _estimator(self, block: Block, kind: Kind) -> Estimator:
        node = block.get("estimator")
        if isinstance(node, Scalar):
            name = self._word(block, "estimator", KNOWN)
            return self._fitting(block, block, "estimator", cast("EstimatorName", name), kind, {})
        if not isinstance(node, Mapping):
            if node is not None:
                block.refuse(node, f"an estimator is a name or a mapping, this is {kind_of(node)}", key="estimator")
            return Estimator("logistic_regression")
        inner = Block(node, self._report, what="an estimator", path="estimator", keys=node.entries)
        if not inner.require("type", f"one of {one_of(KNOWN)}"):
            return Estimator("logistic_regression")
        name = cast("EstimatorName", self._word(inner, "type", KNOWN))
        known = KNOWN[name].parameters
        # Read again with the keys that this estimator has, so that others are reported.
        more = (CALIBRATE,) if "propensity" in KNOWN[name].kinds else ()
        inner = Block(node, self._report, what=f"`{name}`", path="estimator", keys=("type", *known, *more))
        read = {key: self._parameter(inner, key, each) for key, each in known.items() if inner.has(key)}
        found = self._fitting(block, inner, "type", name, kind, {key: v for key, v in read.items() if v is not None})
        if not inner.has(CALIBRATE):
            return found
        if kind != "propensity" and block.has("kind"):
            inner.refuse(inner.key(CALIBRATE), f"`{CALIBRATE}` is for probabilities of a propensity, this is a {kind}")
        way = cast("Calibration", self._word(inner, CALIBRATE, get_args(Calibration)))
        return msgspec.structs.replace(found, calibrate=way)

    def _fitting(
        self, block: Block, where: Block, key: str, name: EstimatorName, kind: Kind, parameters: dict[str, Any]
    ) -> Estimator:
        node = where.get(key)
        if node is not None and kind not in KNOWN[name].kinds and block.has("kind"):
            those = [other for other, known in KNOWN.items() if kind in known.kinds]
            where.refuse(node, f"`{name}` makes no {kind}", f"one of {one_of(those)}", key)
        return Estimator(name, parameters)

    def _parameter(self, block: Block, key: str, known: Parameter) -> Any:
        if isinstance(known, Word):
            node = block.get(key)
            if isinstance(node, Scalar) and isinstance(node.value, str):
                return self._word(block, key, known.words)
            if known.number is None:
                block.refuse(cast("Node", node), f"`{key}` is a word", f"one of {one_of(known.words)}", key)
                return None
            known = known.number
        return self._number(block, key, known)

    def _number(self, block: Block, key: str, known: Number) -> int | float | None:
        if known.whole:
            return block.integer(key, int(known.least), int(known.most))
        found = block.number(key)
        if found is None:
            return None
        value, node = found
        if not known.least <= value <= known.most:
            block.refuse(node, f"`{key}` must be from {known.least:g} to {known.most:g}", key=key)
            return None
        return value

    def _validation(self, block: Block, source: Source, time: str, kind: Kind) -> Validation:
        inner = self._inner(block, "validation", "a validation", WAYS)
        if inner is None:
            if kind != "segment" and not block.has("validation"):
                block.require("validation", "`{held_out: 0.25}`, say: what a model guesses is measured on other rows")
            return Validation()
        if sum(inner.has(key) for key in WAYS) != 1:
            inner.refuse(inner.node, f"a validation is one of {one_of(WAYS)}", "`{held_out: 0.25}`, say")
        for key in ("latest", "after"):
            if inner.has(key) and not source.logged and not time:
                inner.refuse(inner.key(key), f"`{key}` needs the times of the rows", "add `time: COLUMN` to the source")
        if inner.has("folds") and kind == "segment":
            inner.refuse(inner.key("folds"), "clusters of several folds are not the same clusters", "use `held_out`")
        share = Number(0.01, LARGEST_SHARE)
        return Validation(
            held_out=self._number(inner, "held_out", share) or 0.0,
            folds=inner.integer("folds", 2, MOST_FOLDS) or 0,
            latest=self._number(inner, "latest", share) or 0.0,
            after=self._moment(inner, "after"),
        )

    def _gate(self, block: Block, kind: Kind) -> Gate:
        inner = self._inner(block, "gate", "a gate", ("tolerance", "metric", "worse_by"))
        if inner is None:
            return Gate()
        metric = self._word(inner, "metric", METRICS.get(kind, ())) if inner.has("metric") else None
        tolerance = self._number(inner, "tolerance", Number(0, 0.1)) if inner.has("tolerance") else None
        return Gate(
            tolerance=Gate().tolerance if tolerance is None else tolerance,
            metric=cast("Metric | None", metric),
            worse_by=self._number(inner, "worse_by", Number(0, 1e9)) or 0.0,
        )

    def _words(self, block: Block) -> Words:
        inner = self._inner(block, "card", "a card", Words.__struct_fields__)
        return Words() if inner is None else Words(**{key: self._text(inner, key) for key in Words.__struct_fields__})

    def _inner(self, block: Block, key: str, what: str, keys: tuple[str, ...]) -> Block | None:
        node = block.mapping(key)
        return None if node is None else Block(node, self._report, what=what, path=key, keys=keys)

    def _name(self, block: Block, key: str, what: str) -> str:
        scalar = block.text(key)
        if scalar is None:
            return ""
        check_name(scalar, what, self._report, key)
        return scalar.text

    def _scalar_name(self, node: Node, path: str) -> str:
        if isinstance(node, Scalar) and NAME.fullmatch(node.text):
            return node.text
        self._report.at(node, "a purpose is a name, as rule files declare it", path=path)
        return ""

    def _text(self, block: Block, key: str) -> str:
        scalar = block.text(key)
        if scalar is not None and not scalar.text.strip():
            block.refuse(scalar, f"`{key}` is empty", key=key)
        return scalar.text.strip() if scalar is not None else ""

    def _word(self, block: Block, key: str, words: tuple[str, ...] | Mapped[Any, object]) -> str:
        """One of `words`; the first where it was refused, so that reading can go on."""
        found = block.word(key, words)
        return next(iter(words), "") if found is None else found

    def _moment(self, block: Block, key: str) -> int | None:
        node = block.get(key)
        return None if node is None else self._instant(node, f"{block.path}.{key}")

    def _duration(self, block: Block, key: str) -> int:
        node = block.get(key)
        found = duration_micros(node.text) if isinstance(node, Scalar) else None
        if node is not None and found is None:
            block.refuse(node, f"`{key}` must be a duration", "write `12h`, `7d` or `4w`, say", key)
        return found or 0

    def _instant(self, node: Node, path: str) -> int | None:
        found = rfc3339(node.text) if isinstance(node, Scalar) else None
        if found is None:
            self._report.at(node, "this must be a moment", "write `2026-06-01T00:00:00Z`, say", path)
            return None
        return to_micros(found)
