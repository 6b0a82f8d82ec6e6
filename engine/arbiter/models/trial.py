"""A version of a model that is tried on a share of the subjects, beside the one that is live.

Law: plain frozen data. Who is in is for `runtime.active` to say, by the one published hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from arbiter.models.model import Model

# At once, across all models of a snapshot: each doubles the number of sets of models that subjects may meet.
MOST_TRIALS: Final = 4


class Trial(msgspec.Struct, frozen=True):
    """`model` scores the subjects whose ``share(salt, subject_id)`` is less than `share`, from above 0 to 1."""

    model: Model
    share: float
    salt: str


def digest_of_both(model: Model, trial: Trial | None) -> str:
    """What names a model that is live with what is tried beside it, if anything."""
    return model.digest if trial is None else f"{model.digest}+{trial.model.digest}"
