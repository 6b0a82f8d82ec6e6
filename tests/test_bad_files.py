"""Files made to hurt: each ends in a diagnostic, within bounds of memory and time that a crash or a stall would break.

They are read in a process of their own, whose memory is limited; the wall is generous and only ends what hangs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ENGINE = Path(__file__).resolve().parent.parent / "engine"
MEMORY = 3 << 30
WALL = 120
PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
from arbiter.ruleset.load import load_ruleset
found, mistakes = load_ruleset({{"rules.yaml": sys.stdin.buffer.read()}}, {{}})
assert (found is None) == bool(mistakes)
print(len(mistakes))
print(mistakes[0].render() if mistakes else "ok")
"""
FULL = (16 << 20) - 100
RULE = b"decisions: {d: }\nrules:\n- {id: a, decision: d, then: {action: x%s}, when: '%s'}\n"


def segments(count: int, condition: str) -> bytes:
    lines = [f"  s{n}: {condition.format(n + 1)}\n" for n in range(count)]
    return "".join(["segments:\n", *lines, f"  s{count}: profile.a == 1\n"]).encode()


BOMB = b"a: &a [1,1,1,1,1,1,1,1,1]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(20)
)
FILES = {
    "fifty_megabytes": (b"#" * (50 << 20), "the file has 52,428,800 bytes"),
    "a_bomb_of_aliases": (BOMB, "aliases repeat more than"),
    "an_alias_within_itself": (b"segments: &a {x: *a}", "stands inside the value that it names"),
    "deep_lists": (b"[" * FULL, "more than 48 levels"),
    "deep_mappings": (b"{a: " * (FULL // 4), "more than 48 levels"),
    "deep_keys": (b"? " * (FULL // 2), "more than 48 levels"),
    "deep_indentation": (b"".join(b" " * n + b"a:\n" for n in range(4000)), "more than 48 levels"),
    "an_integer_of_megabytes": (b"decisions: {d: {slots: " + b"9" * 9_000_000 + b"}}", "does not fit in a 64-bit"),
    "a_fraction_of_megabytes": (b"decisions: {d: {slots: 1e" + b"9" * 9_000_000 + b"}}", "beyond what a double"),
    "bytes_that_are_no_text": (b"a: \xff" * 1_000_000, "not UTF-8"),
    "nul": (b"\0" * FULL, "U+0000 cannot stand"),
    "one_scalar": (b"segments: {a: " + b"x" * (FULL - 16) + b"}", "at most 8,000 are read"),
    "one_key": (b"x" * 1000 + b": 1\n" + b"y" * 10_000_000, "this is not YAML"),
    "one_line_of_rules": (b"rules: [" + b"{id: a}, " * 60_000 + b"]", "needs the key `decision`"),
    "the_same_key": (b"a: 1\n" * (FULL // 5), "for the second time"),
    "many_unknown_keys": (b"".join(b"k%d: 1\n" % n for n in range(60_000)), "unknown key `k0`"),
    "many_keys_that_are_none": (b"?\n" * 500_000, "a key must be a string"),
    "merge_keys": (b"<<: {a: 1}\n" * (FULL // 11), "merge keys"),
    "many_documents": (b"--- 1\n" * 100_000, "a rule file must be a mapping"),
    "tags": (b"a: !!python/object/apply:os.system [x]", "unknown"),
    "many_tags": (b"[" + b"!x 1," * (FULL // 5) + b"]", "unknown tag `!x`"),
    "too_many_values": (b"rules: [" + b"1," * (FULL // 2 - 10) + b"]", "more than 2,000,000 keys and values"),
    "a_quote_that_stays_open": (b'"' + b"a" * FULL, "never closed"),
    "lone_surrogates": (b'a: "\\ud800"', "not YAML"),
    "segments_that_double": (segments(15, "segments.s{0} && segments.s{0}"), "comes to"),
    "a_chain_of_segments": (segments(4_000, "segments.s{0}"), "levels of other segments"),
    "a_circle_of_segments": (segments(3000, "segments.s{0}").replace(b"profile.a == 1", b"segments.s0"), "in a circle"),
    "templates_never_closed": (RULE % (b", params: {a: '" + b"${" * 1_000_000 + b"'}", b"true"), "never closed"),
    "many_bad_templates": (RULE % (b", params: {a: '" + b"${x}" * 20_000 + b"'}", b"true"), "unknown name `x`"),
    "conditions_nested_in_brackets": (RULE % (b"", b"(" * 3900 + b"true" + b")" * 3900), "nested too deeply"),
    "a_chain_of_sums": (RULE % (b"", b"1" + b"+1" * 3900 + b" > 0"), "nested too deeply"),
    "macros_in_macros": (RULE % (b"", b"[1].all(x, " * 300 + b"true" + b")" * 300), "nested too deeply"),
    "a_name_of_kilobytes": (RULE % (b"", b"a" * 7900), "unknown name"),
    "operators_alone": (RULE % (b"", b"+" * 7900), "cannot stand here"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FILES))
def test_a_hostile_file_ends_in_a_diagnostic(name: str) -> None:
    content, says = FILES[name]
    done = subprocess.run(  # noqa: S603 - this interpreter, on a program of ours
        [sys.executable, "-c", PROGRAM.format(memory=MEMORY)],
        input=content,
        capture_output=True,
        timeout=WALL,
        check=False,
        env={"PYTHONPATH": str(ENGINE)},
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    count, _, first = done.stdout.decode().partition("\n")
    assert 1 <= int(count) <= 10_000
    assert says in first
    assert len(first) < 20_000
