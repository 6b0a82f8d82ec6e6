"""The published hash: docs/hashing.md is executed, and the split is even and independent."""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from arbiter.decision.hashing import share

PAGE = (Path(__file__).parent.parent / "docs" / "hashing.md").read_text("utf-8")
VECTORS = re.findall(r"^\| `(.*?)` \| `(.*?)` \| `([0-9a-f]{16})` \| (\S+) \|$", PAGE, re.MULTILINE)


def test_the_published_vectors_hold() -> None:
    assert len(VECTORS) >= 14
    for salt, unit, digest, expected in VECTORS:
        assert blake2b(f"{salt}\0{unit}".encode(), digest_size=8).hexdigest() == digest
        assert repr(share(salt, unit)) == expected


def test_the_code_on_the_page_is_the_function() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102 - our own page
    for salt, unit, _, expected in VECTORS:
        assert repr(names["share"](salt, unit)) == expected


@given(st.text(), st.text())
def test_a_share_lies_in_the_half_open_range(salt: str, unit: str) -> None:
    assert 0.0 <= share(salt, unit) < 1.0


def test_shares_are_even_and_salts_independent() -> None:
    count = 20_000
    one = [share("one", str(n)) < 0.5 for n in range(count)]
    two = [share("two", str(n)) < 0.5 for n in range(count)]
    # A fair coin stays within five standard deviations of half; both at once, of a quarter.
    assert abs(sum(one) - count / 2) < 5 * (count / 4) ** 0.5
    assert abs(sum(a and b for a, b in zip(one, two, strict=True)) - count / 4) < 5 * (count * 3 / 16) ** 0.5
