"""What a log says of rules and people: who was eligible, won, lost to whom, was shown, converted.

Law: asks the records. Of a decision it is known who lost only where that was looked at, so what is eligible is counted
over those decisions alone, and never guessed for others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arbiter.learning.report.terms import Lost, Reach, RuleFigures

if TYPE_CHECKING:
    from arbiter.learning.report.reading import Records
    from arbiter.learning.report.terms import Question

_FEW: Final = 3  # rules of a point below which everything is not much
_WON: Final = """
    SELECT point, rule, count(*), count(DISTINCT subject)
    FROM (SELECT point, subject, unnest(list_distinct(won)) AS rule FROM decisions) GROUP BY ALL
"""
_ELIGIBLE: Final = """
    SELECT point, rule, count(*) FROM (
        SELECT point, unnest(list_distinct(list_concat(won, list_transform(losers, lambda l: l.rule)))) AS rule
        FROM decisions WHERE losers IS NOT NULL
    ) GROUP BY ALL
"""
_LOST: Final = """
    SELECT point, l.rule, l.stage, coalesce(l.lost_to, ''), count(*) AS times
    FROM (SELECT point, unnest(losers) AS l FROM decisions WHERE losers IS NOT NULL)
    GROUP BY ALL ORDER BY times DESC, 3, 4
"""
_HAPPENED: Final = """
    SELECT w.point, w.rule, CASE WHEN h.kind = 'exposure' THEN '' ELSE h.name END AS what, count(DISTINCT w.id)
    FROM happened h JOIN won w ON h.decision = w.id AND (h.rule = '' OR h.rule = w.rule)
    WHERE h.kind = 'exposure' OR (
        h.name <> '' AND h.moment >= h.decided_at AND (? IS NULL OR h.moment - h.decided_at < ?)
    ) GROUP BY ALL
"""
_POINTS: Final = """
    SELECT point, count(*), count(DISTINCT subject), count(*) FILTER (losers IS NOT NULL)
    FROM decisions GROUP BY point ORDER BY point
"""
_PEOPLE: Final = """
    CREATE OR REPLACE TABLE people AS
    SELECT d.point, d.subject, count(DISTINCT w.rule) AS different, count(w.rule) AS times
    FROM decisions d LEFT JOIN won w ON w.id = d.id AND w.rule <> '' WHERE d.subject IS NOT NULL GROUP BY ALL
"""
_HEAVIEST: Final = """
    SELECT point, sum(times) FILTER (place <= greatest(1, people // 10)) / nullif(sum(times), 0) FROM (
        SELECT point, times, row_number() OVER (PARTITION BY point ORDER BY times DESC) AS place,
            count(*) OVER (PARTITION BY point) AS people
        FROM people
    ) GROUP BY point
"""


def figures(records: Records, question: Question) -> list[RuleFigures]:
    """Every rule that the log names, by decision point, those that won most often first."""
    won = {(point, rule): (count, subjects) for point, rule, count, subjects in records.rows(_WON)}
    eligible = {(point, rule): count for point, rule, count in records.rows(_ELIGIBLE)}
    looked = {point: count for point, _, _, count in records.rows(_POINTS)}
    lost: dict[tuple[str, str], list[Lost]] = {}
    for point, rule, stage, to, times in records.rows(_LOST):
        lost.setdefault((point, rule), []).append(Lost(stage, to, times))
    happened: dict[tuple[str, str], dict[str, int]] = {}
    for point, rule, what, count in records.rows(_HAPPENED, question.within, question.within):
        happened.setdefault((point, rule), {})[what] = count
    found = []
    for key in sorted(won.keys() | eligible.keys(), key=lambda key: (key[0], -won.get(key, (0, 0))[0], key[1])):
        point, rule = key
        own = happened.get(key, {})
        converted = {name: own[name] for name in sorted(own) if name}
        among = eligible.get(key, 0) if looked[point] else None
        found.append(
            RuleFigures(
                point, rule, *won.get(key, (0, 0)), own.get("", 0), converted, looked[point], among, lost.get(key, [])
            )
        )
    return found


def reach(records: Records, question: Question) -> list[Reach]:
    """How far the rules of each decision point reach, by point."""
    records.make(_PEOPLE)
    subjects: dict[str, dict[str, int]] = {}
    for point, rule, _, count in records.rows(_WON):
        if rule:
            subjects.setdefault(point, {})[rule] = count
    different: dict[str, dict[int, int]] = {}
    for point, number, count in records.rows(
        "SELECT point, different, count(*) FROM people GROUP BY ALL ORDER BY 1, 2"
    ):
        different.setdefault(point, {})[number] = count
    heaviest = dict(records.rows(_HEAVIEST))
    found = []
    for point, decisions, all_of_them, _ in records.rows(_POINTS):
        own, spread = subjects.get(point, {}), different.get(point, {})
        rules = max(len(own), len(question.rules.get(point, ())))
        everything = None
        if rules >= _FEW:
            everything = sum(count for number, count in spread.items() if number >= question.most * rules)
        found.append(
            Reach(
                point,
                decisions,
                all_of_them,
                spread.get(0, 0),
                rules,
                sorted(rule for rule, count in own.items() if count < question.least * all_of_them),
                sorted(set(question.rules.get(point, ())) - own.keys()),
                spread,
                everything,
                heaviest.get(point),
            )
        )
    return found
