"""Checks of rules: which can never match, never win, or say what another says; which parts of conditions are idle.

Law: asks the contest and puts answers into words. A finding with a subject was decided for that subject first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.lint.conditions import impossible_parts, meets_dates, parts_of, redundant_parts, subject_of
from arbiter.lint.cover import Left, point_in
from arbiter.lint.finding import Finding
from arbiter.lint.space import empty, met
from arbiter.lint.subjects import subject_at, winners
from arbiter.lint.words import first_difference, listed
from arbiter.ruleset.terms import Fields, Items, Plain, Template

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from arbiter.lint.conditions import Part
    from arbiter.lint.contest import Contest
    from arbiter.lint.space import Trees
    from arbiter.lint.subjects import Subject
    from arbiter.ruleset.rules import Rule
    from arbiter.ruleset.terms import Param

_LISTED = 5


def check_rules(contest: Contest) -> tuple[list[Finding], set[int]]:
    """The findings about single rules, and the numbers of those that can never win anything."""
    found: list[Finding] = []
    idle: set[int] = set()
    known: dict[Any, Rule] = {}
    for number, rule in enumerate(contest.rules):
        if not contest.matchable(number):
            found.append(_never_matches(rule, contest))
            idle.add(number)
            continue
        found += _redundant(rule, contest)
        first = known.setdefault(_content(rule, contest.given.trees), rule)
        if first is not rule and not (rule.table and rule.table == first.table):
            message = f"rule `{rule.id}` says what `{first.id}` says: same condition, same effect"
            found.append(_finding("duplicate-rule", rule, message, "remove one of the two"))
            idle.add(number)
            continue
        beaten = contest.beaten(number)
        if beaten is not None:
            found += _never_wins(number, beaten, contest)
            idle.add(number)
    return found, idle


def _finding(code: str, rule: Rule, message: str, hint: str, **more: Any) -> Finding:
    return Finding(code=code, position=rule.position, message=message, hint=hint, **more)


def _never_matches(rule: Rule, contest: Contest) -> Finding:
    given = contest.given
    start = f"rule `{rule.id}` can never match"
    hint = "mend the condition, or remove the rule"
    if rule.rollout is not None and not rule.rollout.percent:
        hint = "raise `percent`; `enabled: false` takes a rule out too, and says so"
        return _finding("never-matches", rule, f"{start}: its rollout includes 0 % of subjects", hint)
    if rule.active is not None and meets_dates(rule, given):
        message = f"{start}: its condition is never true within its `active` dates"
        return _finding("never-matches", rule, message, "mend the dates or the condition, or remove the rule")
    parts = parts_of(rule)
    guilty = impossible_parts(rule, parts, given)
    subject, outcome = None, ""
    match guilty:
        case [one]:
            message = f"{start}: `{one.text}` is never true"
            hint = _allowed(one, contest) or hint
        case [one, other]:
            message = f"{start}: `{one.text}` and `{other.text}` are never true together"
            subject = subject_of(rule, [one], given)
            outcome = f"meets `{one.text}` and so not the other"
        case _:
            return _finding("never-matches", rule, f"{start}: the parts of its condition are never all true", hint)
    if subject is not None and rule.id in winners(given.snapshot, contest.point.name, subject):
        subject = None
    return Finding(
        code="never-matches",
        position=guilty[-1].line.position,
        text=guilty[-1].text,
        message=message,
        hint=hint,
        subject=subject,
        outcome=outcome if subject else "",
        also=(rule.position,),
        path=guilty[-1].path,
    )


def _allowed(part: Part, contest: Contest) -> str:
    """What the one name of a part can be, where a declaration says so."""
    names = part.expression.names if len(part.expression.names) == 1 else ()
    for path in names:
        allowed = contest.given.allowed.get(path)
        if allowed is not None and allowed.values:
            return f"`{'.'.join(path)}` is one of {', '.join(f'`{v}`' for v in allowed.values)}"
        if allowed is not None and allowed.least is not None:
            return f"`{'.'.join(path)}` is never less than {allowed.least}"
    return ""


def _redundant(rule: Rule, contest: Contest) -> Iterator[Finding]:
    if rule.table:
        return  # a row's cells are short of nothing: the table's author sees them side by side
    for part, repeated in redundant_parts(rule, parts_of(rule), contest.given):
        said = "stands there twice" if repeated else "is always true when the other parts are"
        yield Finding(
            code="redundant-condition",
            position=part.line.position,
            text=part.text,
            message=f"in the condition of rule `{rule.id}`, `{part.text}` {said}",
            hint="take it away",
            also=(rule.position,),
            path=part.path,
        )


def _never_wins(number: int, beaten: frozenset[int], contest: Contest) -> Iterator[Finding]:
    rule = contest.rules[number]
    if not beaten:
        message = f"rule `{rule.id}` can never win: a parameter of it has no value whenever its condition is true"
        yield _finding("never-wins", rule, message, "say in the condition that the name has a value, or use another")
        return
    others = [contest.rules[each] for each in sorted(beaten)]
    ids = listed([f"`{other.id}`" for other in others], _LISTED)
    subject = _shown(number, sorted(beaten), contest)
    slots = contest.point.slots
    if len(others) == 1:
        (other,) = others
        comes = first_difference(contest.point, other, rule)
        message = f"rule `{rule.id}` can never win: whenever it matches, {ids} matches too and {comes}"
        hint = f"let `{rule.id}` come first, narrow `{other.id}`, or remove one of the two"
        if rule.table and rule.table == other.table:
            hint = f"move row {rule.row} above row {other.row}, narrow that one, or remove one of the two"
    else:
        taken = f" and take all {slots} slots" if slots > 1 else " and come first"
        message = f"rule `{rule.id}` can never win: {ids} together match whatever it matches{taken}"
        hint = f"let `{rule.id}` come before one of them, narrow them, or remove it"
    outcome = ""
    if subject is not None:
        won = winners(contest.given.snapshot, contest.point.name, subject)
        if rule.id in won:
            return  # the claim would be wrong: never say it
        subject = subject if any(other.id in won for other in others) else None
        verb = "wins" if len(won) == 1 else "win"
        outcome = f"{listed([f'`{each}`' for each in won], _LISTED)} {verb}" if subject else ""
    yield _finding("never-wins", rule, message, hint, subject=subject, outcome=outcome)


def _shown(number: int, beaten: Iterable[int], contest: Contest) -> Subject | None:
    """Somebody whom the rule matches, as far as stored values decide, and one of the others too."""
    way = next((w for w in contest.space.ways[number] if w.possible and not empty(w.box)), None)
    if way is None:
        return None
    for other in beaten:
        for rival in contest.space.ways[other]:
            both = met(way.box, rival.sure) if rival.sure is not None else {0: 0}
            if not empty(both):
                return subject_at(contest.space, point_in(both), [contest.rules[number], contest.rules[other]])
    return None


def check_point(contest: Contest) -> Iterator[Finding]:
    """The findings about the decision as a whole."""
    point = contest.point
    if not contest.rules:
        message = f"no rule competes at the decision `{point.name}`: every answer is its default"
        if point.default is None:
            message = f"no rule competes at the decision `{point.name}`, and it has no default: every answer is empty"
        yield Finding(
            code="no-rules",
            position=point.position,
            message=message,
            hint="write a rule for it, or remove the decision",
        )
        return
    if point.default is not None:
        return
    bits = contest.cover.search({}, contest.rivals.all_sure, 0, 1)
    if not isinstance(bits, Left):
        return
    subject = subject_at(contest.space, bits.point)
    empty_handed = not winners(contest.given.snapshot, point.name, subject)
    yield Finding(
        code="no-default",
        position=point.position,
        message=f"the decision `{point.name}` has no default, and there are subjects whom no rule matches",
        hint="add `default: {action: ..., params: {...}}`",
        subject=subject if empty_handed else None,
        outcome="gets nothing" if empty_handed else "",
    )


def _content(rule: Rule, trees: Trees) -> Any:
    """Equal for rules that say the same, priorities apart."""
    rollout = None if rule.rollout is None else (rule.rollout.percent, rule.rollout.by, rule.rollout.salt)
    active = None if rule.active is None else (rule.active.start, rule.active.until, rule.active.local)
    value = None if rule.value is None else trees.of(rule.value)
    params = tuple(sorted((name, _param(param, trees)) for name, param in rule.then.params.items()))
    condition = frozenset(trees.of(part.expression) for part in parts_of(rule))
    return (
        condition,
        rule.then.action,
        params,
        value,
        rule.group,
        rollout,
        active,
        rule.requires_consent,
        rule.cap,
        rule.caps,
    )


def _param(param: Param, trees: Trees) -> str:
    match param:
        case Plain(value=value):
            return f"={value!r}"
        case Template(parts=parts):
            return "".join(f"={p!r}" if isinstance(p, str) else f"${trees.of(p)!r}" for p in parts)
        case Items(items=items):
            return f"[{','.join(_param(item, trees) for item in items)}]"
        case Fields(fields=fields):
            return f"{{{','.join(f'{name!r}:{_param(item, trees)}' for name, item in sorted(fields.items()))}}}"
