"""Every mistake in a manifest is reported at its place, all of them in one pass."""

import re
from pathlib import Path

import pytest

from arbiter.errors import AuthorError
from arbiter.models.manifest import Input, Manifest, Output
from arbiter.models.reader import read_manifest

DIGEST = "0" * 64
PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
GOOD = f"""\
name: churn
version: 2
kind: propensity
sha256: {DIGEST}
inputs:
  - {{name: orders, from: features.orders_90d, default: 0}}
  - {{name: plan, from: profile.plan, default: free}}
  - {{name: device, from: context.device}}
outputs:
  probability: {{tensor: probs, index: 1, type: double}}
  cluster: {{tensor: label, type: string, labels: [low, high]}}
"""

MISTAKES = {
    "unknown key": (
        ("version: 2", "version: 2\nverison: 3"),
        """\
m.yaml:3:1: unknown key `verison` in a manifest
    3 | verison: 3
      | ^^^^^^^
  hint: did you mean `version`?""",
    ),
    "unknown key of an input": (
        ("default: 0", "fallback: 0"),
        """\
m.yaml:6:47: unknown key `fallback` in an input
    6 |   - {name: orders, from: features.orders_90d, fallback: 0}
      |                                               ^^^^^^^^
  hint: it may have `name`, `from`, `default`, `as`, `categories`, `unseen`, `impute`, `training`, `unit`, `range`, \
`outside`""",
    ),
    "a key that is missing": (
        ("kind: propensity\n", ""),
        """\
m.yaml:1:1: the manifest lacks `kind`
    1 | name: churn
      | ^^^^^^^^^^^""",
    ),
    "a key of an output that is missing": (
        ("tensor: probs, ", ""),
        """\
m.yaml:10:16: `outputs.probability` lacks `tensor`
   10 |   probability: {index: 1, type: double}
      |                ^^^^^^^^^^^^^^^^^^^^^^^^""",
    ),
    "a key given twice": (
        ("version: 2", "version: 2\nversion: 3"),
        """\
m.yaml:3:1: the key `version` stands here for the second time; the first is at 2:1
    3 | version: 3
      | ^^^^^^^
  hint: remove one of the two""",
    ),
    "a kind that does not exist": (
        ("kind: propensity", "kind: propensty"),
        """\
m.yaml:3:7: `kind` cannot be `propensty`
    3 | kind: propensty
      |       ^^^^^^^^^
  hint: did you mean `propensity`?""",
    ),
    "a name that is none": (
        ("name: churn", "name: Churn!"),
        """\
m.yaml:1:7: `Churn!` is not a name
    1 | name: Churn!
      |       ^^^^^^
  hint: names match [a-z_][a-z0-9_]*""",
    ),
    "a version that is no number": (
        ("version: 2", "version: two"),
        """\
m.yaml:2:10: `version` must be a whole number of at least 1
    2 | version: two
      |          ^^^""",
    ),
    "a digest that is none": (
        (DIGEST, "abc"),
        """\
m.yaml:4:9: `sha256` must be 64 hexadecimal digits in small letters
    4 | sha256: abc
      |         ^^^""",
    ),
    "an input from nowhere": (
        ("features.orders_90d", "feature.orders_90d"),
        """\
m.yaml:6:26: an input comes from `features.NAME`, `profile.NAME`, `account.NAME` or `context.NAME`, \
not from `feature.orders_90d`
    6 |   - {name: orders, from: feature.orders_90d, default: 0}
      |                          ^^^^^^^^^^^^^^^^^^
  hint: did you mean `features`?""",
    ),
    "an input named twice": (
        ("name: plan", "name: orders"),
        """\
m.yaml:7:12: input `orders` is declared twice
    7 |   - {name: orders, from: profile.plan, default: free}
      |            ^^^^^^""",
    ),
    "a default of null": (
        ("default: 0", "default: null"),
        """\
m.yaml:6:56: `inputs[0].default` must be a finite number, a boolean or a string
    6 |   - {name: orders, from: features.orders_90d, default: null}
      |                                                        ^^^^
  hint: leave `default` out to make the outputs unknown when the input is missing""",
    ),
    "a default that is not finite": (
        ("default: 0", "default: .inf"),
        """\
m.yaml:6:56: `.inf` is not a number that can be compared: NaN and infinities are refused
    6 |   - {name: orders, from: features.orders_90d, default: .inf}
      |                                                        ^^^^
  hint: quote it if text is meant""",
    ),
    "an output type that does not exist": (
        ("type: double", "type: float"),
        """\
m.yaml:10:48: `outputs.probability.type` cannot be `float`
   10 |   probability: {tensor: probs, index: 1, type: float}
      |                                                ^^^^^
  hint: one of double, int, bool, string""",
    ),
    "labels on an output that is no string": (
        ("type: string", "type: int"),
        """\
m.yaml:11:47: labels are strings, but output `cluster` is of type int
   11 |   cluster: {tensor: label, type: int, labels: [low, high]}
      |                                               ^^^^^^^^^^^
  hint: `type: string`""",
    ),
    "inputs that are no list": (
        (GOOD[GOOD.index("inputs:") : GOOD.index("outputs:")], "inputs: 5\n"),
        """\
m.yaml:5:9: `inputs` must be a list
    5 | inputs: 5
      |         ^""",
    ),
    "an input that is no mapping": (
        ("{name: orders, from: features.orders_90d, default: 0}", "orders"),
        """\
m.yaml:6:5: `inputs[0]` must be a mapping (`key: value` lines)
    6 |   - orders
      |     ^^^^^^""",
    ),
    "no inputs": (
        (GOOD[GOOD.index("inputs:") : GOOD.index("outputs:")], "inputs: []\n"),
        """\
m.yaml:5:9: a model needs at least one input
    5 | inputs: []
      |         ^^""",
    ),
    "no outputs": (
        (GOOD[GOOD.index("outputs:") :], "outputs: {}\n"),
        """\
m.yaml:9:10: a model needs at least one output
    9 | outputs: {}
      |          ^^""",
    ),
    "a flow mapping that is not closed": (
        ("default: 0}", "default: 0"),
        """\
m.yaml:6:5: this is not YAML: the `{` that opens here is never closed
    6 |   - {name: orders, from: features.orders_90d, default: 0
      |     ^
  hint: add a `}`, or the comma that is missing""",
    ),
    "a second document": (
        ("labels: [low, high]}\n", "labels: [low, high]}\n---\nname: repurchase\n"),
        """\
m.yaml:13:1: a manifest is one document, and here begins another
   13 | name: repurchase
      | ^^^^^^^^^^^^^^^^
  hint: remove the line `---` before it, or the document""",
    ),
}


def render(content: bytes) -> str:
    _, _, found = read_manifest(content, "m.yaml")
    return "\n".join(each.render() for each in sorted(found))


def test_a_good_manifest_is_read_whole() -> None:
    manifest, _, found = read_manifest(GOOD.encode(), "m.yaml")
    assert found == []
    assert manifest == Manifest(
        name="churn",
        version=2,
        kind="propensity",
        sha256=DIGEST,
        inputs=(
            Input("orders", "features", "orders_90d", 0),
            Input("plan", "profile", "plan", "free"),
            Input("device", "context", "device"),
        ),
        outputs=(
            Output("probability", "probs", "double", 1),
            Output("cluster", "label", "string", 0, ("low", "high")),
        ),
    )


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_shown_where_it_stands(case: str) -> None:
    (old, new), expected = MISTAKES[case]
    assert GOOD.count(old) >= 1
    assert render(GOOD.replace(old, new, 1).encode()) == expected


def test_all_mistakes_are_reported_in_one_pass() -> None:
    broken = GOOD
    for old, new in (("kind: propensity", "kind: x"), ("version: 2", "version: 0"), ("type: double", "type: float")):
        broken = broken.replace(old, new, 1)
    _, _, found = read_manifest(broken.encode(), "m.yaml")
    assert [each.line for each in sorted(found)] == [2, 3, 10]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "m.yaml: the manifest must be a mapping (`key: value` lines)"),
        (b"[]", "m.yaml:1:1: the manifest must be a mapping (`key: value` lines)"),
        (b"\xff", "m.yaml:1:1: the file is not UTF-8 from here on"),
        (b"a: \x07", "m.yaml:1:4: the character U+0007 cannot stand in a manifest"),
        (b"[" * 5000, "m.yaml:1:49: more than 48 levels of lists and mappings"),
        (b" " * ((1 << 20) + 1), "m.yaml: the file has 1,048,577 bytes; at most 1,048,576 are read"),
    ],
    ids=["empty", "a list", "not UTF-8", "control character", "deep", "long"],
)
def test_a_file_that_is_no_manifest_is_refused_whole(content: bytes, expected: str) -> None:
    assert render(content).partition("\n")[0] == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1e-3", 0.001),
        ("-2.5", -2.5),
        ("true", True),
        ("yes", "yes"),
        ('"5"', "5"),
        ("1_0", "1_0"),
        ("0x10", 16),
    ],
)
def test_a_default_keeps_its_type(text: str, value: object) -> None:
    manifest, _, _ = read_manifest(GOOD.replace("default: 0", f"default: {text}", 1).encode(), "m.yaml")
    assert manifest is not None
    assert manifest.inputs[0].default == value
    assert type(manifest.inputs[0].default) is type(value)


def test_diagnostics_can_be_raised_as_the_authors_error() -> None:
    _, _, found = read_manifest(b"name: x", "m.yaml")
    assert "5 errors in 1 file" in str(AuthorError(found))


def test_the_manifests_of_the_page_are_sound() -> None:
    found = re.findall(r"^```yaml file=\S*manifest\.yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert [read_manifest(each.encode(), "m.yaml")[2] for each in found] == [[], []]


AGREE = {
    "codes without categories": ("as: onehot", "`as: onehot` needs `categories`"),
    "categories as numbers": ("as: number, categories: [a, b]", "categories are no numbers"),
    "a range of categories": ("range: [0, 1], categories: [a, b]", "`range` is for numbers, and here are categories"),
    "one category": ("categories: [a]", "`categories` needs at least two"),
    "a category twice": ("categories: [a, b, a]", "the category `a` stands here twice"),
    "categories of two kinds": ("categories: [a, 1]", "categories are all texts, all numbers or all booleans"),
    "a default that is no category": ("categories: [a, b], default: c", "`c` is none of the categories"),
    "two stand-ins": ("default: 1, impute: nan", "`default` and `impute` both say what stands in"),
    "a mean that is not there": (
        "impute: mean, training: {median: 1}", "`impute: mean` needs the mean under `training`"
    ),
    "a stand-in for an indicator": (
        "as: missing, default: 1", "`as: missing` says whether there is a value, and has no `default`"
    ),
    "an end of a range": (
        "range: [5, 1]", "`inputs[0].range` must be the least and the greatest number, as in `[0, 120]`"
    ),
    "outside of nothing": ("outside: clip", "`outside` needs a `range`"),
    "unseen of nothing": ("unseen: other", "`unseen` needs `categories`"),
    "a unit that is none": ("unit: days", "`inputs[0].unit` cannot be `days`"),
}  # fmt: skip


@pytest.mark.parametrize("case", AGREE)
def test_keys_that_cannot_stand_beside_each_other_are_told(case: str) -> None:
    keys, expected = AGREE[case]
    text = f"name: m\nversion: 1\nkind: score\nsha256: {DIGEST}\ninputs: [{{name: a, from: profile.a, {keys}}}]\n"
    found = read_manifest(f"{text}outputs: {{s: {{tensor: y, type: double}}}}\n".encode(), "m.yaml")[2]
    assert [(each.message, each.line) for each in found] == [(expected, 5)]


@pytest.mark.parametrize(
    ("kind", "output", "expected"),
    [
        ("propensity", "p: {tensor: y, type: double}", "needs an output `probability`, of type double"),
        ("class", "label: {tensor: y, type: string}", "needs an output `label`, a string with labels"),
        ("segment", "label: {tensor: y, type: int}", "needs an output `cluster`, a string with labels"),
        ("score", "s: {tensor: y, type: double, index: 1, reduce: max}", "`reduce` looks at all columns, and `index`"),
        ("score", "s: {tensor: y, type: double, reduce: argmax}", "`argmax` gives the place of a column"),
        ("score", "s: {tensor: y, type: string, reduce: max}", "`max` gives a number, and output `s` is none"),
    ],
)  # fmt: skip
def test_outputs_that_do_not_hold_together_are_told(kind: str, output: str, expected: str) -> None:
    text = f"name: m\nversion: 1\nkind: {kind}\nsha256: {DIGEST}\ninputs: [{{name: a, from: profile.a}}]\n"
    found = read_manifest(f"{text}outputs: {{{output}}}\n".encode(), "m.yaml")[2]
    assert [expected in each.message for each in found] == [True]
