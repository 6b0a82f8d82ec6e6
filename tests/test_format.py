"""The laws of `arbiter fmt`: nothing that a file says is lost, twice is once, and what cannot be read is left alone."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arbiter.authoring.format import format_file
from arbiter.authoring.format_tree import comments_of
from arbiter.cli.kinds import kind_of_file, style_of
from arbiter.models.reader import read_manifest
from arbiter.ruleset.load import is_rule_file, load_ruleset

if TYPE_CHECKING:
    from arbiter.errors import Diagnostic
    from arbiter.ruleset.rules import Ruleset

ROOT = Path(__file__).parent.parent
CASES = sorted((Path(__file__).parent / "cases" / "rules").glob("*.case"))
AUTHORED = sorted(path for folder in ("rules", "models") for path in (ROOT / folder).rglob("*.yaml"))
MODELS = {"rfm": {"cluster": "string"}, "repurchase": {"probability": "double"}}


def formatted(text: str, file: str = "rules.yaml") -> str:
    kind = kind_of_file(file)
    made, found = format_file(file, text.encode(), kind.form, style_of(kind))
    assert made is not None, [each.render() for each in found]
    return made.decode()


def without_positions(ruleset: Ruleset | None) -> object:
    """What a rule set is, but for where it was written."""

    def stripped(value: object) -> object:
        if isinstance(value, dict):
            return {key: stripped(inner) for key, inner in value.items() if key != "position"}
        return [stripped(each) for each in value] if isinstance(value, (list, tuple)) else value

    plain = msgspec.to_builtins(ruleset)
    # Expressions and parameters are arrays in which a position is a text like any other.
    return re.sub(r"'[^' ]*\.yaml:\d+:\d+'", "''", repr(stripped(plain)))


# Pieces of which files are made: what a formatter could trip over, nested at random.
TEXTS = st.sampled_from(
    ["plain", "two words", "profile.x > 1", "it's", 'say "hi"', "a: b", "a #b", "- x", "", "yes", "5", "1.5", "null",
     "2026-11-01T00:00:00Z", "${profile.x}", "a, b", "[x]", "{x}", "!x", "tab\there", "back\\slash", "ends:", "#no",
     "ünï", "  padded ", "7d", "<<", "=", "~", "it's \"both\"", "new\nline", "x" * 130, "word " * 30 + "end"]
)  # fmt: skip
KEYS = st.sampled_from(["id", "when", "then", "params", "tags", "rules", "action", "decision", "a b", "yes", "x: y",
                        "active", "decisions", "default", "order", "value"])  # fmt: skip
COMMENTS = st.sampled_from(["# why", "#no blank", "# a # b", "# it's: {odd", "#"])


class Writer:
    """Writes a random value as YAML in a random style."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.anchors = 0

    def chance(self, of: int = 4) -> bool:
        return self.draw(st.integers(0, of - 1)) == 0

    def scalar(self, indent: int, *, block: bool) -> str:
        text = self.draw(TEXTS)
        style = self.draw(st.integers(0, 5))
        safe = text.isprintable()
        if style == 0 and block and text.strip() == text and text:
            sign = self.draw(st.sampled_from(["", "-", "+", "2", "2-"]))
            mark = self.draw(st.sampled_from("|>"))
            lines = [" " * (indent + 2) + line for line in text.split("\n")]
            tail = "\n" * self.draw(st.integers(0, 2))
            return f"{mark}{sign}{' # head' if self.chance() else ''}\n" + "\n".join(lines) + tail
        if style == 1 and safe:
            return "'" + text.replace("'", "''") + "'"
        if style == 2 and block and text.count(" ") > 3 and re.fullmatch(r"[\w ]+", text):
            return text.strip().replace(" ", "\n" + " " * (indent + 1 + self.draw(st.integers(0, 3))), 3)
        if style == 3 and re.fullmatch(r"[\w.]+( > \d)?|7d|-x", text):
            return text
        return msgspec.json.encode(text).decode()

    def flow(self, depth: int, indent: int) -> str:
        parts = []
        mapping = self.chance(2)
        names = self.draw(st.lists(KEYS, max_size=3, unique=True))
        breaks = self.chance(3)
        for name in names:
            inner = self.flow(depth - 1, indent) if depth and self.chance(3) else self.scalar(indent, block=False)
            parts.append(f"{msgspec.json.encode(name).decode()}: {inner}" if mapping else inner)
        opening, closing = "{}" if mapping else "[]"
        if not breaks:
            return f"{opening}{', '.join(parts)}{closing}"
        pad = "\n" + " " * (indent + 1)
        text = opening
        for part in parts:
            text += f"{' ' + self.draw(COMMENTS) if self.chance() else ''}{pad}"
            text += f"{self.draw(COMMENTS)}{pad}" if self.chance() else ""
            text += f"{part},"
        return text + f"{' ' + self.draw(COMMENTS) if self.chance() else ''}{pad}{closing}"

    def value(self, depth: int, indent: int) -> tuple[str, bool]:
        """Text, and whether it is a block that begins on the next line."""
        if depth and self.chance(2):
            return self.block(depth, indent), True
        if depth and self.chance(3):
            return self.flow(depth - 1, indent), False
        if self.chance(8):
            return "", False
        return self.scalar(indent, block=True), False

    def block(self, depth: int, outer: int) -> str:
        mapping = self.chance(2)
        indent = outer + self.draw(st.integers(1, 4))
        lines = []
        names = self.draw(st.lists(KEYS, min_size=1, max_size=4, unique=True))
        for number, name in enumerate(names):
            pad = " " * indent
            if self.chance():
                lines.append("")
            if self.chance():
                lines.append(" " * self.draw(st.sampled_from([indent, indent, outer + 1, 0])) + self.draw(COMMENTS))
            text, below = self.value(depth - 1, indent)
            lead = f"{pad}{msgspec.json.encode(name).decode()}:" if mapping else f"{pad}-"
            beside = f" {self.draw(COMMENTS)}" if self.chance() and "\n" not in text else ""
            anchor = ""
            if self.chance(12) and text:
                self.anchors += 1
                anchor = f" &a{self.anchors}"
            if below:
                lines += [f"{lead}{anchor}{f' {self.draw(COMMENTS)}' if self.chance() else ''}", text]
            else:
                lines.append(f"{lead}{anchor}{' ' + text if text else ''}{beside}")
            if number == len(names) - 1 and self.chance():
                lines.append(" " * self.draw(st.sampled_from([indent, outer + 1, 0])) + self.draw(COMMENTS))
        return "\n".join(lines)


@st.composite
def files(draw: st.DrawFn) -> str:
    writer = Writer(draw)
    documents = [writer.block(draw(st.integers(1, 3)), -1) for _ in range(draw(st.integers(1, 2)))]
    top = draw(st.sampled_from(["", "# top\n", "# top\n\n", "---\n", "# top\n---\n", "\n\n", "--- # marked\n"]))
    text = top + draw(st.sampled_from(["\n---\n", "\n# between\n---\n"])).join(documents)
    return text + draw(st.sampled_from(["", "\n", "\n\n# end", "\n# end\n\n"]))


@settings(max_examples=300)
@given(files())
@example("a:\n- x\n# of the root\nb: 1\n")
@example("then: {a: 1, # one\n  b: [2, # two\n  3]} # all\n")
@example("- # first\n  # second\n  decision: x # third\n  # fourth\n  id: y\n")
@example("a: |+\n  keep\n\n\nb: 1\n")
@example("a: &x # head\n  # above\n  k: v\nb: *x # beside\n")
@example("a: >2-\n    deep\n   less\n\n  text\n# c\n")
@example("- - - a # deep\n    # here\n  - b\n- ? c\n  : d\n")
@example("a: !!str 5 # tagged\nb: !!str\nc: 'x\n\n  y' # folded\n")
@example("# nothing else\n")
@example("")
@example("--- # a\n# b\na: 1\n...\n# c\n--- # d\n# e\n")
@example("a: # x\n  &q # y\n  k: v\n")
@example("params:\n  - {a: b, c: d} # x\n\n  # y\n\n# z\n")
def test_what_is_formatted_stays_and_loses_nothing(text: str) -> None:
    kind = kind_of_file("rules.yaml")
    made, _ = format_file("rules.yaml", text.encode(), kind.form, style_of(kind))
    if made is None:
        return  # what cannot be read has its own test
    assert formatted(made.decode()) == made.decode()
    assert sorted(comments_of(made.decode())) == sorted(comments_of(text))


def test_most_of_what_is_drawn_can_be_read() -> None:
    """So that the law above is about something."""
    kind = kind_of_file("rules.yaml")
    read = []

    @settings(max_examples=200, database=None)
    @given(files())
    def count(text: str) -> None:
        read.append(format_file("rules.yaml", text.encode(), kind.form, style_of(kind))[0] is not None)

    count()
    assert sum(read) > len(read) / 2


def rule_files() -> dict[str, dict[str, str]]:
    """Every rule set of the cases: name → path → text."""
    sets = {}
    for case in CASES:
        parts = re.split(r"^=== (.+)\n", case.read_text("utf-8"), flags=re.MULTILINE)
        sets[case.stem] = dict(zip(parts[1::2], parts[2::2], strict=True))
    return sets


@pytest.mark.parametrize("name", list(rule_files()))
def test_the_rule_set_stays_the_same(name: str) -> None:
    files = {path: text.encode() for path, text in rule_files()[name].items() if path != "expected"}
    made = {}
    for path, content in files.items():
        kind = kind_of_file(path)
        after, found = format_file(path, content, kind.form, style_of(kind))
        assert (after is None) == bool(found)
        made[path] = content if after is None or not is_rule_file(path) else after
    before, wrong = load_ruleset(files, MODELS)
    again, still = load_ruleset(made, MODELS)
    assert without_positions(again) == without_positions(before)
    # A message may point to another place, which moves.
    assert sorted(map(without_places, still)) == sorted(map(without_places, wrong))


def without_places(found: Diagnostic) -> str:
    return re.sub(r"[\w./]+:\d+:\d+|\d+:\d+", "PLACE", found.message)


@pytest.mark.parametrize("path", AUTHORED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_shipped_is_formatted(path: Path) -> None:
    kind = kind_of_file(path.as_posix())
    made, _ = format_file(path.name, path.read_bytes(), kind.form, style_of(kind))
    assert made == path.read_bytes()


def test_the_shipped_rules_mean_the_same_however_they_are_laid_out() -> None:
    rules = ROOT / "rules"
    files = {path.relative_to(rules).as_posix(): path.read_bytes() for path in rules.rglob("*") if path.is_file()}
    # Without comments, and with a new line behind every comma: folding takes it for a blank.
    tame = files | {
        path: formatted(re.sub(", ", ",\n            ", re.sub("#.*", "", content.decode())), path).encode()
        for path, content in files.items()
        if is_rule_file(path)
    }
    before, found = load_ruleset(files, MODELS)
    assert not found
    assert without_positions(load_ruleset(tame, MODELS)[0]) == without_positions(before)


def test_manifests_mean_the_same() -> None:
    for path in AUTHORED:
        if path.name == "manifest.yaml":
            text = path.read_text("utf-8").replace("from:", "# here\n    from:").replace("- {", "- {\n    ")
            made = formatted(text, path.as_posix())
            assert read_manifest(made.encode(), "m")[0] == read_manifest(path.read_bytes(), "m")[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            "rules:\n- then: {action: a, params: {b: 'c'}}\n  when:\n    - x > 1\n  decision: d\n  id: 'r'\n",
            "rules:\n  - id: r\n    decision: d\n    when:\n      - x > 1\n    then: {action: a, params: {b: c}}\n",
            id="order, indentation and quotes",
        ),
        pytest.param(
            "rules:\n  - id: a\n    then:\n      params:\n        text: hello, ${profile.x}\n      action: show\n",
            'rules:\n  - id: a\n    then: {action: show, params: {text: "hello, ${profile.x}"}}\n',
            id="short mappings stand in brackets, and what brackets need quoted is",
        ),
        pytest.param(
            "rules:\n  - id: a\n    then: {action: show, params: {text: " + "x" * 90 + "}}\n",
            "rules:\n  - id: a\n    then:\n      action: show\n      params: {text: " + "x" * 90 + "}\n",
            id="long ones do not",
        ),
        pytest.param(
            "rules:\n  - id: a\n    then:\n      # why\n      action: show\n    tags:\n      - x # this\n      - y\n",
            "rules:\n  - id: a\n    then:\n      # why\n      action: show\n    tags:\n      - x # this\n      - y\n",
            id="nor what holds a comment",
        ),
        pytest.param(
            "segments:\n\n\n  a:   x >  1   # why\n\n\n\n  # then\n  b: y\n",
            "segments:\n  a: x >  1 # why\n\n  # then\n  b: y\n",
            id="groups stay, expressions are not touched",
        ),
        pytest.param(
            "rules:\n  - enabled: false # for now\n    # its name\n    id: a\n",
            "rules:\n  # its name\n  - id: a\n    enabled: false # for now\n",
            id="comments go where their keys go",
        ),
        pytest.param(
            "segments:\n  a: \"x == 'y'\"\n  b: '!x'\n  c: 'x == \"y\"'\n  d: \"x: y\"\n  e: 'yes'\n  f: \"5\"\n",
            'segments:\n  a: x == \'y\'\n  b: "!x"\n  c: x == "y"\n  d: "x: y"\n  e: "yes"\n  f: "5"\n',
            id="quotes where they are needed, double ones",
        ),
        pytest.param(
            "segments:\n     a: >-\n           x > 1\n             && y\n     b: |\n        x\n        || y\n",
            "segments:\n  a: >-\n    x > 1\n      && y\n  b: |\n    x\n    || y\n",
            id="texts over several lines",
        ),
        pytest.param(
            "rules:\n  - {id: a, when: &w [x], then: {params: {p: 1}, action: &n s}}\n  - {when: *w, id: *n}\n",
            "rules:\n  - {id: a, when: &w [x], then: {params: {p: 1}, action: &n s}}\n  - {when: *w, id: *n}\n",
            id="anchors stay before their aliases",
        ),
        pytest.param("a: 1\n---\n\nb: 2", "a: 1\n---\nb: 2\n", id="documents, and the end of the last line"),
        pytest.param("decisions: {home: , shop: {}}\n", "decisions: {home: , shop: {}}\n", id="nothing stays nothing"),
        pytest.param("", "", id="an empty file"),
    ],
)
def test_the_form(before: str, after: str) -> None:
    assert formatted(before) == after


def test_windows_line_ends_stay_and_a_byte_order_mark_goes() -> None:
    kind = kind_of_file("a.yaml")
    content = "\ufeffsegments:\r\n    a:  'x'\r\n    b: |\r\n       y\r\n".encode()
    made, _ = format_file("a.yaml", content, kind.form, style_of(kind))
    assert made == b"segments:\r\n  a: x\r\n  b: |\r\n    y\r\n"


@pytest.mark.parametrize(
    "content",
    [b"a: [1", b"a: \xff", b"a: 1\na: 2", b"a: &x 1\nb: *y", b"%YAML 1.2\n---\na: 1", b"a: !odd 1", b"<<: {}"],
)
def test_what_is_not_sound_is_said_and_left(content: bytes) -> None:
    kind = kind_of_file("a.yaml")
    made, found = format_file("a.yaml", content, kind.form, style_of(kind))
    assert made is None
    assert found[0].file == "a.yaml"


def run(*words: str, cwd: Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "engine"), "NO_COLOR": "1"}
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "arbiter.cli", "fmt", *words],
        cwd=cwd, env=environment, input=given, capture_output=True, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "good.yaml").write_bytes(b"segments: {a: x}\n")
    (rules / "wild.yaml").write_bytes(b"segments:   {a: 'x'}")
    (rules / "broken.yaml").write_bytes(b"segments: {a: x\n")
    (rules / ".hidden.yaml").write_bytes(b"a:   1")
    (rules / "notes.txt").write_bytes(b"a:   1")
    return tmp_path


def test_only_what_changes_is_written(folder: Path) -> None:
    rules = folder / "rules"
    os.utime(rules / "good.yaml", ns=(1, 1))
    (rules / "wild.yaml").chmod(0o640)
    (folder / "link.yaml").symlink_to(rules / "wild.yaml")
    done = run("rules", "link.yaml", cwd=folder)
    assert (done.returncode, done.stdout) == (1, b"rules/wild.yaml\n")
    assert b"rules/broken.yaml:1:11: this is not YAML" in done.stderr
    assert (rules / "wild.yaml").read_bytes() == b"segments: {a: x}\n"
    assert stat.S_IMODE((rules / "wild.yaml").stat().st_mode) == 0o640
    assert (rules / "good.yaml").stat().st_mtime_ns == 1
    assert (rules / "broken.yaml").read_bytes() == b"segments: {a: x\n"
    assert (rules / ".hidden.yaml").read_bytes() == (rules / "notes.txt").read_bytes() == b"a:   1"
    assert sorted(path.name for path in rules.iterdir()) == [
        ".hidden.yaml", "broken.yaml", "good.yaml", "notes.txt", "wild.yaml",
    ]  # fmt: skip
    (rules / "broken.yaml").unlink()
    assert run(cwd=folder).returncode == 0


def test_a_link_stays_a_link(folder: Path) -> None:
    (folder / "link.yaml").symlink_to(folder / "rules" / "wild.yaml")
    assert run("link.yaml", cwd=folder).returncode == 0
    assert (folder / "link.yaml").is_symlink()
    assert (folder / "rules" / "wild.yaml").read_bytes() == b"segments: {a: x}\n"


@pytest.mark.parametrize("option", ["--check", "--diff"])
def test_looking_changes_nothing(folder: Path, option: str) -> None:
    done = run(option, "rules/wild.yaml", "rules/good.yaml", cwd=folder)
    assert done.returncode == 1
    assert b"1 file would change, 1 as they should be" in done.stderr
    assert (b"+segments: {a: x}" in done.stdout) == (option == "--diff")
    assert (folder / "rules" / "wild.yaml").read_bytes() == b"segments:   {a: 'x'}"
    assert run(option, "rules/good.yaml", cwd=folder).returncode == 0


def test_through_a_pipe(folder: Path) -> None:
    done = run("--stdin", cwd=folder, given=b"segments:   {a: 'x'}")
    assert (done.returncode, done.stdout) == (0, b"segments: {a: x}\n")
    done = run("--stdin", "rules/x.yaml", cwd=folder, given=b"segments: {a: 'x'")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"rules/x.yaml:1:11: this is not YAML" in done.stderr
    assert run("--stdin", "--check", cwd=folder, given=b"a:  1").returncode == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "there is no `nowhere`"),
        (["rules/notes.txt"], "`rules/notes.txt` is no YAML file"),
        (["--stdin", "a", "b"], "--stdin takes at most one path"),
    ],
)
def test_wrong_usage_is_2(folder: Path, words: list[str], said: str) -> None:
    done = run(*words, cwd=folder)
    assert done.returncode == 2
    assert said in done.stderr.decode()
