"""Rules that match the same subjects and are equal in every order key, so that only their ids decide.

Law: among rules whose conditions are about stored values alone. Two rules are said to tie when a subject was found for
whom, really decided, one wins and the other would win without it. Rules that tie with one another are one finding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.lint.cover import Left, far_point_in
from arbiter.lint.finding import Finding
from arbiter.lint.masks import Steps, bits_of, mask_of
from arbiter.lint.order import gift_of, limited
from arbiter.lint.space import empty, met
from arbiter.lint.subjects import subject_at, winners
from arbiter.lint.words import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.lint.contest import Contest
    from arbiter.lint.masks import Mask
    from arbiter.lint.space import Box, Way
    from arbiter.lint.subjects import Subject

_PAIRS = 20_000  # looked at in one decision point; rule sets of tens of thousands rules need some hundreds
_NAMED = 5


def check_ties(contest: Contest, idle: set[int]) -> Iterator[Finding]:
    """One finding for each set of rules that tie with one another. Rules in `idle` never win, so they never tie."""
    by_keys: dict[Any, list[int]] = {}
    for number, keys in enumerate(contest.ranks.keys):
        by_keys.setdefault(keys, []).append(number)
    budget = [_PAIRS]
    for equals in by_keys.values():
        numbers = [number for number in equals if number not in idle and _can_be_shown(contest, number)]
        if len(numbers) > 1:
            yield from _among(contest, numbers, frozenset(contest.rules[number].id for number in equals), budget)


def _can_be_shown(contest: Contest, number: int) -> bool:
    rule = contest.rules[number]
    return not limited(rule) or (rule.rollout is not None and rule.rollout.by == "subject")


def _among(contest: Contest, numbers: list[int], equals: frozenset[str], budget: list[int]) -> Iterator[Finding]:
    """The ties among rules with equal order keys; `equals` are all with these keys."""
    ways = [way for number in numbers for way in contest.space.ways[number] if way.exact and way.sure is not None]
    meets = _Meeting(ways)
    sets = {number: {number} for number in numbers}  # the rules known to tie with one another, by each of them
    bits: dict[int, Mask] = {}
    for bit, way in enumerate(ways):
        bits[way.rule] = bits.get(way.rule, 0) | 1 << bit
    firsts: dict[int, tuple[int, int, Subject]] = {}
    for bit, way in enumerate(ways):
        candidates = meets.candidates(way, (1 << bit) - 1)
        while candidates and budget[0]:
            candidates &= ~mask_of(b for number in sets[way.rule] for b in bits_of(bits[number]))
            if not candidates:
                break
            low = candidates & -candidates
            candidates ^= low
            budget[0] -= 1
            other = ways[low.bit_length() - 1]
            subject = _tie(contest, other, way, equals)
            if subject is None:
                continue
            joined = sets[other.rule] | sets[way.rule]
            pair = firsts.get(min(sets[other.rule])) or (other.rule, way.rule, subject)
            for number in joined:
                sets[number] = joined
            firsts[min(joined)] = pair
    for number in numbers:
        if len(sets[number]) > 1 and min(sets[number]) == number:
            yield _finding(contest, sorted(sets[number]), firsts[number])


def _tie(contest: Contest, one: Way, other: Way, equals: frozenset[str]) -> Subject | None:
    """Somebody for whom only the ids of two rules decide; None when there is nobody, or nobody was found.

    `equals` are all rules with their order keys: one of the two wins beside these, the other would alone.
    """
    first, second = contest.rules[one.rule], contest.rules[other.rule]
    if first.table and first.table == second.table:
        return None
    gift = gift_of(first.then)
    if len(gift) > 1 and gift == gift_of(second.then):
        return None  # the same is delivered, whoever wins
    both = met(one.sure or {}, other.sure or {})
    if empty(both):
        return None
    left = contest.left_of(both, min(one.rule, other.rule))
    if not isinstance(left, Left):
        return None
    for point in (left.point, far_point_in(left.box)):
        subject = subject_at(contest.space, point, [first, second], contest.rolled_out)
        if _decides(contest, subject, first.id, second.id, equals):
            return subject
    return None


def _decides(contest: Contest, subject: Subject, first: str, second: str, equals: frozenset[str]) -> bool:
    """Whether one of two rules really wins here, and the other would without its equals."""
    snapshot, point = contest.given.snapshot, contest.point
    for slots in range(1, point.slots + 1):
        won = winners(snapshot, point.name, subject, slots)
        for better, worse in ((first, second), (second, first)):
            alone = better in won and worse not in won
            if alone and worse in winners(snapshot, point.name, subject, slots, equals - {worse}):
                return True
    return False


def _finding(contest: Contest, numbers: list[int], shown: tuple[int, int, Subject]) -> Finding:
    rules = [contest.rules[number] for number in numbers]
    first, second = (contest.rules[number] for number in sorted(shown[:2]))
    rest = [rule for rule in rules if rule not in (first, second)]
    ids = listed([f"`{rule.id}`" for rule in (first, second, *rest)], _NAMED)
    keys = listed([f"`{key}`" for key in contest.point.order], _NAMED) or "everything, since there is no `order`"
    same = "subject" if len(rules) == 2 else "subjects"  # noqa: PLR2004 - a pair
    tell = " or ".join(f"`{key}`" for key in contest.point.order if key in {"priority", "specificity", "value"})
    return Finding(
        code="tie",
        position=first.position,
        message=f"{ids} can match the same {same}, and then only their ids decide: they are equal in {keys}",
        hint=f"let them differ in {tell}" if tell else "give the decision an `order` that tells them apart",
        subject=shown[2],
        outcome=f"`{first.id}` wins; by itself `{second.id}` would",
        also=tuple(rule.position for rule in rules),
    )


class _Meeting:
    """Which ways may meet a way: those that begin before it ends and end behind where it begins, for every name."""

    def __init__(self, ways: list[Way]) -> None:
        begun: dict[int, dict[int, list[int]]] = {}
        over: dict[int, dict[int, list[int]]] = {}
        mentions: dict[int, list[int]] = {}
        for bit, way in enumerate(ways):
            for number, cells in _box(way).items():
                mentions.setdefault(number, []).append(bit)
                begun.setdefault(number, {}).setdefault(_first(cells), []).append(bit)
                over.setdefault(number, {}).setdefault(cells.bit_length(), []).append(bit)
        everything = (1 << len(ways)) - 1
        self._begun = {
            number: Steps(everything & ~mask_of(bits), begun[number], len(ways)) for number, bits in mentions.items()
        }
        self._over = {number: Steps(0, changes, len(ways)) for number, changes in over.items()}

    def candidates(self, way: Way, among: Mask) -> Mask:
        """The ways of `among` that may meet this one."""
        for number, cells in _box(way).items():
            if not among:
                break
            among &= self._begun[number].at(cells.bit_length() - 1) & ~self._over[number].at(_first(cells))
        return among


def _box(way: Way) -> Box:
    return way.sure or {}


def _first(cells: int) -> int:
    return (cells & -cells).bit_length() - 1
