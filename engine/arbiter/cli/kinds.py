"""The kinds of authored files: which file is of which, the schema of each, and how it is laid out.

Law: the one table of kinds. A file's name alone says its kind.
"""

from __future__ import annotations

from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from arbiter.authoring.documents import Form  # noqa: TC001 - a field's type at run time
from arbiter.authoring.format import Style
from arbiter.config.read import FORM as CONFIG
from arbiter.config.schema import config_schema
from arbiter.models.reader import FORM as MANIFEST
from arbiter.models.schema import manifest_schema, versions_schema
from arbiter.models.versions import FILE
from arbiter.models.versions import FORM as VERSIONS_FORM
from arbiter.ruleset.load import RULE_FILE, is_test_file
from arbiter.ruleset.schema import FOLDED, rules_schema
from arbiter.ruletests.files import TEST_FILE
from arbiter.ruletests.schema import tests_schema
from arbiter.training.reading import FORM as TRAINING
from arbiter.training.schema import train_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.authoring.schemas import Schema


class Kind(msgspec.Struct, frozen=True):
    """A kind of file. `published` is the name of its schema's file."""

    form: Form
    published: str
    schema: Callable[[], Schema]


RULES = Kind(RULE_FILE, "rules.schema.json", cache(rules_schema))
TESTS = Kind(TEST_FILE, "test.schema.json", cache(tests_schema))
MODELS = Kind(MANIFEST, "manifest.schema.json", cache(manifest_schema))
VERSIONS = Kind(VERSIONS_FORM, "versions.schema.json", cache(versions_schema))
SERVER = Kind(CONFIG, "config.schema.json", cache(config_schema))
TRAININGS = Kind(TRAINING, "train.schema.json", cache(train_schema))
KINDS = (RULES, TESTS, MODELS, VERSIONS, SERVER, TRAININGS)


def kind_of_file(path: str) -> Kind:
    """What a YAML file is, by its name. A configuration has none of its own: it is what `--config` names."""
    if is_test_file(path):
        return TESTS
    named = {"manifest.yaml": MODELS, FILE: VERSIONS, "train.yaml": TRAININGS}
    return named.get(PurePosixPath(path).name, RULES)


@cache
def style_of(kind: Kind) -> Style:
    """How files of the kind look."""
    return Style(kind.schema(), FOLDED)
