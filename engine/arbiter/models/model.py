"""A loaded model: rows of input values in, tuples of output values out.

Law: holds the onnxruntime session and the fastest way through it; knows nothing of profiles, features or rules. A
model is immutable and may be run by any number of threads at once.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from arbiter.models.failure import ModelFailure, first_line
from arbiter.models.pace import Pace
from arbiter.models.rows import TAKES, Row, encoder_of
from arbiter.models.session import MATRIX, UNFIT, Matrix, bind, packer_of, reader_of

if TYPE_CHECKING:
    import struct
    from collections.abc import Mapping, Sequence

    import onnxruntime
    from numpy.typing import NDArray

    from arbiter.models.graph import Layout
    from arbiter.models.manifest import Input, Manifest, Output, OutputType, Scalar
    from arbiter.models.session import Lane

# What a model answers for one row, in the order of its outputs; None is unknown (not a finite number, no such label).
Answer = tuple["Scalar | None", ...]

# What a tensor takes when the graph has one per input.
_KINDS: dict[str, tuple[type, ...]] = {dtype: tuple(kinds) for dtype, kinds in TAKES.items()}
_ZEROS: dict[str, Scalar] = {"str": "", "bool": False}
# Of a greater graph running it takes so long that calling onnxruntime for it alone does not matter.
MERGED_BYTES = 1 << 20
BASELINE = "arbiter.baseline"  # in the metadata of a graph
TRAINING = "arbiter.training"


class Model:
    """One model of a snapshot.

    `name`, `version` and `kind` are the manifest's, `key` the first two as texts; `digest` is the SHA-256 of both
    files. `inputs` says what it reads, in order, `takes` the same with the dtypes of the tensors; `outputs` names what
    an answer holds, in order, with the types, and `labels` the only strings that an output can be, for those with
    labels. `purposes` are what a subject must have consented to. `told` says where each output lies.

    `matrix` is the input of a graph that takes a whole row of numbers in one and answers no strings,
    None for others; `graph` is there where it is small enough to be merged with others, `opsets` and `ir` are the
    versions of the operators and of the form by which it can be read. `pace` is what a run of one row has been seen
    to take, `pace_of_row` what a row of many takes. `baseline` is what the graph's metadata say of the rows of the
    training, `training` what of how it went, both as JSON.
    """

    def __init__(
        self,
        manifest: Manifest,
        digest: str,
        layout: Layout,
        session: onnxruntime.InferenceSession,
    ) -> None:
        """Take parts that fit each other; call `warm_up` before anything else."""
        self.name = manifest.name
        self.version = manifest.version
        self.kind = manifest.kind
        self.description = manifest.description
        self.purposes = manifest.purposes
        self.digest = digest
        self.key = (manifest.name, str(manifest.version))
        self.inputs: tuple[Input, ...] = manifest.inputs
        self.outputs: dict[str, OutputType] = {each.name: each.type for each in manifest.outputs}
        self.labels = {each.name: each.labels for each in manifest.outputs if each.labels}
        self.told: tuple[Output, ...] = manifest.outputs
        self.matrix: Matrix | None = None
        small = layout.graph is not None and layout.graph.ByteSize() <= MERGED_BYTES
        self.graph = layout.graph if small else None
        self.ir = layout.ir
        self.opsets = layout.opsets
        self.pace, self.pace_of_row = Pace(), Pace()
        self._inputs = layout.inputs
        metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
        self.baseline, self.training = (metadata.get(key, "") for key in (BASELINE, TRAINING))
        self._session = session
        self._unknown: Answer = (None,) * len(manifest.outputs)
        width = sum(each.width for each in manifest.inputs)
        tensors = layout.inputs * len(manifest.inputs) if layout.form == "matrix" else layout.inputs
        self.takes = tuple((each, tensor.dtype) for each, tensor in zip(manifest.inputs, tensors, strict=True))
        self._encoder = encoder_of(self.takes, self.name)
        self._tensors = list(dict.fromkeys(each.tensor for each in manifest.outputs))
        self._stand_in = [_ZEROS.get(tensor.dtype, 0) for tensor in layout.inputs]
        self._local = threading.local()
        self._packer: struct.Struct | None = None
        if layout.form == "matrix":
            (tensor,) = layout.inputs
            self.matrix = Matrix(tensor.name, tensor.dtype, width)
            self._packer = packer_of([self.matrix])
            self._stand_in *= width
        self._width = width

    def encode(self, values: Sequence[Any], clock: int = 0) -> Row | None:
        """The row of ``values``, one for each input, None for a missing one, at `clock` (µs since the epoch).

        None when the outputs are unknown. Raises ModelFailure for a value that is none of its categories, where the
        manifest calls that an error.
        """
        if len(values) != len(self.inputs):
            raise self._failure(f"it has {len(self.inputs)} inputs, here are {len(values)} values")
        return self._encoder((values, clock))

    def score(self, row: Sequence[Scalar]) -> Mapping[str, Scalar]:
        """The outputs by name for one row as `encode` makes it; those that are unknown are not there.

        All are unknown when a value is of a type that the model does not take, or too great for its floats. Raises
        ModelFailure when the row is of another length, or when onnxruntime fails.
        """
        if self.matrix is None:
            named = zip(self.outputs, self.run([row])[0], strict=True)
            return {name: value for name, value in named if value is not None}
        try:
            lane: Lane = self._local.lane
        except AttributeError:
            lane = self._local.lane = bind(self._session, [self.matrix], [self.told], f"model {self.name}")
        pack, buffer, run, read = lane
        try:
            pack(buffer, 0, *row)
        except UNFIT:
            self._check_length(row)
            return {}
        try:
            run()
        except Exception as error:  # onnxruntime's exceptions have no root but Exception
            raise self._failure(error) from error
        return read(None)[0]

    def run_one(self, row: Sequence[Scalar]) -> Answer:
        """Answer one row as `encode` makes it: a number for each column, or a value for each tensor; None is unknown.

        Raises as `score` does.
        """
        return tuple(map(self.score(row).get, self.outputs))

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
        columns = [column_of(tensors[each.tensor], each) for each in self.told]
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
            if not isinstance(result, np.ndarray) or result.shape[:1] != (count,) or result.ndim > MATRIX:
                raise self._failure(f"`{name}` does not hold one value, or one row of values, per row of input")
            if result.dtype.kind in "OSU":
                self.matrix = None  # strings cannot be written into memory of ours
        for each in self.told:
            shape = tensors[each.tensor].shape
            width = shape[1] if len(shape) == MATRIX else 1
            if each.reduce and len(shape) != MATRIX:
                raise self._failure(f"`{each.tensor}` has one value a row, and `reduce` needs several")
            if each.index >= width:
                raise self._failure(f"`{each.tensor}` has {width} values a row, so there is no index {each.index}")
        self.run_one(self._stand_in)
        began = time.perf_counter()
        self.run_one(self._stand_in)
        self.pace.took(time.perf_counter() - began)

    def _feeds(self, rows: Sequence[Sequence[Scalar]]) -> tuple[dict[str, NDArray[Any]], list[int]]:
        """Build the graph's inputs; also name the rows that hold a value the graph cannot take: others stand in."""
        unfit = []
        if self._packer is not None:
            (tensor,) = self._inputs
            matrix = np.zeros((len(rows), self._width), dtype=tensor.dtype)
            buffer = matrix.data.cast("B")
            for position, row in enumerate(rows):
                try:
                    self._packer.pack_into(buffer, position * self._packer.size, *row)
                except UNFIT:
                    self._check_length(row)
                    unfit.append(position)
            return {tensor.name: matrix}, unfit
        fitting: list[Sequence[Scalar]] = []
        for position, row in enumerate(rows):
            self._check_length(row)
            if all(isinstance(value, _KINDS[tensor.dtype]) for value, tensor in zip(row, self._inputs, strict=True)):
                fitting.append(row)
            else:
                unfit.append(position)
                fitting.append(self._stand_in)
        feeds = {}
        for tensor, column in zip(self._inputs, zip(*fitting, strict=True), strict=True):
            with np.errstate(over="ignore"):  # what overflows becomes infinite, and the output not a finite number
                values = np.array(column, dtype=object if tensor.dtype == "str" else tensor.dtype)
            feeds[tensor.name] = values.reshape(-1, 1) if tensor.rank == MATRIX else values
        return feeds, unfit

    def _check_length(self, row: Sequence[Scalar]) -> None:
        if len(row) != self._width:
            raise self._failure(f"it has {self._width} inputs, the row {len(row)} values")

    def _failure(self, error: object) -> ModelFailure:
        return ModelFailure(f"model `{self.name}` cannot answer: {first_line(error)}")


def column_of(tensor: NDArray[Any], output: Output) -> list[Scalar | None]:
    """An output of each row of a batch, None for unknown."""
    read = reader_of(output)
    if output.reduce:
        return [read(values, output.labels) for values in tensor.tolist()]
    values = tensor[:, output.index] if tensor.ndim == MATRIX else tensor
    return [read(value, output.labels) for value in values.tolist()]
