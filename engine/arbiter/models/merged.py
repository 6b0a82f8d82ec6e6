"""Several models as one graph: calling onnxruntime costs more than most models do, so together they are called once.

Law: answers are those of the models run one by one, bit for bit; what cannot promise that is not merged. A merged graph
is immutable, and may be run by any number of threads at once.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from onnx import ModelProto

from arbiter.models.failure import ModelFailure, first_line
from arbiter.models.model import column_of
from arbiter.models.opsets import common
from arbiter.models.session import UNFIT, bind, open_session, packer_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import GraphProto, ValueInfoProto

    from arbiter.models.manifest import Output, Scalar
    from arbiter.models.model import Answer, Model
    from arbiter.models.session import Lane, Matrix, Scores

_ALIGNED = 8  # bytes, of the widest float
_PROBES = (0.0, 1.0, -3.5, 40.0)  # rows of these are answered alike before a merged graph is used


class Merged:
    """Models that run as one graph, in this order."""

    def __init__(self, models: Sequence[Model]) -> None:
        """Merge models, which are of one of the `families`, and warm up.

        Raises ModelFailure when onnxruntime does not take them, or does not answer as it does for each alone.
        """
        self.models = tuple(models)
        self.names = tuple(model.name for model in models)
        self._matrices: list[Matrix] = []
        self._outputs: list[list[Output]] = []
        for number, model in enumerate(models):
            assert model.matrix is not None  # noqa: S101 - who has none has no family
            self._matrices.append(model.matrix._replace(name=_named(number, model.matrix.name)))
            self._outputs.append([msgspec.structs.replace(o, tensor=_named(number, o.tensor)) for o in model.told])
        self._local = threading.local()
        self._packer = packer_of(self._matrices)
        self._stride = self._packer.size + -self._packer.size % _ALIGNED
        try:
            self._session = open_session(_graph_of(models, self._outputs).SerializeToString())
            self._probe()
        except ModelFailure:
            raise
        except Exception as error:  # onnxruntime's exceptions have no root but Exception
            raise self._failure(error) from error

    def run(self, rows: Sequence[Sequence[Scalar]]) -> list[tuple[Answer, ...] | None]:
        """Answer a batch in one call: for each row of `score`, for each model what it would answer alone.

        None as there. Raises ModelFailure as it does.
        """
        content = bytearray(len(rows) * self._stride)
        unfit = set()
        for number, values in enumerate(rows):
            try:
                self._packer.pack_into(content, number * self._stride, *values)
            except UNFIT:
                unfit.add(number)
        feeds, place = {}, 0
        for each in self._matrices:
            dtype = np.dtype(each.dtype)
            place += -place % dtype.itemsize
            shape, strides = (len(rows), each.width), (self._stride, dtype.itemsize)
            feeds[each.name] = np.ascontiguousarray(np.ndarray(shape, dtype, content, place, strides))
            place += each.width * dtype.itemsize
        names = list(dict.fromkeys(each.tensor for own in self._outputs for each in own))
        try:
            found = dict(zip(names, self._session.run(names, feeds), strict=True))
        except Exception as error:  # onnxruntime's exceptions have no root but Exception
            raise self._failure(error) from error
        told = [zip(*(column_of(found[each.tensor], each) for each in own), strict=True) for own in self._outputs]
        return [None if n in unfit else answers for n, answers in enumerate(zip(*told, strict=True))]

    def score(self, values: Sequence[Scalar]) -> Scores | None:
        """The outputs of each model for its row, as it gives them alone; `values` has all rows, one after another.

        None when a value is of no type that the models take, or too great. Raises ModelFailure when onnxruntime fails:
        one of the models then fails alone too.
        """
        try:
            lane: Lane = self._local.lane
        except AttributeError:
            lane = self._local.lane = bind(
                self._session, self._matrices, self._outputs, f"models {', '.join(self.names)}"
            )
        pack, buffer, run, read = lane
        try:
            pack(buffer, 0, *values)
        except UNFIT:
            return None
        try:
            run()
        except Exception as error:  # the same
            raise self._failure(error) from error
        return read(None)

    def _probe(self) -> None:
        for value in _PROBES:
            rows = [[value] * matrix.width for matrix in self._matrices]
            try:
                alone = [model.score(row) for model, row in zip(self.models, rows, strict=True)]
            except ModelFailure:
                continue  # not every model takes every number
            if self.score([each for row in rows for each in row]) != tuple(alone):
                raise self._failure("together they do not answer as each does alone")
        batches = [[[value] * matrix.width for value in _PROBES] for matrix in self._matrices]
        try:
            each_alone = [model.run(batch) for model, batch in zip(self.models, batches, strict=True)]
        except ModelFailure:
            return
        joined = [[value for row in parts for value in row] for parts in zip(*batches, strict=True)]
        if self.run(joined) != list(zip(*each_alone, strict=True)):
            raise self._failure("together they do not answer a batch as each does alone")

    def _failure(self, error: object) -> ModelFailure:
        return ModelFailure(f"models {', '.join(self.names)} cannot be run as one: {first_line(error)}")


def families(models: Sequence[Model]) -> list[tuple[Model, ...]]:
    """Those that can be one graph: each takes one matrix, is small, and can be read by versions of the operators that
    suit its whole family. Who has no family is left out.
    """
    found: list[list[Model]] = []
    for model in models:
        if model.matrix is None or model.graph is None:
            continue
        for family in found:
            if common([each.opsets for each in (*family, model)]) is not None:
                family.append(model)
                break
        else:
            found.append([model])
    return [tuple(family) for family in found if len(family) > 1]


def _named(number: int, name: str) -> str:
    return f"m{number}/{name}" if name else ""  # an input that is left out has no name


def _graph_of(models: Sequence[Model], outputs: Sequence[Sequence[Output]]) -> ModelProto:
    """One graph that holds those of the models side by side, under names of their own, and answers what is asked."""
    merged = ModelProto(ir_version=max(model.ir for model in models))
    merged.graph.name = "merged"
    for opset in common([model.opsets for model in models]) or ():
        merged.opset_import.add(domain=opset.domain, version=opset.first)
    wanted = {each.tensor for own in outputs for each in own}
    for number, model in enumerate(models):
        assert model.graph is not None  # noqa: S101 - who has none has no family
        _add(model.graph, merged.graph, number, wanted)
    return merged


def _add(graph: GraphProto, merged: GraphProto, number: int, wanted: set[str]) -> None:
    """Copy a graph with the model's number before every name, and of its outputs those that are `wanted`. No node holds
    a graph of its own: such models are refused.
    """
    before = len(merged.node)
    merged.node.extend(graph.node)
    for node in merged.node[before:]:
        node.name = _named(number, node.name)
        for names in (node.input, node.output):
            names[:] = [_named(number, name) for name in names]
    before, sparse = len(merged.initializer), len(merged.sparse_initializer)
    merged.initializer.extend(graph.initializer)
    merged.sparse_initializer.extend(graph.sparse_initializer)
    for tensor in (*merged.initializer[before:], *(each.values for each in merged.sparse_initializer[sparse:])):
        tensor.name = _named(number, tensor.name)
    for values, into in ((graph.input, merged.input), (graph.output, merged.output)):
        for value in values:
            name = _named(number, value.name)
            if into is merged.input or name in wanted:
                added = into.add()
                added.CopyFrom(value)
                added.name = name
                _own_dimensions(added, number)


def _own_dimensions(value: ValueInfoProto, number: int) -> None:
    """Dimensions of one name would have to be of one size, across models that know nothing of each other."""
    for dimension in value.type.tensor_type.shape.dim:
        if dimension.dim_param:
            dimension.dim_param = _named(number, dimension.dim_param)
