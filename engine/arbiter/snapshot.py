"""One frozen, complete version of everything that decisions depend on.

Law: opened whole from an image, never changed. A request reads the reference once and sees one version throughout.
Equal inputs give equal digests, whatever the order of files. Opening pauses now and then, so that a thread that serves
calls beside it is not held up; what did not change is taken over from the snapshot before.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Callable, Generator
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

import msgspec

from arbiter.errors import NotFound, did_you_mean
from arbiter.models.merged import Merged, families
from arbiter.models.pace import Pace
from arbiter.models.rows import row_of, rows_of
from arbiter.ruleset.blocks import BlockBits
from arbiter.ruleset.compiled import Point, Rules
from arbiter.ruleset.image import FORMAT, Image, Maker, Pack, symbols_of
from arbiter.ruleset.index import open_block, open_index
from arbiter.ruleset.visibility import Consent
from arbiter.types import DECISION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbiter.expr.view import Symbols, View
    from arbiter.models.model import Model
    from arbiter.models.rows import Row
    from arbiter.models.trial import Trial
    from arbiter.ruleset.compiled import CompiledRule
    from arbiter.ruleset.index import Block
    from arbiter.ruleset.rules import Ruleset

_encode = msgspec.msgpack.Encoder(order="sorted").encode
_image_decoder = msgspec.msgpack.Decoder(Image)
_Found = TypeVar("_Found")
_FEW = 8  # decision points that a message names
Buffer = bytes | memoryview
Fetch = Callable[[str], Generator[None, None, Buffer]]
"""Gives the content of a part by its key, in steps."""


def pack(image: Image) -> bytes:
    """The canonical MessagePack of an image."""
    return _encode(image)


def unpack(data: bytes) -> Image:
    """The image of its MessagePack; raises msgspec.DecodeError for anything else, an older format too."""
    image = _image_decoder.decode(data)
    if image.format != FORMAT:
        raise msgspec.DecodeError(f"the image has format {image.format}, this version reads {FORMAT}")
    image.frame  # noqa: B018 - read now, so that what is damaged is found here
    return image


def digest_of(image: Image, model_digests: Mapping[str, str]) -> str:
    """The 32 hexadecimal characters that name a snapshot: its rules by their packs, not how they are indexed."""
    named = [image.written, sorted(image.packs), sorted(model_digests.items())]
    return blake2b(_encode(named), digest_size=16).hexdigest()


def at_hand(parts: Mapping[str, bytes]) -> Fetch:
    """What fetches parts that are in memory."""

    def fetch(key: str) -> Generator[None, None, Buffer]:
        yield from ()
        return parts[key]

    return fetch


def model_inputs(models: Mapping[str, Model], trials: Mapping[str, Trial]) -> dict[str, tuple[tuple[str, str], ...]]:
    """By model the names that it reads, each by its path, and those that the version reads that is tried."""
    found = {name: [(each.root, each.attribute) for each in model.inputs] for name, model in models.items()}
    for name, trial in trials.items():
        paths = [(each.root, each.attribute) for each in trial.model.inputs]
        found[name] += [path for path in paths if path not in found[name]]
    return {name: tuple(paths) for name, paths in found.items()}


def finished(steps: Generator[None, None, _Found]) -> _Found:
    """What comes of opening, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: _Found = end.value
            return found


def _taken_over(
    old: Point | None, order: tuple[str, ...], ranked: bytes, rules: Rules
) -> Generator[None, None, dict[bytes, CompiledRule]]:
    """The compiled rules of the point before that are still its rules."""
    if old is None or old.declared.order != order:
        return {}
    taken: dict[bytes, CompiledRule] = {}
    for count, number in enumerate(array("I", ranked)):
        digest = rules.digest(number)
        compiled = old.known.get(digest)
        if compiled is not None:
            taken[digest] = compiled
        if count % 256 == 255:  # noqa: PLR2004 - some 100 µs
            yield
    return taken


class Joint(msgspec.Struct, frozen=True):
    """Models that run as one: what reads their rows from a view, see `rows_of`, their graph, and how long it takes: for
    one view, and for each of many.
    """

    rows: Callable[[View], tuple[Row, int]]
    merged: Merged
    pace: Pace
    pace_of_row: Pace


class _Opened(msgspec.Struct, frozen=True):
    """What opening an image gives: all of a snapshot but its models."""

    image: Image
    symbols: Symbols
    points: dict[str, Point]
    packs: dict[str, Pack]
    blocks: dict[str, Block]


def _open(
    image: Image, fetch: Fetch, inputs: Mapping[str, tuple[tuple[str, ...], ...]], before: Snapshot | None
) -> Generator[None, None, _Opened]:
    packs: dict[str, Pack] = {}
    for key, _ in image.packs:
        known_pack = before.packs.get(key) if before else None
        packs[key] = known_pack or msgspec.msgpack.decode((yield from fetch(key)), type=Pack)
        yield
    blocks: dict[str, Block] = {}
    for key in dict.fromkeys(block.key for point in image.points for block in point.blocks):
        known = before.blocks.get(key) if before else None
        if known is None:
            content = yield from fetch(key)
            yield
            bits = msgspec.msgpack.decode(content, type=BlockBits)
            yield
            known = yield from open_block(bits)
        blocks[key] = known
    symbols = symbols_of(image.frame, inputs)
    rules = Rules([packs[key] for key, _ in image.packs])
    alike = before is not None and _encode(before.symbols) == _encode(symbols)
    yield
    points = {}
    declared = {point.name: point for point in image.frame.decisions}
    for part in image.points:
        index = yield from open_index([blocks[block.key] for block in part.blocks], symbols, part.name)
        old = before.points.get(part.name) if before and alike else None
        known_rules = yield from _taken_over(old, declared[part.name].order, part.ranked, rules)
        bandits = {bandit.name: bandit for bandit in image.frame.bandits if bandit.name in part.bandits}
        points[part.name] = Point(declared[part.name], part, index, rules, symbols, known_rules, bandits)
        yield
    return _Opened(image, symbols, points, packs, blocks)


class Snapshot:
    """Rules and models of one version, ready to decide.

    Made at once of a rule set and its models (a `maker` that made its image before does less, and so does taking over
    from the snapshot `before`), or by `open_snapshot` of an image. `frame` is the rule set without its rules. `rows`
    has, by model, the function that builds the model's input row from a view (None when an input without default is
    missing). `consent` takes out of views what their subjects do not let be seen, None where no purposes are declared.
    `packs` and `blocks` are its parts, by key. `merged` has, by the names of models that were needed together, what
    runs them as one; it grows by `merge`, and changes no answer. `trials` are versions of models that are tried on
    some subjects, by name; `counts_decisions` says that caps count some; `tried` gives what decides for these,
    and `trying` is what it was given.
    """

    def __init__(
        self,
        ruleset: Ruleset,
        models: Mapping[str, Model],
        maker: Maker | None = None,
        before: Snapshot | None = None,
        trials: Mapping[str, Trial] | None = None,
    ) -> None:
        inputs = model_inputs(models, trials or {})
        made = (maker or Maker()).make(ruleset, inputs)
        self._take(finished(_open(made.image, at_hand(made.parts), inputs, before)), models, trials or {})
        self.parts = made.parts

    def _take(self, opened: _Opened, models: Mapping[str, Model], trials: Mapping[str, Trial]) -> None:
        self.image = opened.image
        self.frame = opened.image.frame
        digests = {name: model.digest for name, model in models.items()}
        digests |= {f"{name} canary": f"{t.model.digest} {t.share!r} {t.salt}" for name, t in trials.items()}
        self.digest = digest_of(opened.image, digests)
        self.symbols = opened.symbols
        self.counts_decisions = any(tally.event == DECISION for tally in self.frame.tallies)
        self.points = opened.points
        self.packs = opened.packs
        self.blocks = opened.blocks
        self.trials = dict(trials)
        self.trying: tuple[str, ...] = ()
        self._serve(models)

    def _serve(self, models: Mapping[str, Model]) -> None:
        """Decide with these models."""
        frame, symbols = self.frame, self.symbols
        self.models = dict(models)
        # What points know of models is true of those that are tried, too; consent is to the inputs of each.
        own = msgspec.structs.replace(symbols, model_inputs=model_inputs(models, {}))
        purposes = {name: model.purposes for name, model in models.items()}
        self.consent = Consent(frame.purposes, frame.bound, purposes, own) if frame.purposes else None
        self.merged: dict[tuple[str, ...], tuple[Joint, ...]] = {}
        self.rows: dict[str, Callable[[View], Row | None]] = {
            name: row_of(model, symbols) for name, model in models.items()
        }
        self._tried: dict[tuple[str, ...], Snapshot] = {}

    def tried(self, names: tuple[str, ...]) -> Snapshot:
        """The same with the versions of these models that are tried, in place of those that are live."""
        found = self._tried.get(names)
        if found is None:
            made = copy.copy(self)
            made.trials = {}
            made.trying = names
            made._serve({**self.models, **{name: self.trials[name].model for name in names}})  # noqa: SLF001 - its own
            found = self._tried.setdefault(names, made)
        return found

    def known_models(self) -> list[Model]:
        """The models that are live, and those that are tried."""
        return [*self.models.values(), *(trial.model for trial in self.trials.values())]

    def merge(self, names: tuple[str, ...], before: Snapshot | None = None) -> None:
        """Have these models run as one graph from now on, or as several where they do not all fit into one.

        It takes milliseconds. What the snapshot before has of the same models is taken over. Raises ModelFailure.
        """
        joints = []
        for models in families([self.models[name] for name in names]):
            olds = before.merged.get(names, ()) if before else ()
            old = next((joint for joint in olds if joint.merged.models == models), None)
            rows = rows_of(models, self.symbols)
            fresh = (Merged(models), Pace(), Pace())
            joints.append(Joint(rows, *((old.merged, old.pace, old.pace_of_row) if old else fresh)))
        self.merged[names] = tuple(joints)

    def pieces(self) -> list[object]:
        """What holds most of the snapshot's objects. Whoever holds these can let a snapshot go, and then go bit by bit
        what is in it.
        """
        held: list[object] = []
        for point in self.points.values():
            held += [point.known, *point.entries]
            for attribute in point.index.attributes:
                held += [part for table in attribute.kinds for part in (table.exact, table.edges, table.spans)]
        for block in self.blocks.values():
            for attribute in block.attributes.values():
                held += [part for table in attribute.kinds for part in (table.exact, table.edges, table.spans)]
        return held

    @cached_property
    def parts(self) -> Mapping[str, bytes]:
        """The content of the image's parts, by key; made anew where the snapshot was opened from elsewhere."""
        return Maker().make(self.ruleset, model_inputs(self.models, self.trials)).parts

    @cached_property
    def ruleset(self) -> Ruleset:
        """The whole rule set as it was loaded: slow the first time, every rule is decoded."""
        rules = Rules([self.packs[key] for key, _ in self.image.packs])
        found = sorted((rules.rule(number) for number in range(rules.count)), key=lambda rule: rule.id)
        return msgspec.structs.replace(self.frame, rules=tuple(found))

    def point(self, name: str) -> Point:
        """The compiled decision point; raises NotFound with the closest known name."""
        found = self.points.get(name)
        if found is None:
            hint = did_you_mean(name, self.points) or _all_of(self.points)
            raise NotFound(f"there is no decision point `{name}`{'; ' + hint if hint else ''}", field="decision")
        return found

    def counts(self) -> dict[str, int]:
        """How many of each thing the snapshot holds; triggers are left out where there are none."""
        frame = self.frame
        found = {
            "decisions": len(frame.decisions), "rules": self.image.rules, "segments": len(frame.segments),
            "features": len(frame.features), "models": len(self.models), "triggers": len(frame.triggers),
        }  # fmt: skip
        return found if frame.triggers else {name: number for name, number in found.items() if name != "triggers"}


def open_snapshot(
    image: Image,
    fetch: Fetch,
    models: Mapping[str, Model],
    before: Snapshot | None = None,
    trials: Mapping[str, Trial] | None = None,
) -> Generator[None, None, Snapshot]:
    """Open an image; `fetch` gives the content of a part. What `before` has of it is not fetched again.

    A pause, a bare yield, comes at least every few hundred µs. Raises what `fetch` raises, and msgspec.DecodeError.
    """
    opened = yield from _open(image, fetch, model_inputs(models, trials or {}), before)
    snapshot = Snapshot.__new__(Snapshot)
    snapshot._take(opened, models, trials or {})  # noqa: SLF001 - its other constructor
    return snapshot


def _all_of(points: Mapping[str, Point]) -> str:
    """A hint that names the decision points, where they are few."""
    if not points:
        return "no rule file declares any"
    return f"the rules have {', '.join(f'`{each}`' for each in sorted(points))}" if len(points) <= _FEW else ""
