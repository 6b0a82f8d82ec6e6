"""What of an input's keys cannot stand beside each other, and whether rules can do with one model in place of another.

Law: what was read in, sentences out. Each key alone is the reader's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from arbiter.models.manifest import Input, Kind, Output


def disagreements(read: Input, given: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Each mistake as the key where it stands, the sentence and the hint."""
    coded, listed = read.form in {"index", "onehot"}, "categories" in given
    numeric = "is for numbers, and here are categories"
    indicated = "`as: missing` says whether there is a value, and has no"
    strange = (type(read.default), read.default) not in [(type(each), each) for each in read.categories]
    order = "list what the value may be, in the order of the codes"
    cases = (
        ("as", coded and not listed, f"`as: {read.form}` needs `categories`", order),
        ("categories", listed and read.form == "number", "categories are no numbers", "`as: index`, or `as: onehot`"),
        *((key, listed, f"`{key}` {numeric}", "") for key in ("unit", "range", "impute")),
        ("unseen", not listed, "`unseen` needs `categories`", order),
        ("outside", "range" not in given, "`outside` needs a `range`", "`range: [least, greatest]`"),
        *((key, read.form == "missing", f"{indicated} `{key}`", "") for key in ("default", "impute", "unseen")),
        ("impute", "default" in given, "`default` and `impute` both say what stands in", "keep one of the two"),
        (
            "impute",
            read.impute in {"mean", "median"} and read.stand_in is None,
            f"`impute: {read.impute}` needs the {read.impute} under `training`",
            "",
        ),
        ("default", coded and bool(read.categories) and strange, f"`{read.default}` is none of the categories", ""),
    )
    for key, wrong, message, hint in cases:
        if wrong and key in given:
            yield key, message, hint


def unlike(live: tuple[Kind, Iterable[Output]], other: tuple[Kind, Iterable[Output]]) -> str:
    """What rules may know of a model, its kind and its outputs, that another one has not; empty when it has it all."""
    (kind, outputs), (new_kind, new_outputs) = live, other
    if new_kind != kind:
        return f"it is a {new_kind}, and not a {kind}"
    new = {each.name: each for each in new_outputs}
    for each in outputs:
        found = new.get(each.name)
        if found is None or found.type != each.type:
            return f"it has no output `{each.name}` of type {each.type}"
        if set(found.labels) != set(each.labels):
            return f"its output `{each.name}` has other labels"
    return ""
