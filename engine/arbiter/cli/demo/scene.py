"""What the steps share: the demo's own copies of the files, its client, and every decision that it asked for.

Law: holds and counts; tells nothing. All decisions go through `ask` or through the flow, so that none escapes the
latencies.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import msgspec
from rich.text import Text

from arbiter.cli.demo.stage import StepFailed, require

if TYPE_CHECKING:
    from pathlib import Path

    from arbiter.cli.demo.stage import Stage
    from arbiter.client import Answer, Client
    from arbiter.types import Treatment

BANNER = "store.home_banner"
NEXT_STEP = "onboarding.next_step"
SCORES = "demo.scores"

# A page may ask for this point beside others, and is told what the models say of the subject.
_SCORES_FILE = """\
# Added by the demo to its copy of the rules: what the models say, as a decision point of its own.
actions:
  show_scores: {params: {segment: string, propensity: double}}

decisions:
  demo.scores: {slots: 1, order: [priority]}

rules:
  - id: demo-scores
    decision: demo.scores
    priority: 1
    when: features.orders > 0
    then:
      action: show_scores
      params: {segment: "${models.rfm.cluster}", propensity: "${models.repurchase.probability}"}
"""


class Scores(msgspec.Struct, frozen=True):
    """What the models say of a customer: a segment, and the probability of another purchase."""

    segment: str
    propensity: float


class Scene:
    """`quick` asks for less of everything."""

    def __init__(self, stage: Stage, client: Client, rules: Path, *, quick: bool) -> None:
        self.stage = stage
        self.client = client
        self.rules = rules
        self.quick = quick
        self.latencies: list[float] = []

    def ask(self, subject: str, *points: str, **options: Any) -> list[Answer]:
        """A page of decisions; timed unless it is to be explained. `options` are those of `Client.decide_page`."""
        began = time.perf_counter()
        page = self.client.decide_page(subject, points, **options)
        if "explain" not in options:
            self.latencies.append(time.perf_counter() - began)
        return list(page.decisions)


def copies(rules: Path, models: Path, into: Path) -> tuple[Path, Path]:
    """Copy rules and models, with the demo's own file among the rules. Returns where they are."""
    own_rules, own_models = into / "rules", into / "models"
    shutil.copytree(rules, own_rules)
    shutil.copytree(models, own_models)
    (own_rules / "demo.yaml").write_text(_SCORES_FILE, "utf-8")
    return own_rules, own_models


def scores(answer: Answer) -> Scores:
    """What `demo.scores` answered. Raises StepFailed when it answered nothing."""
    require(answer.treatments, "the decision point demo.scores answered nothing, so no model was asked")
    params = answer.treatments[0].params
    return Scores(params["segment"], params["propensity"])


def only(answer: Answer) -> Treatment:
    """The one treatment of an answer. Raises StepFailed for another number, or when the decision lacked something."""
    if len(answer.treatments) != 1 or answer.degraded:
        raise StepFailed(f"{answer.decision} gave {len(answer.treatments)} treatments, without {answer.degraded}")
    return answer.treatments[0]


def gets(treatment: Treatment) -> str:
    """What is shown, in two words: ``offer KEEP10``."""
    kind = next((kind for kind in ("offer", "banner", "step") if kind in treatment.params), "")
    return f"{kind} {treatment.params[kind]}" if kind else treatment.action


def told(answer: Answer) -> Text:
    """What the one treatment shows and, below it, the rule and why that won, out of an explanation."""
    given = only(answer)
    return Text.assemble(gets(given), "\n", (f"{given.rule_id or 'default'}: {_because(answer)}", "dim"))


def _because(answer: Answer) -> str:
    if answer.defaulted:
        return "no rule held"
    winner = answer.treatments[0].rule_id
    beaten = [each for each in answer.explanation if each.lost_to == winner]
    if not beaten:
        return "no other rule held"
    others = f" (and {len(beaten) - 1} more)" if len(beaten) > 1 else ""
    return f"beat {beaten[0].rule_id} on {beaten[0].lost_on}{others}"
