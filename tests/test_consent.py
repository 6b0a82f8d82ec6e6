"""What a subject did not consent to is not seen, by anything that decides or explains.

The oracle knows consent by its definition alone: a table, written by hand, of the purposes that each name needs. What
is denied it leaves out; cel-cpp judges conditions, events are counted one by one, a model is a table.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from arbiter.expr import cel
from arbiter.profiles.consenting import ConsentChange
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.active import Candidate
from arbiter.runtime.engine import Engine
from arbiter.server.explanations import as_text
from arbiter.snapshot import Snapshot
from arbiter.types import ConsentState, Decision, Event, ExplainLevel, Reason, Request
from tests.test_engine import table_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arbiter.models.model import Model

NOW = 1_790_000_000_000_000
SECOND = 1_000_000
PURPOSES = ("ads", "analytics", "health")
SCHEMA = """
consent: {purposes: [ads, analytics, health]}
schema:
  profile:
    a: {type: int, purposes: [ads]}
    b: {type: int, purposes: [ads, analytics]}
    c: int
    account_id: {type: string, purposes: [analytics]}
  account: {size: {type: int, purposes: [health]}, tier: int}
  context: {k: {type: int, purposes: [analytics]}}
  events:
    buy: {purposes: [analytics], amount: double, kind: {type: string, purposes: [health]}}
    visit: {page: string}
features:
  buys: {count: buy}
  spend: {sum: buy.amount}
  rare: {count: buy, where: event.kind == "x"}
  kinds: {distinct: buy.kind}
  visits: {count: visit}
  page: {last: visit.page, purposes: [ads]}
segments:
  heavy: features.buys > 1
  warm: models.score.s >= 10 || segments.heavy
"""
# What each name needs by itself, and that through which it is seen.
NEEDS = {
    "profile.a": {"ads"}, "profile.b": {"ads", "analytics"}, "profile.c": set(), "context.k": {"analytics"},
    "account.size": {"health"}, "account.tier": set(), "profile.account_id": {"analytics"},
    "features.buys": {"analytics"}, "features.spend": {"analytics"}, "features.rare": {"analytics", "health"},
    "features.kinds": {"analytics", "health"}, "features.visits": set(), "features.page": {"ads"},
    "models.score": {"health"}, "models.other": set(),
}  # fmt: skip
THROUGH = {
    "models.score": "profile.c", "models.other": "profile.a",
    "account.size": "profile.account_id", "account.tier": "profile.account_id",
}  # fmt: skip
# Each with the names that it reads, through segments too.
LITERALS = {
    "profile.a > 1": ["profile.a"],
    "profile.b != 1": ["profile.b"],
    "has(profile.a)": ["profile.a"],
    "!has(profile.b)": ["profile.b"],
    "profile.c >= 1": ["profile.c"],
    "context.k == 1": ["context.k"],
    "account.size > 1": ["account.size"],
    "account.tier > 1 || has(account.size)": ["account.tier", "account.size"],
    "features.buys >= 0": ["features.buys"],
    "features.rare == 0": ["features.rare"],
    "features.kinds > 1": ["features.kinds"],
    "features.visits < 2": ["features.visits"],
    "features.buys > 9 || features.visits >= 0": ["features.buys", "features.visits"],
    "features.rare > 9 || profile.c >= 0": ["features.rare", "profile.c"],
    'features.page != "home"': ["features.page"],
    "segments.heavy": ["features.buys"],
    "!segments.warm": ["models.score", "features.buys"],
    "models.score.s >= 10": ["models.score"],
    "models.other.s < 20 || profile.c == 2": ["models.other", "profile.c"],
}
VALUES = {
    "profile.a": ["profile.a"],
    "features.spend": ["features.spend"],
    "models.score.s": ["models.score"],
    "models.other.s + profile.c": ["models.other", "profile.c"],
    "2": [],
}
ENVIRONMENT = cel.Environment(dict.fromkeys(("profile", "account", "context", "features", "segments", "models"), "dyn"))


class Drawn(msgspec.Struct, frozen=True):
    """A rule."""

    id: str
    point: str
    priority: int
    when: tuple[str, ...]
    value: str
    requires: tuple[str, ...]
    renders: str


class Person(msgspec.Struct, frozen=True):
    """A subject. Attributes changed in the order in which they stand."""

    granted: tuple[str, ...]
    attributes: dict[str, int]
    buys: tuple[tuple[float, str], ...]
    pages: tuple[str, ...]
    k: int | None
    account: dict[str, int] | None = None


def models() -> dict[str, Model]:
    """`score` reads `profile.c` and is for health; `other` reads `profile.a`, and takes 1 where that is missing."""
    score, other = (
        table_model("score", root="profile.c", purposes="[health]"),
        table_model("other", default=", default: 1", root="profile.a"),
    )
    return {"score": score, "other": other}


MODELS = models()
drawn = st.builds(
    Drawn,
    st.integers(0, 99).map("r{:02d}".format),
    st.sampled_from(["d", "e"]),
    st.integers(0, 2),
    st.lists(st.sampled_from(sorted(LITERALS)), max_size=3, unique=True).map(tuple),
    st.sampled_from(sorted(VALUES)),
    st.sets(st.sampled_from(PURPOSES), max_size=2).map(lambda found: tuple(sorted(found))),
    st.sampled_from(["", "profile.a", "features.spend", "models.other.s"]),
)
rule_lists = st.lists(drawn, min_size=1, max_size=7, unique_by=lambda rule: rule.id)
people = st.builds(
    Person,
    st.sets(st.sampled_from(PURPOSES)).map(lambda found: tuple(sorted(found))),
    st.permutations(["a", "b", "c"]).flatmap(
        lambda names: st.fixed_dictionaries({}, optional={name: st.integers(0, 3) for name in names})
    ),
    st.lists(st.tuples(st.sampled_from([1.0, 2.5]), st.sampled_from(["x", "y"])), max_size=3).map(tuple),
    st.lists(st.sampled_from(["home", "shop"]), max_size=2).map(tuple),
    st.none() | st.integers(0, 1),
    st.none() | st.fixed_dictionaries({}, optional={"size": st.integers(0, 3), "tier": st.integers(0, 3)}),
)


def files(rules: list[Drawn], order: list[str]) -> dict[str, bytes]:
    written = []
    for n, rule in enumerate(rules):
        params: dict[str, Any] = {"n": n} | ({"p": f"${{{rule.renders}}}"} if rule.renders else {})
        written.append(
            {
                "id": rule.id, "decision": rule.point, "priority": rule.priority, "when": list(rule.when),
                "value": rule.value, "then": {"action": "show", "params": params},
            }
            | ({"requires_consent": list(rule.requires)} if rule.requires else {})
        )  # fmt: skip
    more = {"decisions": {"d": {"slots": 2, "order": order}, "e": {"slots": 9, "order": order}}, "rules": written}
    return {"a.yaml": SCHEMA.encode(), "b.yaml": json.dumps(more).encode()}


def load(rule_files: dict[str, bytes], loaded: dict[str, Model]) -> Snapshot:
    ruleset, found = load_ruleset(
        rule_files,
        {name: dict(model.outputs) for name, model in loaded.items()},
        purposes={name: model.purposes for name, model in loaded.items()},
    )
    assert ruleset is not None, [each.render() for each in found]
    return Snapshot(ruleset, loaded)


class Oracle:
    """What may be seen of a person, and what follows."""

    def __init__(self, person: Person) -> None:
        self.granted = set(person.granted)
        buys, pages = person.buys, person.pages
        known: dict[str, Any] = {f"profile.{name}": value for name, value in person.attributes.items()}
        known |= {f"account.{name}": value for name, value in (person.account or {}).items()}
        known |= {} if person.k is None else {"context.k": person.k}
        known |= {"features.buys": len(buys), "features.spend": float(sum(amount for amount, _ in buys))}
        known |= {"features.rare": sum(kind == "x" for _, kind in buys), "features.visits": len(pages)}
        known |= {"features.kinds": len({kind for _, kind in buys})} if buys else {}
        known |= {"features.page": pages[-1]} if pages else {}
        self.values = {name: value for name, value in known.items() if self.seen(name)}
        changed = {f"profile.{name}": NOW - 60 * SECOND + n * SECOND for n, name in enumerate(person.attributes)}
        changed |= {f"account.{name}": NOW - 70 * SECOND for name in person.account or {}}
        of_buys, of_visits = [buy_at(n) for n in range(len(buys))], [visit_at(n) for n in range(len(pages))]
        for name, times in (
            ("buys", of_buys), ("spend", of_buys), ("kinds", of_buys), ("visits", of_visits), ("page", of_visits),
            ("rare", [at for at, (_, kind) in zip(of_buys, buys, strict=True) if kind == "x"]),
        ):  # fmt: skip
            changed |= {f"features.{name}": max(times)} if times else {}
        self.changed = {name: at for name, at in changed.items() if self.seen(name)}
        table = [0.0, 10.0, 20.0, 30.0]
        self.models: dict[str, dict[str, float]] = {"score": {}, "other": {}}
        if self.seen("models.score") and "profile.c" in self.values:
            self.models["score"] = {"s": table[self.values["profile.c"]]}
        if self.seen("models.other"):
            self.models["other"] = {"s": table[self.values.get("profile.a", 1)]}
        self.segments: dict[str, bool] = {}
        for name, source in (("heavy", "features.buys > 1"), ("warm", "models.score.s >= 10 || segments.heavy")):
            value = self.evaluate(source)
            self.segments |= {} if value is None else {name: value}

    def seen(self, name: str) -> bool:
        return NEEDS[name] <= self.granted and (name not in THROUGH or self.seen(THROUGH[name]))

    def evaluate(self, source: str) -> Any:
        """The value in cel-cpp's words; None for unknown."""
        data: dict[str, Any] = {"profile": {}, "account": {}, "context": {}, "features": {}}
        for name, value in self.values.items():
            root, _, rest = name.partition(".")
            data[root][rest] = value
        data |= {"segments": self.segments, "models": self.models}
        source = source.replace("+ profile.c", "+ double(profile.c)")
        try:
            return ENVIRONMENT.program(source).evaluate(data)
        except cel.CelFailure:
            return None

    def change(self, rule: Drawn) -> int | None:
        names = [name for literal in rule.when for name in LITERALS[literal]]
        reads = [THROUGH[name] if name.startswith("models") else name for name in names]
        return max((self.changed[name] for name in reads if name in self.changed), default=None)

    def denied(self, names: list[str]) -> set[str]:
        """Those that are hidden, and what they are hidden with; of an account nothing is, but which one it is."""
        every = {*names, *(THROUGH[name] for name in names if name in THROUGH)}
        return {name for name in every if not (NEEDS[name] <= self.granted if "account." in name else self.seen(name))}

    def reason(self, rule: Drawn) -> Reason | None:
        """Why the rule does not compete."""
        if not set(rule.requires) <= self.granted:
            return Reason.NO_CONSENT
        truths = [self.evaluate(source) for source in rule.when]
        return Reason.FAILED if False in truths else Reason.UNKNOWN if None in truths else None

    def winners(self, rules: list[Drawn], order: list[str], slots: int) -> list[tuple[str, float | None]]:
        def key(rule: Drawn) -> list[Any]:
            infinite, value, change = float("inf"), self.evaluate(rule.value), self.change(rule)
            keys = {
                "priority": -rule.priority,
                "value": infinite if value is None else -value,
                "recency": infinite if change is None else -change,
            }
            return [*(keys[name] for name in order), rule.id]

        eligible = sorted((rule for rule in rules if self.reason(rule) is None), key=key)
        rendered = [rule for rule in eligible if not rule.renders or self.evaluate(rule.renders) is not None]
        return [(rule.id, self.evaluate(rule.value) if "value" in order else None) for rule in rendered[:slots]]


def buy_at(n: int) -> int:
    return NOW - 50 * SECOND + 2 * n * SECOND


def visit_at(n: int) -> int:
    return NOW - 51 * SECOND + 2 * n * SECOND


class World:
    """A store, and the engine over it."""

    def __init__(self, path: Path) -> None:
        self.store = Store.open(path / "store", map_size=1 << 28, background=False)
        self.engine = Engine(self.store, clock=lambda: NOW)
        self.people = 0

    def meet(self, person: Person) -> str:
        """Store a person under an id of its own."""
        self.people += 1
        subject = f"p{self.people}"
        if person.account is not None:
            self.store.use_clock(lambda: NOW - 70 * SECOND)
            self.store.update(Update(set=person.account, account_id=f"of {subject}")).result()
            self.store.update(Update(subject, {"account_id": f"of {subject}"})).result()
        for n, (name, value) in enumerate(person.attributes.items()):
            self.store.use_clock(lambda n=n: NOW - 60 * SECOND + n * SECOND)  # type: ignore[misc]
            self.store.update(Update(subject, {name: value})).result()
        self.store.use_clock(lambda: NOW - SECOND)
        events = [
            Event(f"b{n}", subject, "buy", buy_at(n), {"amount": amount, "kind": kind})
            for n, (amount, kind) in enumerate(person.buys)
        ]
        events += [Event(f"v{n}", subject, "visit", visit_at(n), {"page": page}) for n, page in enumerate(person.pages)]
        self.store.ingest(events).result()
        for purpose in (*person.granted, "unknown_to_rules"):
            self.say(subject, purpose, ConsentState.GRANTED)
        return subject

    def say(self, subject: str, purpose: str, state: ConsentState) -> None:
        self.store.set_consent(ConsentChange(subject, purpose, state, "test")).result()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("consent"))
    yield made
    made.store.close()


def won(decision: Decision) -> list[tuple[str, float | None]]:
    return [(treatment.rule_id, treatment.value) for treatment in decision.treatments]


orders = st.permutations(["priority", "value", "recency"]).flatmap(
    lambda keys: st.integers(1, 3).map(lambda count: list(keys[:count]))
)


# Without shrinking: every example writes to disk, and a failure shows the whole of what was drawn.
@settings(
    max_examples=120, derandomize=True, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
@given(rules=rule_lists, order=orders, crowd=st.lists(people, min_size=1, max_size=3))
def test_whatever_is_granted_the_engine_decides_as_the_definition_says(
    world: World, rules: list[Drawn], order: list[str], crowd: list[Person]
) -> None:
    snapshot = load(files(rules, order), MODELS)
    world.engine.activate(snapshot)
    requests, expected = [], []
    for person in crowd:
        subject, oracle = world.meet(person), Oracle(person)
        context = {} if person.k is None else {"k": person.k}
        at = {name: [rule for rule in rules if rule.point == name] for name in ("d", "e")}
        wanted = [oracle.winners(at["d"], order, 2), oracle.winners(at["e"], order, 9)]
        for name, winners in zip("de", wanted, strict=True):
            request = Request(subject, (name,), NOW, context)
            (decision,) = world.engine.decide(request)
            assert won(decision) == winners
            requests.append(request)
            expected.append(winners)
            (told,) = world.engine.decide(msgspec.structs.replace(request, explain=ExplainLevel.ALL))
            assert won(told) == winners
            check_explanation(told, at[name], oracle)
        page = world.engine.decide(Request(subject, ("d", "e"), NOW, context))
        assert [won(decision) for decision in page] == wanted
        found = world.engine.describe(subject, NOW)
        no_context = Oracle(msgspec.structs.replace(person, k=None))
        assert {name: value for name, value in found.segments.items() if value is not None} == no_context.segments
        features = {f"features.{name}": value for name, value in found.features.items() if value is not None}
        assert features == {name: value for name, value in oracle.values.items() if name.startswith("features")}
        accounts = {} if person.account is None else {"account_id": f"of {subject}"}
        assert found.attributes == person.attributes | accounts
        assert set(found.denied) == oracle.denied(list(NEEDS))
    answers = world.engine.decide_batch(requests)
    assert [won(answer[0]) for answer in answers if isinstance(answer, tuple)] == expected


def check_explanation(decision: Decision, rules: list[Drawn], oracle: Oracle) -> None:
    outcomes = {outcome.rule_id: outcome for outcome in decision.explanation}
    assert outcomes.keys() == {rule.id for rule in rules}
    for rule in rules:
        outcome, reason = outcomes[rule.id], oracle.reason(rule)
        if reason is not None:
            assert outcome.reason is reason
        if reason is Reason.NO_CONSENT:
            assert outcome.denied == {rule.id: tuple(p for p in rule.requires if p not in oracle.granted)}
            continue
        names = [name for literal in rule.when for name in LITERALS[literal]] + VALUES[rule.value]
        names += [rule.renders.removesuffix(".s")] if rule.renders else []
        assert set(outcome.denied) <= oracle.denied(names)
        missing = {name.removesuffix(".s") for name in outcome.missing if not name.startswith("segments.")}
        assert oracle.denied(sorted(missing)) <= set(outcome.denied)
        assert not set(outcome.values) & {f"{name}.s" for name in outcome.denied} - {""}
        assert not set(outcome.values) & set(outcome.denied)
        if reason is Reason.UNKNOWN:
            assert set(outcome.denied) == oracle.denied([n for literal in rule.when for n in LITERALS[literal]])


def test_a_revocation_holds_from_the_next_decision_on(world: World) -> None:
    rules = [Drawn("r", "d", 0, (), "2", ("ads",), "")]
    world.engine.activate(load(files(rules, ["priority"]), MODELS))
    subject = world.meet(Person((), {}, (), (), None))
    seen = []
    for state in (None, ConsentState.GRANTED, ConsentState.REVOKED, ConsentState.GRANTED, ConsentState.DENIED):
        if state is not None:
            world.say(subject, "ads", state)
        (decision,) = world.engine.decide(Request(subject, ("d",), NOW))
        seen.append(not decision.defaulted)
    assert seen == [False, True, False, True, False]


def test_a_model_that_may_not_be_asked_is_not_degraded_and_never_runs(world: World) -> None:
    rules = [Drawn("r", "d", 0, ("models.other.s < 20 || profile.c == 2",), "2", (), "")]
    world.engine.activate(load(files(rules, ["priority"]), MODELS))
    before = dict(world.engine.counters.models)
    subject = world.meet(Person((), {"a": 1}, (), (), None))
    (decision,) = world.engine.decide(Request(subject, ("d",), NOW, explain=ExplainLevel.ALL))
    assert (decision.defaulted, decision.degraded, decision.valid_until) == (True, (), None)
    assert dict(world.engine.counters.models) == before
    (outcome,) = decision.explanation
    assert outcome.denied == {"models.other": ("ads",), "profile.a": ("ads",)}
    assert as_text([outcome]) == (
        "r is unknown: models.other.s < 20 || profile.c == 2, for lack of models.other.s, profile.c; "
        "models.other lacks consent to ads; profile.a lacks consent to ads"
    )


def test_a_canary_binds_names_to_purposes_of_its_own(world: World) -> None:
    rules = [Drawn("r", "d", 0, ("profile.c >= 1",), "2", (), "")]
    known = files(rules, ["priority"])
    bound = {**known, "a.yaml": known["a.yaml"].replace(b"c: int", b"c: {type: int, purposes: [health]}")}
    canary = load(bound, MODELS)
    world.engine.activate(load(known, MODELS), Candidate(canary, 50.0, "salt"))
    decided: dict[bool, set[bool]] = {}
    for _ in range(12):
        subject = world.meet(Person(("ads",), {"c": 1}, (), (), None))
        active = world.engine.current().of(subject)
        (decision,) = world.engine.decide(Request(subject, ("d",), NOW))
        decided.setdefault(active.canary, set()).add(decision.defaulted)
    assert decided == {False: {False}, True: {True}}


def test_an_explanation_says_who_lacks_consent_and_shows_no_personal_value(world: World) -> None:
    text = SCHEMA.replace("a: {type: int,", "a: {type: int, personal: true,")
    rules = [
        Drawn("consents", "d", 0, ("profile.a > 1",), "2", ("ads", "health"), ""),
        Drawn("reads", "d", 0, ("profile.a > 1",), "2", (), ""),
    ]
    world.engine.activate(load({**files(rules, ["priority"]), "a.yaml": text.encode()}, MODELS))
    told = []
    for granted in ((), ("ads",)):
        subject = world.meet(Person(granted, {"a": 1}, (), (), None))
        (decision,) = world.engine.decide(Request(subject, ("d",), NOW, explain=ExplainLevel.ALL))
        told.append(as_text(decision.explanation).splitlines())
    assert told == [
        [
            "consents is out for lack of consent to ads and health",
            "reads is unknown: profile.a > 1, for lack of profile.a; profile.a lacks consent to ads",
        ],
        [
            "consents is out for lack of consent to health",
            "reads is false: profile.a > 1 where profile.a is withheld",
        ],
    ]
