"""Every case of cases/rules: the files of a rule set, and the diagnostics that reading them gives, word for word.

A case is a file. Lines `=== PATH` begin a rule file, `=== expected` begins the diagnostics as `render` shows them, or
`ok`. To add a case, write one and run this test: it shows what is said now; paste it once it is what should be said.
"""

import re
from pathlib import Path

import pytest

from arbiter.ruleset.load import load_ruleset

CASES = sorted((Path(__file__).parent / "cases" / "rules").glob("*.case"))
MODELS = {"rfm": {"cluster": "string"}, "repurchase": {"probability": "double"}}


def sections(case: Path) -> dict[str, str]:
    parts = re.split(r"^=== (.+)\n", case.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_a_rule_set_gives_exactly_these_diagnostics(case: Path) -> None:
    files = sections(case)
    expected = files.pop("expected")
    ruleset, found = load_ruleset({path: text.encode() for path, text in files.items()}, MODELS)
    said = "".join(f"{diagnostic.render()}\n" for diagnostic in found) or "ok\n"
    assert said == expected
    assert (ruleset is None) == bool(found)


def test_there_are_cases() -> None:
    assert len(CASES) > 40
