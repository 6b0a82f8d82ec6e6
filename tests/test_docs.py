"""README.md and docs/ are executed: every block is run, loaded or compared, page by page, in a folder of its own.

How a page says what is what, by the info string of a fenced block:

- ``console``: lines after ``$ `` are commands, run with real processes, and what stands below one is what it prints, as
  on a terminal 100 columns wide, but for blank lines and the widths of columns. ``...`` stands for anything, alone on a
  line for any lines; digests, ports and times are any. ``arbiter serve`` goes on until the page ends, on a free port. A
  command that asks a server is asked again until it says what is expected or ten seconds have passed, since a changed
  file is live within a second, not at once.
- ``yaml``: a rule file. It loads alone, beside the shipped models; ``yaml wrong`` does not, and the next ``text`` block
  is all that is said of it. ``yaml file=rules/x.yaml`` puts it there, and the whole directory loads. ``yaml test`` is a
  test file for the rule file before it: its tests pass, one for each rule at least.
- ``python``: run, in one namespace a page; a ``text output`` block after it is what it prints.
- ``json file=x``, and ``yaml file=x`` outside of rules/, are put there. ``sh`` is not run and stands in NOT_RUN with
  its reason. ``text`` is a drawing or an output, read by people only, unless something before it says otherwise.

A page below docs/ starts in a folder with links to the repository's rules, models, proto and docs; the README with
nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from arbiter.ruleset.load import load_ruleset
from arbiter.ruletests import failed_tests, read_tests
from arbiter.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.models import Model

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# First line of a block that is not run → why not.
NOT_RUN = {
    "make demo": "minutes, and the data set from a package index",
    "make test": "this is it",
    "make bench-profiles BENCH_STORES=/disk/stores": "minutes, and 21 GB of disk",
    "git clone <this repository> arbiter && cd arbiter": "makes a virtual environment",
    "arbiter model report models/repurchase --rules rules/store --data data --html repurchase.html": "needs a store",
    "arbiter model train models/repurchase/train.yaml --replace": "needs the data set, and writes into the repository",
    "package=example.com/shop/arbiterv1": "needs the tools of another language",
    "arbiter events import --format cdnow --shift-to now": "fetches the data set from a package index",
    "arbiter events consume --config kafka.yaml --data scratch --kafka-group trying --kafka-rejected-file why.jsonl": (
        "needs brokers"
    ),
    "make bench": "minutes",
    "make soak": "half an hour",
    "python3 -m venv /opt/arbiter": "changes the machine",
    "docker build -f docs/deploy/Containerfile -t arbiter .": "needs a container engine",
    "kubectl create secret generic arbiter-callers --from-file=callers.yaml": "needs a cluster",
    "kubectl create configmap arbiter-rules --from-file=shop-rules --dry-run=client -o yaml | kubectl apply -f -": (
        "needs a cluster"
    ),
    "pip install 'arbiter[otlp]'": "from a package index",
}
# And what reads a log that a server writes by and by.
ASKS_A_SERVER = (
    "arbiter decide", "arbiter explain", "arbiter snapshot", "arbiter profile get", "arbiter replay", "arbiter report",
)  # fmt: skip
PATIENCE_S = 60.0
START_S = 60.0

_FENCE = re.compile(r"^```(.*)$")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\][^\x07]*\x07")
# What differs from run to run, on both sides.
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?Z?")
_DIGEST = re.compile(r"\b[0-9a-f]{12}\b|\b[0-9a-f]{32}\b|\b[0-9a-f]{64}\b")
_ADDRESS = re.compile(r"127\.0\.0\.1:\d+")
# Authored lines and what underlines them: there, every blank counts.
_QUOTED = re.compile(r" *\d* \| ")
_WIDTH = re.compile(r"([ ─])\1+")
USUAL = "127.0.0.1:50051"
ADMIN = "127.0.0.1:50052"  # in pages; a free port takes its place


class Block(msgspec.Struct, frozen=True):
    """A fenced block: `line` is its first one in the page, `words` follow the language."""

    page: str
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), "")


def blocks_of(page: Path) -> list[Block]:
    found: list[Block] = []
    begun: tuple[int, list[str]] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        fence = _FENCE.match(line.strip())
        if fence is None:
            lines.append(line)
        elif begun is None:
            begun, lines = (number + 1, fence[1].split()), []
        else:
            language, *words = begun[1] or [""]
            found.append(Block(page.name, begun[0], language, tuple(words), "\n".join(lines) + "\n"))
            begun = None
    assert begun is None, f"{page.name}:{begun}: a block that never ends"
    return found


def same(text: str) -> list[str]:
    """The lines of an output without what differs from run to run, and without what only looks differ by."""
    for pattern, word in ((_ANSI, ""), (_TIME, "TIME"), (_DIGEST, "DIGEST"), (_ADDRESS, "ADDRESS")):
        text = pattern.sub(word, text)
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return [line if _QUOTED.match(line) else _WIDTH.sub(r"\1", line.strip()) for line in lines]


def fits(expected: str, said: str) -> bool:
    pattern = ""
    for line in same(expected):
        pattern += r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in same(said))) is not None


class Terminal:
    """The folder of a page, and what runs in it."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.target = USUAL
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._admin = f"127.0.0.1:{free.getsockname()[1]}"
        self.names: dict[str, Any] = {}
        self._server: subprocess.Popen[str] | None = None
        self._environment = os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "engine"),
            "TERM": "xterm",
            "COLUMNS": "100",
            "NO_COLOR": "1",
        }

    def run(self, block: Block) -> None:
        for written, expected in commands_of(block):
            command = written.replace(ADMIN, self._admin)
            if command.startswith("cd "):
                self.folder /= command.removeprefix("cd ")
            elif command.startswith("arbiter serve"):
                self._serve(command, expected, block)
            else:
                self._check(command, expected, block)

    def _check(self, command: str, expected: str, block: Block) -> None:
        deadline = time.monotonic() + PATIENCE_S
        said = self._say(command)
        while not fits(expected, said) and command.startswith(ASKS_A_SERVER) and time.monotonic() < deadline:
            said = self._say(command)
        assert fits(expected, said), f"{block.place}: `{command}` says\n{said}\nand the page says\n{expected}"

    def _say(self, command: str) -> str:
        """What a command prints, on a terminal of its own; said on, for who runs the tests to see it."""
        print(f"\n$ {command}")  # noqa: T201 - `make tutorial`
        ours, theirs = pty.openpty()
        # What goes to standard error comes after the rest, and without progress bars.
        with open(ours, "rb", buffering=0) as output, tempfile.TemporaryFile() as errors:  # noqa: PTH123 - a descriptor
            process = subprocess.Popen(  # noqa: S603 - the pages are ours
                ["bash", "-c", command], cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL,  # noqa: S607
                stdout=theirs, stderr=errors,
            )  # fmt: skip
            os.close(theirs)
            said = b""
            # Linux says EIO when the last writer has closed a terminal.
            with contextlib.suppress(OSError):
                while part := output.read(65536):
                    said += part
            process.wait()
            errors.seek(0)
            said += errors.read()
        text = said.decode().replace("\r\n", "\n")
        print(text)  # noqa: T201 - as above
        return text

    def _serve(self, command: str, expected: str, block: Block) -> None:
        self.close()
        log = (self.folder / "server.log").open("w")
        with log:
            server = self._server = subprocess.Popen(  # noqa: S603 - as above
                ["bash", "-c", f"exec {command} --listen 127.0.0.1:0"], cwd=self.folder, env=self._environment,  # noqa: S607
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        alarm = threading.Timer(START_S, server.kill)
        alarm.start()
        said = server.stdout.readline() if server.stdout else ""
        alarm.cancel()
        log_text = (self.folder / "server.log").read_text("utf-8")
        assert fits(expected, said), f"{block.place}: `{command}` says\n{said}{log_text}\nand the page says\n{expected}"
        found = _ADDRESS.search(said)
        assert found is not None
        self.target = self._environment["ARBITER_TARGET"] = found[0]

    def execute(self, block: Block) -> str:
        """What a Python block prints."""
        said = io.StringIO()
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            with contextlib.redirect_stdout(said):
                code = "\n" * (block.line - 1) + block.text.replace(USUAL, self.target)
                exec(compile(code, block.page, "exec"), self.names)  # noqa: S102 - the pages are ours
        finally:
            os.chdir(before)
        return said.getvalue()

    def close(self) -> None:
        """End what was started."""
        server = self._server
        if server is None:
            return
        self._server = None
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            raise
        finally:
            if server.stdout:
                server.stdout.close()


def commands_of(block: Block) -> Iterator[tuple[str, str]]:
    """Each command with what it is to print."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        command = lines.pop(0)
        while command.endswith("\\"):
            command = command.removesuffix("\\") + lines.pop(0).lstrip()
        yield command, "\n".join(lines)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    programs = tmp_path / "programs"
    folder = tmp_path / "page"
    for made in (programs, folder):
        made.mkdir()
    for name, words in (("arbiter", "-m arbiter.cli"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n', "utf-8")
        (programs / name).chmod(0o755)
    opened = Terminal(folder, programs)
    yield opened
    opened.close()


class Reader:
    """Goes through a page. `_awaited` is what the next ``text`` block must be, if anything."""

    def __init__(self, terminal: Terminal, models: dict[str, Model]) -> None:
        self._terminal = terminal
        self._outputs = {name: model.outputs for name, model in models.items()}
        self._models = models
        self._rules = b""
        self._awaited = ""

    def read(self, block: Block) -> None:
        """Do what a block asks for."""
        if block.file:
            path = self._terminal.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, "utf-8")
        match block.language:
            case "yaml" if "test" in block.words:
                self._test(block)
            case "yaml" if not block.file or block.file.startswith("rules/"):
                self._load(block)
            case "console":
                self._terminal.run(block)
            case "python":
                self._awaited = self._terminal.execute(block)
            case "sh":
                assert block.text.partition("\n")[0] in NOT_RUN, f"{block.place}: why is it not run?"
            case "text":
                self._compare(block)
            case _:
                assert block.file, f"{block.place}: what is `{block.language}`?"

    def _test(self, block: Block) -> None:
        ruleset, _ = load_ruleset({"rules.yaml": self._rules}, self._outputs)
        assert ruleset is not None
        snapshot = Snapshot(ruleset, self._models)
        files = {"rules.test.yaml": block.text.encode()}
        failed = failed_tests(files, snapshot)
        assert not failed, f"{block.place}:\n" + "\n".join(each.render() for each in failed)
        tests, _ = read_tests(files, ruleset, self._models)
        named = {each.rule for test in tests for expected in test.expected for each in expected.treatments or ()}
        missed = {rule.id for rule in ruleset.rules if rule.enabled and not rule.table} - named
        assert not missed, f"{block.place}: no test sees these rules win: {missed}"

    def _load(self, block: Block) -> None:
        self._rules = block.text.encode()
        files = {"rules.yaml": self._rules}
        if block.file:
            folder = self._terminal.folder / "rules"
            files = {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*.yaml")}
        _, found = load_ruleset(files, self._outputs)
        self._awaited = "\n".join(each.render() for each in found)
        assert bool(found) == ("wrong" in block.words), f"{block.place}:\n{self._awaited}"

    def _compare(self, block: Block) -> None:
        awaited, self._awaited = self._awaited, ""
        if awaited or "output" in block.words:
            assert fits(block.text, awaited), f"{block.place}: it says\n{awaited}\nand the page says\n{block.text}"

    def finish(self) -> None:
        """Nothing may be left to compare."""
        assert not self._awaited, f"the last block's output stands nowhere:\n{self._awaited}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_does_what_it_says(page: Path, terminal: Terminal, shipped_models: dict[str, Model]) -> None:
    if page.parent != ROOT:
        for name in ("rules", "models", "proto", "docs"):
            (terminal.folder / name).symlink_to(ROOT / name)
    reader = Reader(terminal, shipped_models)
    for block in blocks_of(page):
        reader.read(block)
    reader.finish()


def test_every_block_that_is_not_run_is_still_there() -> None:
    written = {block.text.partition("\n")[0] for page in PAGES for block in blocks_of(page) if block.language == "sh"}
    assert not NOT_RUN.keys() - written
