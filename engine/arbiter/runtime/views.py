"""What decisions see of a subject: the one place where a stored profile and a request become a view.

Law: what consent hides is taken out here, before anything looks; every way to a decision or to what it would see goes
through `view_of`. No store, no models, no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.decision.assignment import Assigned
from arbiter.expr.evaluate import evaluate
from arbiter.expr.ops import Unknown
from arbiter.expr.view import View
from arbiter.profiles.store import Member

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbiter.profiles.store import Profile
    from arbiter.runtime.active import Active
    from arbiter.snapshot import Snapshot
    from arbiter.types import Request


def view_of(profile: Profile, request: Request, active: Active) -> View:
    """What a decision sees, the account too where it was read."""
    context = _with_doubles(request.context, active.doubles) if active.doubles else request.context
    view = View(filled(profile.attributes, active.profile_defaults), context, profile.features, request.now)
    if isinstance(profile, Member):
        view.account = filled(profile.account.attributes, active.account_defaults)
    if profile.managed:
        view.managed = dict.fromkeys(profile.managed, True)
    consent = active.snapshot.consent
    if consent is not None:
        consent.cover(view, profile.granted)
    if active.experiments is not None:
        view.experiments = Assigned(active.experiments, request.subject_id)
    if active.draws is not None:
        view.draws = active.draws()
    return view


def filled(attributes: Mapping[str, Any], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """The attributes, and the defaults of those that are absent.

    What a subject does not consent to is hidden from the result: what is denied is unknown and has no default.
    """
    return {**defaults, **attributes} if defaults else attributes


def _with_doubles(context: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The context with the ints that are declared doubles made so, as profiles hold them."""
    ints = {name: float(context[name]) for name in names if context.get(name).__class__ is int}
    return {**context, **ints} if ints else context


def feature_in(view: View, snapshot: Snapshot, name: str) -> Any:
    """A feature's value; None where it has none."""
    feature = snapshot.symbols.features[name]
    return feature.value(view.features.get(feature.key), view.clock)


def segment_in(view: View, snapshot: Snapshot, name: str) -> bool | None:
    """Whether the subject is in a segment; None where that is unknown."""
    try:
        return bool(evaluate(snapshot.symbols.segment(name), view, snapshot.symbols))
    except Unknown:
        return None
