"""By which weights subjects drew the variants that sticky experiments keep them in.

Law: from rows in the order of time. Whoever is kept in a variant drew it once, when it was shown for the first time, by
the weights of that time; which variant that was is chance of then, not of now (docs/decisions/0124). The last row in
which a subject is not kept yet is taken to be that time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.ruleset.experiments.kept import kept_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbiter.expr.view import View
    from arbiter.learning.logged import Row
    from arbiter.runtime.replaying import Again

    Shares = Mapping[str, float]


class Firsts:
    """Remembers the shares of who draws, and tells those of who is kept."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Shares] = {}
        self._shares: dict[tuple[str, str], Shares] = {}  # one for all who drew by it, by experiment and snapshot

    def of(self, again: Again, snapshot: str, row: Row, view: View) -> tuple[dict[str, Shares], bool]:
        """By sticky experiment the shares by which the subject of a row drew the variant in which it is kept, among
        those in which one is; and whether that was before all rows of an experiment that mattered to this one.
        """
        found: dict[str, Shares] = {}
        early = False
        for name in row.variants:
            experiment = again.experiments.get(name)
            if experiment is None or not experiment.sticky:
                continue
            who = name, row.subject
            kept = view.features.get(again.snapshot.symbols.features[kept_name(name)].key)
            if kept is None:
                if row.subject and name in row.exposed:
                    self._found[who] = self._shares.setdefault((name, snapshot), experiment.shares)
            elif kept in (drawable := experiment.drawable):  # else it is drawn anew
                if who in self._found:
                    open_ = {each: self._found[who].get(each, 0.0) for each in drawable}
                    whole = sum(open_.values())
                    found[name] = {each: share / whole for each, share in open_.items() if share}
                else:
                    early |= name in row.exposed
        return found, early
