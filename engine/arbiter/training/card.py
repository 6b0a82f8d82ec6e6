"""The model card, as Markdown.

Law: says what a spec and its figures say, and nothing that was not measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.authoring.scalars import UNITS
from arbiter.training.written import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.ruleset.rules import Feature
    from arbiter.training.spec import InputSpec, Spec

_WORDS = {
    "auc": "AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "accuracy": "accuracy",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "r2": "R²",
    "silhouette": "silhouette",
}
_OUTPUTS = {
    "propensity": "`probability`, a double between 0 and 1",
    "class": "`label`, a word, and `probability`, that of the label",
    "score": "`score`, a double",
}
PICTURE = "card.png"


def card(spec: Spec, metrics: dict[str, Any], features: Sequence[Feature]) -> str:
    """The text of `CARD.md`; `features` are those that the rules declare."""
    parts = [f"# Model card: {spec.name}", _opening(spec, metrics), _data(spec, metrics)]
    parts += [_inputs(spec, features), _training(spec, metrics), f"![What was measured]({PICTURE})"]
    if spec.kind == "segment":
        parts.append(_segments(spec, metrics))
    else:
        parts.append(_figures(metrics))
    parts += [_importance(metrics), _compared(metrics), _parity(metrics)]
    if spec.card.limits:
        parts.append(f"**Limits.** {spec.card.limits}")
    parts.append(
        "**To train again.** `pip install 'arbiter[train]'`, then `arbiter model train train.yaml` in this folder. The "
        "same data and the same versions of the libraries give the same bytes."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _opening(spec: Spec, metrics: dict[str, Any]) -> str:
    words = _OUTPUTS.get(spec.kind, "")
    if spec.kind == "segment":
        names = ", ".join(f"`{each['name']}`" for each in metrics["segments"])
        number = "`distance`, to its centre" if spec.estimator.name == "kmeans" else "`probability`, that of it"
        words = f"`cluster`, one of {names}, and {number}"
    about = spec.description or f"A {spec.kind}"
    return f"**For.** {about}.\n\n**Outputs.** Below `models.{spec.name}`: {words}."


def _data(spec: Spec, metrics: dict[str, Any]) -> str:
    rows = metrics["rows"]
    said = f"{spec.card.data} " if spec.card.data else ""
    total = f"{rows['trained_on']:,} rows train the model"
    if rows["held_out"]:
        total += f", {rows['held_out']:,} were held out ({metrics['validation']})"
    total += "."
    left = "; ".join(f"{count:,}, {reason}" for reason, count in rows["left_out"].items())
    return f"**Data.** {said}{total}" + (f" Left out: {left}." if left else "")


def _inputs(spec: Spec, features: Sequence[Feature]) -> str:
    rows = [(f"`{each.name}`", f"`{each.root}.{each.attribute}`", _missing(each)) for each in spec.inputs]
    told = "**Inputs.**\n\n" + table(("input", "from", "when missing"), rows)
    known = {each.name: each for each in features}
    used = [each.attribute for each in spec.inputs if each.root == "features" and each.attribute in known]
    if not used:
        return told
    names = dict.fromkeys([*(part for name in used for part in known[name].of), *used])
    lines = [f"  {name}: {definition_of(known[name])}" for name in names]
    block = "\n".join(["```yaml", "features:", *lines, "```"])
    return f"{told}\n\nA rule set that uses the model declares exactly these:\n\n{block}"


def definition_of(feature: Feature) -> str:
    """A feature as a rule file says it, on one line."""
    if feature.aggregate == "ratio":
        return f"{{ratio: [{', '.join(feature.of)}]}}"
    of = f"{feature.event}.{feature.property}" if feature.property else feature.event
    said = [f"{feature.aggregate}: {of}"]
    if feature.window is not None:
        said.append(f"window: {_duration(feature.window)}")
    if feature.unit:
        said.append(f"unit: {next(unit for unit, micros in UNITS.items() if micros == feature.unit)}")
    if feature.half_life:
        said.append(f"half_life: {_duration(feature.half_life)}")
    if feature.where is not None:
        said.append(f"where: {text(feature.where.source.strip())}")
    return "{" + ", ".join(said) + "}"


def _duration(micros: int) -> str:
    unit = max((unit for unit, size in UNITS.items() if micros % size == 0), key=lambda unit: UNITS[unit])
    return f"{micros // UNITS[unit]}{unit}"


def _missing(each: InputSpec) -> str:
    if each.impute:
        return f"the {each.impute.replace('_', ' ')} of the rows trained on"
    return f"`{each.default}`" if each.default is not None else "all outputs are unknown"


def _training(spec: Spec, metrics: dict[str, Any]) -> str:
    told = spec.estimator.parameters | ({"calibrate": spec.estimator.calibrate} if spec.estimator.calibrate else {})
    chosen = ", ".join(f"`{key}: {value}`" for key, value in told.items())
    said = f" {spec.card.training}" if spec.card.training else ""
    logs = [f"`{each.name}`" for each in spec.inputs if each.log]
    logged = f" Of {', '.join(logs)} the logarithm of 1 + x counts." if logs else ""
    positive = metrics.get("positive")
    share = f" Of the rows trained on, {positive['trained_on']:.2%} are positive." if positive else ""
    return f"**Training.** `{spec.estimator.name}` ({chosen or 'as it comes'}), seed {spec.seed}.{logged}{share}{said}"


def _figures(metrics: dict[str, Any]) -> str:
    rows = []
    for name, figure in metrics["held_out"].items():
        between = f"{figure['low']:.4f} to {figure['high']:.4f}"
        rows.append((_WORDS[name], f"{figure['value']:.4f}", between, f"{metrics['base'][name]:.4f}"))
    told = "**On the rows held out.** The interval is that of other samples as large (bootstrap); the last column is\n"
    told += "who says of every row what was usual.\n\n" + table(("", "model", "95 % interval", "base rate"), rows)
    if "bins" not in metrics:
        return told
    bins = [
        (n, f"{b['low']:.4f} to {b['high']:.4f}", f"{b['count']:,}", f"{b['predicted']:.4f}", f"{b['happened']:.4f}")
        for n, b in enumerate(metrics["bins"], 1)
    ]
    told += "\n\n**Calibration.** Bins of equally many rows"
    if "calibration_error" in metrics:
        told += f"; the mean gap between the two last columns is {metrics['calibration_error']:.4f}"
    told += ".\n\n" + table(("bin", "predicted", "rows", "mean predicted", "happened"), bins)
    best = metrics["lift"][0]
    return f"{told}\n\n**Lift.** In the best tenth of the rows it happened {best:.2f} times as often as in all."


def _segments(spec: Spec, metrics: dict[str, Any]) -> str:
    segments = metrics["segments"]
    columns = list(segments[0]["centre"])
    outcome = "outcome" in segments[0]
    rows = []
    for each in segments:
        row = [f"`{each['name']}`", f"{each['rows']:,}", f"{each['share']:.1%}"]
        row += [f"{each['centre'][column]:.2f}" for column in columns]
        if outcome:
            row.append("" if each["outcome"] is None else f"{each['outcome']:.3f}")
        rows.append(row)
    heads = ("segment", "rows", "share", *columns, *(["afterwards"] if outcome else []))
    told = f"**Segments.** Centres in the inputs' own units.\n\n{table(heads, rows)}"
    if outcome:
        told += (
            "\n\nThe last column, the mean of the label, was not used in training: it shows what they went on to do."
        )
    rules = [
        f"{'most' if each.most else 'least'} `{each.input}`, `{each.name}`"
        if each.input
        else f"what is left, `{each.name}`"
        for each in spec.segments
    ]
    told += f"\n\n**How they get their names.** In turn, each from the centres that are left: {'; '.join(rules)}."
    value = metrics["held_out"]["silhouette"]["value"]
    which = "held out" if spec.validation.holds_out else "trained on"
    return f"{told}\n\n**Silhouette**, on the rows {which}: {value:.3f}, of -1 to 1."


def _importance(metrics: dict[str, Any]) -> str:
    named = sorted(metrics["importance"].items(), key=lambda item: -item[1])
    rows = [(f"`{name}`", f"{value:.5f}") for name, value in named]
    what = "the share of rows that change segment" if "segments" in metrics else "how much worse the model is"
    return f"**Importance.** By input, {what} when its values are dealt out anew.\n\n" + table(("input", ""), rows)


def _compared(metrics: dict[str, Any]) -> str:
    found = metrics.get("compared")
    if found is None:
        return ""
    told = f"**Beside the model in place** (version {found['version']}), on {found['rows']:,} rows"
    told += f"; {found['unanswered']:,} it does not answer." if found["unanswered"] else "."
    if "agree" in found:
        told += f" On {found['agree']:.1%} both say the same."
    rows = [
        (_WORDS[name], f"{each['new']:.4f}", f"{each['old']:.4f}", f"{each['better_by']:.4f}", _between(each))
        for name, each in found.get("metrics", {}).items()
    ]
    return told + ("\n\n" + table(("", "new", "in place", "better by", "95 % interval"), rows) if rows else "")


def _between(each: dict[str, Any]) -> str:
    return f"{each['low']:.4f} to {each['high']:.4f}" if "low" in each else ""


def _parity(metrics: dict[str, Any]) -> str:
    found = metrics["parity"]
    return (
        f"**Parity.** Over all {found['rows']:,} rows the ONNX form differs from the original by at most "
        f"{found['difference']:.1e}; more than {found['tolerance']:g} is refused. Some rows with the original's "
        "answers stand in `parity.json`."
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
