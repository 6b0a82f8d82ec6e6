"""What several test files need."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from arbiter.models import Model, load_models

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "models"

# Where nothing may write bytecode beside the sources, it goes elsewhere: each of the many processes that tests start
# would compile all that it imports, which takes as long as all else of its start.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".pytest_cache" / "bytecode"))

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("arbiter", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("arbiter")


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self, now: int = 0) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def replace(file: Path, text: str) -> None:
    """Write a file at once, as editors do: who watches it never sees a half of it."""
    draft = file.with_name(f".{file.name}.draft")
    draft.write_text(text, "utf-8")
    draft.rename(file)


def workers_of(supervisor: int) -> list[int]:
    """The process ids of the workers that a supervisor has now; one may end while we look."""
    found = []
    for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text("ascii").split():
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


@pytest.fixture(scope="session")
def shipped_models() -> dict[str, Model]:
    """The models that the repository ships, loaded and warm."""
    models, found = load_models(SHIPPED)
    assert not found, [diagnostic.render() for diagnostic in found]
    return models
