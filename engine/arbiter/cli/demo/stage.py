"""How the demo speaks: numbered steps, sentences that were checked, and the one way in which it fails.

Law: prints and judges; starts nothing and asks nobody.
"""

from __future__ import annotations

import time

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.rule import Rule
from rich.text import Text

from arbiter.cli.terminal import out
from arbiter.errors import ArbiterError


class StepFailed(ArbiterError):
    """Something that the demo claims did not happen."""


def require(held: object, otherwise: str) -> None:
    """Raise StepFailed with `otherwise` unless `held` is true."""
    if not held:
        raise StepFailed(otherwise)


class Stage:
    """Counts the steps and the time."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._step = 0

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._began

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._step += 1
        out().print()
        if out().is_terminal:
            out().print(Rule(Text(f" {self._step}. {title} ", "bold"), align="left", style="blue"))
        else:
            out().print(f"{self._step}. {title}")

    def say(self, sentence: str | Text) -> None:
        """Tell something."""
        out().print(sentence)

    def done(self, sentence: str) -> None:
        """Tell something that was checked."""
        out().print(Text.assemble(("✓ ", "bold green"), sentence))

    def progress(self) -> Progress:
        """A bar over units of work; in a pipe nothing is drawn."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=out(),
            transient=True,
            disable=not out().is_terminal,
        )
