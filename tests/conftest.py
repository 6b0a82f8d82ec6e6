"""What several test files need."""

from __future__ import annotations

from pathlib import Path

import pytest

from arbiter.models import Model, load_models

SHIPPED = Path(__file__).parent.parent / "models"


@pytest.fixture(scope="session")
def shipped_models() -> dict[str, Model]:
    """The models that the repository ships, loaded and warm."""
    models, found = load_models(SHIPPED)
    assert not found, [diagnostic.render() for diagnostic in found]
    return models
