"""Whether a `model.onnx` is safe to hand to onnxruntime, and fits its manifest.

Law: bytes and a manifest in, diagnostics and a `Layout` out; nothing is executed here. The file is an author's and may
be broken or hostile: whatever it asks for beyond plain arithmetic on its inputs is refused before onnxruntime sees it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import msgspec
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

from arbiter.errors import did_you_mean
from arbiter.models.opsets import Opset, opsets_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import ValueInfoProto

    from arbiter.errors import Diagnostic
    from arbiter.models.manifest import Input, Manifest, Output
    from arbiter.models.places import Places

MAX_MODEL_BYTES = 64 << 20
ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
# A loop may never end, and a draw of lots would make the same decision differ on replay.
REFUSED_OPERATORS = frozenset({"If", "Loop", "Scan", "SequenceMap"}) | {
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
}
DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.BOOL: "bool",
    TensorProto.STRING: "str",
}
# Which tensors can carry an output of a type; labels count rows of a table, so they need integers.
CARRIERS = {
    "double": ("float32", "float64"),
    "int": ("int64", "int32"),
    "bool": ("bool",),
    "string": ("str",),
}
_INPUT_DTYPES = {"float32", "float64", "int64", "bool", "str"}  # not int32: values have 64 bits
_MATRIX, _COLUMN = 2, 1


class Tensor(msgspec.Struct, frozen=True):
    """A graph input or output: its name, NumPy dtype and how many values it has per row (None: unstated)."""

    name: str
    dtype: str
    rank: int
    width: int | None


class Layout(msgspec.Struct, frozen=True):
    """How rows enter the graph: as one `matrix` with a column per input, or as one tensor per input; the graph itself,
    and the versions of each domain of operators under which it means what it does.
    """

    form: Literal["matrix", "columns"]
    inputs: tuple[Tensor, ...]
    graph: GraphProto | None = None
    opsets: tuple[Opset, ...] = ()
    ir: int = 0


def inspect(
    content: bytes, manifest: Manifest, places: Places, about: Places
) -> tuple[Layout | None, list[Diagnostic]]:
    """Check the bytes of `model.onnx`: its own mistakes lie in the file `about`, misfits in the manifest at `places`.

    The layout is None when there is any diagnostic.
    """
    if len(content) > MAX_MODEL_BYTES:
        message = f"the model has {len(content)} bytes, more than the {MAX_MODEL_BYTES} that are allowed"
        return None, [about.mistake("", message)]
    found: list[Diagnostic] = []
    digest = hashlib.sha256(content).hexdigest()
    if digest != manifest.sha256:
        message = "`model.onnx` is not the file that the manifest names"
        found.append(places.mistake("sha256", message, f"its SHA-256 is {digest}"))
    try:
        model = ModelProto.FromString(content)
    except DecodeError:
        return None, [*found, about.mistake("", "not an ONNX model", "is the file complete?")]
    if not model.HasField("graph"):
        return None, [*found, about.mistake("", "not an ONNX model: it has no graph", "is the file complete?")]
    found += [about.mistake("", message, hint) for message, hint in _refusals(model)]
    if found:
        return None, found
    layout, misfits = _layout(model.graph, manifest, places)
    misfits += _outputs(model.graph, manifest, places)
    if misfits or layout is None:
        return None, misfits
    spoken = opsets_of(model)
    return msgspec.structs.replace(layout, graph=model.graph, opsets=spoken, ir=model.ir_version), misfits


def _refusals(model: ModelProto) -> Iterator[tuple[str, str]]:
    """Everything about the model that is refused, whatever its manifest says: sentence and hint."""
    plain = "only plain ONNX and ai.onnx.ml operators are allowed"
    domains = {each.domain for each in model.opset_import} | {node.domain for node in model.graph.node}
    for domain in sorted(domains - ALLOWED_DOMAINS):
        yield f"operator domain `{domain}` is not allowed", plain
    if model.functions:
        yield "functions inside the model are not allowed", "export the model with its functions inlined"
    for operator in sorted({node.op_type for node in model.graph.node} & REFUSED_OPERATORS):
        yield f"operator `{operator}` is not allowed", "a model must always end, and answer alike every time"
    nested = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    for node in model.graph.node:
        if node.op_type not in REFUSED_OPERATORS and any(each.type in nested for each in node.attribute):
            yield f"operator `{node.op_type}` holds a graph of its own, which is not allowed", plain
    if any(_is_external(tensor) for tensor in _tensors(model.graph)):
        yield "the model keeps data in other files, which is not allowed", "export it with all weights inside"


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data) > 0


def _tensor(value: ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    dims = kind.shape.dim
    width = 1
    if len(dims) >= _MATRIX:
        width = dims[1].dim_value
    return Tensor(
        name=value.name,
        dtype=DTYPES.get(kind.elem_type, "") if value.type.HasField("tensor_type") else "",
        rank=len(dims),
        width=width or None,
    )


def _layout(graph: GraphProto, manifest: Manifest, places: Places) -> tuple[Layout | None, list[Diagnostic]]:
    constants = {each.name for each in graph.initializer}
    tensors = [_tensor(each) for each in graph.input if each.name not in constants]
    names = [each.name for each in manifest.inputs]
    found = [
        places.mistake("inputs", f"graph input `{tensor.name}` is not a tensor of a type and shape that rows fit in")
        for tensor in tensors
        if tensor.dtype not in _INPUT_DTYPES or tensor.rank not in {_COLUMN, _MATRIX}
    ]
    if found:
        return None, found
    if len(tensors) == 1 and tensors[0].name not in names:
        return _matrix(tensors[0], manifest, places)
    for tensor in tensors:
        if tensor.name not in names:
            found.append(places.mistake("inputs", f"the graph has an input `{tensor.name}`, the manifest has none"))
        elif tensor.width not in {1, None}:
            found.append(places.mistake("inputs", f"graph input `{tensor.name}` has {tensor.width} columns, not one"))
    by_name = {tensor.name: tensor for tensor in tensors}
    for position, each in enumerate(manifest.inputs):
        path = f"inputs[{position}]"
        if each.name not in by_name:
            found.append(
                places.mistake(f"{path}.name", f"the graph has no input `{each.name}`", _names(each.name, by_name))
            )
            continue
        found += _misfit(each, by_name[each.name].dtype, path, places)
    if found:
        return None, found
    return Layout("columns", tuple(by_name[name] for name in names)), found


def _misfit(each: Input, dtype: str, path: str, places: Places) -> list[Diagnostic]:
    """What keeps an input from being a tensor of its own of this dtype."""
    text = dtype == "str"
    if each.form == "onehot":
        return [places.mistake(f"{path}.as", "`as: onehot` takes several columns, and a tensor has one")]
    if text and (each.form != "number" or each.impute or each.unit or each.low is not None):
        return [places.mistake(path, f"the tensor `{each.name}` takes texts, and this makes a number")]
    if (each.unit or each.impute) and dtype not in {"float32", "float64"}:
        return [places.mistake(path, f"the tensor `{each.name}` is of {dtype}, and this makes a double")]
    if each.default is not None and not each.categories and isinstance(each.default, str) is not text:
        return [places.mistake(f"{path}.default", _wrong_default(each.default, dtype))]
    return []


def _matrix(tensor: Tensor, manifest: Manifest, places: Places) -> tuple[Layout | None, list[Diagnostic]]:
    found = []
    width = sum(each.width for each in manifest.inputs)
    if tensor.rank != _MATRIX or tensor.dtype not in {"float32", "float64"}:
        message = f"graph input `{tensor.name}` takes every input at once, so it must be a matrix of floats"
        found.append(places.mistake("inputs", message, f"it is {tensor.dtype} of rank {tensor.rank}"))
    elif tensor.width not in {width, None}:
        message = f"graph input `{tensor.name}` has {tensor.width} columns"
        said = f"the manifest has {len(manifest.inputs)} inputs"
        hint = said if width == len(manifest.inputs) else f"{said}, which take {width}"
        found.append(places.mistake("inputs", message, hint))
    for position, each in enumerate(manifest.inputs):
        if isinstance(each.default, str) and not each.categories:
            message = _wrong_default(each.default, tensor.dtype)
            found.append(places.mistake(f"inputs[{position}].default", message))
    return (None if found else Layout("matrix", (tensor,))), found


def _wrong_default(default: object, dtype: str) -> str:
    return f"default `{default}` does not fit a tensor of {dtype}"


def _outputs(graph: GraphProto, manifest: Manifest, places: Places) -> list[Diagnostic]:
    by_name = {each.name: _tensor(each) for each in graph.output}
    found: list[Diagnostic] = []
    for output in manifest.outputs:
        path = f"outputs.{output.name}"
        tensor = by_name.get(output.tensor)
        if tensor is None:
            message = f"the graph has no output `{output.tensor}`"
            found.append(places.mistake(f"{path}.tensor", message, _names(output.tensor, by_name)))
        elif tensor.dtype not in _carriers(output):
            wanted = " or ".join(_carriers(output))
            message = f"output `{output.name}` needs a tensor of {wanted}"
            hint = f"`{tensor.name}` is of type {tensor.dtype}" if tensor.dtype else f"`{tensor.name}` is none of these"
            found.append(places.mistake(f"{path}.tensor", message, hint))
        elif output.reduce and tensor.rank != _MATRIX:
            message = f"`{tensor.name}` has one value a row, and `reduce` needs several"
            found.append(places.mistake(f"{path}.reduce", message))
        elif output.reduce and output.labels and tensor.width not in {None, len(output.labels)}:
            message = f"`{tensor.name}` has {tensor.width} values a row, and there are {len(output.labels)} labels"
            found.append(places.mistake(f"{path}.labels", message))
        elif tensor.width is not None and output.index >= tensor.width:
            message = f"`{tensor.name}` has {tensor.width} values a row, so there is no index {output.index}"
            found.append(places.mistake(f"{path}.index", message))
    return found


def _carriers(output: Output) -> tuple[str, ...]:
    if output.reduce in {"argmin", "argmax"}:
        return (*CARRIERS["double"], *CARRIERS["int"])
    return CARRIERS["int" if output.labels else output.type]


def _names(name: str, tensors: dict[str, Tensor]) -> str:
    return did_you_mean(name, tensors) or f"it has {', '.join(f'`{name}`' for name in tensors)}"
