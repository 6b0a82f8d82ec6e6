"""What is known of a subject, as decisions see it.

Law: from a profile, a view that holds the models' outputs, and a snapshot, to plain values; nothing is read here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.runtime.views import feature_in, segment_in

if TYPE_CHECKING:
    from arbiter.expr.view import View
    from arbiter.profiles.store import Profile
    from arbiter.snapshot import Snapshot


class Described(msgspec.Struct, frozen=True):
    """What is known of a subject at one instant. A feature or segment without a value is None; `expires` are in µs.

    `rebuilding` are the features for which profiles are rewritten, since they changed. `attributes` are all that are
    stored, and defaults that decisions see; `denied` has the dotted names of what decisions do not see for lack of
    consent, with the purposes that it lacks. `managed` are the managed segments that the subject was put into.
    """

    exists: bool
    version: int
    attributes: dict[str, Any]
    features: dict[str, Any]
    segments: dict[str, bool | None]
    expires: dict[str, int]
    denied: dict[str, tuple[str, ...]]
    rebuilding: tuple[str, ...] = ()
    managed: tuple[str, ...] = ()


def described(profile: Profile, view: View, snapshot: Snapshot) -> Described:
    """A profile, and what `view` shows of it."""
    return Described(
        exists=profile.exists,
        version=profile.version,
        attributes={**view.profile, **profile.attributes},
        features={name: feature_in(view, snapshot, name) for name in (each.name for each in snapshot.frame.features)},
        segments={name: segment_in(view, snapshot, name) for name in snapshot.symbols.segments},
        expires=profile.expires,
        denied=view.consent.denied,
        managed=profile.managed,
    )
