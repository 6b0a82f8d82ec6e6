"""What is decided in a soak: rules, features and a model, each version of them a function of a number.

Law: pure data, and the files that say the same. The oracle evaluates these very sources and never reads the files, so
that nothing of how Arbiter reads, compiles or stores them is believed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.soak.board import Version

SECOND = 1_000_000  # µs
MINUTE = 60 * SECOND


@dataclass(frozen=True)
class Rule:
    """A rule as its author writes it. `rollout` is in per cent; `params` may hold ``${...}``."""

    id: str
    decision: str
    priority: int
    when: tuple[str, ...]
    params: dict[str, Any]
    value: str = ""
    group: str = ""
    rollout: int = 100

    def written(self) -> dict[str, Any]:
        """As YAML has it."""
        made: dict[str, Any] = {"id": self.id, "decision": self.decision, "priority": self.priority}
        made |= {"when": list(self.when), "then": {"action": "show", "params": self.params}}
        made |= {name: said for name, said in (("value", self.value), ("group", self.group)) if said}
        if self.rollout < 100:
            made["rollout"] = {"percent": self.rollout, "by": "subject", "salt": self.id}
        return made


@dataclass(frozen=True)
class Point:
    """A decision point. `default` are the parameters of what is shown when no rule wins."""

    slots: int
    order: tuple[str, ...]
    default: dict[str, Any]


@dataclass(frozen=True)
class Feature:
    """A windowed aggregate. `window` is in seconds, 0 for all time; `least` bounds the property from below."""

    aggregate: str
    event: str
    prop: str = ""
    window: int = 0
    least: int | None = None

    def written(self) -> dict[str, Any]:
        """As YAML has it."""
        source = f"{self.event}.{self.prop}" if self.prop else self.event
        made: dict[str, Any] = {self.aggregate: source}
        if self.window:
            made["window"] = f"{self.window}s"
        if self.least is not None:
            made["where"] = f"event.{self.prop} >= {self.least}"
        if self.aggregate == "since":
            made["unit"] = "m"
        return made


@dataclass(frozen=True)
class World:
    """One version of everything. `weights` are the model's, for orders and points."""

    rules: tuple[Rule, ...]
    points: dict[str, Point]
    segments: dict[str, str]
    features: dict[str, Feature]
    weights: tuple[int, int]
    by_point: dict[str, tuple[Rule, ...]] = field(default_factory=dict)


@lru_cache(maxsize=512)
def world(version: Version) -> World:
    """The world of a version. Every number changes some constant of some rule, and so some answers."""
    n, m = version
    text = f"version {n}"
    rules = (
        Rule("h-gold", "home", 90, ('profile.tier == "gold"', f"features.orders_recent >= {1 + n % 3}"),
             {"text": f"gold ${{profile.tier}}, {text}"}),
        Rule("h-loyal", "home", 80, ("segments.loyal", f"profile.points > {10 + n % 5}"), {"text": text}),
        Rule("h-rich", "home", 70, (f"profile.points > {40 + n % 30}", 'context.device in ["ios", "android"]'),
             {"text": text, "points": "${profile.points}"}),
        Rule("h-fresh", "home", 60, (f"features.minutes_since_buy < {0.25 + n % 4 / 4}",), {"text": text}, rollout=60),
        Rule("h-worth", "home", 50, (f"models.worth.score >= {60.0 + n % 20}",), {"text": f"worth, {text}"}),
        Rule("h-hour", "home", 40, (f"now.getHours() % 2 == {n % 2}", "profile.age < 30"), {"text": text}),
        Rule("h-young", "home", 30, ("!(profile.age >= 30)",), {"text": text, "points": n}, rollout=50),
        Rule("h-any", "home", 10, ("context.basket > 20.0 || features.orders_all > 3",), {"text": "same"}),
        Rule("l-points", "list", 5, ("profile.points > 5",), {"text": f"p, {text}"}, f"profile.points * {1 + n % 3}",
             group="money"),
        Rule("l-spend", "list", 5, ("features.spend_hour > 20",), {"text": f"s, {text}"},
             f"features.spend_hour + {n % 11}", group="money"),
        Rule("l-worth", "list", 5, ('profile.country in ["US", "CA"]',), {"text": "${profile.country}"},
             "models.worth.score"),
        Rule("l-vip", "list", 4, ('"vip" in profile.tags',), {"text": f"vip, {text}"}, "profile.age"),
        Rule("l-mail", "list", 4, ('features.last_channel == "mail"',), {"text": "by ${features.last_channel}"}),
        Rule("l-name", "list", 3, ("features.orders_all >= 0",), {"text": "dear ${profile.nickname}"}),
        Rule("l-same", "list", 3, ("segments.loyal || segments.shopper",), {"text": "same"}),
        Rule("o-items", "offers", 1, ("features.items_now >= 2",), {"text": f"i, {text}"}, "profile.points"),
        Rule("o-big", "offers", 1, ("features.biggest_hour > 0",), {"text": f"b, {text}"}, "features.biggest_hour"),
        Rule("o-worth", "offers", 1, ("!segments.shopper",), {"text": f"w, {text}"}, "models.worth.score * 2.0",
             rollout=70),
        Rule("o-age", "offers", 1, ("true",), {"text": "age", "points": "${profile.age}"}, "profile.age - 20"),
    )  # fmt: skip
    points = {
        "home": Point(1, ("priority",), {"text": f"nothing, {text}"}),
        "list": Point(3, ("priority", "value"), {"text": "empty"}),
        "offers": Point(2, ("value",), {"text": "none"}),
    }
    segments = {
        "loyal": f"features.orders_all >= {3 + n % 4} && profile.points > 0",
        "shopper": 'features.orders_recent > 0 || profile.tier == "silver"',
    }
    features = {
        "orders_all": Feature("count", "buy"),
        # Another window makes another feature: the store counts all subjects anew after such an edit. They are so short
        # that events leave them all the time.
        "orders_recent": Feature("count", "buy", window=(5, 20, 90)[n % 3]),
        "spend_hour": Feature("sum", "buy", "amount", 3600),
        "biggest_hour": Feature("max", "buy", "amount", 3600, 4),
        "items_now": Feature("distinct", "buy", "item", 40),
        "last_channel": Feature("last", "visit", "channel"),
        "minutes_since_buy": Feature("since", "buy"),
    }
    by_point = {name: tuple(rule for rule in rules if rule.decision == name) for name in points}
    return World(rules, points, segments, features, (1 + m % 5, 1 + m % 3), by_point)


def rule_files(version: Version) -> dict[str, str]:
    """The rule files: what is declared once, and the one file that every edit replaces."""
    made = world(version)
    fixed = {
        "schema": {
            "profile": {"points": "int", "age": "int", "tier": "string", "country": "string", "nickname": "string",
                        "tags": "list"},
            "context": {"device": "string", "basket": "double"},
            "events": {"buy": {"amount": "int", "item": "string"}, "visit": {"channel": "string"}},
        },
        "actions": {"show": {"params": {"text": "string", "points": {"type": "int", "optional": True}}}},
    }  # fmt: skip
    moving = {
        "decisions": {
            name: {"slots": p.slots, "order": list(p.order), "default": {"action": "show", "params": p.default}}
            for name, p in made.points.items()
        },
        "segments": made.segments,
        "features": {name: feature.written() for name, feature in made.features.items()},
        "rules": [rule.written() for rule in made.rules],
    }
    return {
        "schema.yaml": yaml.safe_dump(fixed, sort_keys=False, width=200),
        "rules.yaml": yaml.safe_dump(moving, sort_keys=False, width=200),
    }


def write_model(version: Version, folder: Path) -> None:
    """The model of a version, exact in float32 for what a soak holds: orders and points, each times its weight."""
    weights = np.array(world(version).weights, dtype=np.float32).reshape(2, 1)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["score"])],
        "worth",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        initializer=[numpy_helper.from_array(weights, "w")],
    )
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(onnx)
    inputs = [{"name": "orders", "from": "features.orders_all"}, {"name": "points", "from": "profile.points"}]
    manifest = {
        "name": "worth", "version": 1 + version.model, "kind": "score", "sha256": hashlib.sha256(onnx).hexdigest(),
        "inputs": inputs, "outputs": {"score": {"tensor": "score", "type": "double"}},
    }  # fmt: skip
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False), "utf-8")
