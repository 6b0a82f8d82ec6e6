"""`metrics` of rule files: what each becomes, and what two versions differ in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.ruleset.diff import Change, Changed, difference
from arbiter.ruleset.load import load_ruleset
from arbiter.ruleset.terms import Metric

if TYPE_CHECKING:
    from arbiter.ruleset.rules import Ruleset

HOUR = 3_600_000_000
TEXT = """\
decisions: {home: }
metrics:
  revenue: {outcome: purchase, within: 7d, value: amount}
  bought: {outcome: purchase, within: 7d}
  clicks: {outcome: click, within: 1h, value: count}
"""


def read(*texts: str) -> Ruleset:
    files = dict(zip(("r.yaml", "s.yaml"), texts, strict=False))
    ruleset, found = load_ruleset({name: text.encode() for name, text in files.items()}, {})
    assert found == []
    assert ruleset is not None
    return ruleset


def test_each_value_is_taken_as_it_says_and_any_without_one() -> None:
    assert read(TEXT).metrics == (
        Metric("bought", "purchase", 7 * 24 * HOUR, "any", "r.yaml:4:3"),
        Metric("clicks", "click", HOUR, "count", "r.yaml:5:3"),
        Metric("revenue", "purchase", 7 * 24 * HOUR, "sum", "r.yaml:3:3"),
    )


def test_metrics_may_stand_in_several_files_and_in_none() -> None:
    read_both = read(TEXT, "metrics: {left: {outcome: churn, within: 4w}}")
    assert [each.name for each in read_both.metrics] == ["bought", "clicks", "left", "revenue"]
    assert read("decisions: {home: }\nmetrics:\n").metrics == ()


def test_a_difference_is_told_in_the_words_of_authors() -> None:
    after = TEXT.replace("within: 1h, value: count", "within: 90m, value: amount").replace("bought:", "sold:")
    declarations = difference(read(TEXT), read(after)).declarations
    assert (declarations.added, declarations.gone) == (("metrics.sold",), ("metrics.bought",))
    changes = (Change("within", "1h", "90m"), Change("value", "count", "amount"))
    assert declarations.changed == (Changed("metrics.clicks", changes),)
