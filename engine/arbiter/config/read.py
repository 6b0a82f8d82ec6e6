"""From a file, the environment and flags to options, or to every mistake in them.

Law: pure; all three are arguments. Later sources win: defaults, file, environment, flags. A mistake in a value that
another source overrules is a mistake all the same.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.authoring.blocks import Block
from arbiter.authoring.documents import Form, read_documents
from arbiter.authoring.nodes import Mapping, Node, is_nothing, kind_of
from arbiter.authoring.report import Report
from arbiter.config.declare import PREFIX, Option, Value, written
from arbiter.config.judge import Unfit, of_node, of_text
from arbiter.config.options import OPTIONS, OTHER_VARIABLES, Options
from arbiter.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping as AnyMapping

    from arbiter.errors import Diagnostic

FORM: Final = Form("a configuration", 1 << 20, "it holds options; rules and keys have files of their own")
DEFAULT: Final = "default"
_GROUPS: Final = tuple(dict.fromkeys(each.group for each in OPTIONS.values() if each.group))
_VARIABLES: Final = {each.variable: each for each in OPTIONS.values()}
_NAMES: Final = [name.removeprefix(PREFIX) for name in _VARIABLES]
# What Kubernetes sets for every service: one that is called `arbiter` gives ARBITER_SERVICE_HOST and its like.
_SERVICE_LINK: Final = re.compile(
    r"\w+_(?:SERVICE_HOST=.*|SERVICE_PORT(?:_\w+)?=\d+|PORT=\w+://.*|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?=.*)", re.DOTALL
)


class Given(msgspec.Struct, frozen=True):
    """A value and where it stands: ``shop.yaml:3``, ``ARBITER_WORKERS``, ``--workers``. `node` is there for a file."""

    value: Value
    place: str
    node: Node | None = None


class Chosen(msgspec.Struct, frozen=True):
    """The options, and for each by name where its value came from."""

    options: Options
    places: dict[str, str]

    def rows(self) -> list[tuple[Option, Value, str]]:
        """Each option with its value and where that came from."""
        return [(each, _value(self.options, name), self.places[name]) for name, each in OPTIONS.items()]


class ConfigFile(msgspec.Struct, frozen=True):
    """A file as it was read; `name` is how it is called, and paths in it count from where that lies."""

    name: str
    content: bytes


def choose(
    file: ConfigFile | None, environment: AnyMapping[str, str], flags: AnyMapping[str, str | bool]
) -> tuple[Chosen | None, list[Diagnostic]]:
    """The options that these give; `flags` are by the option's name. None beside any mistake."""
    chooser = _Chooser()
    if file is not None:
        chooser.take_file(file)
    chooser.take_environment(environment)
    chooser.take_flags(flags)
    chooser.compare()
    if chooser.report:
        return None, chooser.report.found
    return chooser.chosen(), []


class _Chooser:
    def __init__(self) -> None:
        self.report = Report()
        self._given: dict[str, Given] = {}
        self._refused: set[str] = set()

    def take_file(self, file: ConfigFile) -> None:
        """Every option in the file."""
        roots = read_documents(file.name, file.content, FORM, self.report)
        for root in (roots or ())[1:]:
            self.report.at(root, "a configuration is one document, and here begins another")
        if roots:
            folder = PurePosixPath(file.name).parent
            keys = [each.key for each in OPTIONS.values() if not each.group]
            self._take_block(roots[0], "", (*keys, *_GROUPS), folder)

    def _take_block(self, node: Node, group: str, keys: tuple[str, ...], folder: PurePosixPath) -> None:
        if not isinstance(node, Mapping):
            what = f"`{group}`" if group else "a configuration"
            self.report.at(node, f"{what} must be a mapping (`key: value` lines), not {kind_of(node)}", path=group)
            return
        dotted = [key for key in node.entries if key in OPTIONS and key not in keys]
        what = f"`{group}`" if group else "a configuration"
        Block(node, self.report, what=what, path=group, keys=(*keys, *dotted))
        for key, entry in node.entries.items():
            if key in dotted:
                option = OPTIONS[key]
                hint = f"write `{option.key}` below `{option.group}:`" if option.group else "write it without indent"
                self.report.at(entry.key, f"`{key}` does not stand in {what}", hint, key)
            if entry.node is None or key not in keys:
                continue
            if not group and key in _GROUPS:
                if not is_nothing(entry.node):
                    below = tuple(each.key for each in OPTIONS.values() if each.group == key)
                    self._take_block(entry.node, key, below, folder)
                continue
            self._take_node(OPTIONS[f"{group}.{key}" if group else key], entry.node, folder)

    def _take_node(self, option: Option, node: Node, folder: PurePosixPath) -> None:
        try:
            value = of_node(option, node)
        except Unfit as error:
            self._refused.add(option.name)
            self.report.at(node, str(error), error.hint, option.name)
            return
        if option.is_path and value:
            value = str(folder / str(value))
        line, _ = node.source.place(node.start)
        self._given[option.name] = Given(value, f"{node.source.file}:{line}", node)

    def take_environment(self, environment: AnyMapping[str, str]) -> None:
        """Every option in the environment."""
        for name in sorted(environment):
            text = environment[name]
            if name in _VARIABLES:
                self._take_text(_VARIABLES[name], text, name)
            elif (
                name.startswith(PREFIX)
                and name not in OTHER_VARIABLES
                and not _SERVICE_LINK.fullmatch(f"{name}={text}")
            ):
                near = did_you_mean(name.removeprefix(PREFIX), _NAMES)
                hint = near.replace("`", f"`{PREFIX}", 1) or "unset it; `arbiter config show` lists the options"
                self.report.whole(name, "no option has this name", hint)

    def take_flags(self, flags: AnyMapping[str, str | bool]) -> None:
        """Every option on the command line."""
        for name, said in flags.items():
            option = OPTIONS[name]
            self._take_text(option, said if isinstance(said, str) else written(said), option.flag_of(said))

    def _take_text(self, option: Option, text: str, place: str) -> None:
        try:
            self._given[option.name] = Given(of_text(option, text), place)
        except Unfit as error:
            self._refused.add(option.name)
            self.report.whole(place, str(error), error.hint)

    def compare(self) -> None:
        """Hold the options against each other."""
        for name, given in self._given.items():
            if name in self._refused or given.value == OPTIONS[name].default:
                continue
            needs = OPTIONS[name].needs
            if needs and needs not in self._refused and (needs not in self._given or not self._given[needs].value):
                self._refuse(given, f"`{name}` is of no use without `{needs}`", f"give `{needs}` too", name)
        self._compare_addresses()

    def _compare_addresses(self) -> None:
        """No two listeners fit on one port, unless any free one is asked for."""
        seen: dict[Value, str] = {}
        for name, option in OPTIONS.items():
            given = self._given.get(name) or Given(option.default, DEFAULT)
            address = given.value
            if option.shown != "HOST:PORT" or name in self._refused or not address or str(address).endswith(":0"):
                continue
            if address in seen:
                other = seen[address]
                place = self._given[other].place if other in self._given else DEFAULT
                self._refuse(
                    given, f"`{name}` and `{other}` ({place}) are both `{address}`", "give one another port", name
                )
            seen.setdefault(address, name)

    def _refuse(self, given: Given, message: str, hint: str, name: str) -> None:
        if given.node is not None:
            self.report.at(given.node, message, hint, name)
        else:
            self.report.whole(given.place, message, hint)

    def chosen(self) -> Chosen:
        """What was given, and the defaults of the rest."""
        tree: dict[str, Any] = {group: {} for group in _GROUPS}
        for name, given in self._given.items():
            option = OPTIONS[name]
            (tree[option.group] if option.group else tree)[option.key] = given.value
        places = {name: self._given[name].place if name in self._given else DEFAULT for name in OPTIONS}
        return Chosen(msgspec.convert(tree, Options), places)


def _value(options: Options, name: str) -> Value:
    value: Any = options
    for part in name.split("."):
        value = getattr(value, part)
    found: Value = value
    return found
