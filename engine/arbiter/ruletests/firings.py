"""What a test expects of triggers, and what did not come true of it.

Law: reads nodes into `Foreseen`, and holds it against what came; every difference is said once, at the narrowest place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from arbiter.authoring.blocks import Block
from arbiter.authoring.nodes import Mapping, Node, Scalar, Sequence, as_text, kind_of
from arbiter.decision.wording import shown
from arbiter.ruleset.patterns.acts import KEYS as ACTS
from arbiter.ruletests.compare import Mismatch, alike
from arbiter.ruletests.spec import Foreseen, Named, WantedFiring
from arbiter.ruletests.values import REFUSED, Values, is_known
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.ruletests.given import Names
    from arbiter.ruletests.overtime import Course, Fired

KEYS: Final = ("firings", "fires", "silent")
FIRING_KEYS: Final = ("trigger", "at", *ACTS)
_LISTS: Final = frozenset({"unset", "enter_segment", "leave_segment"})
_FIRST: Final = {"emit": "event", "decide": "decision"}
_REST: Final = {"emit": "properties", "decide": "context"}
_HINT: Final = "write `[TRIGGER-ID]`, or `[{trigger: TRIGGER-ID, at: 5m ago, set: {...}}]`"


def read_foreseen(expect: Block, names: Names, now: int) -> Foreseen | None:
    """What ``expect`` says of triggers; None when it says nothing. Values are as they stand."""
    said = [key for key in KEYS if expect.has(key)]
    if not said:
        return None
    reader = _Reader(expect, names, Values(expect.report, now))
    return Foreseen(
        node=expect.key(said[0]),
        firings=reader.firings("firings") if expect.has("firings") else None,
        fires=reader.firings("fires"),
        silent=tuple(reader.silent()),
    )


class _Reader:
    def __init__(self, block: Block, names: Names, values: Values) -> None:
        self._block = block
        self._names = names
        self._values = values

    def _trigger(self, node: Node, path: str) -> str | None:
        text = as_text(node)
        if text is None:
            self._block.report.at(node, f"a trigger's id must stand here, this is {kind_of(node)}", path=path)
            return None
        return text if is_known(text, self._names.triggers, "trigger", node, self._block.report, path) else None

    def firings(self, key: str) -> tuple[WantedFiring, ...]:
        found: list[WantedFiring] = []
        for path, item in self._block.items(key, _HINT):
            if isinstance(item, Mapping):
                wanted = self._firing(item, path)
                found += [] if wanted is None else [wanted]
            else:
                trigger = self._trigger(item, path)
                found += [] if trigger is None else [WantedFiring(item, trigger)]
        return tuple(found)

    def silent(self) -> Iterator[Named]:
        for path, item in self._block.items("silent", "write `[TRIGGER-ID]`"):
            trigger = self._trigger(item, path)
            if trigger is not None:
                yield Named(item, trigger)

    def _firing(self, node: Mapping, path: str) -> WantedFiring | None:
        block = Block(node, self._block.report, what="a firing", path=path, keys=FIRING_KEYS)
        if not block.require("trigger", "say which trigger fires"):
            return None
        named, moment = block.get("trigger"), block.get("at")
        trigger = None if named is None else self._trigger(named, f"{path}.trigger")
        at = None if moment is None else self._values.moment(moment, f"{path}.at")
        acts = {}
        for key in ACTS:
            given = block.get(key)
            value = REFUSED if given is None else self._act(key, given, f"{path}.{key}")
            if value is not REFUSED:
                acts[key] = value
        if trigger is None or named is None:
            return None
        nodes = {name: entry.node for name, entry in node.entries.items() if entry.node is not None}
        return WantedFiring(named, trigger, at, acts, nodes)

    def _act(self, key: str, node: Node, path: str) -> Any:
        """What an act is to come to, in the form in which acts are told."""
        value = self._values.plain(node, path)
        if value is REFUSED:
            return value
        if key in _LISTS:
            return value if isinstance(node, Sequence) else [value]
        if key in _FIRST and isinstance(node, Scalar):
            return {_FIRST[key]: value}
        if not isinstance(node, Mapping):
            self._block.report.at(node, f"`{key}` must be a mapping here, this is {kind_of(node)}", path=path)
            return REFUSED
        if key in _FIRST:
            Block(node, self._block.report, what=f"`{key}`", path=path, keys=(_FIRST[key], _REST[key]))
        return value


def compare_firings(foreseen: Foreseen, course: Course) -> Iterator[Mismatch]:
    """Every difference."""
    came = tuple(_label(fired) for fired in course.fired) or ("nothing",)
    if foreseen.firings is not None:
        yield from _all(foreseen, foreseen.firings, course)
    for wanted in foreseen.fires:
        of_it = [fired for fired in course.fired if fired.trigger == wanted.trigger]
        found = next((fired for fired in of_it if wanted.at in {None, fired.at}), None)
        if found is None:
            why = () if of_it else _why(course, wanted.trigger)
            yield Mismatch(wanted.node, "", "fires", (_wanted(wanted),), came, why=why)
        else:
            yield from _details(wanted, found)
    for silent in foreseen.silent:
        if any(fired.trigger == silent.rule for fired in course.fired):
            yield Mismatch(silent.node, "", "silent", (f"without {silent.rule}",), came)


def _all(foreseen: Foreseen, wanted: tuple[WantedFiring, ...], course: Course) -> Iterator[Mismatch]:
    fired = course.fired
    if [each.trigger for each in wanted] != [each.trigger for each in fired]:
        lines = tuple(map(_wanted, wanted)) or ("nothing",)
        came = tuple(_label(each) for each in fired) or ("nothing",)
        missed = {each.trigger for each in wanted} - {each.trigger for each in fired}
        why = tuple(line for name in sorted(missed) for line in _why(course, name))
        yield Mismatch(foreseen.node, "", "firings", lines, came, why=why)
        return
    for want, one in zip(wanted, fired, strict=True):
        yield from _details(want, one)


def _details(wanted: WantedFiring, fired: Fired) -> Iterator[Mismatch]:
    of = wanted.trigger
    if wanted.at is not None and wanted.at != fired.at:
        lines = (shown(from_micros(wanted.at)),), (shown(from_micros(fired.at)),)
        yield Mismatch(wanted.nodes["at"], "", f"time of {of}", *lines)
    for key, value in wanted.acts.items():
        did = fired.acts.get(key)
        if key in _FIRST and did is not None:
            # What is not said of it is not compared.
            did = {name: did[name] for name in did if name in value}
        if key in _LISTS and did is not None:
            value, did = sorted(map(str, value)), sorted(did)  # noqa: PLW2901 - as sets
        if did is None or not alike(value, did):
            came = "nothing" if did is None else shown(did)
            yield Mismatch(wanted.nodes[key], "", f"`{key}` of {of}", (shown(value),), (came,))


def _why(course: Course, trigger: str) -> tuple[tuple[str, str], ...]:
    """Why a trigger did not fire."""
    passed = tuple(
        (trigger, f"was passed over at {shown(from_micros(each.at))}: {each.why}")
        for each in course.passed
        if each.trigger == trigger
    )
    return passed or ((trigger, "its pattern was not complete, or its `unless` came"),)


def _label(fired: Fired) -> str:
    return f"{fired.trigger} at {shown(from_micros(fired.at))}"


def _wanted(wanted: WantedFiring) -> str:
    return wanted.trigger + (f" at {shown(from_micros(wanted.at))}" if wanted.at is not None else "")
