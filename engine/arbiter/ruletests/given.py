"""What a test gives: who asks, when, and what is known.

Law: reads nodes into the given half of a `RuleTest`, held against what the rule set declares. It computes nothing from
it: features are counted where tests are run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.authoring.blocks import Block, check_name, under
from arbiter.authoring.nodes import Mapping, Node, Scalar, Sequence, as_text, kind_of
from arbiter.ruleset.caps.tallies import caps_of, event_type
from arbiter.ruleset.consent import known_purposes, named_purposes
from arbiter.ruleset.reads import reads_of
from arbiter.ruletests.firings import KEYS as FORESEEN
from arbiter.ruletests.spec import RuleTest
from arbiter.ruletests.values import REFUSED, Values, is_known, moment, nothing
from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as Mapped

    from arbiter.models.model import Model
    from arbiter.ruleset.rules import Ruleset

# Keys whose names are joined, name by name, over defaults, test and case.
MERGED: Final = ("profile", "account", "context", "changed", "features", "segments", "models", "experiments", "shown")
SETTINGS: Final = ("decision", "decisions", "now", "subject", "granted", "slots", "events", *MERGED)
_EVENT_KEYS: Final = ("type", "at", "properties")
MOST_SLOTS: Final = 1000
_ID_BYTES: Final = 256


class Names:
    """What a rule set has names for."""

    def __init__(self, ruleset: Ruleset, models: Mapped[str, Model]) -> None:
        self.ruleset = ruleset
        self.models = models
        self.features = {feature.name: feature for feature in ruleset.features}
        self.reads = reads_of(ruleset.features)
        self.experiments = {each.name: each for each in ruleset.experiments.each}
        self.caps = {rule.id: rule for rule in ruleset.rules if rule.cap is not None or rule.caps}
        self.segments = {segment.name for segment in ruleset.segments}
        self.triggers = {trigger.id for trigger in ruleset.triggers}
        self.rules: dict[str, str] = {rule.id: rule.decision for rule in ruleset.rules}
        self.decisions: dict[str, list[str]] = {point.name: [] for point in ruleset.decisions}
        for rule, decision in self.rules.items():
            self.decisions[decision].append(rule)


def read_given(block: Block, names: Names, file: str, name: str, at: Node) -> RuleTest | None:
    """The test without its expectations; None when it does not even say when and what is asked."""
    pointer = at if isinstance(at, Scalar) else None
    decisions = _decisions(block, names, pointer) if asks_decision(block) else ()
    hint = "a test must not depend on the day on which it runs: say `now: 2026-06-01T12:00:00Z`, in `defaults` say"
    clock = block.get("now") if block.require("now", hint, at=pointer) else None
    now = None if clock is None else moment(clock, f"{block.path}.now", block.report, "write `2026-06-01T12:00:00Z`")
    if now is None or not (decisions or not asks_decision(block)):
        return None
    given = _Given(block, names, Values(block.report, now))
    subject = block.text("subject")
    subject_id = "someone" if subject is None else subject.text
    if subject is not None and not 0 < len(subject_id.encode()) <= _ID_BYTES:
        block.refuse(subject, f"a subject's id has 1 to {_ID_BYTES} bytes", key="subject")
    return RuleTest(
        name=name,
        file=file,
        node=at,
        decisions=decisions,
        expected=(),
        now=now,
        subject_id=subject_id,
        granted=_granted(block, names),
        slots=block.integer("slots", 1, MOST_SLOTS) or 0,
        profile=given.attributes("profile", names.ruleset.profile_types),
        account=given.attributes("account", names.ruleset.account_types),
        context=given.attributes("context", names.ruleset.context_types),
        events=(*given.events(subject_id), *given.shown(subject_id)),
        changed=given.changed(),
        features=given.features(),
        models=given.models(),
        segments=given.segments(),
        experiments=given.experiments(),
    )


def asks_decision(block: Block) -> bool:
    """Whether a test asks for a decision: one that says nothing but what triggers do need not, whatever `defaults`
    name.
    """
    expect = block.get("expect")
    said = expect.entries.keys() if isinstance(expect, Mapping) else set()
    return not said or not said <= set(FORESEEN)


def _granted(block: Block, names: Names) -> tuple[str, ...]:
    """The purposes that the subject granted; ``[]`` takes back what `defaults` says."""
    node, path = block.get("granted"), f"{block.path}.granted"
    if isinstance(node, Sequence) and not node.items:
        return ()
    uses = named_purposes(node, "granted", path, block.report)
    return known_purposes(uses, names.ruleset.purposes, block.report)


def _decisions(block: Block, names: Names, at: Scalar | None) -> tuple[str, ...]:
    if block.has("decisions") and block.has("decision"):
        hint = "keep `decisions` for a page of several, `decision` for one"
        block.refuse(block.key("decision"), "`decision` and `decisions` cannot both be given", hint)
        return ()
    asked: list[Scalar] = []
    if block.has("decisions"):
        for path, item in block.items("decisions", "write `[one, two]`"):
            if isinstance(item, Scalar) and as_text(item) is not None:
                asked.append(item)
            else:
                block.report.at(item, f"a decision must be text, this is {kind_of(item)}", path=path)
    elif block.require("decision", "say which decision point is asked", at=at):
        one = block.text("decision")
        asked += [] if one is None else [one]
    known = [
        is_known(each.text, names.decisions, "decision", each, block.report, under(block.path, "decision"))
        for each in asked
    ]
    texts = tuple(each.text for each in asked)
    twice = next((each for number, each in enumerate(asked) if each.text in texts[:number]), None)
    if twice is not None:
        block.refuse(twice, f"the decision `{twice.text}` stands here twice")
    return texts if all(known) and twice is None else ()


class _Given(msgspec.Struct):
    """Reads the sections of one test."""

    block: Block
    names: Names
    values: Values

    def _entries(self, key: str, hint: str = "") -> Iterator[tuple[Scalar, Node, str]]:
        mapping = self.block.mapping(key, hint or "write `{name: value}`")
        for name, entry in mapping.entries.items() if mapping is not None else ():
            if entry.node is not None:
                yield entry.key, entry.node, f"{self.block.path}.{key}.{name}"

    def _known(self, key: Scalar, known: Any, what: str, path: str) -> bool:
        return is_known(key.text, known, what, key, self.block.report, path)

    def attributes(self, root: str, types: Mapped[str, str]) -> dict[str, Any]:
        """Attributes of the profile, the account or the context. What is stored has its declared type; what is sent may
        not.
        """
        given: dict[str, Any] = {}
        for key, node, path in self._entries(root):
            if types and not self._known(key, types, f"{root} attribute", path):
                continue
            if not check_name(key, "an attribute", self.block.report, path):
                continue
            kind = types.get(key.text, "dyn")
            if root == "context" and kind not in {"timestamp", "bytes"}:
                kind = "dyn"
            value = self.values.typed(node, kind, path)
            if value is not REFUSED:
                given[key.text] = value
        return given

    def events(self, subject_id: str) -> Iterator[Event]:
        """The subject's events, numbered as they stand."""
        declared = self.names.ruleset.event_types
        hint = "write `- {type: purchase, at: 3d ago, amount: 20.0}`"
        for number, (path, node) in enumerate(self.block.items("events", hint)):
            if not isinstance(node, Mapping):
                self.block.report.at(node, f"an event must be a mapping, this is {kind_of(node)}", hint, path)
                continue
            event = Block(node, self.block.report, what="an event", path=path, keys=node.entries)
            if not event.require("type", hint) or not event.require("at", hint):
                continue
            kind, at = event.text("type"), event.get("at")
            when = None if at is None else self.values.moment(at, f"{path}.at")
            if kind is None or when is None:
                continue
            if declared and not is_known(kind.text, declared, "event", kind, self.block.report, f"{path}.type"):
                continue
            if not check_name(kind, "an event type", self.block.report, f"{path}.type"):
                continue
            properties = self._properties(event, declared.get(kind.text), kind.text)
            yield Event(f"e{number}", subject_id, kind.text, when, properties)

    def shown(self, subject_id: str) -> Iterator[Event]:
        """The events that caps count, of rules that were shown at the times that are said."""
        hint = "write `{RULE: [3d ago, 1h ago]}`"
        for key, node, path in self._entries("shown", hint):
            if not self._known(key, self.names.caps, "rule with a `cap`", path):
                continue
            if not isinstance(node, Sequence):
                self.block.report.at(node, f"when a rule was shown is a list, this is {kind_of(node)}", hint, path)
                continue
            rule = self.names.caps[key.text]
            said = {"point": rule.decision, "rule": rule.id, "action": rule.then.action, "group": rule.group}
            kinds = sorted({event_type(cap.on) for cap in caps_of(rule)})
            for number, item in enumerate(node.items):
                at = None if item is None else self.values.moment(item, f"{path}[{number}]")
                if at is not None:
                    yield from (Event(f"{kind}:{key.text}:{number}", subject_id, kind, at, said) for kind in kinds)

    def _properties(self, event: Block, types: Mapped[str, str] | None, kind: str) -> dict[str, Any]:
        entries = {name: entry for name, entry in event.node.entries.items() if name not in _EVENT_KEYS}
        more = event.mapping("properties", "write `{name: value}`")
        entries |= {} if more is None else more.entries
        properties: dict[str, Any] = {}
        for name, entry in entries.items():
            path = under(event.path, name)
            if nothing(entry.node) or entry.node is None:
                continue
            if types is not None and not self._known(entry.key, types, f"{kind} property", path):
                continue
            if not check_name(entry.key, "a property", self.block.report, path):
                continue
            value = self.values.typed(entry.node, (types or {}).get(name, "dyn"), path)
            if value is not REFUSED:
                properties[name] = value
        return properties

    def features(self) -> dict[str, Any]:
        """Features that are said, not counted, by key: what is kept of features of these values."""
        given: dict[str, Any] = {}
        for key, node, path in self._entries("features"):
            if not self._known(key, self.names.features, "feature", path):
                continue
            feature = self.names.features[key.text]
            value = self.values.typed(node, feature.type, path)
            if value is not REFUSED:
                given[feature.key] = self.names.reads[feature.key].stored(value, self.values.now)
        return given

    def segments(self) -> dict[str, bool]:
        """Segments that are said to be true or false, whatever their condition."""
        given: dict[str, bool] = {}
        for key, node, path in self._entries("segments"):
            value = self.values.typed(node, "bool", path)
            if self._known(key, self.names.segments, "segment", path) and value is not REFUSED:
                given[key.text] = value
        return given

    def experiments(self) -> dict[str, str]:
        """The variants that the subject is said to be in, by the path behind ``experiments``; empty for outside."""
        given: dict[str, str] = {}
        for key, node, path in self._entries("experiments", "write `{EXPERIMENT: VARIANT}`"):
            value = self.values.typed(node, "string", path)
            if not self._known(key, self.names.experiments, "experiment", path) or value is REFUSED:
                continue
            experiment = self.names.experiments[key.text]
            if value and not is_known(value, experiment.variants, "variant", node, self.block.report, path):
                continue
            given |= experiment.read_as(value)
        return given

    def models(self) -> dict[str, dict[str, Any]]:
        """What models are said to answer. An output that is not named is unknown; ``{}`` leaves all unknown."""
        given: dict[str, dict[str, Any]] = {}
        hint = "write `{MODEL: {OUTPUT: value}}`"
        for key, node, path in self._entries("models", hint):
            if not self._known(key, self.names.models, "model", path):
                continue
            if not isinstance(node, Mapping):
                self.block.report.at(node, f"what a model answers is a mapping, this is {kind_of(node)}", hint, path)
                continue
            model = self.names.models[key.text]
            outputs = given.setdefault(key.text, {})
            for name, entry in node.entries.items():
                where = f"{path}.{name}"
                if entry.node is None or not self._known(entry.key, model.outputs, f"output of `{key.text}`", where):
                    continue
                value = self.values.typed(entry.node, model.outputs[name], where)
                labels = model.labels.get(name, ())
                if labels and isinstance(value, str):
                    is_known(value, labels, "label", entry.node, self.block.report, where)
                if value is not REFUSED:
                    outputs[name] = value
        return given

    def changed(self) -> dict[str, int]:
        """When attributes and features changed, keyed as a profile's changes are. What is not named changed now."""
        given: dict[str, int] = {}
        known = {f"features.{name}" for name in self.names.features}
        for root in ("profile", "account"):
            stored = self.block.get(root)
            known |= {f"{root}.{name}" for name in stored.entries} if isinstance(stored, Mapping) else set()
        for key, node, path in self._entries("changed", "write `{profile.NAME: 3d ago}`"):
            at = self.values.moment(node, path)
            if not self._known(key, known, "name", path) or at is None:
                continue
            root, name = key.text.split(".", 1)
            given[f"features.{self.names.features[name].key}" if root == "features" else key.text] = at
        return given


def change_times(test: RuleTest, counted: Mapped[str, int]) -> dict[str, int]:
    """The µs time of the last change by ``profile.NAME``, ``account.NAME`` and ``features.KEY``; `counted` are those
    of the events.
    """
    changes = {f"profile.{name}": test.now for name in test.profile}
    changes |= {f"account.{name}": test.now for name in test.account}
    changes |= {f"features.{key}": at for key, at in counted.items()}
    changes |= {f"features.{key}": test.now for key in test.features}
    return changes | test.changed
