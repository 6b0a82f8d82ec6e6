"""durable-rules in its cage: which facts, taken together, complete which patterns.

Law: the only module that imports durable_rules_engine, of which it uses the C module alone. A pattern here is bare: how
many facts it takes and which numbers of theirs have to be equal. Order, time and choice are not asked of the engine,
and nothing in it outlives an evaluation: facts are asserted, the matches read, the facts retracted. All that it is
given was written here, as integers and short strings, and no rule set comes near a limit of the engine's.

Where the engine fails, its rule set is thrown away and made anew; where it fails again, so does the caller, and the
process with it. It may also never return, or take the process down: whoever runs it must stand that.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.errors import ArbiterError
from arbiter.triggers.joins import MOST_VARIABLES

try:
    import durable_rules_engine as engine
except ImportError as error:
    engine, _why = None, str(error)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Shape = tuple[tuple[int, ...], ...]
"""A pattern: for each of its facts which variables it holds. Facts with a variable in common must agree on it."""
Keys = tuple[int, ...]
"""A fact: the values of the variables that its place in the pattern holds, in their order."""

MOST_FACTS = 6
"""Of a pattern. A join of seven kills the process."""
_PATTERNS = 32  # of a rule set, which so has at most 192 different conditions behind one beginning; 512 never return
_EVALUATIONS = 128  # after which a session is begun anew, since that costs as much as some ten of them
_SESSION = "0"
_STATE = 1  # what the engine calls the only session of a rule set
_SENTINEL = f'{{"id":"sentinel","sid":"{_SESSION}","kind":0}}'

_names = itertools.count()  # a name cannot be registered twice


class EngineMissing(ArbiterError):
    """durable-rules is not installed here, or built so that it cannot be loaded."""


class EngineFailed(ArbiterError):
    """durable-rules failed twice at one evaluation. Nothing that it holds can be trusted: end the process."""


class _Fact(msgspec.Struct, gc=False):
    id: str


class Cage:
    """The rule sets of many patterns, for one thread.

    A rule set is made when one of its patterns is first asked for; `close` gives all of them back. Raises
    EngineMissing, and ValueError for a pattern that the engine cannot take.
    """

    def __init__(self, shapes: Iterable[Shape]) -> None:
        if engine is None:
            raise EngineMissing(f"triggers with several events need durable_rules, built as the Makefile does: {_why}")
        self._shapes = tuple(shapes)
        for number, shape in enumerate(self._shapes):
            variables = {variable for held in shape for variable in held}
            if not 1 <= len(shape) <= MOST_FACTS or len(variables) > MOST_VARIABLES:
                raise ValueError(f"pattern {number} has {len(shape)} facts and {len(variables)} variables")
        self._sets: dict[int, _RuleSet] = {}

    def complete(self, asked: Mapping[int, Sequence[Sequence[Keys]]]) -> dict[int, set[tuple[int, ...]]]:
        """By pattern, which facts complete it: for each way the place of every fact in its list.

        `asked` has, by pattern, the facts for each of its places. Raises EngineFailed.
        """
        found: dict[int, set[tuple[int, ...]]] = {pattern: set() for pattern in asked}
        for number, patterns in itertools.groupby(sorted(asked), key=lambda pattern: pattern // _PATTERNS):
            facts = _facts([(pattern, asked[pattern]) for pattern in patterns], self._shapes)
            for match in self._matches(number, [message for _, message in facts]):
                ((name, named),) = match.items()
                # Aliases stand in the order in which the pattern lists them, whatever order they are answered in.
                places = sorted((alias, facts[int(fact.id)][0]) for alias, fact in named.items())
                found[int(name)].add(tuple(place for _, place in places))
        return found

    def open(self) -> None:
        """Make all rule sets now, so that nothing is left for the first event."""
        for number in range(-(-len(self._shapes) // _PATTERNS)):
            self._rule_set(number)

    def close(self) -> None:
        """Give back what the engine holds; it can be asked again."""
        while self._sets:
            self._sets.popitem()[1].close()

    def _matches(self, number: int, messages: list[str]) -> list[dict[str, dict[str, _Fact]]]:
        try:
            return self._rule_set(number).evaluate(messages)
        except (engine.error, msgspec.DecodeError):
            if number in self._sets:
                self._sets.pop(number).close()
        try:
            return self._rule_set(number).evaluate(messages)
        except (engine.error, msgspec.DecodeError) as error:
            raise EngineFailed(f"durable-rules failed at {len(messages)} facts: {error}") from error

    def _rule_set(self, number: int) -> _RuleSet:
        if number not in self._sets:
            first = number * _PATTERNS
            self._sets[number] = _RuleSet(first, self._shapes[first : first + _PATTERNS])
        return self._sets[number]


class _RuleSet:
    """A private rule set with its one session. A fact's `kind` says for which place of which pattern it is."""

    def __init__(self, first: int, shapes: Sequence[Shape]) -> None:
        rules: dict[str, Any] = {"sentinel": {"all": [{"m": {"kind": 0}}]}}
        for pattern, shape in enumerate(shapes, first):
            rules[str(pattern)] = {"all": _conditions(pattern, shape)}
        self._handle = engine.create_ruleset(f"arbiter {next(_names)}", msgspec.json.encode(rules).decode())
        self._left = 0
        self._begin()

    def evaluate(self, messages: list[str]) -> list[dict[str, dict[str, _Fact]]]:
        """The matches of facts, as the engine tells them: by rule and alias, some perhaps twice."""
        if not self._left:
            engine.delete_state(self._handle, _SESSION)
            self._begin()
        self._left -= 1
        for message in messages:
            status, _ = engine.assert_fact(self._handle, message)
            if status:  # no rule takes it, or there is one with its id
                raise engine.error(f"a fact was refused: {status}")
        found = self._answers()
        for message in messages:
            engine.retract_fact(self._handle, message)
        return found

    def close(self) -> None:
        """Give back what the engine holds. The state goes first: the rule set alone would leave it behind."""
        with suppress(engine.error):
            engine.delete_state(self._handle, _SESSION)
            engine.delete_ruleset(self._handle)

    def _begin(self) -> None:
        """Begin the session, by a fact whose action runs: without one, to delete the state kills the process."""
        engine.assert_fact(self._handle, _SENTINEL)
        if [list(each) for each in self._answers()] != [["sentinel"]]:
            raise engine.error("the sentinel was not found")
        self._left = _EVALUATIONS

    def _answers(self) -> list[dict[str, dict[str, _Fact]]]:
        found = []
        begun = engine.start_action_for_state(self._handle, _STATE)
        message = begun[1] if begun else None
        while message:
            found.append(_decode(message))
            message = engine.complete_and_start_action(self._handle, _STATE)
        return found


_decode = msgspec.json.Decoder(dict[str, dict[str, _Fact]]).decode


def _kind(pattern: int, place: int) -> int:
    return 1 + pattern * MOST_FACTS + place


def _conditions(pattern: int, shape: Shape) -> list[dict[str, Any]]:
    """A pattern's rule: a fact of each kind, and each variable equal to that of the first fact that holds it."""
    first: dict[int, str] = {}
    conditions = []
    for place, held in enumerate(shape):
        tests: list[dict[str, Any]] = [{"kind": _kind(pattern, place)}]
        for variable in held:
            if variable in first:
                tests.append({f"v{variable}": {first[variable]: f"v{variable}"}})
            else:
                first[variable] = str(place)
        conditions.append({str(place): {"$and": tests}})
    return conditions


def _facts(asked: Iterable[tuple[int, Sequence[Sequence[Keys]]]], shapes: Sequence[Shape]) -> list[tuple[int, str]]:
    """Each fact's place in its list, and the message that says it; its id is its place in what is returned."""
    facts: list[tuple[int, str]] = []
    for pattern, lists in asked:
        for place, (keys_of, held) in enumerate(zip(lists, shapes[pattern], strict=True)):
            start = f'","sid":"{_SESSION}","kind":{_kind(pattern, place)}'
            names = [f',"v{variable}":' for variable in held]
            for number, keys in enumerate(keys_of):
                values = "".join([f"{name}{value}" for name, value in zip(names, keys, strict=True)])
                facts.append((number, f'{{"id":"{len(facts)}{start}{values}}}'))
    return facts
