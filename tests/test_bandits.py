"""Groups that learn: one rule is drawn of those that can be delivered, and all that tells of it tells the same."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.config.limits import Limits
from arbiter.config.options import DecisionLog
from arbiter.errors import NotFound
from arbiter.learning.thompson import chances
from arbiter.profiles.arms import DAY, HOUR, KEPT, LATE, Arm, Lesson, SetBack, learn
from arbiter.profiles.store import Store
from arbiter.ruleset.diff import Change, Changed, difference
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime import bandits, logfiles
from arbiter.runtime.bandits import Chances
from arbiter.runtime.comparing import Comparison, Reproduction
from arbiter.runtime.earning import SAME, Earning
from arbiter.runtime.engine import Engine
from arbiter.runtime.recording import open_recorder
from arbiter.runtime.replaying import Again, OfThen
from arbiter.server.decisions import DecisionService
from arbiter.snapshot import Snapshot
from arbiter.telemetry.counters import Counters
from arbiter.types import ExplainLevel, Reason, Request
from arbiter.v1 import decision_pb2
from tests.answering import answered
from tests.conftest import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arbiter.profiles.group import Group
    from arbiter.ruleset.rules import Ruleset
    from arbiter.types import Decision

T0 = 1_790_000_000_000_000
HEAD = """
metrics: {bought: {outcome: purchase, within: 7d}}
groups:
  offers: {choose: thompson, metric: bought, floor: 0.1}
  texts: {choose: thompson, metric: bought}
"""
RULES = f"""{HEAD}
decisions: {{home: {{slots: 2}}, side: {{order: [value, priority]}}, plain: }}
rules:
  - {{id: top, decision: home, priority: 9, when: context.vip == true, then: {{action: show, params: {{x: top}}}}}}
  - {{id: a, decision: home, group: offers, priority: 8, when: context.n > 0, then: {{action: show, params: {{x: a}}}}}}
  - {{id: b, decision: home, group: offers, priority: 7, then: {{action: show, params: {{x: "${{context.name}}"}}}}}}
  - {{id: between, decision: home, priority: 6, when: context.n > 1, then: {{action: show, params: {{x: z}}}}}}
  - {{id: c, decision: home, group: offers, priority: 5, when: context.n > 2, then: {{action: show, params: {{x: c}}}}}}
  - {{id: t1, decision: home, group: texts, priority: 4, when: context.n > 3, then: {{action: show, params: {{x: c}}}}}}
  - {{id: t2, decision: home, group: texts, priority: 3, when: context.n > 3, then: {{action: show, params: {{x: t}}}}}}
  - {{id: v, decision: side, group: offers, value: context.n, then: {{action: show, params: {{x: v}}}}}}
  - {{id: w, decision: side, group: offers, value: 2.5, when: context.n > 0, then: {{action: show, params: {{x: w}}}}}}
  - {{id: alone, decision: side, value: 2.7, when: context.vip == true, then: {{action: show, params: {{x: l}}}}}}
  - {{id: p, decision: plain, group: one, priority: 2, then: {{action: show, params: {{x: p}}}}}}
  - {{id: q, decision: plain, group: one, priority: 1, then: {{action: show, params: {{x: q}}}}}}
"""


def ruleset_of(text: str) -> Ruleset:
    found, mistakes = load_ruleset({"r.yaml": text.encode()}, {})
    assert mistakes == []
    assert found is not None
    return found


SNAPSHOT = Snapshot(ruleset_of(RULES), {})


class Taught:
    """Has bandits learn, as reports do."""

    weight = 1

    def __init__(self, *lessons: Lesson) -> None:
        self._lessons = lessons

    def apply(self, group: Group) -> None:
        for lesson in self._lessons:
            learn(group, lesson)


def lesson(number: str, rule: str = "a", *, won: bool = False, at: int = T0, half_life: int = 0) -> Lesson:
    return Lesson("home", "offers", rule, number, at, 7 * DAY, half_life, won)


@pytest.fixture
def clock() -> Clock:
    return Clock(T0)


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(tmp_path / "store", clock=clock) as opened:
        yield opened


@pytest.fixture
def engine(store: Store) -> Engine:
    made = Engine(store)
    made.activate(SNAPSHOT)
    return made


def asked(subject: str, point: str = "home", at: int = T0, **context: Any) -> Request:
    return Request(subject, (point,), at, context, explain=ExplainLevel.ALL)


def given_by(decision: Decision) -> tuple[str, ...]:
    return tuple(each.rule_id for each in decision.treatments)


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Store.open(tmp_path_factory.mktemp("untaught") / "store") as opened:
        made = Engine(opened)
        made.activate(SNAPSHOT)
        yield made


contexts = st.fixed_dictionaries(
    {}, optional={"n": st.integers(0, 4), "vip": st.booleans(), "name": st.sampled_from("acxt")}
)


@given(st.text(min_size=1, max_size=4), st.sampled_from(["home", "side", "plain"]), contexts, st.integers(0, 10_000))
@settings(max_examples=300)
def test_what_is_explained_is_what_was_decided(
    untaught: Engine, subject: str, point: str, context: dict[str, Any], later: int
) -> None:
    (decision,) = untaught.decide(asked(subject, point, T0 + later, **context))
    won = [each for each in decision.explanation if each.reason is Reason.WON]
    assert sorted(each.rule_id for each in won) == sorted(given_by(decision))
    drawn = decision.drawn or {}
    assert {each.rule_id for each in won if each.detail.startswith("drawn of ")} == drawn.keys()
    for each in decision.explanation:
        if each.lost_on == "lot":
            assert each.reason is Reason.LOST_GROUP
            assert each.lost_to in drawn
    assert decision.valid_until is None


def test_rules_are_drawn_alike_before_anything_is_learned(engine: Engine) -> None:
    found: Counter[str] = Counter()
    for number in range(3_000):
        (decision,) = engine.decide(Request(f"s{number}", ("home",), T0 + number, {"n": 3, "name": "b"}, slots=1))
        found.update(given_by(decision))
        assert decision.drawn is not None
        assert decision.drawn[given_by(decision)[0]] == pytest.approx(1 / 3)
    assert found.keys() == {"a", "b", "c"}
    assert all(abs(count - 1_000) < 5 * math.sqrt(3_000 * 2 / 9) for count in found.values())


def test_only_what_can_be_delivered_is_drawn_from_and_it_takes_the_place_of_the_best(engine: Engine) -> None:
    # `b` cannot be rendered, so that nothing is drawn; nor is a group from which a plain rule is taken.
    (decision,) = engine.decide(asked("ann", n=1))
    assert (given_by(decision), decision.drawn) == (("a",), None)
    (decision,) = engine.decide(asked("ann", "plain"))
    assert (given_by(decision), decision.drawn) == (("p",), None)
    # Whichever is drawn stands before `between`, which comes before `c`.
    places = {given_by(engine.decide(asked(f"s{n}", n=3, name="b"))[0]) for n in range(60)}
    assert places == {("a", "between"), ("b", "between"), ("c", "between")}
    # What another has delivered is not drawn from: `t1` gives what `c` gives.
    with_c = [engine.decide(asked(f"s{n}", n=4))[0] for n in range(60)]
    assert {given_by(each) for each in with_c} == {("a", "between"), ("c", "between")}
    pages = [engine.decide(Request(f"s{n}", ("side", "home"), T0, {"n": 4, "name": "v"})) for n in range(60)]
    with_v = [given_by(home) for side, home in pages if given_by(side) == ("v",)]
    assert set(with_v) == {("a", "between"), ("c", "between")}


def test_a_decision_by_value_draws_too(engine: Engine) -> None:
    found = Counter(given_by(engine.decide(asked(f"s{n}", "side", n=3))[0]) for n in range(100))
    assert found.keys() == {("v",), ("w",)}
    # The best of the group stands above `alone`, or below.
    assert {given_by(engine.decide(asked(f"s{n}", "side", n=1, vip=True))[0]) for n in range(50)} == {("alone",)}
    assert {given_by(engine.decide(asked(f"s{n}", "side", n=3, vip=True))[0]) for n in range(50)} == {("v",), ("w",)}


def test_what_was_learned_is_what_is_drawn_by(engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandits, "FRESH_S", 0.0)
    reports = [lesson(f"{n}", "ab"[n % 2], won=n % 10 == 0) for n in range(200)]
    store.write(Taught(*reports)).result()
    assert sorted((arm.rule, arm.wins, arm.losses) for arm in store.learned.arms()) == [("a", 20, 80), ("b", 0, 100)]
    expected = dict(zip("ab", chances([(21, 81), (1, 101)], 0.1), strict=True))
    drawn: Counter[str] = Counter()
    for number in range(500):
        (decision,) = engine.decide(Request(f"s{number}", ("home",), T0, {"n": 1, "name": "b"}, slots=1))
        assert decision.drawn is not None
        ((rule, chance),) = decision.drawn.items()
        assert chance == pytest.approx(expected[rule], abs=1e-9)
        drawn[rule] += 1
    assert drawn["b"] == pytest.approx(500 * expected["b"], abs=5 * math.sqrt(500 * 0.05 * 0.95))
    assert expected["b"] == pytest.approx(0.05, abs=1e-3)  # the floor


@given(st.permutations([(n, won) for n in range(6) for won in (False, True)]), st.lists(st.booleans(), min_size=6))
@settings(max_examples=12)
def test_in_any_order_and_however_often_a_decision_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, order: list[tuple[int, bool]], wins: list[bool]
) -> None:
    half_life = 3 * DAY
    clock = Clock(T0 + 6 * DAY)
    lessons = [lesson(f"{n}", won=won, at=T0 + n * DAY, half_life=half_life) for n, won in order if wins[n] or not won]
    with Store.open(tmp_path_factory.mktemp("s") / "store", clock=clock, background=False) as store:
        for each in (*lessons, *lessons):
            store.write(Taught(each)).result()
        (arm,) = store.learned.arms()
    weights = [0.5 ** ((6 - n) / 3) for n in range(6)]
    won, lost = arm.weighed(T0 + 6 * DAY, half_life)
    assert won == pytest.approx(math.fsum(weight for n, weight in enumerate(weights) if wins[n]))
    assert lost == pytest.approx(math.fsum(weight for n, weight in enumerate(weights) if not wins[n]), abs=1e-9)


def test_what_comes_too_late_teaches_nothing_and_old_trials_are_forgotten(store: Store, clock: Clock) -> None:
    store.write(Taught(lesson("1"))).result()
    clock.now = T0 + 7 * DAY + LATE - 1
    store.write(Taught(lesson("1", won=True))).result()
    clock.now += 1
    store.write(Taught(lesson("2"), lesson("1", won=True))).result()
    assert [(arm.wins, arm.losses) for arm in store.learned.arms()] == [(1, 0)]
    store.write(Taught(lesson("3", at=clock.now))).result()
    with store._looking() as (environment, txn), txn.cursor(environment.arms) as cursor:
        kept = [key for key, _ in cursor if key.startswith(b"t")]
    assert len(kept) == 1


def state(store: Store) -> dict[str, tuple[float, float]]:
    return {arm.rule: (arm.wins, arm.losses) for arm in store.learned.arms()}


def test_a_group_is_reset_and_gets_back_what_it_knew(store: Store, clock: Clock) -> None:
    store.write(Taught(lesson("1"), lesson("2", "b", won=True))).result()
    before, known = clock.now, state(store)
    assert known == {"a": (0, 1), "b": (1, 0)}
    clock.now += HOUR // 4
    store.write(SetBack("offers")).result()
    assert state(store) == {"a": (0, 0), "b": (0, 0)}
    # What was counted before and turns out well now was forgotten, and stays so; what is new counts.
    store.write(Taught(lesson("1", won=True), lesson("3", at=clock.now))).result()
    assert state(store) == {"a": (0, 1), "b": (0, 0)}
    clock.now += HOUR // 4
    assert len(store.write(SetBack("offers", "home", before)).result()) == 2
    assert state(store) == known
    assert store.write(SetBack("offers", "home", clock.now)).result()
    with pytest.raises(NotFound, match="`texts` has learned nothing"):
        store.write(SetBack("texts")).result()


def test_one_goes_back_to_the_moment_or_to_the_hour_before_it(store: Store, clock: Clock) -> None:
    times = []
    for number in range(8):
        clock.now = T0 + number * HOUR // 2
        store.write(Taught(lesson(f"{number}"))).result()
        times.append(clock.now)
    for number, at in enumerate(times):
        clock.now += 1
        store.write(SetBack("offers", "", at)).result()
        lost = state(store)["a"][1]
        assert number <= lost <= number + 1
        clock.now += 1
        store.write(SetBack("offers", "", times[-1])).result()
        assert state(store)["a"][1] == 8
    clock.now += 1
    store.write(SetBack("offers", "", T0 - 1)).result()
    assert state(store)["a"] == (0, 0)
    clock.now += KEPT + HOUR
    store.write(Taught(lesson("9", at=clock.now))).result()
    store.write(SetBack("offers", "", times[2])).result()
    assert state(store)["a"] == (0, 0)


def test_arms_survive_and_are_shared_by_whoever_opens_the_store(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", clock=lambda: T0) as store:
        store.write(Taught(lesson("1", won=True))).result()
    with Store.open(tmp_path / "store", clock=lambda: T0) as store:
        assert store.learned.arms() == [Arm("home", "offers", "a", 1.0, 0.0, T0, T0)]


def test_replay_takes_what_was_drawn_from_the_log(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bandits, "FRESH_S", 0.0)
    with Store.open(tmp_path / "store", clock=clock) as store:
        engine = Engine(store, clock=clock)
        engine.activate(SNAPSHOT)
        log = DecisionLog(directory=str(tmp_path / "log"), losers=0.0, flush_seconds=0.05, spare_mib=0)
        counters = Counters()
        recorder = open_recorder(log, engine)
        service = DecisionService(engine, Limits(), counters, recorder)
        for number in range(400):
            clock.now += 1_000_000
            context = json.dumps({"n": number % 5, "name": "abcx"[number % 4], "vip": number % 7 == 0}).encode()
            point = ("home", "home", "side")[number % 3]
            request = decision_pb2.DecideRequest(subject_id=f"s{number}", decision=point, context_json=context)
            answered(service, request.SerializeToString())
            if number % 4 == 0:
                taught = lesson(f"{number}", "abc"[number // 4 % 3], won=number % 24 == 0, at=clock.now)
                store.write(Taught(taught)).result()
        recorder.close()
    logfiles.convert(tmp_path / "log", 0)
    rows = list(logfiles.read_log(tmp_path / "log"))
    assert len(rows) == 400
    drawn = [won.propensity for _, row in rows for won in row.won if won.propensity < 1]
    assert len(set(drawn)) > 50
    assert min(drawn) >= 0.1 / 3
    reproduction = Reproduction(lambda _: SNAPSHOT, 5)
    comparison = Comparison(Snapshot(ruleset_of(RULES.replace("floor: 0.1", "floor: 0.2")), {}), 5)
    fewer = Comparison(Snapshot(ruleset_of(RULES.replace("{id: a,", "{id: new-a,")), {}), 5)
    same = Earning(OfThen(lambda _: SNAPSHOT), {row.id: 1.0 for _, row in rows[::3]}, 0.95)
    again = Again(SNAPSHOT)
    for head, row in rows:
        for each in (reproduction, comparison, fewer):
            each.add(head, row)
        same.add(head, row, again, again.view(head, row))
    assert (reproduction.result().decisions, reproduction.result().different) == (400, 0)
    assert (comparison.result().changed, comparison.result().redrawn) == (0, 0)
    assert fewer.result().redrawn == sum(
        any(won.rule == "a" and won.propensity < 1 for won in row.won) for _, row in rows
    )
    assert same.left_out == {}
    assert [(each.unsupported, each.why) for each in same.result()] == [(0, SAME), (0, SAME)]


def test_chances_are_reckoned_once_and_weigh_what_is_old_less() -> None:
    (bandit,) = (each for each in SNAPSHOT.frame.bandits if each.name == "offers")
    decaying = msgspec.structs.replace(bandit, half_life=DAY, floor=0.0)
    arms = [Arm("home", "offers", "a", 8.0, 0.0, T0), Arm("home", "offers", "b", 0.0, 8.0, T0)]
    now, then = Chances(arms, T0), Chances(arms, T0 + 3 * DAY)
    assert now.of("home", decaying, ("a", "b")) == chances([(9, 1), (1, 9)])
    assert then.of("home", decaying, ("a", "b")) == chances([(2, 1), (1, 2)])
    assert now.of("home", decaying, ("a", "b")) is now.of("home", decaying, ("a", "b"))
    assert now.of("side", decaying, ("a", "b")) == (0.5, 0.5)


def test_a_difference_is_told_in_the_words_of_authors() -> None:
    other = RULES.replace("floor: 0.1", "half_life: 2w, prior: {wins: 2, losses: 1}").replace("texts", "words")
    found = difference(ruleset_of(RULES), ruleset_of(other)).declarations
    assert (found.added, found.gone) == (("groups.words",), ("groups.texts",))
    changes = (Change("prior.wins", "1", "2"), Change("half_life", "", "14d"), Change("floor", "0.1", "0.05"))
    assert found.changed == (Changed("groups.offers", changes),)
