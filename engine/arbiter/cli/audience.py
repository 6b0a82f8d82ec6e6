"""`arbiter audience`: whom a rule would reach, of everybody in a store.

Law: opens and prints; what is counted stands in `runtime.reaching`. Reads beside a server, on what processor time
nobody else wants.
"""

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from arbiter.cli.asking import AsJson, Config, Key, PreviousKeys
from arbiter.cli.check import models_beside
from arbiter.cli.flags import chosen
from arbiter.cli.terminal import bar, err, out, plural, print_json, print_table
from arbiter.cli.values import read_assignments, read_context, read_moment
from arbiter.types import from_micros, to_micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from arbiter.runtime.audience import Audience
    from arbiter.runtime.reaching import Reach

Rules = Annotated[Path, typer.Argument(metavar="RULES", help="The directory of the rules.", exists=True,
                                       file_okay=False)]  # fmt: skip
RuleId = Annotated[str, typer.Argument(metavar="RULE_ID", help="The id of the rule.")]
Data = Annotated[Path, typer.Option(metavar="DIR", help="The server's data directory.", exists=True, file_okay=False)]
Models = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The models. [default: `models` beside the rules]", exists=True, file_okay=False),
]
At = Annotated[
    str, typer.Option(metavar="MOMENT", help="As if it were then, as in 2026-12-24T18:00:00Z. [default: now]")
]
Context = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="An attribute that every request would send; may be given again. One JSON object, or @FILE, gives "
        "several. What the rule reads of the context and nobody gives is unknown.",
    ),
]
Sample = Annotated[
    int, typer.Option(min=0, metavar="N", help="Look at so many profiles only, taken at random; 0 for all.")
]
Examples = Annotated[
    int,
    typer.Option(min=0, max=1000, metavar="N", help="Also name so many subjects of each outcome: personal data."),
]
_INTERRUPTED = 130
_KINDLY = 19
_SHOWN = 10  # rows of a table of which there may be many
_LEVEL = 0.95
_STAGES = {
    "no_consent": "no consent to what the rule asks for",
    "failed": "condition false",
    "unknown": "condition unknown",
    "inactive": "outside its dates",
    "rolled_out_of": "outside its rollout",
    "capped": "a cap is full",
    "disabled": "switched off by its `enabled: false`",
    "lost_group": "its group goes to another rule",
    "lost_slot": "the slots go to others",
    "duplicate": "the same was given already",
    "render_failed": "a parameter has no value",
}
_BEFORE = ("no_consent", "failed", "unknown")
_LOSES = {"lost_group": "the group", "lost_slot": "the slot", "duplicate": "gives the same"}


def audience(
    rules: Rules,
    rule_id: RuleId,
    *,
    data: Data = Path("data"),
    models: Models = None,
    at: At = "",
    context: Context = None,
    sample: Sample = 0,
    examples: Examples = 0,
    config: Config = None,
    profiles_key: Key = None,
    profiles_previous_keys: PreviousKeys = None,
    as_json: AsJson = False,
) -> None:
    """Say whom a rule would reach, of the profiles that are stored.

    For how many its condition holds, is false or unknown, and for lack of what; whom dates, rollout and caps let in;
    and for whom it wins at its decision point, or to which rules it is lost. Reads the store of a server that runs or
    of none, and writes nothing. Ctrl-C ends it with what was counted until then.
    """
    from arbiter.cli import offline  # noqa: PLC0415 - loads onnxruntime and LMDB
    from arbiter.profiles.copies import data_of  # noqa: PLC0415
    from arbiter.runtime.reaching import Reach  # noqa: PLC0415

    given, moment = _context(context or ()), to_micros(read_moment(at, "--at")) if at else None
    data_of(data / "store")
    named = {"profiles.key": profiles_key, "profiles.previous_keys": profiles_previous_keys}
    options = chosen(config, {name: str(path) for name, path in named.items() if path}).options
    os.nice(_KINDLY)
    with offline.engine(rules, models or models_beside(rules), data, options.profiles) as engine:
        moment = engine.clock() if moment is None else moment
        reach = Reach(engine, rule_id, moment, given, sample=sample, examples=examples)
        ended = _gone_through(reach)
        found = reach.result()
    if as_json:
        print_json(_fields(found, ended=ended))
    else:
        _print(found)
    if not ended:
        err().print("interrupted: this is of those that were met until then", highlight=False)
        raise typer.Exit(_INTERRUPTED)


def _context(written: "Iterable[str]") -> dict[str, Any]:
    """The attributes of a request, by names and values or by objects; each is given once."""
    found: dict[str, Any] = {}
    for each in written:
        more = read_context(each) if each.startswith(("{", "@")) else read_assignments([each])
        if twice := sorted(found.keys() & more.keys()):
            raise typer.BadParameter(f"{twice[0]} is given twice: one of the two is meant", param_hint="--context")
        found |= {name: value for name, value in more.items() if value is not None}
    return found


def _gone_through(reach: "Reach") -> bool:
    """Count to the end, True, or until Ctrl-C."""
    with _interruptions() as interrupted, bar(reach.expected, "profiles") as advance:
        while not interrupted():
            looked = reach.step()
            if looked is None:
                return True
            advance(looked)
    return False


@contextlib.contextmanager
def _interruptions() -> "Iterator[Callable[[], bool]]":
    """What says whether Ctrl-C was pressed in the block: what is counted by then is still to be told."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _fields(found: "Audience", *, ended: bool) -> dict[str, Any]:
    shares = {name: _share(count, found) for name, count in _stages(found)}
    return {
        **msgspec.structs.asdict(found),
        "at": from_micros(found.at),
        "interrupted": not ended,
        "shares": shares,
    }


def _stages(found: "Audience") -> list[tuple[str, int]]:
    """What is counted, in the order in which decisions go."""
    outcomes = found.outcomes
    after = [name for name in _STAGES if name not in _BEFORE]
    entering = after[: after.index("disabled")]
    lost = after[after.index("disabled") :]
    return [
        *((name, outcomes[name]) for name in _BEFORE if name in outcomes),
        ("holds", found.holds),
        *((name, outcomes[name]) for name in entering if name in outcomes),
        ("eligible", found.eligible),
        *((name, outcomes[name]) for name in lost if name in outcomes),
        ("shown", found.shown),
    ]


def _share(count: int, found: "Audience") -> dict[str, float] | None:
    """The share of the profiles that were looked at; of some of them with the interval for all, by Wilson."""
    from arbiter.learning.effects import wilson  # noqa: PLC0415 - seldom asked for

    if not found.profiles:
        return None
    if found.whole:
        return {"share": count / found.profiles}
    share, low, high = wilson(count, found.profiles, _LEVEL)
    return {"share": share, "low": low, "high": high}


def _print(found: "Audience") -> None:
    said = f"{found.rule} at {found.decision}, as of {from_micros(found.at).isoformat(timespec='seconds')}"
    of = plural(found.profiles, "profile")
    whom = f"all {of} of the store" if found.whole else f"{of}, taken at random of some {found.records:,}"
    out().print(f"{said}: {whom}", highlight=False)
    _print_conditions(found)
    words = {**_STAGES, "holds": "condition holds", "eligible": "eligible", "shown": "would be shown it"}
    heads = ("what becomes of it", "profiles", "share", *(() if found.whole else ("95 % interval",)))
    print_table(
        heads, [(words[name], f"{count:,}", *_percent(_share(count, found), found)) for name, count in _stages(found)]
    )
    if found.missing:
        print_table(
            ("unknown for lack of", "profiles", "of these hidden by consent"),
            [
                (each.name or "a value that can be used", f"{each.profiles:,}", f"{each.denied:,}")
                for each in found.missing[:_SHOWN]
            ],
        )
    if found.lost:
        print_table(
            ("lost to", "by", "profiles"),
            [(each.rule, _LOSES[each.reason], f"{each.profiles:,}") for each in found.lost[:_SHOWN]],
        )
    if found.variants:
        print_table(
            ("experiment", "variant", "profiles", "condition holds", "eligible", "would be shown it"),
            [
                (each.experiment, each.variant or "(outside)",
                 *(f"{count:,}" for count in (each.profiles, each.holds, each.eligible, each.shown)))
                for each in found.variants
            ],
        )  # fmt: skip
    _print_notes(found)
    if found.examples:
        print_table(
            ("subject", "what becomes of it", "by"),
            [(each.subject, words["shown" if each.reason == "won" else each.reason], each.detail)
             for each in found.examples],
        )  # fmt: skip


def _print_conditions(found: "Audience") -> None:
    rows = [
        (each.text, *(f"{count:,}" for count in (each.true + each.false + each.unknown, each.true, each.false,
                                                  each.unknown)))
        for each in found.conditions
    ]  # fmt: skip
    if rows:
        print_table(("condition", "asked of", "true", "false: out", "unknown"), rows, prose=("condition",))


def _percent(share: dict[str, float] | None, found: "Audience") -> tuple[str, ...]:
    if share is None:
        return ("",) if found.whole else ("", "")
    if found.whole:
        return (f"{share['share']:.2%}",)
    return f"{share['share']:.2%}", f"{share['low']:.2%} to {share['high']:.2%}"


def _print_notes(found: "Audience") -> None:
    notes = []
    if not found.enabled:
        notes.append("the rule is switched off by its `enabled: false`: nobody is shown it until that goes")
    if found.lacking:
        notes.append(f"unknown, since no --context gives it: {', '.join(found.lacking)}")
    if found.lacking_beside:
        notes.append(f"other rules of {found.decision} read, and no --context gives: {', '.join(found.lacking_beside)}")
    if found.by_id and found.ids < found.profiles:
        without = found.profiles - found.ids
        notes.append(
            f"the store does not keep the ids of {without:,}: for what is drawn by id (a rollout, an experiment) "
            f"another is drawn for them, so shares are right and single subjects may differ"
        )
    notes += [f"{name} gave nothing for {count:,}: it failed" for name, count in found.degraded.items()]
    for note in notes:
        out().print(f"note: {note}", highlight=False)
