"""How an option is declared, and what is known of each from its declaration.

Law: any option, none in particular; nothing is read here. Which options there are stands in `options`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

PREFIX: Final = "ARBITER_"
Value = str | int | float | bool
Shown = Literal["", "DIR", "FILE", "HOST:PORT", "TEXT"]


def option(
    meaning: str,
    *,
    least: float | None = None,
    most: float | None = None,
    shown: Shown = "",
    needs: str = "",
    none: bool = False,
) -> msgspec.Meta:
    """What stands beside the type of an option's field: its meaning in a sentence, and its bounds, both included.

    `shown` is what a text is; paths (``DIR``, ``FILE``) count from the file that they stand in. `needs` names another
    option of the same group without which this one makes no sense. With `none` the empty text may stand for nothing,
    as it may wherever it is the default.
    """
    return msgspec.Meta(description=meaning, ge=least, le=most, extra={"shown": shown, "needs": needs, "none": none})


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One option. `name` is ``workers`` or ``tls.certificate``; `words` are all that a closed choice may be."""

    name: str
    type: type[Value]
    default: Value
    meaning: str
    least: float | None = None
    most: float | None = None
    words: tuple[str, ...] = ()
    shown: Shown = ""
    needs: str = ""
    none: bool = False

    @property
    def group(self) -> str:
        """The group that it stands in, empty for none."""
        return self.name.rpartition(".")[0]

    @property
    def key(self) -> str:
        """Its key in the file, below that of its group."""
        return self.name.rpartition(".")[2]

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.replace(".", "_").upper()

    @property
    def flag(self) -> str:
        """The flag that sets it."""
        return "--" + self.name.replace(".", "-").replace("_", "-")

    def flag_of(self, value: Value) -> str:
        """The flag that gives a value; one that is false has a flag of its own."""
        return self.flag.replace("--", "--no-", 1) if value is False else self.flag

    @property
    def is_path(self) -> bool:
        """Whether a value is a place on disk."""
        return self.shown in {"DIR", "FILE"}

    @property
    def page(self) -> str:
        """What a value may be, as the page on configuration says it."""
        if self.words:
            return ", ".join(f"`{word}`" for word in self.words)
        if self.type is bool:
            return "`true`, `false`"
        return self.shown or f"{self.least:,.10g} to {self.most:,.10g}"

    @property
    def wanted(self) -> str:
        """What a value must be, as a message says it."""
        if self.words:
            return "one of " + ", ".join(f"`{word}`" for word in self.words)
        if self.type is bool:
            return "`true` or `false`"
        if self.type is str:
            return self.shown if self.shown == "HOST:PORT" else "text"
        noun = "an integer" if self.type is int else "a number"
        return f"{noun} from {self.least:,.10g} to {self.most:,.10g}"


def written(value: Value) -> str:
    """A value as people write it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def declared(struct: type[msgspec.Struct], group: str = "") -> tuple[Option, ...]:
    """The options that the fields of a struct declare, in order; a field whose type is a struct is a group of them."""
    found: list[Option] = []
    for field in msgspec.structs.fields(struct):
        name = f"{group}.{field.name}" if group else field.name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found += declared(field.type, name)
            continue
        kind: Any = field.type.__origin__
        said: msgspec.Meta = field.type.__metadata__[0]
        extra = said.extra or {}
        found.append(
            Option(
                name=name,
                type=kind if isinstance(kind, type) else str,
                default=field.default,
                meaning=said.description or "",
                least=said.ge,
                most=said.le,
                words=() if isinstance(kind, type) else kind.__args__,
                shown=extra["shown"],
                none=extra["none"] or field.default == "",
                needs=f"{group}.{extra['needs']}" if extra["needs"] else "",
            )
        )
    return tuple(found)
