"""What a log says of segments: how large they are, who comes, leaves and stays, and which rules win in them.

Law: asks the records, which know of decisions in which segments they were for. Of a subject that is not seen in a span
nothing is known then, so that sizes are of those who were seen, and flows of those who were seen twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arbiter.learning.report.terms import RuleInSegment, SegmentFigures

if TYPE_CHECKING:
    from arbiter.learning.report.reading import Records
    from arbiter.learning.report.terms import Question

_HOUR: Final = 3_600_000_000
_EVERY: Final = (_HOUR, 24 * _HOUR, 7 * 24 * _HOUR, 28 * 24 * _HOUR)
_SPANS: Final = 12  # that are told of a log, where nobody says how long one is
_STANDING: Final = """
    CREATE OR REPLACE TABLE standing AS
    SELECT b.segment, d.subject, d.moment // ? AS span, arg_max(b.inside, d.moment) AS inside
    FROM belongs b JOIN decisions d ON d.id = b.id WHERE d.subject IS NOT NULL GROUP BY ALL
"""
_SIZES: Final = """
    SELECT segment, span, count(*), count(*) FILTER (inside) FROM standing GROUP BY ALL ORDER BY ALL
"""
_FLOWS: Final = """
    SELECT a.segment, a.span, count(*) FILTER (a.inside AND b.inside), count(*) FILTER (a.inside AND NOT b.inside),
        count(*) FILTER (NOT a.inside AND b.inside), count(*) FILTER (NOT a.inside)
    FROM standing a JOIN standing b ON a.segment = b.segment AND a.subject = b.subject AND b.span = a.span + 1
    GROUP BY ALL
"""
_WON: Final = """
    SELECT d.point, unnest(list_distinct(d.won)) AS rule, b.segment, d.id, d.subject
    FROM decisions d JOIN belongs b ON b.id = d.id WHERE b.inside
"""
_COUNTED: Final = f"""
    SELECT point, rule, segment, count(*), count(DISTINCT subject) FROM ({_WON}) GROUP BY ALL
"""  # noqa: S608 - made of constants
_ELIGIBLE: Final = """
    SELECT point, rule, segment, count(*) FROM (
        SELECT d.point, b.segment,
            unnest(list_distinct(list_concat(d.won, list_transform(d.losers, lambda l: l.rule)))) AS rule
        FROM decisions d JOIN belongs b ON b.id = d.id WHERE b.inside AND d.losers IS NOT NULL
    ) GROUP BY ALL
"""
_LOOKED: Final = """
    SELECT d.point, b.segment, count(*) FILTER (d.losers IS NOT NULL)
    FROM decisions d JOIN belongs b ON b.id = d.id WHERE b.inside GROUP BY ALL
"""
_HAPPENED: Final = f"""
    SELECT w.point, w.rule, w.segment, CASE WHEN h.kind = 'exposure' THEN '' ELSE h.name END, count(DISTINCT w.id)
    FROM happened h JOIN ({_WON}) w ON h.decision = w.id AND (h.rule = '' OR h.rule = w.rule)
    WHERE h.kind = 'exposure' OR (
        h.name <> '' AND h.moment >= h.decided_at AND (? IS NULL OR h.moment - h.decided_at < ?)
    ) GROUP BY ALL
"""  # noqa: S608 - made of constants


def segments(records: Records, question: Question) -> list[SegmentFigures]:
    """Every segment of which anything is known, by name."""
    first, last = records.row("SELECT min(moment), max(moment) FROM decisions")
    if first is None:
        return []
    every = question.every or _fitting(first, last)
    records.make(_STANDING, every)
    sizes: dict[str, dict[int, tuple[int, int]]] = {}
    for segment, span, known, inside in records.rows(_SIZES):
        sizes.setdefault(segment, {})[span] = known, inside
    flows = {(segment, span): counts for segment, span, *counts in records.rows(_FLOWS)}
    spans = range(first // every, last // every + 1)
    found = []
    for segment, own in sizes.items():
        moved = [flows.get((segment, span), [0, 0, 0, 0]) for span in spans[:-1]]
        stayed, left, came, outside = ([each[place] for each in moved] for place in range(4))
        known, inside = ([own.get(span, (0, 0))[place] for span in spans] for place in range(2))
        stays = sum(stayed) / (sum(stayed) + sum(left)) if sum(stayed) + sum(left) else None
        comes = sum(came) / sum(outside) if sum(outside) else None
        found.append(
            SegmentFigures(segment, [span * every for span in spans], known, inside, stayed, left, came, stays, comes)
        )
    return found


def rules_by_segment(records: Records, question: Question) -> list[RuleInSegment]:
    """Every rule in every segment in which it won or was eligible, those that won most often first."""
    won = {(point, rule, segment): (count, people) for point, rule, segment, count, people in records.rows(_COUNTED)}
    eligible = {(point, rule, segment): count for point, rule, segment, count in records.rows(_ELIGIBLE)}
    looked = {(point, segment): count for point, segment, count in records.rows(_LOOKED)}
    happened: dict[tuple[str, str, str], dict[str, int]] = {}
    for point, rule, segment, what, count in records.rows(_HAPPENED, question.within, question.within):
        happened.setdefault((point, rule, segment), {})[what] = count
    keys = sorted(won.keys() | eligible.keys(), key=lambda key: (key[0], key[2], -won.get(key, (0, 0))[0], key[1]))
    found = []
    for key in keys:
        point, rule, segment = key
        own, among = happened.get(key, {}), looked[point, segment]
        found.append(
            RuleInSegment(
                point, rule, segment, *won.get(key, (0, 0)), own.get("", 0),
                {name: own[name] for name in sorted(own) if name}, among, eligible.get(key, 0) if among else None,
            )
        )  # fmt: skip
    return found


def _fitting(first: int, last: int) -> int:
    """The shortest span of which the log has not too many."""
    return next((every for every in _EVERY if last // every - first // every < _SPANS), _EVERY[-1])
