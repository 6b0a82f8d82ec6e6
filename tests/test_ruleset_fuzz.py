"""Whatever bytes are read, the answer is a rule set or diagnostics with a place in the file, never an exception."""

from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.errors import Diagnostic
from arbiter.ruleset.load import load_ruleset

CASES = Path(__file__).parent / "cases" / "rules"
MODELS = {"rfm": {"cluster": "string"}, "repurchase": {"probability": "double"}}
NAMES = (
    "a_whole_rule_set_is_read",
    "positions_in_a_double_quoted_text",
    "positions_inside_templates",
    "an_anchor_may_be_used_again",
    "positions_in_a_literal_block",
    "a_template_that_is_never_closed",
)
GOOD = [(CASES / f"{name}.case").read_bytes().partition(b"=== expected")[0].replace(b"===", b"#") for name in NAMES]
SNIPPETS = rb"""${ } { [ ] ' " \ : & * &a *a !!int | > - # null 1e999 \u0041 '' ? --- && ( ~ !x <<: @ % `""".split()
SNIPPETS += [b": ", b"\n", b"\t", b"\r", b"- ", b"\n---\n", b"\xff", b"\0", "\u2028".encode(), "\U0001f642".encode()]
FRAMES = ("segments: {a: '%s'}", 'segments:\n  a: "%s"', "segments:\n  a: |\n    %s", "segments:\n  a: %s")
EDITS = st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from([b"", *SNIPPETS]))
relaxed: Callable[..., Callable[..., None]] = settings(max_examples=150)


def check(content: bytes) -> None:
    ruleset, found = load_ruleset({"a/rules.yaml": content}, MODELS)
    assert (ruleset is None) == bool(found)
    assert found == sorted(found)
    for diagnostic in found:
        check_place(diagnostic, content)


def check_place(diagnostic: Diagnostic, content: bytes) -> None:
    lines = content.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert diagnostic.render()
    assert 1 <= diagnostic.line <= len(lines)
    assert 1 <= diagnostic.column < diagnostic.end_column <= len(lines[diagnostic.line - 1]) + 2


@relaxed
@given(st.binary(max_size=300))
def test_any_bytes(content: bytes) -> None:
    check(content)


@relaxed
@given(
    st.text(max_size=200),
    st.sampled_from(["segments: {a: '%s'}", 'segments:\n  a: "%s"', "segments:\n  a: |\n    %s", "segments:\n  a: %s"]),
)
def test_any_expression(text: str, frame: str) -> None:
    check((frame % text).encode("utf-8", "replace"))


@relaxed
@given(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from([b"", *SNIPPETS])), min_size=1, max_size=4),
)
def test_any_edit_of_a_good_file(good: bytes, edits: list[tuple[float, int, bytes]]) -> None:
    content = good
    for place, removed, added in edits:
        at = int(place * len(content))
        content = content[:at] + added + content[at + removed :]
    check(content)


WORDS = r"""
profile.a context.b now segments.s features.f models.m.o 1 -1 0 2.5 1e308 9223372036854775807 99999999999999999999 0x7f
1u "a" 'b' b"c" r"\d" true false null ( ) [ ] { } . , : ? ! - + * / % == != < <= > >= in && || has( size( type( int(
.exists(x, .all(x, .map(x, .filter(x, .exists_one(x, x .matches(" ") .startsWith(" timestamp(" duration(" 1h string(
2026-01-01T00:00:00Z .getHours( // é 🙂 $ # @ \ ` ; = & | not and
"""
TOKENS = st.sampled_from(WORDS.split())


@relaxed
@given(st.lists(TOKENS, max_size=40), st.sampled_from(["", " "]), st.sampled_from(FRAMES))
def test_any_tokens(tokens: list[str], between: str, frame: str) -> None:
    check((frame % between.join(tokens)).encode())


@relaxed
@given(st.lists(TOKENS, min_size=1, max_size=3), st.integers(1, 2500), st.lists(TOKENS, max_size=3))
def test_any_tokens_over_and_over(tokens: list[str], times: int, behind: list[str]) -> None:
    text = " ".join(tokens * times + behind * times)[:8000]
    check(f"segments:\n  a: |\n    {text}".encode())
