"""What a log says of a rule set: that its decisions come out the same again, or which would not under a candidate.

Law: rows in, counts and a few examples out; what is printed is the commands' matter. Examples hold no personal value.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.errors import NotFound
from arbiter.learning.logged import won_of
from arbiter.runtime.replaying import Again, OfThen, Unlogged, delivered, logged_outcome, outcome_of, segment_reads
from arbiter.runtime.shadowed import VersionApart  # noqa: TC001 - msgspec reads the fields' types at run time
from arbiter.runtime.views import segment_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from arbiter.expr.view import View
    from arbiter.learning.logged import Head, Row, Won
    from arbiter.runtime.earning import Earning
    from arbiter.runtime.shadowed import Shadowed
    from arbiter.snapshot import Snapshot


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that comes out differently: its id and µs, where, what was delivered and what would be, by the ids of
    rules, empty for the default; and what the decision read, personal values left out.
    """

    id: str
    at: int
    point: str
    snapshot: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    read: dict[str, Any]


class Reproduced(msgspec.Struct, kw_only=True):
    """How a log was reproduced: how many decisions, how many came out differently, and how many could not be decided
    again, by why.
    """

    decisions: int = 0
    different: int = 0
    left_out: dict[str, int] = {}
    examples: list[Example] = []


class Compared(msgspec.Struct, kw_only=True):
    """How a candidate compares with a log: how many `decisions` were compared, how many would be `changed`, in what is
    delivered. `open` are those of which the log does not hold all that the candidate reads, `unlogged`, and which hang
    on it; `redrawn` those for which a share of subjects, a variant, or a rule of a group, was drawn that the log does
    not know.

    By rule: how many it delivered and would deliver; from which rule to which the changes go, by ``FROM → TO``; by
    decision point and by segment of the candidate, how many decisions there are and how many would change. `models`
    says of each version of a model that was named how far its answers lie from those of the live one.
    """

    decisions: int = 0
    changed: int = 0
    open: int = 0
    redrawn: int = 0
    unlogged: list[str] = []
    left_out: dict[str, int] = {}
    by_rule: dict[str, list[int]] = {}
    moves: dict[str, int] = {}
    by_point: dict[str, list[int]] = {}
    by_segment: dict[str, list[int]] = {}
    models: list[VersionApart] = []
    examples: list[Example] = []


class _Examples:
    """A few of many, the same ones whatever order they come in."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[tuple[bytes, Example]] = []

    def add(self, example: Example) -> None:
        key = bytes(255 - each for each in blake2b(example.id.encode(), digest_size=8).digest())
        if len(self._kept) < self._most:
            heapq.heappush(self._kept, (key, example))
        elif self._kept and key > self._kept[0][0]:
            heapq.heapreplace(self._kept, (key, example))

    def all(self) -> list[Example]:
        return [example for _, example in sorted(self._kept, key=lambda kept: kept[1].at)]


class Reproduction:
    """Decides rows again by the snapshots that `opened` gives by their digests. `opened` raises StoreError."""

    def __init__(self, opened: Callable[[str], Snapshot], examples: int) -> None:
        self._then = OfThen(opened)
        self._examples = _Examples(examples)
        self._left_out: Counter[str] = Counter()
        self._decisions = self._different = 0

    def add(self, head: Head, row: Row) -> None:
        """Decide a row again."""
        if row.values is None:
            self._left_out["impersonal"] += 1
            return
        again = self._then.of(head.snapshot)
        if again is None:
            self._left_out["snapshot gone"] += 1
            return
        decision = again.as_it_was(head, row)
        self._decisions += 1
        if outcome_of(decision) != logged_outcome(row):
            self._different += 1
            self._examples.add(_example(head, row, won_of(decision), again.snapshot))

    def result(self) -> Reproduced:
        """What came of it until now."""
        return Reproduced(
            decisions=self._decisions,
            different=self._different,
            left_out=dict(self._left_out),
            examples=self._examples.all(),
        )


class Comparison:
    """Decides rows by a candidate, and compares; `shadowed` compares it with the live versions of its models, too, and
    `earning` adds up what it would have earned.
    """

    def __init__(
        self, candidate: Snapshot, examples: int, shadowed: Shadowed | None = None, earning: Earning | None = None
    ) -> None:
        self._again = Again(candidate)
        self._candidate = candidate
        self._shadowed = shadowed
        self._earning = earning
        self._examples = _Examples(examples)
        self._segments = {name: segment_reads(candidate, name) for name in candidate.symbols.segments}
        self._unlogged: dict[tuple[str, tuple[tuple[str, str, str], ...]], Unlogged] = {}
        self._names: set[str] = set()
        self._left_out: Counter[str] = Counter()
        self._decisions = self._changed = self._open = self._redrawn = 0
        self._by_rule: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._by_point: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._by_segment: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._moves: Counter[str] = Counter()

    def add(self, head: Head, row: Row) -> None:
        """Decide a row by the candidate."""
        if row.values is None:
            self._left_out["impersonal"] += 1
            return
        try:
            unlogged = self._unlogged_of(head)
        except NotFound:
            self._left_out["decision point gone"] += 1
            return
        view = self._again.view(head, row)
        decision = self._again.decide(head, row, view)
        self._decisions += 1
        is_open = bool(unlogged.names) and unlogged.open(view)
        if self._shadowed is not None:
            self._shadowed.add(self._again, head, row, view, decision, known=not is_open)
        if is_open:
            self._open += 1
            self._names.update(unlogged.names)
            return
        self._redrawn += (
            view.draws.unknown
            or any(salt not in row.shares for salt in unlogged.salts)
            or any(name not in row.variants for name in unlogged.experiments)
        )
        if self._earning is not None:
            self._earning.add(head, row, self._again, view)
        after = won_of(decision)
        changed = delivered(after) != delivered(row.won)
        self._count(head, row, view, after, changed=changed)
        if changed:
            self._examples.add(_example(head, row, after, self._candidate))

    def result(self) -> Compared:
        """What came of it until now."""
        return Compared(
            decisions=self._decisions,
            changed=self._changed,
            open=self._open,
            redrawn=self._redrawn,
            unlogged=sorted(self._names),
            left_out=dict(self._left_out),
            by_rule={rule: counts for rule, counts in sorted(self._by_rule.items()) if counts[0] != counts[1]},
            moves=dict(self._moves.most_common()),
            by_point=dict(sorted(self._by_point.items())),
            by_segment=dict(sorted(self._by_segment.items())),
            models=[] if self._shadowed is None else self._shadowed.found(),
            examples=self._examples.all(),
        )

    def _count(self, head: Head, row: Row, view: View, after: Sequence[Won], *, changed: bool) -> None:
        self._changed += changed
        _add(self._by_point[head.point], changed)
        for each in row.won:
            self._by_rule[each.rule][0] += 1
        for each in after:
            self._by_rule[each.rule][1] += 1
        if changed:
            gone = [each.rule for each in row.won]
            come = [each.rule for each in after]
            for place in range(max(len(gone), len(come))):
                pair = (*gone[place : place + 1], "-")[0], (*come[place : place + 1], "-")[0]
                if pair[0] != pair[1] or len(gone) == len(come) == 1:
                    self._moves[f"{pair[0] or 'default'} → {pair[1] or 'default'}"] += 1
        known = {(root, key or name) for root, name, key in head.reads}
        for name, reads in self._segments.items():
            if reads <= known and segment_in(view, self._candidate, name):
                _add(self._by_segment[name], changed)

    def _unlogged_of(self, head: Head) -> Unlogged:
        key = (head.point, head.reads)
        found = self._unlogged.get(key)
        if found is None:
            found = self._unlogged[key] = Unlogged(self._candidate.point(head.point), head)
        return found


def _add(counts: list[int], changed: bool) -> None:  # noqa: FBT001 - a count of one
    counts[0] += 1
    counts[1] += changed


def _example(head: Head, row: Row, after: Iterable[Won], snapshot: Snapshot) -> Example:
    """As who wrote `snapshot` knows the names that were read."""
    read, symbols = {}, snapshot.symbols
    for (root, name, key), value in zip(head.reads, row.values or (), strict=True):
        if value is not None and f"{root}.{name}" not in symbols.personal:
            feature = symbols.features.get(name) if root == "features" else None
            # A row has features as they are stored: of some that is no value yet.
            read[f"{root}.{name}"] = feature.value(value, row.at) if feature and feature.key == key else value
    before = tuple(each.rule for each in row.won)
    return Example(
        id=row.id,
        at=row.at,
        point=head.point,
        snapshot=head.snapshot,
        before=before,
        after=tuple(each.rule for each in after),
        read=read,
    )
