"""What a rules directory declares that a training needs: features, attributes, purposes.

Law: reads the same declarations as the rule set does, and none of its rules, which may need the very model that is to
be trained. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.authoring.report import Report
from arbiter.errors import AuthorError, did_you_mean
from arbiter.ruleset.consent import bound_names
from arbiter.ruleset.declarations import defaults_of
from arbiter.ruleset.features import FeatureReader
from arbiter.ruleset.load import is_rule_file
from arbiter.ruleset.rules import Feature  # noqa: TC001 - msgspec reads the annotations
from arbiter.ruleset.sections import gather, read_sections
from arbiter.training.table import TrainingFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbiter.training.spec import Spec


class Declarations(msgspec.Struct, frozen=True):
    """The features; the types of attributes by dotted name, of a section that none is declared in nothing; what stands
    for absent ones; and the purposes that names are bound to.
    """

    features: tuple[Feature, ...] = ()
    types: dict[str, str] = {}
    closed: tuple[str, ...] = ()
    defaults: dict[str, Any] = {}
    purposes: tuple[str, ...] = ()
    bound: dict[str, tuple[str, ...]] = {}

    @property
    def known(self) -> dict[str, str]:
        """The types of attributes and features by dotted name."""
        return self.types | {f"features.{each.name}": each.type for each in self.features}

    def lacks(self, root: str, name: str) -> bool:
        """Whether a name would have to be declared to be read, and is not."""
        return f"{root}.{name}" not in self.known and (root == "features" or root in self.closed)


def read_declarations(files: Mapping[str, bytes], folder: str) -> Declarations:
    """What the files of a rules directory, by path, declare. Raises AuthorError."""
    report = Report(folder)
    sections = [
        read_sections(path, content, folder)[0] for path, content in sorted(files.items()) if is_rule_file(path)
    ]
    for each in sections:
        report.include(each.report)
    gathered = gather(sections, report)
    declared = gathered.declared
    read = FeatureReader(report, declared).read_all(gathered.features, whole=gathered.whole)
    if report:
        raise AuthorError(report.found)
    features = tuple(sorted((each for each in read if each is not None), key=lambda each: each.name))
    sections_of = list(declared.attributes())
    return Declarations(
        features=features,
        types={f"{root}.{name}": typed.type for root, types in sections_of for name, typed in (types or {}).items()},
        closed=tuple(root for root, types in sections_of if types is not None),
        defaults=defaults_of(declared),
        purposes=tuple(sorted(declared.purposes or ())),
        bound=bound_names(declared, features),
    )


def check_inputs(spec: Spec, declared: Declarations) -> None:
    """Raise TrainingFailed for an input or a purpose that the rules do not declare."""
    for each in spec.inputs:
        if not declared.lacks(each.root, each.attribute):
            continue
        name = f"{each.root}.{each.attribute}"
        hint = did_you_mean(name, declared.known) or "declare it, or take another one"
        raise TrainingFailed(f"the input `{each.name}` reads `{name}`, which the rules do not declare: {hint}")
    for purpose in spec.purposes:
        if purpose not in declared.purposes:
            hint = did_you_mean(purpose, declared.purposes) or f"declare it: `consent: {{purposes: [{purpose}]}}`"
            raise TrainingFailed(f"the rules do not declare the purpose `{purpose}`: {hint}")


def needed_purposes(spec: Spec, declared: Declarations) -> tuple[str, ...]:
    """What a subject must consent to for its history to be learnt from: the model's own, and those of its inputs."""
    return bound_purposes(spec.purposes, [(each.root, each.attribute) for each in spec.inputs], declared)


def bound_purposes(own: Iterable[str], inputs: Iterable[tuple[str, str]], declared: Declarations) -> tuple[str, ...]:
    """A model's own purposes, and those that its inputs (root, attribute) are bound to."""
    bound = {purpose for root, name in inputs for purpose in declared.bound.get(f"{root}.{name}", ())}
    return tuple(sorted(bound | set(own)))
