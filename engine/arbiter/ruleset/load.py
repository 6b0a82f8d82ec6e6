"""From the files of a rule set to one typed `Ruleset`, or to every mistake in them.

Law: pure, and canonical: neither the order of files nor that of keys shows in the result, save where it means
something. First everything that is declared is gathered from all files, then everything that uses it is read, the
rules file by file. What a cache remembers of either is what reading anew would give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from arbiter.authoring.report import Report
from arbiter.ruleset.authored import RuleReader
from arbiter.ruleset.cache import Beside, Cache, FileRules, digest_of
from arbiter.ruleset.caps.read import SharedCaps, read_shared
from arbiter.ruleset.caps.tallies import tallies_of
from arbiter.ruleset.consent import bound_names, report_twins
from arbiter.ruleset.declarations import defaults_of, max_items_of, personal_names
from arbiter.ruleset.experiments.check import Through, report_kept, report_strangers, report_targeting, through
from arbiter.ruleset.experiments.kept import kept_by
from arbiter.ruleset.experiments.read import ExperimentReader
from arbiter.ruleset.expressions import Expressions, rule_scope, targeting, types_of, values_of
from arbiter.ruleset.features import FeatureReader, lowest_of
from arbiter.ruleset.groups import read_groups
from arbiter.ruleset.metrics import read_metric
from arbiter.ruleset.patterns.circles import report_circles
from arbiter.ruleset.patterns.known import Known, beyond_of
from arbiter.ruleset.patterns.read import TriggerReader
from arbiter.ruleset.points import read_point
from arbiter.ruleset.rules import DecisionPoint, DecisionTable, Feature, OrderKey, Rule, Ruleset, Segment
from arbiter.ruleset.sections import RULE_FILE, SECTIONS, Places, Sections, gather, read_sections
from arbiter.ruleset.segments import read_segment, report_nesting
from arbiter.ruleset.tables.read import TableReader
from arbiter.ruleset.tables.sheet import SUFFIX
from arbiter.ruleset.templates import Params
from arbiter.ruleset.terms import Bandit, Metric

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from collections.abc import Mapping as Mapped

    from arbiter.authoring.nodes import Scalar
    from arbiter.errors import Diagnostic
    from arbiter.ruleset.declarations import Declared
    from arbiter.ruleset.patterns.read import Authored
    from arbiter.ruleset.triggers import Trigger

__all__ = [
    "RULE_FILE",
    "SECTIONS",
    "SUFFIXES",
    "Cache",
    "is_rule_file",
    "is_table_file",
    "is_test_file",
    "load_ruleset",
]

SUFFIXES: Final = (".yaml", ".yml")
TESTS: Final = (".test.yaml", ".test.yml")
_Named = TypeVar("_Named", Bandit, DecisionPoint, Feature, Metric, Segment)


def is_rule_file(path: str) -> bool:
    """Whether a file of the rules directory is read: YAML by its name, not hidden, and not tests of rules."""
    return path.endswith(SUFFIXES) and not path.endswith(TESTS) and not _is_hidden(path)


def is_table_file(path: str) -> bool:
    """Whether a file of the rules directory may be a decision table; it is read when a rule file names it."""
    return path.endswith(SUFFIX) and not _is_hidden(path)


def is_test_file(path: str) -> bool:
    """Whether a file of the rules directory holds tests of rules: it says nothing about what is decided."""
    return path.endswith(TESTS) and not _is_hidden(path)


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def load_ruleset(
    files: Mapped[str, bytes],
    models: Mapped[str, Mapped[str, str]],
    labels: Mapped[str, Mapped[str, Iterable[str]]] | None = None,
    inputs: Mapped[str, Iterable[tuple[str, str]]] | None = None,
    purposes: Mapped[str, Iterable[str]] | None = None,
    *,
    folder: str = "",
    cache: Cache | None = None,
) -> tuple[Ruleset | None, list[Diagnostic]]:
    """Read a rule set: relative path → content, and model → output → type; files that are neither rule files nor
    tables that these name are left out.

    `labels` gives model → output → the only strings that the output can be: comparing it with another is a mistake.
    `inputs` gives model → the names (root, name) that it reads: using it without declaring them is a mistake.
    `purposes` gives model → what it needs consent to: using it without declaring these is a mistake too.
    `folder` stands before the paths in diagnostics; positions in the rule set never depend on it.
    `cache` is what earlier loads left for later ones: what is unchanged is not read again, and is the same object.
    Returns the rule set and no diagnostics, or None and every mistake, sorted. Never raises for anything in `files`.
    """
    report = Report(folder)
    loading = _Loading(files, folder, cache if cache is not None else Cache())
    gathered = gather(loading.sections(report), report)
    declared = gathered.declared

    reader = FeatureReader(report, declared)
    features = reader.read_all(gathered.features, whole=gathered.whole)
    report_twins(features, gathered.features, report)
    types = dict.fromkeys(gathered.features, "dyn") | {f.name: f.type for f in features if f is not None}
    scope = rule_scope(
        profile=declared.profile,
        account=declared.account,
        context=declared.context,
        features=types if gathered.whole else None,
        segments=dict.fromkeys(gathered.segments, "bool") if gathered.whole else None,
        models=models,
        inputs=inputs or {},
        unknown_purposes={
            model: [each for each in of_model if declared.purposes is not None and each not in declared.purposes]
            for model, of_model in (purposes or {}).items()
        },
    )
    values = {path: words for root, types in declared.attributes() for path, words in values_of(root, types).items()}
    values |= {
        ("models", model, output): tuple(words)
        for model, outputs in (labels or {}).items()
        for output, words in outputs.items()
        if words
    }
    known = sorted(gathered.decisions) if gathered.whole else None
    splits = ExperimentReader(report, declared, Expressions(report, targeting(scope), values), known,
                              sorted(gathered.metrics) if gathered.whole else None)  # fmt: skip
    experiments = splits.read_all(gathered.experiments, gathered.layers, gathered.holdout)
    drawn = {path: words for each in experiments.each for path, words in each.values()}
    refused = not gathered.whole or len(experiments.each) < len(gathered.experiments)
    scope = msgspec.structs.replace(scope, experiments=None if refused else dict.fromkeys(drawn, "string"))
    values |= {("experiments", *path.split(".")): words for path, words in drawn.items()}
    metrics = _sorted(read_metric(name, entry, report) for name, entry in gathered.metrics.items())
    expressions = Expressions(report, scope, values)
    segments = _sorted(read_segment(name, entry, report, expressions) for name, entry in gathered.segments.items())
    report_nesting(segments, gathered.segments, report)
    behind = through(segments)
    report_kept(experiments.each, gathered.experiments, report)
    report_targeting(experiments.each, gathered.experiments, behind, report)
    points = [read_point(name, entry, report, declared.actions) for name, entry in gathered.decisions.items()]
    declared_points = [point for point in points if point is not None]
    known_points = gathered.whole and len(declared_points) == len(points)
    caps = read_shared(gathered.caps, report, declared, declared_points, whole=known_points)
    # All that a rule's meaning depends on beside its own file: what is not named here, no rule may look at.
    orders = {point.name: point.order for point in declared_points}
    lowest: dict[tuple[str, ...], int] = {
        ("features", name): least for name, least in lowest_of(f for f in features if f is not None).items()
    }
    managed = frozenset(segment.name for segment in segments if segment.managed) if gathered.whole else None
    beyond = beyond_of(segments)
    outside = [scope, list(values.items()), known, list(declared.attributes()), declared.events, declared.purposes]
    outside += [declared.actions, declared.zone, list(orders.items()), list(lowest.items())]
    outside += [list(declared.event_purposes.items()), sorted(managed or ()), list(beyond.items())]
    shown = {each.name: each.decisions for each in experiments.each if each.decisions}
    outside += [caps.each, list(shown.items()), list(behind.found.items()) if shown else []]
    patterns = Known(declared, scope, values, known, managed, frozenset(gathered.segments), beyond)
    digest = digest_of(outside)
    everything = _Outside(declared, expressions, known, orders, lowest, patterns, shown, behind, caps, digest)
    read = loading.rules(everything, report)
    if gathered.whole and not report:
        caps.report_idle([rule for file in read for rule in file.rules], report)
    report_circles((trigger for file in read for trigger in file.triggers), report)
    rules = tuple(sorted((rule for file in read for rule in file.rules), key=_rule_id))
    bandits = _sorted(read_groups(gathered, metrics, rules, report))
    loading.cache.end(good=not report)
    if report:
        return None, report.found

    return Ruleset(
        decisions=_sorted(points),
        rules=rules,
        segments=segments,
        features=_sorted(features),
        profile_types=dict(sorted((types_of(declared.profile) or {}).items())),
        account_types=dict(sorted((types_of(declared.account) or {}).items())),
        profile_merges={name: typed.merge for name, typed in sorted((declared.profile or {}).items()) if typed.merge},
        max_items=max_items_of(declared),
        context_types=dict(sorted((types_of(declared.context) or {}).items())),
        event_types={
            event: dict(sorted((types_of(properties) or {}).items()))
            for event, properties in sorted((declared.events or {}).items())
        },
        tables=tuple(sorted((table for file in read for table in file.tables), key=_table_id)),
        personal=personal_names(declared, (f for f in features if f is not None)),
        values=_values(declared),
        defaults=defaults_of(declared),
        purposes=tuple(sorted(declared.purposes or ())),
        bound=bound_names(declared, (f for f in features if f is not None)),
        triggers=tuple(sorted((each.trigger for file in read for each in file.triggers), key=_trigger_id)),
        experiments=experiments,
        tallies=(*tallies_of(rules), *kept_by(experiments.each)),
        metrics=metrics,
        caps=caps.each,
        bandits=bandits,
    ), []


def _values(declared: Declared) -> dict[str, tuple[Any, ...]]:
    """The only values of the names that list some, by dotted name."""
    sections = dict(declared.attributes()) | {
        f"events.{event}": types for event, types in (declared.events or {}).items()
    }
    return {
        f"{root}.{name}": typed.values
        for root, types in sorted(sections.items())
        for name, typed in sorted((types or {}).items())
        if typed.values
    }


class _Outside(msgspec.Struct, frozen=True):
    """What rules are read against, and by `patterns` triggers: `orders` by decision point, `lowest` by name, by
    experiment the decisions that it is `shown` at, and the `caps` that they share. `digest` names all of it.
    """

    declared: Declared
    expressions: Expressions
    decisions: Collection[str] | None
    orders: Mapped[str, tuple[OrderKey, ...]]
    lowest: Mapped[tuple[str, ...], int]
    patterns: Known
    shown: Mapped[str, tuple[str, ...]]
    through: Through
    caps: SharedCaps
    digest: bytes


class _Loading:
    """The files of one load, read or remembered."""

    def __init__(self, files: Mapped[str, bytes], folder: str, cache: Cache) -> None:
        self.cache = cache
        self._files = {path: content for path, content in sorted(files.items()) if is_rule_file(path)}
        self._digests = {path: digest_of(content) for path, content in self._files.items()}
        self._others = {path: content for path, content in files.items() if is_table_file(path)}
        self._folder = folder
        self._fresh: dict[str, Places] = {}  # the rules of the files that this load has read

    def sections(self, report: Report) -> list[Sections]:
        """Every file's sections, in the order of paths."""
        return [self._sections(path, content, report) for path, content in self._files.items()]

    def _sections(self, path: str, content: bytes, report: Report) -> Sections:
        key = (path, self._digests[path], self._folder)
        found = self.cache.sections.find(key)
        if found is None:
            found, self._fresh[path] = read_sections(path, content, self._folder)
        self.cache.sections.use(key, found)
        report.include(found.report)
        return found

    def rules(self, outside: _Outside, report: Report) -> list[FileRules]:
        """The rules and triggers of each file."""
        found = [self._rules(path, outside, report) for path in self._files]
        _report_doubles((each for file in found for each in file.ids), "rule", report)
        _report_doubles((each for file in found for each in file.trigger_ids), "trigger", report)
        return found

    def _rules(self, path: str, outside: _Outside, report: Report) -> FileRules:
        key = (path, self._digests[path], self._folder, outside.digest)
        found = self.cache.rules.find(key)
        if found is None or not Beside(self._others).unchanged(found.read):
            found = self._read(path, outside)
        self.cache.rules.use(key, found)
        report.include(found.report)
        return found

    def _read(self, path: str, outside: _Outside) -> FileRules:
        report, beside = Report(self._folder), Beside(self._others)
        expressions = outside.expressions.reporting_to(report)
        params = Params(report, expressions)
        tables = TableReader(report, outside.declared, expressions, beside, outside.orders, outside.lowest)
        reader = RuleReader(report, outside.declared, expressions, params, outside.decisions, tables)
        places = self._fresh.pop(path, None)
        if places is None:  # what it says was known, but not what it means among these others
            _, places = read_sections(path, self._files[path], self._folder)
        over_time = TriggerReader(report, outside.patterns)
        rules: list[Rule] = []
        triggers: list[Authored] = []
        for where, node in places:
            if where.startswith("rules"):
                rules += reader.read(node, where)
            elif (trigger := over_time.read(node, where)) is not None:
                triggers.append(trigger)
        ids, trigger_ids = tuple(reader.ids), tuple(over_time.ids)
        places_of_ids = {scalar.text: (scalar, where) for scalar, where in reader.ids}
        report_strangers(rules, places_of_ids, outside.shown, outside.through, report)
        rules = [outside.caps.over(rule) for rule in rules]
        return FileRules(tuple(rules), tuple(tables.tables), ids, report, beside.read, tuple(triggers), trigger_ids)


def _report_doubles(ids: Iterable[tuple[Scalar, str]], what: str, report: Report) -> None:
    known: dict[str, Scalar] = {}
    for scalar, path in ids:
        first = known.get(scalar.text)
        if first is None:
            known[scalar.text] = scalar
            continue
        message = f"the {what} id `{scalar.text}` is used twice; the other place is {report.place_of(first)}"
        hint = "ids are unique in the whole snapshot: rename one of the two"
        if first is scalar:
            message, hint = (
                f"the {what} id `{scalar.text}` is used twice",
                f"an alias repeats it: write that {what} out",
            )
        report.at(scalar, message, hint, path)


def _rule_id(rule: Rule) -> str:
    return rule.id


def _trigger_id(trigger: Trigger) -> str:
    return trigger.id


def _table_id(table: DecisionTable) -> str:
    return table.id


def _sorted(items: Iterable[_Named | None]) -> tuple[_Named, ...]:
    return tuple(sorted((item for item in items if item is not None), key=lambda item: item.name))
