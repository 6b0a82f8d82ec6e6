"""From the bytes of a `manifest.yaml` to a `Manifest`, or to every mistake in it.

Law: here is every mistake that can be seen in the manifest alone, each with its place, all in one pass. This module
knows nothing of ONNX or of the disk.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast, get_args

from arbiter.authoring.blocks import Block, under
from arbiter.authoring.documents import Form as FileForm
from arbiter.authoring.documents import read_documents
from arbiter.authoring.nodes import Mapping, Node, Sequence
from arbiter.authoring.nodes import Scalar as ScalarNode
from arbiter.authoring.report import Report
from arbiter.authoring.scalars import NAME, UNITS
from arbiter.errors import did_you_mean
from arbiter.models.agreement import disagreements
from arbiter.models.manifest import (
    Form,
    Impute,
    Input,
    Kind,
    Manifest,
    Output,
    OutputType,
    Outside,
    Reduction,
    Root,
    Scalar,
    Training,
    Unseen,
)  # fmt: skip
from arbiter.models.places import Places

if TYPE_CHECKING:
    from arbiter.errors import Diagnostic

    Names = tuple[str, ...]

FORM: Final = FileForm("a manifest", 1 << 20, "a manifest names inputs and outputs; weights belong in `model.onnx`")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_ONE = "remove the line `---` before it, or the document"
_NAMES_MATCH = "names match [a-z_][a-z0-9_]*"
INPUT_KEYS: Final = (
    "name", "from", "default", "as", "categories", "unseen", "impute", "training", "unit", "range", "outside",
)  # fmt: skip
OUTPUT_KEYS: Final = ("tensor", "type", "index", "labels", "reduce")
# What rules may count on, by kind.
PROMISED: Final[dict[Kind, tuple[str, OutputType]]] = {
    "propensity": ("probability", "double"), "class": ("label", "string"), "segment": ("cluster", "string"),
}  # fmt: skip
REQUIRED: Final = ("name", "version", "kind", "sha256", "inputs", "outputs")


def read_manifest(content: bytes, file: str) -> tuple[Manifest | None, Places, list[Diagnostic]]:
    """Read `content`; `file` is how diagnostics name it. The manifest is None when there is any diagnostic."""
    report, places = Report(), Places(file)
    roots = read_documents(file, content, FORM, report)
    if roots is None:
        return None, places, report.found
    if not roots:
        report.whole(file, "the manifest must be a mapping (`key: value` lines)")
        return None, places, report.found
    for root in roots[1:]:
        report.at(root, "a manifest is one document, and here begins another", _ONE)
    manifest = _Reader(report, places).manifest(roots[0])
    return (None if report else manifest), places, report.found


class _Reader:
    """Walks the nodes. A mistake is noted and a stand-in returned, so that the walk always reaches the end.

    A node of None is missing or was refused, and whoever knows has said so. `places` learns where things stand.
    """

    def __init__(self, report: Report, places: Places) -> None:
        self._report = report
        self._places = places

    def manifest(self, node: Node) -> Manifest:
        """Read the whole document."""
        if not isinstance(node, Mapping):
            self._report.at(node, "the manifest must be a mapping (`key: value` lines)")
            return Manifest("", 0, "score", "", (), ())
        fields = self._fields(node, "", "a manifest", known=Manifest.__struct_fields__, required=REQUIRED)
        read = Manifest(
            name=self._name(fields.get("name"), "name"),
            version=self._integer(fields.get("version"), "version", least=1),
            kind=cast("Kind", self._choice(fields.get("kind"), "kind", get_args(Kind))),
            sha256=self._digest(fields.get("sha256"), "sha256"),
            inputs=self._inputs(fields.get("inputs"), "inputs"),
            outputs=self._outputs(fields.get("outputs"), "outputs"),
            description=self._string(fields.get("description"), "description"),
            purposes=self._purposes(fields.get("purposes"), "purposes"),
        )
        self._fit_kind(read, fields)
        return read

    def _fit_kind(self, read: Manifest, fields: dict[str, Node]) -> None:
        """Report what the kind of model promises and the outputs lack."""
        wanted = PROMISED.get(read.kind)
        if wanted is None or not read.outputs:
            return
        name, kind = wanted
        found = next((each for each in read.outputs if each.name == name), None)
        if found is None or found.type not in {kind, ""} or (kind == "string" and not found.labels):
            what = "a string with labels" if kind == "string" else f"of type {kind}"
            message = f"a model of the kind {read.kind} needs an output `{name}`, {what}"
            self._report.at(fields["outputs"], message, "or `kind: score`, which promises nothing", "outputs")

    def _inputs(self, node: Node | None, path: str) -> tuple[Input, ...]:
        if isinstance(node, Sequence) and not node.items:
            self._report.at(node, "a model needs at least one input", path=path)
        seen: set[str] = set()
        return tuple(self._input(item, where, seen) for where, item in self._items(node, path))

    def _input(self, node: Node, path: str, seen: set[str]) -> Input:
        fields = self._fields(node, path, "an input", known=INPUT_KEYS, required=("name", "from"))
        name = self._name(fields.get("name"), f"{path}.name")
        if name in seen:
            self._report.at(fields["name"], f"input `{name}` is declared twice", path=f"{path}.name")
        seen |= {name} - {""}
        root, attribute = self._source(fields.get("from"), f"{path}.from")
        categories = self._categories(fields.get("categories"), f"{path}.categories")
        low, high = self._range(fields.get("range"), f"{path}.range")

        def choice(key: str, words: Names) -> str:
            return self._choice(fields.get(key), f"{path}.{key}", words)

        read = Input(
            name=name,
            root=root,
            attribute=attribute,
            default=self._default(fields.get("default"), f"{path}.default"),
            form=cast("Form", choice("as", get_args(Form)) or ("index" if categories else "number")),
            impute=cast("Impute | None", choice("impute", get_args(Impute)) or None),
            training=self._training(fields.get("training"), f"{path}.training"),
            categories=categories,
            unseen=cast("Unseen", choice("unseen", get_args(Unseen)) or "unknown"),
            unit=UNITS.get(choice("unit", tuple(UNITS)), 0),
            low=low,
            high=high,
            outside=cast("Outside", choice("outside", get_args(Outside)) or "missing"),
        )
        for key, message, hint in disagreements(read, fields):
            self._report.at(fields[key], message, hint, f"{path}.{key}")
        return read

    def _source(self, node: Node | None, path: str) -> tuple[Root, str]:
        source = self._string(node, path)
        root, _, attribute = source.partition(".")
        if node is not None and source and (root not in get_args(Root) or not NAME.fullmatch(attribute)):
            known = "`features.NAME`, `profile.NAME`, `account.NAME` or `context.NAME`"
            message = f"an input comes from {known}, not from `{source}`"
            hint = _NAMES_MATCH if root in get_args(Root) else did_you_mean(root, get_args(Root))
            self._report.at(node, message, hint, path)
        return cast("Root", root), attribute

    def _categories(self, node: Node | None, path: str) -> tuple[Scalar, ...]:
        found: list[Scalar] = []
        for where, item in self._items(node, path):
            value = item.value if isinstance(item, ScalarNode) else None
            if not isinstance(value, bool | int | str):
                self._report.at(item, "a category is a text, a whole number or a boolean", path=where)
            elif found and type(value) is not type(found[0]):
                hint = "quote what is meant as text"
                self._report.at(item, "categories are all texts, all numbers or all booleans", hint, where)
            elif value in found:
                self._report.at(item, f"the category `{value}` stands here twice", "remove one of the two", where)
            else:
                found.append(value)
        if isinstance(node, Sequence) and len(node.items) < 2:  # noqa: PLR2004 - one category says nothing
            self._report.at(node, "`categories` needs at least two", path=path)
        return tuple(found)

    def _range(self, node: Node | None, path: str) -> tuple[float | None, float | None]:
        numbers = [self._number(item, where) for where, item in self._items(node, path)]
        if not isinstance(node, Sequence) or None in numbers:
            return None, None
        if len(numbers) != 2 or len(node.items) != 2 or not cast("float", numbers[0]) <= cast("float", numbers[1]):  # noqa: PLR2004
            self._report.at(node, f"`{path}` must be the least and the greatest number, as in `[0, 120]`", path=path)
            return None, None
        return numbers[0], numbers[1]

    def _training(self, node: Node | None, path: str) -> Training:
        if node is None:
            return Training()
        fields = self._fields(node, path, "`training`", known=Training.__struct_fields__)
        return Training(
            **{
                key: self._number(each, f"{path}.{key}")
                for key, each in fields.items()
                if key in Training.__struct_fields__
            }
        )

    def _number(self, node: Node, path: str) -> float | None:
        value = node.value if isinstance(node, ScalarNode) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        self._report.at(node, f"`{path}` must be a number", path=path)
        return None

    def _purposes(self, node: Node | None, path: str) -> tuple[str, ...]:
        if isinstance(node, Sequence) and not node.items:
            self._report.at(node, "`purposes` is empty: name one, or remove the key", path=path)
        found: list[str] = []
        for where, item in self._items(node, path):
            name = self._name(item, where)
            if name in found:
                self._report.at(item, f"the purpose `{name}` stands here twice", "remove one of the two", where)
            found.append(name)
        return tuple(sorted(found))

    def _outputs(self, node: Node | None, path: str) -> tuple[Output, ...]:
        if isinstance(node, Mapping) and not node.entries:
            self._report.at(node, "a model needs at least one output", path=path)
        return tuple(self._output(name, each, f"{path}.{name}") for name, each in self._fields(node, path).items())

    def _output(self, name: str, node: Node, path: str) -> Output:
        if not NAME.fullmatch(name):
            self._report.at(node, f"`{name}` is not a name", _NAMES_MATCH, path)
        fields = self._fields(node, path, "an output", known=OUTPUT_KEYS, required=("tensor", "type"))
        kind = cast("OutputType", self._choice(fields.get("type"), f"{path}.type", get_args(OutputType)))
        reduce = cast(
            "Reduction | None", self._choice(fields.get("reduce"), f"{path}.reduce", get_args(Reduction)) or None
        )
        if "labels" in fields and kind not in {"string", ""}:
            message = f"labels are strings, but output `{name}` is of type {kind}"
            self._report.at(fields["labels"], message, "`type: string`", f"{path}.labels")
        labels = self._items(fields.get("labels"), f"{path}.labels")
        if reduce and "index" in fields:
            message = "`reduce` looks at all columns, and `index` at one"
            self._report.at(fields["index"], message, "keep one of the two", f"{path}.index")
        if reduce in {"argmin", "argmax"} and kind not in {"string" if labels else "int", ""}:
            message = f"`{reduce}` gives the place of a column"
            self._report.at(fields["reduce"], message, "`type: int`, or `type: string` and `labels`", f"{path}.reduce")
        if reduce in {"min", "max"} and (labels or kind not in {"double", "int", ""}):
            message = f"`{reduce}` gives a number, and output `{name}` is none"
            self._report.at(fields["reduce"], message, path=f"{path}.reduce")
        return Output(
            name=name,
            tensor=self._string(fields.get("tensor"), f"{path}.tensor"),
            type=kind,
            index=self._integer(fields.get("index"), f"{path}.index", least=0),
            labels=tuple(self._string(item, where) for where, item in labels),
            reduce=reduce,
        )

    def _fields(
        self, node: Node | None, path: str, what: str = "", *, known: Names = (), required: Names = ()
    ) -> dict[str, Node]:
        """Return the values of a mapping by key; `known` empty allows any key."""
        if not isinstance(node, Mapping):
            if node is not None:
                self._report.at(node, f"`{path}` must be a mapping (`key: value` lines)", path=path)
            return {}
        block = Block(node, self._report, what=what, path=path, keys=known or node.entries)
        for name in required:
            if not block.has(name) and not node.partial:
                self._report.at(node, f"`{path}` lacks `{name}`" if path else f"the manifest lacks `{name}`", path=path)
        fields = {name: each.node for name, each in node.entries.items() if each.node is not None}
        for name, each in fields.items():
            self._places.add(under(path, name), each)
        return fields

    def _items(self, node: Node | None, path: str) -> list[tuple[str, Node]]:
        """Return the items of a list, each with its path."""
        if not isinstance(node, Sequence):
            if node is not None:
                self._report.at(node, f"`{path}` must be a list", path=path)
            return []
        items = [(f"{path}[{position}]", item) for position, item in enumerate(node.items) if item is not None]
        for where, item in items:
            self._places.add(where, item)
        return items

    def _string(self, node: Node | None, path: str) -> str:
        """Return a scalar as it is written: ``labels: [1, 2]`` are texts too."""
        if node is None:
            return ""
        if not isinstance(node, ScalarNode):
            self._report.at(node, f"`{path}` must be a string", path=path)
            return ""
        if not node.text or node.value is None:
            self._report.at(node, f"`{path}` is empty", path=path)
        return node.text

    def _name(self, node: Node | None, path: str) -> str:
        name = self._string(node, path)
        if node is not None and name and not NAME.fullmatch(name):
            self._report.at(node, f"`{name}` is not a name", _NAMES_MATCH, path)
        return name

    def _digest(self, node: Node | None, path: str) -> str:
        digest = self._string(node, path)
        if node is not None and digest and not DIGEST.fullmatch(digest):
            self._report.at(node, "`sha256` must be 64 hexadecimal digits in small letters", path=path)
        return digest

    def _choice(self, node: Node | None, path: str, allowed: Names) -> str:
        word = self._string(node, path)
        if node is not None and word and word not in allowed:
            hint = did_you_mean(word, allowed) or f"one of {', '.join(allowed)}"
            self._report.at(node, f"`{path}` cannot be `{word}`", hint, path)
            return ""
        return word

    def _integer(self, node: Node | None, path: str, *, least: int) -> int:
        value = node.value if isinstance(node, ScalarNode) else None
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        if node is not None:
            self._report.at(node, f"`{path}` must be a whole number of at least {least}", path=path)
        return least

    def _default(self, node: Node | None, path: str) -> Scalar | None:
        value = node.value if isinstance(node, ScalarNode) else None
        if node is not None and value is None:
            hint = "leave `default` out to make the outputs unknown when the input is missing"
            self._report.at(node, f"`{path}` must be a finite number, a boolean or a string", hint, path)
        return value
