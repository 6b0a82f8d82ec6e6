"""What rule files declare of names whose values are stored: the type, the only values, and what stands for none.

Law: pure data with its checks; how it was declared is the rule set's matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.errors import InvalidField
from arbiter.profiles.values import as_declared, check_type
from arbiter.ruleset.rules import Merge  # noqa: TC001 - a field's type at run time

if TYPE_CHECKING:
    from arbiter.profiles.records import Update
    from arbiter.ruleset.rules import Ruleset

_LISTED: Final = 8  # values that a message tells


class Declared(msgspec.Struct, frozen=True):
    """Declared names, of attributes or of one event type's properties. A name that is not there may hold anything.

    `types` by name; `values` are the only ones allowed, for names that list some; `defaults` stand for attributes that
    are absent, `merges` say what becomes of those that two linked ids both have, `max_items` bound lists. `segments`
    are those that may be entered and left.
    """

    types: dict[str, str] = {}
    values: dict[str, tuple[Any, ...]] = {}
    defaults: dict[str, Any] = {}
    merges: dict[str, Merge] = {}
    max_items: dict[str, int] = {}
    segments: tuple[str, ...] = ()

    def check(self, name: str, value: Any, field: str, reason: str = "") -> None:
        """Raise InvalidField, with this `reason`, unless `value` is what is declared. An int is fine for a double."""
        declared = self.types.get(name)
        check_type(value, declared, field, reason)
        allowed = self.values.get(name)
        if allowed is not None and as_declared(value, declared) not in allowed:
            told = ", ".join(msgspec.json.encode(each).decode() for each in allowed[:_LISTED])
            more = " …" if len(allowed) > _LISTED else ""
            raise InvalidField(f"{field} is none of its declared values: {told}{more}", field=field, reason=reason)
        most = self.max_items.get(name)
        if most is not None and type(value) is list and len(value) > most:
            raise InvalidField(
                f"{field} has {len(value):,} items, and its declaration allows {most:,} (`max_items`): send the "
                "newest, or append them, which drops the oldest",
                field=field,
                reason=reason,
            )

    def newest(self, name: str, items: list[Any]) -> list[Any]:
        """A list without the oldest items that are beyond its bound."""
        most = self.max_items.get(name)
        return items if most is None else items[-most:]

    def stored(self, name: str, value: Any) -> Any:
        """A checked value as it is stored: an int becomes a double where one is declared."""
        return as_declared(value, self.types.get(name))


class Declarations(msgspec.Struct, frozen=True):
    """What is declared of the attributes of subjects and of accounts and, by event type, of properties.

    `named` says that ids of subjects are kept, since there are triggers, whose firings tell of whom they are.
    """

    profile: Declared = Declared()
    account: Declared = Declared()
    events: dict[str, Declared] = {}
    named: bool = False

    def of(self, update: Update) -> Declared:
        """What is declared of the attributes that an update changes."""
        return self.account if update.account_id else self.profile


def declared_by(ruleset: Ruleset) -> Declarations:
    """What a rule set declares."""

    def under(root: str, types: dict[str, str]) -> Declared:
        dotted = {name: f"{root}.{name}" for name in types}
        values = {name: ruleset.values[path] for name, path in dotted.items() if path in ruleset.values}
        most = {name: ruleset.max_items[path] for name, path in dotted.items() if path in ruleset.max_items}
        return Declared(types, values, ruleset.defaults_of(root), max_items=most)

    return Declarations(
        msgspec.structs.replace(
            under("profile", ruleset.profile_types), merges=ruleset.profile_merges, segments=ruleset.managed
        ),
        under("account", ruleset.account_types),
        {event: under(f"events.{event}", types) for event, types in ruleset.event_types.items()},
        named=bool(ruleset.triggers),
    )
