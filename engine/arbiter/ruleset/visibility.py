"""What is seen of a subject: everything but what its consent does not cover.

Law: the one place where consent is enforced. Whoever makes a view of a subject has it covered before anything reads it;
all that decides, explains or shows then sees no more. What is hidden is missing, so it is unknown: no default stands in
for it. A model with a hidden input has no outputs, since none may be imputed to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.expr.view import Visibility

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbiter.expr.view import Symbols, View

_KEPT = 4_096  # tuples of purposes that were met; a subject may have granted some that no rule knows
_NAMES_ACCOUNT = "profile.account_id"
_NOTHING: Mapping[str, Any] = {}


class Consent:
    """What `purposes` mean in one snapshot: `bound` has the purposes of attributes and features by dotted name,
    `models` those of models.
    """

    def __init__(
        self,
        purposes: Iterable[str],
        bound: Mapping[str, tuple[str, ...]],
        models: Mapping[str, tuple[str, ...]],
        symbols: Symbols,
    ) -> None:
        self.purposes = frozenset(purposes)
        self._bound = bound
        self._models = models
        self._symbols = symbols
        self._met: dict[tuple[str, ...], Visibility] = {}
        self._made: dict[frozenset[str], Visibility] = {}

    def cover(self, view: View, granted: tuple[str, ...]) -> None:
        """Take out of a fresh view what its subject, who granted these purposes, does not let be seen."""
        seen = self._met.get(granted) or self.under(granted)
        view.consent = seen
        if seen.profile:
            view.profile = _without(view.profile, seen.profile)
        if seen.no_account:
            view.account = _NOTHING
        elif seen.account and view.account:
            view.account = _without(view.account, seen.account)
        if seen.context and view.context:
            view.context = _without(view.context, seen.context)
        if seen.features:
            view.features = _without(view.features, seen.features)
        if seen.models:
            view.models = {**view.models, **seen.models}

    def under(self, granted: tuple[str, ...]) -> Visibility:
        """What is seen of a subject who granted these purposes: the same object for the same ones."""
        purposes = self.purposes.intersection(granted)
        found = self._made.get(purposes)
        if found is None:
            found = self._made[purposes] = self._make(purposes)
        if len(self._met) >= _KEPT:
            self._met.clear()
        self._met[granted] = found
        return found

    def _make(self, granted: frozenset[str]) -> Visibility:
        denied = _lacking(self._bound, granted)
        names: dict[str, list[str]] = {root: [] for root in ("profile", "account", "context", "features")}
        for dotted in denied:
            root, _, name = dotted.partition(".")
            names[root].append(name)
        dark = _lacking({f"models.{name}": purposes for name, purposes in self._models.items()}, granted)
        for model, inputs in self._symbols.model_inputs.items():
            through = {purpose for path in inputs for name in hiding(path) for purpose in denied.get(name, ())}
            if through:
                name = f"models.{model}"
                dark[name] = tuple(sorted(through.union(dark.get(name, ()))))
        return Visibility(
            granted=granted,
            denied=denied | dark,
            profile=tuple(names["profile"]),
            account=tuple(names["account"]),
            no_account=_NAMES_ACCOUNT in denied,
            context=tuple(names["context"]),
            features=tuple({self._symbols.features[name].key: None for name in names["features"]}),
            models={name.partition(".")[2]: _NOTHING for name in dark},
        )


def hiding(path: tuple[str, ...]) -> tuple[str, ...]:
    """The dotted names of which each, when it is hidden, hides the name: an account's are seen through who names it."""
    dotted = ".".join(path[:2])
    return (dotted, _NAMES_ACCOUNT) if path[0] == "account" else (dotted,)


def _without(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    left = dict(values)
    for name in names:
        left.pop(name, None)
    return left


def _lacking(bound: Mapping[str, tuple[str, ...]], granted: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """The purposes that are not granted, of each name that lacks some."""
    found = {name: tuple(each for each in purposes if each not in granted) for name, purposes in bound.items()}
    return {name: lacking for name, lacking in found.items() if lacking}
