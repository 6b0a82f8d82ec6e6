"""A running server whose experiment does harm: it pauses itself, says why, and runs again when an operator says so."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import TYPE_CHECKING, Any

from arbiter.client import Outcome
from arbiter.types import ExplainLevel, Standing
from tests.conftest import replace
from tests.processes.test_decision_log import arguments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arbiter.client import Client
    from tests.processes.conftest import Served

RULES = """\
actions: {show: {params: {text: string}}}
decisions: {home: {default: {action: show, params: {text: none}}}}
metrics: {bought: {outcome: purchase, within: 2s}}
experiments:
  tone: {decision: home, variants: {control: 1, loud: 1}, guardrails: [{metric: bought, at_least: -0.05}]}
rules:
  - {id: loud, decision: home, when: experiments.tone == "loud", then: {action: show, params: {text: loud}}}
"""


def decide(client: Client, people: range) -> int:
    """Decide for these people, of whom those buy who are in the control; how many were in the experiment."""
    for number in people:
        client.update_profile(f"s{number}", set={"number": number})
    inside = 0
    for number in people:
        answer = client.decide(f"s{number}", "home")
        inside += bool(answer.experiments)
        if answer.experiments.get("tone") == "control":
            client.record_outcomes([Outcome(decision_id=answer.decision_id, name="purchase")])
    return inside


def test_a_harmful_experiment_pauses_itself_until_an_operator_switches_it_on_again(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    replace(folder / "rules" / "rules.yaml", RULES)
    audit = folder / "audit"
    flags = [*arguments(folder, **{"guardrail-seconds": 0.5}), "--audit-file", str(audit), "--metrics", "127.0.0.1:0"]
    served = serve(*flags)
    client = served.client(served.address)
    assert decide(client, range(300)) == 300
    eventually(lambda: client.snapshot().overrides)
    [override] = client.snapshot().overrides
    assert (override.kind, override.name) == ("experiment", "tone")
    assert "guardrail: `bought` of variant `loud` is 0 " in override.reason
    assert "may be at least -0.05" in override.reason
    # Every worker follows, as soon as it is told, and says so.
    for _ in range(4):
        one = served.client(served.address)
        eventually(lambda one=one: one.decide("s1", "home").experiments == {})
        answer = one.decide("s1", "home", explain=ExplainLevel.ALL)
        assert [(each.name, each.standing) for each in answer.standings] == [("tone", Standing.OVERRIDDEN)]
    assert "experiment `tone` is switched off (guardrail: " in served.log
    eventually(lambda: any(each.get("by") == "guardrail" for each in lines(audit)))
    paused = [each for each in lines(audit) if each.get("by") == "guardrail"]
    assert [(each["outcome"], each["request"]["experiment"]) for each in paused] == [("OK", "tone")]
    # A restart changes nothing.
    assert served.stop() == 0
    served = serve(*flags)
    client = served.client(served.address)
    assert client.snapshot().overrides == (override,)
    # What was seen before it was switched on again does not pause it, however often that is looked at.
    client.clear_override("tone", kind="experiment")
    assert decide(client, range(20)) == 20
    looked = looks(served)
    eventually(lambda: looks(served) >= looked + 3)
    assert client.snapshot().overrides == ()
    # What is seen from then on does.
    assert decide(client, range(300, 600)) == 300
    eventually(lambda: client.snapshot().overrides)
    assert client.snapshot().overrides[0].since > override.since


def test_an_experiment_of_a_canary_pauses_itself_by_what_the_canary_decided(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    replace(folder / "rules" / "rules.yaml", RULES.replace(", guardrails: [{metric: bought, at_least: -0.05}]", ""))
    served = serve(*arguments(folder, **{"guardrail-seconds": 0.5}), "--metrics", "127.0.0.1:0")
    client = served.client(served.address)
    assert decide(client, range(30)) == 30  # harm, and nothing that says so
    client.set_canary(client.keep({"rules.yaml": RULES.encode()}).digest, 100)
    looked = looks(served)
    eventually(lambda: looks(served) >= looked + 2)
    assert client.snapshot().overrides == ()
    assert decide(client, range(400, 700)) == 300
    eventually(lambda: client.snapshot().overrides)
    [override] = client.snapshot().overrides
    assert (override.kind, override.name) == ("experiment", "tone")
    assert "guardrail: `bought` of variant `loud` is 0 " in override.reason
    eventually(lambda: client.decide("s1", "home").experiments == {})


def looks(served: Served) -> float:
    """How often guardrails were looked at."""
    address = re.findall(r"metrics on (\S+)", served.log)[-1]
    with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - our own
        found = re.search(r"^arbiter_guardrail_looks_total (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def lines(audit: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in audit.read_text().splitlines()]
