"""What stores keep for sticky experiments: of each the variant that a subject was shown first.

Law: features of the reserved events that say what was shown, with names that no file can write. What is shown, and who
is kept, is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.ruleset.features import key_of
from arbiter.ruleset.rules import Feature
from arbiter.types import EXPOSURE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.ruleset.experiments.terms import Experiment


def kept_name(experiment: str) -> str:
    """The name of the feature that has the variant which a subject was shown first."""
    return f"arbiter.experiments.{experiment}"


def shown_as(experiment: str) -> str:
    """The property of an exposure that has the subject's variant of a sticky experiment that mattered."""
    return f"experiments.{experiment}"


def kept_by(experiments: Iterable[Experiment]) -> tuple[Feature, ...]:
    """What stores keep for these experiments."""
    return tuple(_first(each.name) for each in experiments if each.sticky)


def _first(experiment: str) -> Feature:
    key = key_of(("kept", experiment))
    return Feature(kept_name(experiment), "first", EXPOSURE, shown_as(experiment), None, None, 0, key, "string")
