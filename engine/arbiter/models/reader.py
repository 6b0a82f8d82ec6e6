"""From the bytes of a `manifest.yaml` to a `Manifest`, or to every mistake in it.

Law: here is every mistake that can be seen in the manifest alone, each with its place, all in one pass. This module
knows nothing of ONNX or of the disk.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast, get_args

from arbiter.authoring.blocks import Block, under
from arbiter.authoring.documents import Form, read_documents
from arbiter.authoring.nodes import Mapping, Node, Sequence
from arbiter.authoring.nodes import Scalar as ScalarNode
from arbiter.authoring.report import Report
from arbiter.authoring.scalars import NAME
from arbiter.errors import did_you_mean
from arbiter.models.manifest import Input, Kind, Manifest, Output, OutputType, Root, Scalar
from arbiter.models.places import Places

if TYPE_CHECKING:
    from arbiter.errors import Diagnostic

    Names = tuple[str, ...]

FORM: Final = Form("a manifest", 1 << 20, "a manifest names inputs and outputs; weights belong in `model.onnx`")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_ONE = "remove the line `---` before it, or the document"
_NAMES_MATCH = "names match [a-z_][a-z0-9_]*"
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
        return Manifest(
            name=self._name(fields.get("name"), "name"),
            version=self._integer(fields.get("version"), "version", least=1),
            kind=cast("Kind", self._choice(fields.get("kind"), "kind", get_args(Kind))),
            sha256=self._digest(fields.get("sha256"), "sha256"),
            inputs=self._inputs(fields.get("inputs"), "inputs"),
            outputs=self._outputs(fields.get("outputs"), "outputs"),
            description=self._string(fields.get("description"), "description"),
            purposes=self._purposes(fields.get("purposes"), "purposes"),
        )

    def _inputs(self, node: Node | None, path: str) -> tuple[Input, ...]:
        if isinstance(node, Sequence) and not node.items:
            self._report.at(node, "a model needs at least one input", path=path)
        seen: set[str] = set()
        return tuple(self._input(item, where, seen) for where, item in self._items(node, path))

    def _input(self, node: Node, path: str, seen: set[str]) -> Input:
        fields = self._fields(node, path, "an input", known=("name", "from", "default"), required=("name", "from"))
        name = self._name(fields.get("name"), f"{path}.name")
        if name in seen:
            self._report.at(fields["name"], f"input `{name}` is declared twice", path=f"{path}.name")
        seen |= {name} - {""}
        source = self._string(fields.get("from"), f"{path}.from")
        root, _, attribute = source.partition(".")
        if source and (root not in get_args(Root) or not NAME.fullmatch(attribute)):
            known = "`features.NAME`, `profile.NAME`, `account.NAME` or `context.NAME`"
            message = f"an input comes from {known}, not from `{source}`"
            hint = _NAMES_MATCH if root in get_args(Root) else did_you_mean(root, get_args(Root))
            self._report.at(fields["from"], message, hint, f"{path}.from")
        default = self._default(fields.get("default"), f"{path}.default")
        return Input(name=name, root=cast("Root", root), attribute=attribute, default=default)

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
        known = ("tensor", "type", "index", "labels")
        fields = self._fields(node, path, "an output", known=known, required=("tensor", "type"))
        kind = cast("OutputType", self._choice(fields.get("type"), f"{path}.type", get_args(OutputType)))
        if "labels" in fields and kind not in {"string", ""}:
            message = f"labels are strings, but output `{name}` is of type {kind}"
            self._report.at(fields["labels"], message, "`type: string`", f"{path}.labels")
        labels = self._items(fields.get("labels"), f"{path}.labels")
        return Output(
            name=name,
            tensor=self._string(fields.get("tensor"), f"{path}.tensor"),
            type=kind,
            index=self._integer(fields.get("index"), f"{path}.index", least=0),
            labels=tuple(self._string(item, where) for where, item in labels),
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
