"""The direction of imports: which part of Arbiter may import which, and who may import what from outside.

Law: reads the source with `ast` and imports nothing of Arbiter, so that a broken import cannot hide a forbidden one.
"""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "engine" / "arbiter"
# Outermost first. A part may import its own row, where the row has one part, and every row below.
LAYERS = [
    {"cli"},
    {"consumer"},
    {"server"},
    {"runtime"},
    {"ruletests", "lint", "training"},
    {"decision", "profiles", "triggers", "learning"},
    {"snapshot"},
    {"ruleset", "models", "config"},
    {"expr", "authoring", "datasets", "serving", "bench", "durable"},
    {"types", "errors"},
]
ROW = {part: row for row, parts in enumerate(LAYERS) for part in parts}
FREE = {"__init__", "v1", "client", "telemetry", "wire"}  # held by the rules below, or by none
# What stands alone, and all that it may import: the client is used without a server beside it.
ALONE = {"wire": {"types", "errors", "serving", "v1"}}
ALONE["client"] = {*ALONE["wire"], "wire"}
SHELL_ONLY = {"grpc", "grpc_health", "grpc_reflection", "grpc_status", "arbiter.v1"}
IMPURE = {"grpc", "lmdb", "asyncio", "time", "random", "logging", "os"}
PURE = {"decision", "triggers", "expr", "authoring", "ruleset", "ruletests", "lint"}

# What trains models, and what that brings: for commands alone, so that nothing that serves ever loads it.
TRAINS = {"sklearn", "skl2onnx", "onnxmltools", "lightgbm", "xgboost"}

# Of the client, all but these are pure: what a call is, and when it is sent again, knows neither gRPC nor a clock.
CLIENT_SHELL = {"__init__", "aio", "channels", "client", "face", "tracing"}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports; `from a import b` gives both `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ("arbiter", *path.relative_to(PACKAGE).parts[:-1])
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if part_of(path) != "v1"]


def faults(path: Path) -> list[str]:
    """Say, one line each, what a file imports and may not."""
    here = part_of(path)
    names = imports(path)
    outside = {name.split(".")[0] for name in names} | {".".join(name.split(".")[:2]) for name in names}
    inside = {name.split(".")[1] for name in names if name.startswith("arbiter.")} & (ROW.keys() | FREE)
    bad = {name for name in outside & SHELL_ONLY if here not in {"consumer", "server", "client", "wire"}}
    bad |= {to for to in inside if here in ALONE and to != here and to not in ALONE[here]}
    bad |= outside & (IMPURE | {"opentelemetry"}) if here == "wire" else set()
    bad |= {to for to in inside if to == "wire" and here not in {"wire", "server", "client"}}
    bad |= outside & IMPURE if here in PURE or (here == "client" and path.stem not in CLIENT_SHELL) else set()
    bad |= {to for to in inside if here in ROW and to in ROW and to != here and ROW[to] <= ROW[here]}
    bad |= {
        to for to in inside if to == "telemetry" and here not in {"telemetry", "consumer", "server", "runtime", "cli"}
    }
    bad |= {to for to in inside if to == "training" and here not in {"training", "cli"}}
    bad |= outside & TRAINS if here != "training" else set()
    return [f"arbiter/{path.relative_to(PACKAGE).as_posix()} imports {name}" for name in sorted(bad)]


def test_every_part_has_its_place_in_the_drawing() -> None:
    assert {part_of(path) for path in sources()} <= ROW.keys() | FREE


def test_imports_keep_the_direction_of_the_drawing() -> None:
    assert [fault for path in sources() for fault in faults(path)] == []
