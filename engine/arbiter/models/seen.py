"""What a model saw of a subject and what it answered, for people.

Law: slow, and only for explanations. It reads a view as `rows` does, input by input, and runs nothing; values that are
declared personal are withheld.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.models.failure import ModelFailure
from arbiter.models.rows import encoder_of, is_missing
from arbiter.types import Lack, ModelInput, ModelOutcome

if TYPE_CHECKING:
    from arbiter.expr.view import Symbols, View
    from arbiter.models.manifest import Input
    from arbiter.models.model import Model

_LACKS = {
    Lack.LATE: "it would not have been done before the deadline",
    Lack.FAILED: "it failed",
    Lack.OVERRIDDEN: "it is switched off",
}


def seen(model: Model, view: View, symbols: Symbols) -> ModelOutcome:
    """What became of a model that the view has, with outputs or without."""
    denied = {name: view.consent.denied[name] for name in _names(model) if name in view.consent.denied}
    inputs = tuple(_input(item, dtype, view, symbols) for item, dtype in model.takes)
    outputs = dict(view.models[model.name])
    lack = view.failed.get(model.name)
    if lack is not None:
        detail = _LACKS[lack]
    elif denied or outputs:
        detail = ""
    else:
        unknown = [f"`{each.name}`" for each in inputs if not each.columns and not each.withheld]
        detail = f"nothing stands in for {', '.join(unknown)}" if unknown else "it gave no finite number, or no label"
    return ModelOutcome(model.name, model.version, inputs, outputs, lack, detail, denied)


def inputs_lacking(model: Model, view: View, symbols: Symbols) -> tuple[str, ...]:
    """The names without a value in whose place nothing may stand, so that the model has no outputs."""
    return tuple(
        f"{item.root}.{item.attribute}"
        for item in model.inputs
        if item.stand_in is None and item.form != "missing" and value_of(item, view, symbols) is None
    )


def _names(model: Model) -> list[str]:
    """The model's own name and those that it reads; an account's are seen through who names it."""
    read = [f"{item.root}.{item.attribute}" for item in model.inputs]
    through = ["profile.account_id"] if any(item.root == "account" for item in model.inputs) else []
    return list(dict.fromkeys([f"models.{model.name}", *read, *through]))


def _input(item: Input, dtype: str, view: View, symbols: Symbols) -> ModelInput:
    source = f"{item.root}.{item.attribute}"
    value = value_of(item, view, symbols)
    missing = is_missing(item, dtype, value, view.clock)
    try:
        row = encoder_of([(item, dtype)], item.name)(((value,), view.clock))
    except ModelFailure:
        row = None
    imputed = missing and item.form != "missing" and row is not None
    if source in symbols.personal:
        return ModelInput(item.name, source, imputed=imputed, withheld=True)
    return ModelInput(item.name, source, value, tuple(row or ()), imputed)


def value_of(item: Input, view: View, symbols: Symbols) -> Any:
    """What the view has for an input, None for nothing; a feature as expressions see it."""
    if item.root != "features":
        return getattr(view, item.root).get(item.attribute)
    feature = symbols.features.get(item.attribute)
    return None if feature is None else feature.value(view.features.get(feature.key), view.clock)
