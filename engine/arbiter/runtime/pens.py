"""What writes rows of the log: a pen for each decision point under each snapshot.

Law: a decision and what it saw in, a row out, which is then packed; nothing waits here, and nothing is counted. Most
rows are of one plain form, and a function that is generated for the point makes those of many decisions at once;
`Pen.row` makes every form, that one too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.decision.hashing import share
from arbiter.expr.generated import function_of
from arbiter.expr.shaped import STORED, taker
from arbiter.learning.happened import MINUTE
from arbiter.learning.logged import CERTAIN, Head, Lost, Won, by_lot, encode, lacking_of
from arbiter.runtime.active import sooner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbiter.expr.shaped import Taken
    from arbiter.expr.view import View
    from arbiter.ruleset.compiled import Point
    from arbiter.runtime.active import Active
    from arbiter.runtime.engine import Noted
    from arbiter.snapshot import Snapshot
    from arbiter.types import Decision, Request, Treatment

    Row = tuple[Any, ...]  # as `logged.Row` has its fields, the last of which may be left out
    Rows = list[Row | None]
    Quick = Callable[[Sequence[Noted], Sequence[int], Active, Rows], list[int]]
    Reads = tuple[tuple[str, str, str], ...]

_ROOTS: Final = ("profile", "features", "context", "account", "managed")


class Pen:
    """Writes rows of one decision point under one snapshot: `head` is their number, `line` what they share. Where
    `purpose` is not empty, a subject must have granted it for a row of its own.
    """

    def __init__(self, head: int, point: Point, snapshot: Snapshot, purpose: str) -> None:
        symbols = point.symbols.features
        by_root: dict[str, list[str]] = {root: [] for root in _ROOTS}
        for root, name in point.reads:
            by_root[root].append(name)
        keys = {name: symbols[name].key for name in by_root["features"]}
        reads = tuple(
            (root, name, keys[name] if root == "features" else "") for root, names in by_root.items() for name in names
        )
        self.head = head
        self.line = encode(Head(head, point.name, snapshot.digest, reads))
        self.purpose = purpose if snapshot.consent is not None else ""
        self._point = point.name
        self._consents = snapshot.consent is not None
        self._salts = point.salts
        self._experiments = point.experiments
        changing = {f"{root}.{key or name}" for root, name, key in reads}
        self._changes = frozenset(changing) if "recency" in point.dynamic else frozenset()
        self._winners = _Winners()
        self._values = _reader(reads)
        peculiar = bool(self._changes or self._experiments or point.bandits)
        self.quick: Quick = never if peculiar else self._quick(point, reads)
        """Of decisions that were noted, looks at some places and puts rows there for those at the point, under this
        active snapshot, which `ordinary` holds for, and that nothing is peculiar about; gives the places of the
        others, which `row` is for, in order. Of who lost it says nothing.
        """

    def row(
        self,
        noted: Noted,
        reference: bytes,
        losers: tuple[Lost, ...] | None = None,
    ) -> Row:
        """The row of a decision whose subject has this reference, empty for nobody known.

        `losers` is None where nobody looked.
        """
        number, request, decision, active, (view, profile), page, place = noted
        until = profile.next_change_at if active.until is None else sooner(profile.next_change_at, active.until)
        if decision.drawn:
            won = [msgspec.Raw(encode(each)) for each in by_lot(decision)]
        elif decision.experiments:
            won = [self._winners.drawn(treatment, decision.propensity) for treatment in decision.treatments]
        else:
            won = self._winners.all(decision.treatments)
        changes = profile.changes() if self._changes else {}
        return (
            self.head,
            number,
            request.now,
            reference.hex(),
            self._values(view),
            won,
            decision.defaulted,
            decision.valid_until,
            until,
            sorted(view.consent.granted),
            {salt: share(salt, request.subject_id) for salt in self._salts},
            request.slots,
            page,
            place,
            sorted(active.off),
            {key: changes[key] for key in self._changes if key in changes},
            active.snapshot.trying,
            lacking_of(decision),
            active.canary,
            losers,
            {name: view.experiments.of(name, view) for name in self._experiments},
            tuple(decision.experiments),
        )

    def impersonal(self, request: Request, decision: Decision) -> Row:
        """A row that says nothing of the subject, nor exactly when."""
        won = [Won(each.rule_id, each.action, {}, each.priority) for each in decision.treatments]
        return (self.head, "", request.now - request.now % MINUTE, "", None, won, decision.defaulted)

    def _quick(self, point: Point, reads: Reads) -> Quick:
        """Generated, since every decision that is logged is written by it."""
        names: dict[str, Any] = {
            "share": share,
            "won": self._winners.known,
            "all_won": self._winners.all,
        }
        # Who is to be asked for consent, or for what else the usual row has no place, is for `row`.
        peculiar = ["request.slots", *(["decision.degraded"] if point.models else [])]
        if self.purpose:
            peculiar.append(f"{self.purpose!r} not in stored.granted")
        granted = "sorted(view.consent.granted)" if self._consents else "()"
        shares = f"{{{', '.join(f'{salt!r}: share({salt!r}, request.subject_id)' for salt in self._salts)}}}"
        some = f"{granted}, {shares}" if self._salts else granted if self._consents else ""
        read, values = _reading(reads, names)
        before = (
            f"{self.head}, number, request.now, reference.hex(), {values}, winners, "
            "decision.defaulted, decision.valid_until, stored.next_change_at"
        )
        lines = [
            "def f(noted, places, active, rows):",
            "    others = []",
            "    for at in places:",
            "        number, request, decision, by, (view, stored), page, place = noted[at]",
            "        reference = stored.reference",
            f"        if by is not active or decision.point != {self._point!r} or {' or '.join(peculiar)} or (",
            "                not reference and stored.feature_set):",
            "            others.append(at)",
            "            continue",
            "        treatments = decision.treatments",
            # As `_Winners.all` does, written out: mostly it is there.
            "        known = won.get(treatments[0].rule_id) if len(treatments) == 1 else None",
            "        winners = known[1] if known and known[0] is treatments[0] else all_won(treatments)",
            *(f"        {line}" for line in read),
            "        if page:",
            f"            rows[at] = ({before}, {granted}, {shares}, 0, page, place)",
            "        else:",
            f"            rows[at] = ({before}, {some})",
            "    return others",
            "",
        ]
        quick: Quick = function_of(["\n".join(lines)], names, "rows of the log")
        return quick


class _Winners:
    """Packs what won. A constant treatment is the very same object each time, and so is what it is packed to."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[Treatment, list[msgspec.Raw]]] = {}  # by rule, empty for the default
        self._drawn: dict[tuple[str, float], tuple[Treatment, msgspec.Raw]] = {}

    def all(self, treatments: Sequence[Treatment]) -> list[msgspec.Raw]:
        """Those that nothing was drawn for."""
        if len(treatments) == 1:
            return self._one(treatments[0])
        return [packed for treatment in treatments for packed in self._one(treatment)]

    def _one(self, treatment: Treatment) -> list[msgspec.Raw]:
        known = self.known.get(treatment.rule_id)
        if known is None or known[0] is not treatment:
            known = self.known[treatment.rule_id] = treatment, [msgspec.Raw(encode(_won(treatment)))]
        return known[1]

    def drawn(self, treatment: Treatment, propensity: float) -> msgspec.Raw:
        """One that an experiment mattered to: there are as many propensities as shares multiply to."""
        key = (treatment.rule_id, propensity)
        known = self._drawn.get(key)
        if known is None or known[0] is not treatment:
            known = self._drawn[key] = treatment, msgspec.Raw(encode(_won(treatment, propensity)))
        return known[1]


def ordinary(active: Active) -> bool:
    """Whether what a call reads is the snapshot with nothing switched off or tried, and no canary."""
    return not (active.off or active.canary or active.until is not None or active.snapshot.trying)


def never(_noted: Sequence[Noted], places: Sequence[int], _active: Active, _rows: Rows) -> list[int]:
    """For a point whose rows are never of the plain form."""
    return list(places)


def _won(treatment: Treatment, propensity: float = CERTAIN) -> Won:
    return Won(
        treatment.rule_id, treatment.action, treatment.params, treatment.priority, treatment.value, propensity
    )  # fmt: skip


def _reader(reads: Reads) -> Callable[[View], tuple[Any, ...]]:
    """Gives what a view knows of these names, None for what is missing."""
    names: dict[str, Any] = {}
    read, values = _reading(reads, names)
    lines = ["def f(view):", *(f"    {line}" for line in read), f"    return {values}", ""]
    function: Callable[[View], tuple[Any, ...]] = function_of(["\n".join(lines)], names, "what is logged")
    return function


def _reading(reads: Reads, names: dict[str, Any]) -> tuple[list[str], str]:
    """Source that reads what `view` knows of these names, and an expression of it as one tuple. `names` are globals."""
    by_root: dict[str, list[str]] = {}
    for root, name, key in reads:
        by_root.setdefault(root, []).append(key or name)
    lines, parts = [], []
    for root, keys in by_root.items():
        lines.append(f"{root} = view.{root}")
        if root in STORED and len(keys) > 1:
            known: dict[bytes, Taken] = {}
            names[f"known_{root}"], names[f"take_{root}"] = known, taker(tuple(keys), known)
            lines += [
                "try:",
                f"    of_{root} = known_{root}[{root}.names]({root}.held)",
                "except (KeyError, IndexError, AttributeError):",  # a new set of names, or a dictionary
                f"    of_{root} = tuple(take_{root}({root}))",
            ]
            parts.append(f"of_{root}")
        else:
            parts.append(f"({''.join(f'{root}.get({key!r}), ' for key in keys)})")
    return lines, " + ".join(parts) or "()"
