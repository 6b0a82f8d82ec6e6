"""What the pages list is what the code has: options, limits, errors, keys, calls, metrics; and links lead somewhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import msgspec
import pytest
import typer.main

from arbiter.authoring import documents
from arbiter.authoring.scalars import UNITS
from arbiter.cli.app import app
from arbiter.config.declare import written
from arbiter.config.limits import Limits
from arbiter.config.options import OPTIONS
from arbiter.expr import limits
from arbiter.expr.check import read_expression
from arbiter.expr.hints import FUNCTIONS
from arbiter.expr.scope import Scope
from arbiter.lint.finding import KINDS
from arbiter.ruleset import authored, expressions, load, points, segments
from arbiter.ruleset.caps.read import KEYS as CAP_KEYS
from arbiter.ruleset.caps.read import RUN_KEYS, SECTION_KEYS
from arbiter.ruleset.experiments.read import KEYS as EXPERIMENT_KEYS
from arbiter.ruleset.features import AGGREGATES
from arbiter.ruleset.patterns.acts import KEYS as ACT_KEYS
from arbiter.ruleset.patterns.read import KEYS as TRIGGER_KEYS
from arbiter.ruleset.patterns.steps import MOST_JOINS, MOST_STEPS, MOST_TIMES, MOST_TYPES
from arbiter.ruleset.rules import HitPolicy, OrderKey
from arbiter.ruleset.schema import rules_schema
from arbiter.ruleset.tables.columns import MAX_COLUMNS, TARGETS
from arbiter.ruleset.tables.read import KEYS as TABLE_KEYS
from arbiter.ruleset.tables.read import POLICIES
from arbiter.ruleset.tables.rows import MAX_ROWS
from arbiter.ruletests.firings import KEYS as FORESEEN_KEYS
from arbiter.server import status
from arbiter.telemetry.instruments import INSTRUMENTS
from arbiter.telemetry.prometheus import name_of
from arbiter.types import type_names
from arbiter.v1 import admin_pb2, decision_pb2, outcome_pb2, profile_pb2, trigger_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"`([^`]+)`")
LONGEST = 120


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading."""
    after = text[text.index(heading) :]
    found: list[list[str]] = []
    for line in after.splitlines()[1:]:
        if line.startswith("|"):
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif found:
            break
    return found[2:]


def column(text: str, heading: str, number: int = 0) -> list[str]:
    """The names in backquotes of a column."""
    return [name for row in rows(text, heading) for name in NAMED.findall(row[number])]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> Iterator[tuple[Path, str]]:
    for path in PAGES:
        for target in LINK.findall(prose(path.read_text("utf-8"))):
            if not target.startswith("https://"):
                yield path, target


@pytest.mark.parametrize(("path", "target"), list(links()), ids=lambda value: getattr(value, "name", value))
def test_a_link_leads_somewhere(path: Path, target: str) -> None:
    file, _, anchor = target.partition("#")
    found = (path.parent / file).resolve() if file else path
    assert found.exists()
    assert not anchor or anchor in anchors(found)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_lines_are_no_longer_than_a_window(path: Path) -> None:
    lines = enumerate(path.read_text("utf-8").splitlines(), start=1)
    assert not [number for number, line in lines if len(line) > LONGEST and not line.startswith("|")]


def test_the_readme_shows_the_figures_that_are_committed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.readme", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_configuration_page_lists_every_option() -> None:
    shown = {option.name: option for option in OPTIONS.values() if option.group != "limits"}
    table = [
        [
            f"`{name}`",
            f"`{written(option.default)}`" if written(option.default) else "none",
            option.page,
            option.meaning,
        ]
        for name, option in shown.items()
    ]
    assert rows(page("docs/configuration.md"), "## Options") == table


def test_the_telemetry_page_lists_every_metric_under_both_its_names() -> None:
    listed = [tuple(row) for row in rows(page("docs/telemetry.md"), "## Metrics")]
    assert [row[:5] for row in listed] == [
        (
            f"`{each.name}`",
            f"`{name_of(each)}{'_total' if each.kind == 'counter' else ''}`",
            each.kind,
            f"`{each.unit}`" if each.unit else "",
            ", ".join(f"`{attribute}`" for attribute in each.attributes),
        )
        for each in INSTRUMENTS
    ]


def test_the_readme_and_the_program_have_the_same_commands() -> None:
    listed = re.search(r"the commands (.+?)\.", prose(page("README.md")), re.DOTALL)
    assert listed is not None
    assert set(NAMED.findall(listed[1])) == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_the_api_page_lists_every_call() -> None:
    calls = [
        method.name
        for file in (decision_pb2, profile_pb2, outcome_pb2, trigger_pb2, admin_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    assert column(page("docs/api.md"), "# The API", 1) == calls


def test_the_api_page_lists_every_limit_with_its_default() -> None:
    listed = {row[0].strip("`"): int(row[1]) for row in rows(page("docs/api.md"), "## Limits")}
    assert listed == msgspec.structs.asdict(Limits())


def test_the_api_page_lists_every_error() -> None:
    listed = [
        tuple(name for cell in row[:2] for name in NAMED.findall(cell))
        for row in rows(page("docs/api.md"), "## Errors")
    ]
    table = {(code.name, reason) for code, reason in (*status._CODES.values(), status._OURS)}
    assert set(listed) == table | {("FAILED_PRECONDITION", "STORED_VALUE")}


def test_the_rules_page_lists_every_key() -> None:
    text = page("docs/rules.md")
    assert column(text, "## Rules") == sorted(authored.KEYS, key=column(text, "## Rules").index)
    assert set(column(text, "## Decisions")) == {"slots", "order", "channel", "default"}
    assert set(column(text, "Keys of `order`")) == set(get_args(OrderKey))
    assert set(column(text, "## Features")) == set(AGGREGATES)
    assert column(text, "## Decision tables") == sorted(TABLE_KEYS, key=column(text, "## Decision tables").index)
    assert column(text, "**Outputs**") == sorted(POLICIES, key=column(text, "**Outputs**").index)
    assert set(column(text, "## Experiments")) == set(EXPERIMENT_KEYS)
    assert column(page("docs/caps.md"), "# Caps") == list(CAP_KEYS)
    assert column(page("docs/caps.md"), "## Caps that rules share") == list(SECTION_KEYS)
    assert column(page("docs/caps.md"), "## Not the same again") == list(RUN_KEYS)
    assert column(page("docs/triggers.md"), "## A trigger") == list(TRIGGER_KEYS)
    assert column(page("docs/triggers.md"), "## What is done") == list(ACT_KEYS)
    assert column(page("docs/triggers.md"), "## Testing triggers") == list(FORESEEN_KEYS)
    assert all(f"`{section}`" in text for section in load.SECTIONS)
    assert all(f"`{kind}`" in text for kind in type_names)


def test_the_rules_page_lists_every_finding_of_the_lint() -> None:
    assert set(column(page("docs/rules.md"), "## Lint")) == set(KINDS)


def keys_of(schema: object) -> set[str]:
    """Every key that a schema knows of the language, the author's own names left out."""
    if isinstance(schema, list):
        return {key for each in schema for key in keys_of(each)}
    if not isinstance(schema, dict):
        return set()
    own = schema.get("properties", {})
    rest = [each for key, each in schema.items() if key != "properties"]
    return set(own).union(*(keys_of(each) for each in (*own.values(), *rest)))


def test_the_language_page_is_complete() -> None:
    text = prose(page("docs/language.md"))
    words = {word for named in NAMED.findall(text) for word in (named, *re.findall(r"[\w.]+", named))}
    known = keys_of(rules_schema()) | {*get_args(OrderKey), *get_args(HitPolicy), *type_names, *FUNCTIONS, *TARGETS}
    known |= {*UNITS, *(f"{root}.X" for root in ("profile", "account", "context", "features", "segments")), "now"}
    assert not known - words


def test_every_function_on_the_language_page_is_one() -> None:
    """A call without arguments may be refused for what it lacks, not for what it is."""
    scope = Scope({"profile": None})
    for function in FUNCTIONS:
        calls = [f"{function}()", f"{function}(1)", f"'a'.{function}()", f"profile.x.{function}()"]
        said = [mistake.message for call in calls for mistake in read_expression(call, scope).mistakes]
        assert not all("there is no function" in message for message in said) or len(said) < len(calls), function


def test_the_language_page_has_the_limits() -> None:
    cells = {row[0]: row[1].replace(",", "") for row in rows(page("docs/language.md"), "## Limits")}
    numbers = {name: [int(number) for number in re.findall(r"\d+", cell)] for name, cell in cells.items()}
    assert numbers["a file"] == [
        load.RULE_FILE.max_bytes, documents.MAX_DEPTH, documents.MAX_VALUES, documents.MAX_ALIASED,
    ]  # fmt: skip
    assert numbers["an expression"] == [expressions.LONGEST, limits.LEVELS, limits.MACROS, limits.STEPS]
    assert numbers["the pattern of `matches`"] == [limits.PATTERN_LENGTH, limits.PATTERN_SIZE]
    assert numbers["segments within segments"] == [segments.MAX_DEPTH, segments.MAX_SIZE]
    assert numbers["`slots`"] == [points.MAX_SLOTS]
    assert numbers["a table"] == [MAX_ROWS, MAX_COLUMNS]
    assert numbers["a trigger"] == [MOST_STEPS["sequence"], MOST_STEPS["any"], MOST_TIMES, MOST_TYPES, MOST_JOINS]


def test_the_development_page_lists_every_target() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", page("Makefile"), re.MULTILINE)
    listed = {row[0].strip("`") for row in rows(page("docs/development.md"), "# Development")}
    assert listed == {f"make {target}" for target in targets if target != "help"}


def test_the_benchmarks_page_lists_every_benchmark() -> None:
    modules = re.findall(r'"(\w+)"[,)]', page("benchmarks/__main__.py").partition("NAMES = (")[2].partition("\n\n")[0])
    assert column(page("docs/benchmarks.md"), "## What `make bench` measures") == modules


def test_the_benchmarks_page_lists_the_options_of_the_command() -> None:
    command = typer.main.get_command(app).commands["bench"]  # type: ignore[attr-defined]
    options = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    text = prose(page("docs/benchmarks.md"))
    assert not {name for name in options - {"--help", "--target", "--json"} if f"`{name}`" not in text}


def test_the_architecture_page_names_every_package() -> None:
    text = page("docs/architecture.md")
    packages = {path.parent.name for path in (ROOT / "engine" / "arbiter").glob("*/__init__.py")} - {"v1"}
    assert not {name for name in packages if not re.search(rf"`{name}/?`", text)}


def test_the_architecture_page_draws_the_imports_that_are_held() -> None:
    """The layers are read as they are written, since tests are no package that could be imported from."""
    assigned = re.search(r"^LAYERS = (\[.*?^\])", page("tests/test_imports.py"), re.MULTILINE | re.DOTALL)
    assert assigned is not None
    there = {path.stem for path in (ROOT / "engine" / "arbiter").iterdir()}
    drawn = page("docs/architecture.md").partition("```text\n")[2].partition("```")[0]
    assert [set(re.findall(r"\w+", row)) for row in drawn.split("→")] == [
        row & there for row in ast.literal_eval(assigned[1])
    ]


def test_the_readme_leads_to_every_page() -> None:
    listed = {LINK.findall(row[0])[0] for row in rows(page("README.md"), "## Read on")}
    assert listed == {
        "CHANGELOG.md", "docs/decisions", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
    }  # fmt: skip


def test_every_file_that_a_page_names_is_there() -> None:
    named: set[tuple[str, str]] = set()
    for path in PAGES:
        text = path.read_text("utf-8")
        found = set(re.findall(r"`((?:tests|rules|benchmarks|docs|models)/[\w./-]+)`", prose(text)))
        named |= {(path.name, file) for file in found - set(re.findall(r"file=(\S+)", text))}
    roots = (ROOT, ROOT / "engine" / "arbiter")
    assert not [each for each in named if not any((root / each[1]).exists() for root in roots)]
