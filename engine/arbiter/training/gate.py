"""What must be true of a model folder before it may go live.

Law: each check says of itself whether it is well, and what to do if not; none stops the others where it need not. The
files are opened, run and timed by `models.judge`, in another process: whatever they hold, the caller goes on.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.errors import did_you_mean
from arbiter.models.agreement import unlike
from arbiter.models.graph import MAX_MODEL_BYTES
from arbiter.models.judge import SECONDS, Asked, Verdict, judge
from arbiter.models.loader import MANIFEST, ONNX, digest_of
from arbiter.models.reader import FORM, read_manifest
from arbiter.training.paritycheck import ParityFile, distance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arbiter.models.manifest import Input, Manifest
    from arbiter.training.declared import Declarations

PARITY = "parity.json"
_ON_HELD = "on rows held out: "
_ALONE = "not compared with a model in place"
_WHICH = "say which: --against FOLDER"
_A_FOLDER = "name the folder of a model"
METRICS = "metrics.json"
MOST_PARITY_BYTES = 16 << 20
LATENCY = 8.0  # times the reference: a hundred trees of depth 5 take some 2 times as long as that
_LOOSEST = 0.01  # of a stated tolerance: beyond it, saying so is not the same as answering alike


class Check(msgspec.Struct, frozen=True):
    """One check: `ok` is None where it could not be made, and `said` why. `todo` is what to do where it is not ok."""

    name: str
    ok: bool | None
    said: str
    todo: str = ""


class Demands(msgspec.Struct, frozen=True):
    """What is demanded: at most `latency` times the reference's time, and of `current`, the folder of the model in
    place, that this one's metric is no worse than its spec allows. `rules` is what is declared, None for unknown.
    """

    latency: float = LATENCY
    rules: Declarations | None = None
    current: Path | None = None
    seconds: float = SECONDS


class Summary(msgspec.Struct, frozen=True):
    """A model folder in a few words: what its manifest says, its figures, and its first mistake.

    `sha256` is that of its `model.onnx`, and `written` when its manifest was, in RFC 3339.
    """

    folder: str
    name: str
    version: int
    kind: str
    outputs: list[str]
    figures: str
    mistakes: str = ""
    sha256: str = ""
    written: str = ""


def summary(folder: Path) -> Summary:
    """What a folder says of itself; its model is not opened."""
    try:
        content = _content(folder / MANIFEST, FORM.max_bytes)
    except OSError as error:
        return Summary(folder.as_posix(), folder.name, 0, "", [], "", f"{MANIFEST}: {error.strerror}")
    told, _, found = read_manifest(content, MANIFEST)
    if told is None:
        return Summary(folder.as_posix(), folder.name, 0, "", [], "", found[0].message)
    figures = _figures(_metrics(folder), told)
    said = figures.said.removeprefix(_ON_HELD) if figures.ok else "unknown"
    outputs = [each.name for each in told.outputs]
    written = datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime, UTC).isoformat(timespec="seconds")
    return Summary(
        folder.as_posix(), told.name, told.version, told.kind, outputs, said, sha256=told.sha256, written=written
    )


def check_folder(folder: Path, demands: Demands) -> list[Check]:
    """Every check of one model folder. Never raises for anything that it holds."""
    try:
        manifest, onnx = _content(folder / MANIFEST, FORM.max_bytes), _content(folder / ONNX, MAX_MODEL_BYTES)
    except OSError as error:
        return [Check("files", ok=False, said=f"{error.filename}: {error.strerror}", todo="make the folder whole")]
    shown = (folder / MANIFEST).as_posix()
    parity = _parity_file(folder)
    rows = parity.rows if isinstance(parity, ParityFile) else []
    verdict = judge(Asked(manifest, onnx, shown, rows, timed=True), seconds=demands.seconds)
    told, _, _ = read_manifest(manifest, shown)
    checks = [_files(folder, told, verdict, len(onnx))]
    if told is None or not verdict.sound:
        return checks
    metrics = _metrics(folder)
    checks += [
        _parity(parity, told, verdict),
        _latency(verdict, demands.latency),
        _inputs(told, demands.rules),
        _outputs(told, demands.current),
        _figures(metrics, told),
        _metric(metrics, demands.current),
    ]
    return checks


def _content(path: Path, limit: int) -> bytes:
    """At most one byte more than `limit`. Raises OSError."""
    with path.open("rb") as file:
        return file.read(limit + 1)


def _files(folder: Path, told: Manifest | None, verdict: Verdict, size: int) -> Check:
    name = "files"
    if verdict.died:
        todo = "do not serve it; train it again, or ask whoever made it"
        return Check(name, ok=False, said=f"the model cannot be opened: {verdict.died}", todo=todo)
    if verdict.diagnostics:
        first = verdict.diagnostics[0]
        more = f" (and {len(verdict.diagnostics) - 1} more)" if len(verdict.diagnostics) > 1 else ""
        place = f"{first.file}:{first.line}:{first.column}" if first.line else first.file
        return Check(name, ok=False, said=f"{place}: {first.message}{more}", todo=first.hint or "mend the file")
    if told is not None and folder.resolve().name not in {told.name, f"{told.version}", f"v{told.version}"}:
        said = f"model `{told.name}` lies in a folder called `{folder.resolve().name}`"
        return Check(name, ok=False, said=said, todo="name the folder as the model, or as its version")
    return Check(name, ok=True, said=f"sound: {size:,} bytes, allowed operators, nothing outside of the file")


def _parity_file(folder: Path) -> ParityFile | str:
    """The kept rows, or why there are none."""
    path = folder / PARITY
    try:
        content = _content(path, MOST_PARITY_BYTES)
        if len(content) > MOST_PARITY_BYTES:
            return f"{path} has more than {MOST_PARITY_BYTES:,} bytes"
        return msgspec.json.decode(content, type=ParityFile)
    except OSError as error:
        return f"{path}: {error.strerror}"
    except msgspec.DecodeError as error:
        return f"{path}: {error}"


def _parity(parity: ParityFile | str, told: Manifest, verdict: Verdict) -> Check:
    name, todo = "parity", "train it with `arbiter model train`, which keeps rows with the original's answers"
    if isinstance(parity, str):
        return Check(name, ok=False, said=parity, todo=todo)
    if parity.inputs != [each.name for each in told.inputs] or parity.outputs != [each.name for each in told.outputs]:
        return Check(name, ok=False, said="the rows kept are not of this manifest's inputs and outputs", todo=todo)
    if not parity.rows or len(parity.rows) != len(parity.answers):
        return Check(name, ok=False, said="there are no rows with an answer each", todo=todo)
    if parity.tolerance > _LOOSEST:
        said = f"the tolerance is {parity.tolerance:g}, and at most {_LOOSEST:g} says that two answers are one"
        return Check(name, ok=False, said=said, todo="choose an estimator that exports well")
    worst, elsewhere = 0.0, 0
    for answer, expected in zip(verdict.answers, parity.answers, strict=True):
        if answer is None or len(answer) != len(expected):
            worst = float("inf")
            continue
        apart, other = distance(answer, expected)
        worst, elsewhere = max(worst, apart), elsewhere + other
    said = f"over {len(parity.rows)} rows kept from training it differs from the original by at most {worst:.1e}"
    said += f", and puts {elsewhere} of them elsewhere" if elsewhere else ""
    ok = worst <= parity.tolerance and not elsewhere
    why = "the converter erred: choose another estimator (calibrated classifiers are known for it), or a newer skl2onnx"
    return Check(name, ok=ok, said=f"{said}; allowed are {parity.tolerance:g}", todo="" if ok else why)


def _latency(verdict: Verdict, most: float) -> Check:
    ratio = verdict.micros / verdict.reference_micros
    said = (
        f"one row takes {ratio:.1f} times as long as in a logistic regression ({verdict.micros:.1f} to "
        f"{verdict.reference_micros:.1f} µs here); allowed are {most:g}"
    )
    ok = ratio <= most
    return Check("latency", ok=ok, said=said, todo="" if ok else "take fewer or shallower trees, or fewer inputs")


def _inputs(told: Manifest, rules: Declarations | None) -> Check:
    name = "inputs"
    if rules is None:
        return Check(name, ok=None, said="not compared with a rule set", todo="say which: --rules DIR")
    wrong = [said for each in told.inputs for said in _wrong(each, told, rules)]
    wrong += [f"the purpose `{purpose}` is not declared" for purpose in told.purposes if purpose not in rules.purposes]
    if wrong:
        todo = "change the rules' declarations, or train on what they declare"
        return Check(name, ok=False, said="; ".join(wrong), todo=todo)
    return Check(name, ok=True, said=f"the rules declare all {len(told.inputs)}, of fitting types and purposes")


def _wrong(each: Input, told: Manifest, rules: Declarations) -> Iterator[str]:
    path = f"{each.root}.{each.attribute}"
    kind = rules.known.get(path)
    if kind is None:
        if rules.lacks(each.root, each.attribute):
            hint = did_you_mean(path, rules.known)
            yield f"`{path}` is not declared" + (f" ({hint})" if hint else "")
        return
    texts = any(isinstance(word, str) for word in each.categories)
    allowed = {"string"} if texts else {"int", "double", "bool"}
    allowed |= {"timestamp"} if each.unit else set()
    if each.form != "missing" and kind not in allowed | {"dyn"}:
        wanted = "a text" if texts else "a number"
        yield f"`{path}` is declared as {kind}, and input `{each.name}` takes {wanted}"
    lacking = sorted(set(rules.bound.get(path, ())) - set(told.purposes))
    if lacking:
        named = ", ".join(f"`{purpose}`" for purpose in lacking)
        yield f"`{path}` may be used for {named} only, which the model's `purposes` do not name"


def _outputs(told: Manifest, current: Path | None) -> Check:
    """Whether rules that do with the model in place can do with this one."""
    name = "outputs"
    if current is None:
        return Check(name, ok=None, said=_ALONE, todo=_WHICH)
    try:
        before, _, found = read_manifest(_content(current / MANIFEST, FORM.max_bytes), (current / MANIFEST).as_posix())
    except OSError as error:
        return Check(name, ok=False, said=f"{error.filename}: {error.strerror}", todo=_A_FOLDER)
    if before is None:
        return Check(name, ok=False, said=f"the model in place: {found[0].message}", todo=_A_FOLDER)
    lacking = unlike((before.kind, before.outputs), (told.kind, told.outputs))
    if lacking:
        todo = "train one that says the same, or give it another name and change the rules"
        return Check(name, ok=False, said=f"rules that do with the model in place may not: {lacking}", todo=todo)
    return Check(name, ok=True, said="those of the model in place, of the same types and labels")


def _metrics(folder: Path) -> dict[str, Any] | str:
    """The figures, or why there are none."""
    path = folder / METRICS
    try:
        found = json.loads(_content(path, MOST_PARITY_BYTES))
    except OSError as error:
        return f"{path}: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return f"{path}: {error}"
    return found if isinstance(found, dict) else f"{path} holds no figures"


def _figures(metrics: dict[str, Any] | str, told: Manifest) -> Check:
    """Whether the figures beside the model are this model's."""
    name, todo = "figures", "train it with `arbiter model train`, which measures it on rows held out"
    if isinstance(metrics, str):
        return Check(name, ok=False, said=metrics, todo=todo)
    if metrics.get("sha256") != told.sha256:
        return Check(name, ok=False, said=f"{METRICS} is of another model.onnx", todo=todo)
    held = metrics.get("held_out")
    shown = []
    for key, figure in held.items() if isinstance(held, dict) else ():
        value = figure.get("value") if isinstance(figure, dict) else None
        shown.append(f"{key} {value:.4f}" if isinstance(value, (int, float)) else f"{key} unknown")
    if not shown:
        return Check(name, ok=False, said=f"{METRICS} holds no figure of rows held out", todo=todo)
    return Check(name, ok=True, said=_ON_HELD + ", ".join(shown))


def _metric(metrics: dict[str, Any] | str, current: Path | None) -> Check:
    """Whether it is no worse than the model in place by more than its spec allows, on the same rows."""
    name = "metric"
    if current is None:
        return Check(name, ok=None, said=_ALONE, todo=_WHICH)
    todo = f"train it with `--against {current.as_posix()}`, so that both are measured on the same rows"
    try:
        digest = digest_of(_content(current / MANIFEST, FORM.max_bytes), _content(current / ONNX, MAX_MODEL_BYTES))
    except OSError as error:
        return Check(name, ok=False, said=f"{error.filename}: {error.strerror}", todo=_A_FOLDER)
    compared = metrics.get("compared") if isinstance(metrics, dict) else None
    if not isinstance(compared, dict) or compared.get("digest") != digest:
        return Check(name, ok=False, said="it was not measured beside the model in place", todo=todo)
    gate = metrics.get("gate") if isinstance(metrics, dict) else None
    wanted = gate.get("metric") if isinstance(gate, dict) else None
    worse_by = gate.get("worse_by", 0.0) if isinstance(gate, dict) else 0.0
    found = (compared.get("metrics") or {}).get(wanted)
    if not isinstance(found, dict):
        return Check(
            name, ok=None, said=f"no `{wanted}` was compared: models of this kind are neither better nor worse"
        )
    gain = found.get("better_by")
    if not isinstance(gain, (int, float)) or not isinstance(worse_by, (int, float)):
        return Check(name, ok=False, said=f"{METRICS} cannot be read", todo=todo)
    between = f" ({found['low']:.4f} to {found['high']:.4f})" if "low" in found else ""
    said = f"`{wanted}` is better by {gain:.4f}{between} than the model in place; allowed is worse by {worse_by:g}"
    return Check(name, ok=gain >= -worse_by, said=said, todo="" if gain >= -worse_by else "keep the one in place")
