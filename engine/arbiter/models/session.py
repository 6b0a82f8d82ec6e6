"""onnxruntime: a session over the bytes of a graph, and one thread's shortest way through it.

Law: the only module that imports onnxruntime. It knows tensors and buffers, nothing of manifests' inputs, of profiles
or of rules.
"""

from __future__ import annotations

import functools
import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

# Read when it is loaded: left to itself it names the machine in the home directory, and tells its maker of its use.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from arbiter.expr.generated import function_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.models.manifest import Output, Reduction, Scalar

MATRIX = 2  # the rank of a tensor that holds several values per row
_CODES = {"float32": "f", "float64": "d"}
# Takes a cell, or all cells of a row, and the labels.
Read = Callable[[Any, tuple[str, ...]], "Scalar | None"]
# By model the outputs by name.
Scores = tuple[Mapping[str, "Scalar"], ...]
# What the values of a row raise that are of no type, or too great, for the floats that they are packed into.
UNFIT = (OverflowError, struct.error)


class Matrix(NamedTuple):
    """A graph input that takes a whole row: its name, dtype (float32 or float64) and width."""

    name: str
    dtype: str
    width: int


class Lane(NamedTuple):
    """One thread's own buffers, bound once, so that a run neither builds arrays nor looks up names.

    ``pack(buffer, 0, *values)`` writes a row, and raises one of `UNFIT`; `run` runs it, and raises whatever onnxruntime
    says; ``read(None)`` gives the outputs of each model by name, but those that are unknown.
    """

    pack: Callable[..., None]
    buffer: memoryview
    run: Callable[[], object]
    read: Callable[[Any], Scores]


def open_session(content: bytes) -> onnxruntime.InferenceSession:
    """Open a session on one thread, silent, that never spins. Raises whatever onnxruntime says about the bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # rows are small: planning their memory takes longer than getting it
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4  # every error comes back as an exception; nothing is to be printed beside it
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def packer_of(matrices: Sequence[Matrix]) -> struct.Struct:
    """What packs the values of all rows, one after another, each where its floats are aligned, as C would."""
    return struct.Struct("".join(f"{each.width}{_CODES[each.dtype]}" for each in matrices))


def bind(
    session: onnxruntime.InferenceSession, matrices: Sequence[Matrix], outputs: Sequence[Sequence[Output]], label: str
) -> Lane:
    """A lane through the session, which has these inputs and, by the names of their tensors, these outputs of each
    model. `label` names the models.
    """
    packer = packer_of(matrices)
    rows = np.zeros(packer.size // 8 + 1, dtype=np.float64)
    binding = session.io_binding()
    feeds, place = {}, rows.ctypes.data
    for each in matrices:
        dtype = np.dtype(each.dtype)
        place += -place % dtype.itemsize
        binding.bind_input(each.name, "cpu", 0, dtype, (1, each.width), place)
        place += each.width * dtype.itemsize
        feeds[each.name] = np.zeros((1, each.width), dtype=dtype)
    names = list(dict.fromkeys(each.tensor for own in outputs for each in own))
    views: dict[str, memoryview] = {}
    for name, result in zip(names, session.run(names, feeds), strict=True):
        out = np.zeros_like(result)
        binding.bind_output(name, "cpu", 0, out.dtype, out.shape, out.ctypes.data)
        views[name] = out.reshape(-1).data  # a view keeps its array alive
    read = _reading(outputs, views, label)
    return Lane(packer.pack_into, rows.data.cast("B"), _shortest_way(session, binding), read)


def _reading(outputs: Sequence[Sequence[Output]], views: dict[str, memoryview], label: str) -> Callable[[Any], Scores]:
    """A generated function that reads the outputs: a loop takes as long again as running a small model."""
    names: dict[str, Any] = {"INF": math.inf}
    lines = []
    for own in outputs:
        cells = []
        for each in own:
            number = len(names)
            place = ":" if each.reduce else each.index
            names |= {f"v{number}": views[each.tensor], f"r{number}": reader_of(each), f"l{number}": each.labels}
            cells.append(f"{each.name!r}: r{number}(v{number}[{place}], l{number})")
            if len(own) == 1 and each.type == "double" and not each.reduce:
                # Most models: written out, since a call would take as long as all the rest.
                lines.append(f"        {{{each.name!r}: x}} if -INF < (x := v{number}[{place}]) < INF else {{}},")
                cells.clear()
        if cells:
            known = "{name: x for name, x in d.items() if x is not None}"
            lines.append(f"        d if None not in (d := {{{', '.join(cells)}}}).values() else {known},")
    source = "\n".join(["def read(_):", "    return (", *lines, "    )", ""])
    return function_of([source], names, f"outputs of {label}")


def _shortest_way(session: onnxruntime.InferenceSession, binding: Any) -> Callable[[], object]:
    """A run of what is bound. Past onnxruntime's own wrapper, which looks at every call whether a GPU records it: that
    takes half as long as a run of a hundred trees. Where its insides have other names, by the wrapper. The options of a
    run are given, since making them anew takes as long again.
    """
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # as for the session
    run, bound = (
        getattr(getattr(session, "_sess", None), "run_with_iobinding", None),
        getattr(binding, "_iobinding", None),
    )
    if run is None or bound is None:
        return functools.partial(session.run_with_iobinding, binding, options)
    return functools.partial(run, bound, options)


def _finite(value: float, _labels: tuple[str, ...]) -> float | None:
    return value if math.isfinite(value) else None


def _plain(value: Scalar, _labels: tuple[str, ...]) -> Scalar:
    return value


def _label(value: int, labels: tuple[str, ...]) -> str | None:
    return labels[value] if 0 <= value < len(labels) else None


def _least(values: Iterable[float], labels: tuple[str, ...]) -> float | None:
    known = list(values)
    return None if any(value != value for value in known) else _finite(min(known), labels)  # noqa: PLR0124 - NaN


def _greatest(values: Iterable[float], labels: tuple[str, ...]) -> float | None:
    known = list(values)
    return None if any(value != value for value in known) else _finite(max(known), labels)  # noqa: PLR0124 - NaN


def _place(values: Iterable[float], labels: tuple[str, ...], best: Callable[[list[float]], float]) -> Scalar | None:
    known = list(values)
    if any(value != value for value in known):  # noqa: PLR0124 - NaN, which is not to win by standing first
        return None
    place = known.index(best(known))
    return _label(place, labels) if labels else place


def _first_least(values: Iterable[float], labels: tuple[str, ...]) -> Scalar | None:
    return _place(values, labels, min)


def _first_greatest(values: Iterable[float], labels: tuple[str, ...]) -> Scalar | None:
    return _place(values, labels, max)


_REDUCERS: dict[Reduction, Read] = {
    "min": _least, "max": _greatest, "argmin": _first_least, "argmax": _first_greatest,
}  # fmt: skip


def reader_of(output: Output) -> Read:
    """How a cell of the output's tensor becomes its value, or with `reduce` all cells of a row do; None is unknown."""
    if output.reduce:
        return _REDUCERS[output.reduce]
    return _label if output.labels else _finite if output.type == "double" else _plain
