"""From the bytes of a `manifest.yaml` to a `Manifest`, or to every mistake in it.

Law: here is every mistake that can be seen in the manifest alone, each with its place, all in one pass. This module
knows nothing of ONNX or of the disk.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, TypeVar, cast, get_args

import yaml

from arbiter.errors import Diagnostic, did_you_mean
from arbiter.models.manifest import Input, Kind, Manifest, Output, OutputType, Root, Scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

MAX_MANIFEST_BYTES = 1 << 20
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NAMES_MATCH = "names match [a-z_][a-z0-9_]*"
_REQUIRED = ("name", "version", "kind", "sha256", "inputs", "outputs")


class Places:
    """Where the parts of one manifest stand in its text, by path (``outputs.cluster.tensor``)."""

    def __init__(self, file: str, text: str = "") -> None:
        """Know the file's name and text, and no places yet."""
        self._file = file
        self._lines = text.splitlines()
        self._nodes: dict[str, yaml.Node] = {}

    def add(self, path: str, node: yaml.Node) -> None:
        """Remember that what `path` names stands at `node`."""
        self._nodes[path] = node

    def mistake(self, path: str, message: str, hint: str = "", *, at: yaml.Node | None = None) -> Diagnostic:
        """Make a diagnostic at the node `at`, else where `path` or what holds it stands, else about the whole file."""
        place = path
        while place and place not in self._nodes:
            place = place.rpartition(".")[0]
        node = at or self._nodes.get(place)
        if node is None:
            return Diagnostic(file=self._file, path=path, message=message, hint=hint)
        start, end = node.start_mark, node.end_mark
        source = self._lines[start.line] if start.line < len(self._lines) else ""
        return Diagnostic(
            file=self._file,
            line=start.line + 1,
            column=start.column + 1,
            # A block that runs on over several lines is underlined to the end of its first.
            end_column=end.column + 1 if end.line == start.line else len(source) + 1,
            path=path,
            message=message,
            hint=hint,
            source=source,
        )


def read_manifest(content: bytes, file: str) -> tuple[Manifest | None, Places, list[Diagnostic]]:
    """Read `content`; `file` is how diagnostics name it. The manifest is None when there is any diagnostic."""
    if len(content) > MAX_MANIFEST_BYTES:
        message = f"the manifest has {len(content)} bytes, more than the {MAX_MANIFEST_BYTES} that are read"
        return None, Places(file), [Diagnostic(file=file, message=message)]
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        message = f"the manifest is not UTF-8: byte {error.start} cannot be read"
        return None, Places(file), [Diagnostic(file=file, message=message, hint="save it as UTF-8")]
    places = Places(file, text)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = None if mark is None else yaml.ScalarNode("", "", mark, mark)
        return None, places, [places.mistake("", f"not valid YAML: {error.problem or error.context}", at=at)]
    except (yaml.YAMLError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        return None, places, [Diagnostic(file=file, message=f"not valid YAML: {reason}")]
    reader = _Reader(places)
    manifest = reader.manifest(root)
    return (None if reader.found else manifest), places, reader.found


class _Reader:
    """Walks the nodes. A mistake is noted and a stand-in returned, so that the walk always reaches the end.

    A node of None is a key that is missing: whoever asked for it has said so already, or it may be missing.
    """

    def __init__(self, places: Places) -> None:
        """Note mistakes through `places`, which learns where things stand."""
        self.found: list[Diagnostic] = []
        self._places = places

    def _note(self, path: str, message: str, hint: str = "", *, at: yaml.Node | None = None) -> None:
        self.found.append(self._places.mistake(path, message, hint, at=at))

    def manifest(self, node: yaml.Node | None) -> Manifest:
        """Read the whole document."""
        if not isinstance(node, yaml.MappingNode):
            self._note("", "the manifest must be a mapping (`key: value` lines)", at=node)
            return Manifest("", 0, "score", "", (), ())
        fields = self._fields(node, "", known=Manifest.__struct_fields__, required=_REQUIRED)
        return Manifest(
            name=self._name(fields.get("name"), "name"),
            version=self._integer(fields.get("version"), "version", least=1),
            kind=cast("Kind", self._choice(fields.get("kind"), "kind", get_args(Kind))),
            sha256=self._digest(fields.get("sha256"), "sha256"),
            inputs=self._inputs(fields.get("inputs"), "inputs"),
            outputs=self._outputs(fields.get("outputs"), "outputs"),
            description=self._string(fields.get("description"), "description"),
        )

    def _inputs(self, node: yaml.Node | None, path: str) -> tuple[Input, ...]:
        inputs = self._sequence(node, path, self._input)
        if node is not None and isinstance(node, yaml.SequenceNode) and not inputs:
            self._note(path, "a model needs at least one input")
        seen: set[str] = set()
        for position, each in enumerate(inputs):
            if each.name in seen:
                self._note(f"{path}[{position}].name", f"input `{each.name}` is declared twice")
            seen |= {each.name} - {""}
        return inputs

    def _input(self, node: yaml.Node, path: str) -> Input:
        fields = self._fields(node, path, known=("name", "from", "default"), required=("name", "from"))
        source = self._string(fields.get("from"), f"{path}.from")
        root, _, attribute = source.partition(".")
        if source and (root not in get_args(Root) or not _NAME.fullmatch(attribute)):
            wanted = "`features.NAME`, `profile.NAME` or `context.NAME`"
            hint = _NAMES_MATCH if root in get_args(Root) else did_you_mean(root, get_args(Root))
            self._note(f"{path}.from", f"an input comes from {wanted}, not from `{source}`", hint)
        return Input(
            name=self._name(fields.get("name"), f"{path}.name"),
            root=cast("Root", root),
            attribute=attribute,
            default=self._default(fields.get("default"), f"{path}.default"),
        )

    def _outputs(self, node: yaml.Node | None, path: str) -> tuple[Output, ...]:
        if node is None:
            return ()
        fields = self._fields(node, path)
        if isinstance(node, yaml.MappingNode) and not node.value:
            self._note(path, "a model needs at least one output")
        return tuple(self._output(name, value, f"{path}.{name}") for name, value in fields.items())

    def _output(self, name: str, node: yaml.Node, path: str) -> Output:
        if not _NAME.fullmatch(name):
            self._note(path, f"`{name}` is not a name", _NAMES_MATCH)
        known = ("tensor", "type", "index", "labels")
        fields = self._fields(node, path, known=known, required=("tensor", "type"))
        kind = cast("OutputType", self._choice(fields.get("type"), f"{path}.type", get_args(OutputType)))
        if "labels" in fields and kind not in {"string", ""}:
            self._note(f"{path}.labels", f"labels are strings, but output `{name}` is of type {kind}", "`type: string`")
        return Output(
            name=name,
            tensor=self._string(fields.get("tensor"), f"{path}.tensor"),
            type=kind,
            index=self._integer(fields.get("index"), f"{path}.index", least=0),
            labels=self._sequence(fields.get("labels"), f"{path}.labels", self._string),
        )

    def _fields(
        self, node: yaml.Node, path: str, *, known: Sequence[str] = (), required: Sequence[str] = ()
    ) -> dict[str, yaml.Node]:
        """Return the values of a mapping by key; `known` empty allows any key."""
        if not isinstance(node, yaml.MappingNode):
            self._note(path, f"`{path}` must be a mapping (`key: value` lines)", at=node)
            return {}
        fields: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            below = f"{path}.{name}" if path else name
            if not name:
                self._note(path, "a key must be a plain string", at=key)
            elif name in fields:
                self._note(below, f"key `{name}` is given twice", at=key)
            elif known and name not in known:
                hint = did_you_mean(name, known) or f"known keys: {', '.join(known)}"
                self._note(below, f"unknown key `{name}`", hint, at=key)
            else:
                fields[name] = value
                self._places.add(below, value)
        for name in required:
            if name not in fields:
                self._note(path, f"`{path}` lacks `{name}`" if path else f"the manifest lacks `{name}`", at=node)
        return fields

    def _sequence(self, node: yaml.Node | None, path: str, each: Callable[[yaml.Node, str], T]) -> tuple[T, ...]:
        if node is None:
            return ()
        if not isinstance(node, yaml.SequenceNode):
            self._note(path, f"`{path}` must be a list", at=node)
            return ()
        for position, item in enumerate(node.value):
            self._places.add(f"{path}[{position}]", item)
        return tuple(each(item, f"{path}[{position}]") for position, item in enumerate(node.value))

    def _string(self, node: yaml.Node | None, path: str) -> str:
        if node is None:
            return ""
        if not isinstance(node, yaml.ScalarNode):
            self._note(path, f"`{path}` must be a string", at=node)
            return ""
        if not node.value:
            self._note(path, f"`{path}` is empty", at=node)
        return str(node.value)

    def _name(self, node: yaml.Node | None, path: str) -> str:
        name = self._string(node, path)
        if name and not _NAME.fullmatch(name):
            self._note(path, f"`{name}` is not a name", _NAMES_MATCH)
        return name

    def _digest(self, node: yaml.Node | None, path: str) -> str:
        digest = self._string(node, path)
        if digest and not _DIGEST.fullmatch(digest):
            self._note(path, "`sha256` must be 64 hexadecimal digits in small letters")
        return digest

    def _choice(self, node: yaml.Node | None, path: str, allowed: Sequence[str]) -> str:
        word = self._string(node, path)
        if word and word not in allowed:
            hint = did_you_mean(word, allowed) or f"one of {', '.join(allowed)}"
            self._note(path, f"`{path}` cannot be `{word}`", hint)
            return ""
        return word

    def _integer(self, node: yaml.Node | None, path: str, *, least: int) -> int:
        if node is None:
            return least
        value = _scalar(node)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self._note(path, f"`{path}` must be a whole number of at least {least}")
            return least
        return value

    def _default(self, node: yaml.Node | None, path: str) -> Scalar | None:
        if node is None:
            return None
        value = _scalar(node)
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            hint = "leave `default` out to make the outputs unknown when the input is missing"
            self._note(path, f"`{path}` must be a finite number, a boolean or a string", hint)
            return None
        return value


def _scalar(node: yaml.Node) -> Scalar | None:
    """Read a scalar node by YAML 1.2's core schema; None for null and for anything that is no scalar."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    text = str(node.value)
    if node.style is not None:
        return text
    if text.lower() in {"", "~", "null"}:
        return None
    if text in {"true", "false"}:
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".nan", "nan").replace(".inf", "inf"))
    return text
