"""What the lint can find, by code, and one thing that it found.

Law: data. Codes never change their meaning: they stand in comments of rule files and in reviews.
"""

from __future__ import annotations

from typing import Final

import msgspec

# A field's type at run time.
from arbiter.lint.subjects import Subject  # noqa: TC001


class Kind(msgspec.Struct, frozen=True):
    """A kind of finding: one line for lists, and what it means and what to do, in Markdown."""

    title: str
    meaning: str


KINDS: Final[dict[str, Kind]] = {
    "never-matches": Kind(
        "A rule that can never match",
        "No subject meets the condition: parts of it exclude each other, a name is compared with what it can never be, "
        "its `active` dates and its condition never meet, or its rollout includes nobody.",
    ),
    "never-wins": Kind(
        "A rule that can never win",
        "Whatever the rule matches, rules that come before it match too and take every slot, or its group. Claimed "
        "only of rules before it that no rollout, no parameter and no page of several decisions can keep from winning.",
    ),
    "tie": Kind(
        "Rules between which only their ids decide",
        "The rules match the same subjects and are equal in every order key. Renaming one of them would change what "
        "is delivered.",
    ),
    "duplicate-rule": Kind(
        "A rule that says what another says", "Condition, effect and gates are equal; one of the two is enough."
    ),
    "redundant-condition": Kind(
        "A part of a condition that is always true beside the others",
        "Whoever meets the other parts of the condition meets this one too. Taking it away changes nothing, except "
        "that it counts in `specificity`.",
    ),
    "no-default": Kind(
        "A decision without a default", "Some subjects match no rule, and there is nothing to deliver to them."
    ),
    "no-rules": Kind("A decision without rules", "No enabled rule competes here: every answer is the default."),
    "table-gap": Kind("A gap in a decision table", "No row of the table matches this input."),
    "unused-segment": Kind("A segment that no rule uses", "No rule names it, nor does a segment that a rule uses."),
    "unused-experiment": Kind("An experiment that no rule reads", "Whatever its variants, all get the same."),
    "unused-feature": Kind(
        "A feature that nothing reads", "It is kept for every subject, and no rule and no model reads it."
    ),
    "unused-action": Kind("An action that nothing does", "No rule and no default has this action."),
    "unused-model": Kind("A model that no rule asks", "Every worker loads it, and no rule and no segment names it."),
    "never-fires": Kind(
        "A trigger that can never fire",
        "No subject meets its `when`, or no event the `where` of a step that it needs, or not within its dates.",
    ),
    "never-taken": Kind(
        "A step of `any` that is never the one", "Every event that it waits for passes a step before it."
    ),
    "may-loop": Kind(
        "Triggers that may set each other off again and again",
        "Each emits an event for which the next one waits, with nothing but conditions to end it.",
    ),
    "unseen-event": Kind(
        "An event that is emitted and that nothing in the rules looks at",
        "No trigger waits for it and no feature counts it; who subscribes to firings may.",
    ),
    "never-entered": Kind(
        "A managed segment that no trigger enters", "Only callers can enter it, and nothing in the rules says so."
    ),
    "unneeded-allow": Kind(
        "A comment that allows what is not there", "An `# arbiter: allow` comment that accepts nothing any more."
    ),
}  # fmt: skip


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One finding. `position` is ``file:line:column`` in the rules directory, or a whole file; `text` is what stands
    there, to be underlined, empty for the word.

    `subject` shows it, and `outcome` says what is decided for that subject. `also` are positions at which a comment
    may accept it too.
    """

    code: str
    position: str
    message: str
    hint: str = ""
    text: str = ""
    subject: Subject | None = None
    outcome: str = ""
    also: tuple[str, ...] = ()
    path: str = ""
