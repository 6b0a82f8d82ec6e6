"""A loaded model: rows of input values in, tuples of output values out.

Law: holds the onnxruntime session and the fastest way through it; knows nothing of profiles, features or rules. A
model is immutable and may be run by any number of threads at once.
"""

from __future__ import annotations

import functools
import math
import os
import struct
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from arbiter.errors import ArbiterError

# Read when it is loaded: left to itself it names the machine in the home directory, and tells its maker of its use.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from arbiter.models.graph import Layout
    from arbiter.models.manifest import Input, Manifest, Output, OutputType, Scalar

# What a model answers for one row, in the order of its outputs; None is unknown (not a finite number, no such label).
Answer = tuple["Scalar | None", ...]

_CODES = {"float32": "f", "float64": "d"}
# What a tensor takes when the graph has one per input; True and False are integers, and numbers, as in a matrix.
_TAKES: dict[str, tuple[type, ...]] = {
    "float32": (int, float),
    "float64": (int, float),
    "int64": (int,),
    "bool": (bool,),
    "str": (str,),
}
_ZEROS: dict[str, Scalar] = {"str": "", "bool": False}
_MATRIX = 2  # the rank of a tensor that holds several values per row


class ModelFailure(ArbiterError):
    """The model could not answer; its outputs are unknown."""


def open_session(content: bytes) -> onnxruntime.InferenceSession:
    """Open a session on one thread, silent, that never spins. Raises whatever onnxruntime says about the bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 4  # every error comes back as an exception; nothing is to be printed beside it
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _shortest_way(session: onnxruntime.InferenceSession, binding: Any) -> Callable[[], object]:
    """A run of what is bound. Past onnxruntime's own wrapper, which looks at every call whether a GPU records it: that
    takes half as long as a run of a hundred trees. Where its insides have other names, by the wrapper.
    """
    run, bound = (
        getattr(getattr(session, "_sess", None), "run_with_iobinding", None),
        getattr(binding, "_iobinding", None),
    )
    if run is None or bound is None:
        return functools.partial(session.run_with_iobinding, binding)
    return functools.partial(run, bound, None)


class Model:
    """One model of a snapshot.

    `name`, `version` and `kind` are the manifest's; `digest` is the SHA-256 of manifest and ONNX file together.
    `inputs` says what a row holds, in order; `outputs` names what an answer holds, in order, with the types,
    and `labels` the only strings that an output can be, for those that have labels. `purposes` are what a subject must
    have consented to.
    """

    def __init__(self, manifest: Manifest, digest: str, layout: Layout, session: onnxruntime.InferenceSession) -> None:
        """Take parts that fit each other; call `warm_up` before anything else."""
        self.name = manifest.name
        self.version = manifest.version
        self.kind = manifest.kind
        self.description = manifest.description
        self.purposes = manifest.purposes
        self.digest = digest
        self.inputs: tuple[Input, ...] = manifest.inputs
        self.outputs: dict[str, OutputType] = {each.name: each.type for each in manifest.outputs}
        self.labels = {each.name: each.labels for each in manifest.outputs if each.labels}
        self._layout = layout
        self._session = session
        self._outputs = manifest.outputs
        self._unknown: Answer = (None,) * len(manifest.outputs)
        self._tensors = list(dict.fromkeys(each.tensor for each in manifest.outputs))
        self._stand_in = [_ZEROS.get(tensor.dtype, 0) for tensor in layout.inputs]
        self._local = threading.local()
        self._packer: struct.Struct | None = None
        if layout.form == "matrix":
            self._packer = struct.Struct(f"{len(self.inputs)}{_CODES[layout.inputs[0].dtype]}")
            self._stand_in *= len(self.inputs)
        self._strings = False  # whether an output is a tensor of strings, which cannot be written into memory of ours

    def run_one(self, row: Sequence[Scalar]) -> Answer:
        """Answer one row of input values, one per input, none missing.

        Every output is unknown when a value is of a type that the model does not take, or too great for its floats.
        Raises ModelFailure when the row has another length than `inputs`, or when onnxruntime fails.
        """
        if self._packer is None or self._strings:
            return self.run([row])[0]
        try:
            lane = self._local.lane
        except AttributeError:
            lane = self._local.lane = self._lane(self._packer)
        pack, buffer, run, cells = lane
        try:
            pack(buffer, 0, *row)
        except (OverflowError, struct.error):
            self._check_length(row)
            return self._unknown
        try:
            run()
        except Exception as error:  # onnxruntime's exceptions have no root but Exception
            raise self._failure(error) from error
        if len(cells) == 1:  # most models: a loop would cost as much as a tenth of the run
            read, view, place, labels = cells[0]
            return (read(view[place], labels),)
        return tuple([read(view[place], labels) for read, view, place, labels in cells])

    def run(self, rows: Sequence[Sequence[Scalar]]) -> list[Answer]:
        """Answer a batch of rows in one call, each as `run_one` would. Raises as `run_one` does."""
        if not rows:
            return []
        feeds, unfit = self._feeds(rows)
        try:
            results = self._session.run(self._tensors, feeds)
        except Exception as error:  # the same
            raise self._failure(error) from error
        tensors = dict(zip(self._tensors, results, strict=True))
        columns = [_column(tensors[each.tensor], each) for each in self._outputs]
        answers: list[Answer] = list(zip(*columns, strict=True))
        for position in unfit:
            answers[position] = self._unknown
        return answers

    def warm_up(self) -> None:
        """Run once alone and once as a batch, so that no request pays for first times.

        Raises ModelFailure when the model cannot be run, or does not give one answer per row.
        """
        count = 3
        feeds, _ = self._feeds([self._stand_in] * count)
        try:
            results = self._session.run(self._tensors, feeds)
        except Exception as error:  # whatever onnxruntime says, the model is unfit
            raise self._failure(error) from error
        tensors = dict(zip(self._tensors, results, strict=True))
        for name, result in tensors.items():
            if not isinstance(result, np.ndarray) or result.shape[:1] != (count,) or result.ndim > _MATRIX:
                raise self._failure(f"`{name}` does not hold one value, or one row of values, per row of input")
            if result.dtype.kind in "OSU":
                self._strings = True
        for each in self._outputs:
            shape = tensors[each.tensor].shape
            width = shape[1] if len(shape) == _MATRIX else 1
            if each.index >= width:
                raise self._failure(f"`{each.tensor}` has {width} values a row, so there is no index {each.index}")
        self.run_one(self._stand_in)

    def _feeds(self, rows: Sequence[Sequence[Scalar]]) -> tuple[dict[str, NDArray[Any]], list[int]]:
        """Build the graph's inputs; also name the rows that hold a value the graph cannot take: others stand in."""
        unfit = []
        if self._packer is not None:
            (tensor,) = self._layout.inputs
            matrix = np.zeros((len(rows), len(self.inputs)), dtype=tensor.dtype)
            buffer = matrix.data.cast("B")
            for position, row in enumerate(rows):
                try:
                    self._packer.pack_into(buffer, position * self._packer.size, *row)
                except (OverflowError, struct.error):
                    self._check_length(row)
                    unfit.append(position)
            return {tensor.name: matrix}, unfit
        fitting: list[Sequence[Scalar]] = []
        for position, row in enumerate(rows):
            self._check_length(row)
            if all(
                isinstance(value, _TAKES[tensor.dtype]) for value, tensor in zip(row, self._layout.inputs, strict=True)
            ):
                fitting.append(row)
            else:
                unfit.append(position)
                fitting.append(self._stand_in)
        feeds = {}
        for tensor, column in zip(self._layout.inputs, zip(*fitting, strict=True), strict=True):
            with np.errstate(over="ignore"):  # what overflows becomes infinite, and the output not a finite number
                values = np.array(column, dtype=object if tensor.dtype == "str" else tensor.dtype)
            feeds[tensor.name] = values.reshape(-1, 1) if tensor.rank == _MATRIX else values
        return feeds, unfit

    def _check_length(self, row: Sequence[Scalar]) -> None:
        if len(row) != len(self.inputs):
            raise self._failure(f"it has {len(self.inputs)} inputs, the row {len(row)} values")

    def _lane(self, packer: struct.Struct) -> tuple[Any, ...]:
        """Make one thread's own buffers, bound once, so that a run neither builds arrays nor looks up names."""
        (tensor,) = self._layout.inputs
        row = np.zeros((1, len(self.inputs)), dtype=tensor.dtype)
        binding = self._session.io_binding()
        binding.bind_input(tensor.name, "cpu", 0, row.dtype, row.shape, row.ctypes.data)
        views: dict[str, memoryview] = {}
        for name, result in zip(self._tensors, self._session.run(self._tensors, {tensor.name: row}), strict=True):
            out = np.zeros_like(result)
            binding.bind_output(name, "cpu", 0, out.dtype, out.shape, out.ctypes.data)
            views[name] = out.data  # a view keeps its array alive
        cells = []
        for each in self._outputs:
            view = views[each.tensor]
            place = (0, each.index) if view.ndim == _MATRIX else 0
            cells.append((_READERS[bool(each.labels), each.type], view, place, each.labels))
        return packer.pack_into, row.data.cast("B"), _shortest_way(self._session, binding), cells

    def _failure(self, error: object) -> ModelFailure:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return ModelFailure(f"model `{self.name}` cannot answer: {reason[0]}")


def _finite(value: float, _labels: tuple[str, ...]) -> float | None:
    return value if math.isfinite(value) else None


def _plain(value: Scalar, _labels: tuple[str, ...]) -> Scalar:
    return value


def _label(value: int, labels: tuple[str, ...]) -> str | None:
    return labels[value] if 0 <= value < len(labels) else None


# How a cell of a tensor becomes a value, by whether the output has labels and by its type.
_READERS: dict[tuple[bool, OutputType], Callable[[Any, tuple[str, ...]], Scalar | None]] = {
    (False, "double"): _finite,
    (False, "int"): _plain,
    (False, "bool"): _plain,
    (False, "string"): _plain,
    (True, "string"): _label,
}


def _column(tensor: NDArray[Any], output: Output) -> list[Scalar | None]:
    values = tensor[:, output.index] if tensor.ndim == _MATRIX else tensor
    read = _READERS[bool(output.labels), output.type]
    return [read(value, output.labels) for value in values.tolist()]
