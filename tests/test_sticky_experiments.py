"""Sticky experiments: who was shown a variant keeps it while weights and traffic change, and what ends that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.decision.assignment import Assigned, Assigners
from arbiter.expr.view import View
from arbiter.ruleset.experiments.kept import kept_name
from arbiter.types import ExperimentOutcome, Standing
from tests.test_engine import NOW
from tests.test_experiments import SUBJECTS, snapshot_of

if TYPE_CHECKING:
    from typing import Any


class Kept:
    """Sticky experiments, asked for subjects of whom a variant is known that they were shown."""

    def __init__(self, experiments: str, more: str = "") -> None:
        self.snapshot = snapshot_of(experiments, more)
        self.assigners = Assigners(self.snapshot.frame.experiments, self.snapshot.symbols)

    def of(self, name: str, subject: str, shown: str | None = None, **profile: Any) -> ExperimentOutcome:
        key = self.snapshot.symbols.features[kept_name(name)].key
        view = View(profile, {}, {} if shown is None else {key: shown}, NOW)
        return Assigned(self.assigners, subject).outcome(name, view)


WEIGHTS = st.lists(st.sampled_from([0.0, 0.3, 1.0, 1.0, 8.0]), min_size=3, max_size=3).filter(any)
TRAFFIC = st.sampled_from([0.05, 0.5, 1.0])


@settings(deadline=None, max_examples=30)
@given(before=WEIGHTS, after=WEIGHTS, one=TRAFFIC, other=TRAFFIC)
def test_a_variant_is_kept_whatever_weights_and_traffic_become_unless_it_is_closed(
    before: list[float], after: list[float], one: float, other: float
) -> None:
    old, new = (
        Kept(f"  e: {{decision: d, sticky: true, traffic: {traffic}, variants: {{a: {w[0]}, b: {w[1]}, c: {w[2]}}}}}")
        for traffic, w in ((one, before), (other, after))
    )
    closed = {name for name, weight in zip("abc", after, strict=True) if not weight}
    for subject in SUBJECTS[:150]:
        shown = old.of("e", subject).variant
        found = new.of("e", subject, shown or None)
        if shown and shown not in closed:
            assert (found.variant, found.standing) == (shown, Standing.KEPT)
        else:
            assert found == new.of("e", subject)


def test_what_else_keeps_a_subject_outside_does_so_all_the_same() -> None:
    split = Kept(
        """
  aimed: {decision: d, sticky: true, when: profile.country == "US", variants: {a: 1, b: 1}}
  over: {decision: d, sticky: true, active: {until: 2026-01-01T00:00:00Z}, variants: {a: 1, b: 1}}
  off: {decision: d, sticky: true, enabled: false, variants: {a: 1, b: 1}}
  tester: {decision: d, sticky: true, variants: {a: 1, b: 1}, forced: {a: [subject-1]}}
  both: {decision: d, sticky: true, factors: {x: {l: 1, m: 1}, y: {n: 1, o: 1}}}
""",
        "holdout: {share: 0.3}",
    )
    for subject in SUBJECTS[:40]:
        held = split.of("both", subject, "m+n")
        assert held.standing in {Standing.KEPT, Standing.HOLDOUT}
        assert split.of("aimed", subject, "b").standing is Standing.TARGETING
        inside = (held.variant and "b", held.standing)
        assert (split.of("aimed", subject, "b", country="US").variant, held.standing) == inside
        assert split.of("over", subject, "b").standing is Standing.INACTIVE
        assert split.of("off", subject, "b").standing is Standing.DISABLED
    assert split.of("tester", "subject-1", "b").variant == "a"


def test_a_place_in_a_layer_that_another_experiment_or_the_holdout_has_now_is_left() -> None:
    split = Kept(
        """
  e: {decision: d, layer: x, sticky: true, traffic: 0.2, variants: {a: 1, b: 1}}
  f: {decision: d, layer: x, offset: 0.5, traffic: 0.3, variants: {a: 1, b: 1}}
  g: {decision: d, layer: x, offset: 0.2, traffic: 0.2, variants: {a: 1, b: 1}, active: {until: 2026-01-01T00:00:00Z}}
""",
        "layers: {x: {holdout: 0.1}}",
    )
    view = View({}, {}, {}, NOW)
    found = set()
    for subject in SUBJECTS[:400]:
        without, kept = split.of("e", subject), split.of("e", subject, "b")
        other = Assigned(split.assigners, subject).of("f", view)
        assert not (other and kept.variant)
        if other or without.standing is Standing.HOLDOUT:
            assert kept == without
        else:
            assert (kept.variant, kept.standing) == ("b", Standing.KEPT)
        found.add(without.standing)
    assert found == {Standing.DRAWN, Standing.LAYER, Standing.HOLDOUT, Standing.TRAFFIC}
