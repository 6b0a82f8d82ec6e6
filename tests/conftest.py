"""What several test files need."""

from __future__ import annotations

from pathlib import Path

import pytest

from arbiter.models import Model, load_models

SHIPPED = Path(__file__).parent.parent / "models"


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self, now: int = 0) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@pytest.fixture(scope="session")
def shipped_models() -> dict[str, Model]:
    """The models that the repository ships, loaded and warm."""
    models, found = load_models(SHIPPED)
    assert not found, [diagnostic.render() for diagnostic in found]
    return models
