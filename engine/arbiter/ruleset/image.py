"""The image of a rule set: what a snapshot is on disk and what a worker opens, made by the loader once for all workers.

Law: pure, and made of parts that are known by their content: equal rules give equal parts, so that a change of one
file makes few new ones. A pack holds the rules of one authored file, each decodable alone; a block holds the bits of
some 3,400 branches of one decision point; the image says which bit of which block is which rule.

Rules stand in the static order of their decision point, best first. Where one block ends and the next begins depends
on the rules' ids there, not on their number: one rule more moves one border, not all behind it.
"""

from __future__ import annotations

import zlib
from array import array
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.expr.tree import Name
from arbiter.expr.view import Symbols
from arbiter.ruleset.blocks import MOST, block_of
from arbiter.ruleset.branches import Literal, branches_of, reads_of
from arbiter.ruleset.caps.tallies import caps_of, tallies_read
from arbiter.ruleset.experiments.kept import kept_name
from arbiter.ruleset.reads import reads_by_name
from arbiter.ruleset.render import expressions_of
from arbiter.ruleset.rules import DYNAMIC_KEYS, DecisionPoint, OrderKey, Rule, Ruleset

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


FORMAT: Final = 4
_LEAST = 3_300  # branches in a block before a border may come
_BORDER = 64  # one rule in so many is a border
_DIGEST = 16  # bytes
STORED: Final = frozenset({"profile", "account", "context", "features", "managed"})

_encode = msgspec.msgpack.Encoder(order="sorted").encode
_decode_frame = msgspec.msgpack.Decoder(Ruleset).decode


class Pack(msgspec.Struct, frozen=True, array_like=True):
    """The rules of one file: rule n is ``blob[ends[n - 1]:ends[n]]``; `ends` are u32, `digests` 16 bytes a rule."""

    ends: bytes
    digests: bytes
    blob: bytes


class BlockPart(msgspec.Struct, frozen=True, array_like=True):
    """A block of a point: the key of its bits, and for each bit its rule's number (u32) and its branch in it (u8)."""

    key: str
    rules: bytes
    branches: bytes


class PointPart(msgspec.Struct, frozen=True, array_like=True):
    """A decision point. `ranked` are all its rules' numbers (u32) in static order, disabled ones too.

    `edges` are the sorted µs at which rules begin or end; `timeless` says that, edges and feature windows apart, time
    alone cannot change an answer; `models` are those that its rules may ask for; `accounts` says that they may read the
    attributes of an account; `experiments` are those that its rules read; `bandits` the groups of them of
    which one is drawn. `reads` are the stored names and those of the
    context that a decision may read, through models too, and `salts` those by which subjects are let in: None in an
    image of before they were kept.
    """

    name: str
    blocks: tuple[BlockPart, ...]
    ranked: bytes
    models: tuple[str, ...]
    timeless: bool
    edges: tuple[int, ...]
    accounts: bool
    reads: tuple[tuple[str, str], ...] | None = None
    salts: tuple[str, ...] | None = None
    experiments: tuple[str, ...] = ()
    bandits: tuple[str, ...] = ()


class Image(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """A rule set, all but the content of its parts. `written` is its `frame` as the version wrote it that made the
    image: it is part of what names the snapshot, and a later version, whose frames say more, would write another.
    `packs` are keys with the number of rules in each: rules are numbered through all packs.
    """

    format: int
    written: msgspec.Raw
    packs: tuple[tuple[str, int], ...]
    points: tuple[PointPart, ...]

    @cached_property
    def frame(self) -> Ruleset:
        """The rule set without rules. Raises msgspec.DecodeError when it is none."""
        return _decode_frame(self.written)

    @property
    def parts(self) -> frozenset[str]:
        """The keys of all parts."""
        blocks = (block.key for point in self.points for block in point.blocks)
        return frozenset((*(key for key, _ in self.packs), *blocks))

    @property
    def rules(self) -> int:
        """How many rules there are."""
        return sum(count for _, count in self.packs)


class Made(msgspec.Struct, frozen=True):
    """An image with the content of its parts, by key."""

    image: Image
    parts: Mapping[str, bytes]


class _Pressed(msgspec.Struct, frozen=True):
    """What is made of one rule: its bytes, the literals of its branches, and what it reads."""

    rule: Rule
    encoded: bytes
    digest: bytes
    literals: tuple[tuple[Literal, ...], ...]
    literals_digest: bytes
    reads: frozenset[tuple[str, ...]]


def symbols_of(frame: Ruleset, model_inputs: Mapping[str, tuple[tuple[str, ...], ...]]) -> Symbols:
    """What names stand for in a rule set with these models."""
    return Symbols(
        reads_by_name(frame.computed),
        {s.name: s.condition.root for s in frame.segments},
        dict(model_inputs),
        frozenset(frame.personal),
        frame.experiments.reads,
    )


def key_of(content: bytes) -> str:
    """The name of a part: 32 hexadecimal characters."""
    return blake2b(content, digest_size=_DIGEST).hexdigest()


def static_order(point: DecisionPoint) -> tuple[OrderKey, ...]:
    """The keys of a point's order before its first dynamic one."""
    cut = next((i for i, key in enumerate(point.order) if key in DYNAMIC_KEYS), len(point.order))
    return point.order[:cut]


def rank_of(rule: Rule, static: Iterable[OrderKey]) -> tuple[int, ...]:
    """What sorts rules of one point by these keys, best first; equal for rules of one tier."""
    return tuple([-rule.priority if key == "priority" else -rule.specificity for key in static])


def tie_break(rule: Rule) -> tuple[str, int, str]:
    """What sorts rules that are equal on every order key: ids, but rows of one table by their number."""
    return rule.table or rule.id, rule.row, rule.id


class Maker:
    """Makes images, and remembers what it made of rules and blocks: of the same rule objects only what is new is made.

    It keeps what the last image used, nothing more. Blocks have at most `most` branches, if a rule has no more.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._segments = b""
        self._pressed: dict[int, _Pressed] = {}
        self._packs: dict[tuple[bytes, ...], tuple[str, bytes]] = {}
        self._blocks: dict[bytes, tuple[str, bytes]] = {}

    def make(self, ruleset: Ruleset, model_inputs: Mapping[str, tuple[tuple[str, ...], ...]]) -> Made:
        """The image of `ruleset`. `model_inputs` has, by model, the names (root, name) that it reads."""
        symbols = symbols_of(ruleset, model_inputs)
        segments = _encode([ruleset.segments, ruleset.experiments])
        known = self._pressed if segments == self._segments else {}
        # Rules are told apart by identity, and held, so that no other rule takes the place of one.
        pressed = {id(rule): known.get(id(rule)) or _press(rule, symbols) for rule in ruleset.rules}
        self._segments, self._pressed = segments, pressed
        by_file: dict[str, list[_Pressed]] = {}
        for each in pressed.values():
            by_file.setdefault(each.rule.position.partition(":")[0], []).append(each)
        contents: dict[str, bytes] = {}
        packs, numbers = self._pack(by_file, contents)
        points = self._points(ruleset, pressed, numbers, symbols, contents)
        frame = msgspec.Raw(_encode(msgspec.structs.replace(ruleset, rules=())))
        return Made(Image(FORMAT, frame, packs, points), contents)

    def _pack(
        self, by_file: Mapping[str, list[_Pressed]], contents: dict[str, bytes]
    ) -> tuple[tuple[tuple[str, int], ...], dict[int, int]]:
        """The packs, and the number of each rule by its identity."""
        packs: list[tuple[str, int]] = []
        numbers: dict[int, int] = {}
        kept: dict[tuple[bytes, ...], tuple[str, bytes]] = {}
        for _, rules in sorted(by_file.items()):
            digests = tuple(each.digest for each in rules)
            key, content = self._packs.get(digests) or _packed(rules)
            kept[digests] = (key, content)
            contents[key] = content
            for each in rules:
                numbers[id(each.rule)] = len(numbers)
            packs.append((key, len(rules)))
        self._packs = kept
        return tuple(packs), numbers

    def _points(
        self,
        ruleset: Ruleset,
        pressed: Mapping[int, _Pressed],
        numbers: Mapping[int, int],
        symbols: Symbols,
        contents: dict[str, bytes],
    ) -> tuple[PointPart, ...]:
        by_point: dict[str, list[_Pressed]] = {point.name: [] for point in ruleset.decisions}
        for each in pressed.values():
            by_point[each.rule.decision].append(each)
        kept: dict[bytes, tuple[str, bytes]] = {}
        points = []
        for declared in ruleset.decisions:
            static = static_order(declared)
            rules = sorted(by_point[declared.name], key=lambda p: (rank_of(p.rule, static), *tie_break(p.rule)))
            blocks = []
            for members in _cut((each for each in rules if each.rule.enabled), self._most):
                name = blake2b(b"".join(each.literals_digest for each in members)).digest()
                known = kept.get(name) or self._blocks.get(name) or _block(members)
                kept[name] = known
                contents[known[0]] = known[1]
                blocks.append(_placed(known[0], members, numbers))
            points.append(_point(declared, rules, blocks, numbers, symbols, ruleset))
        self._blocks = kept
        return tuple(points)


def _press(rule: Rule, symbols: Symbols) -> _Pressed:
    encoded = _encode(rule)
    literals = tuple(branch.literals for branch in branches_of([e.root for e in rule.when], symbols))
    return _Pressed(
        rule=rule,
        encoded=encoded,
        digest=blake2b(encoded, digest_size=_DIGEST).digest(),
        literals=literals,
        literals_digest=blake2b(_encode(literals), digest_size=_DIGEST).digest(),
        reads=names_read(rule, symbols),
    )


def names_read(rule: Rule, symbols: Symbols) -> frozenset[tuple[str, ...]]:
    """Every outside name that a decision may read for a rule, with segments followed; of models their own."""
    rendered = [e.root for param in rule.then.params.values() for e in expressions_of(param)]
    nodes = [*(e.root for e in rule.when), *rendered, *([rule.value.root] if rule.value else [])]
    if rule.rollout is not None and rule.rollout.by != "subject":
        nodes.append(Name(tuple(rule.rollout.by.split("."))))
    if rule.active is not None and rule.active.local is not None:
        nodes.append(Name(("profile", rule.active.local.zone.attribute)))
    nodes += [Name(("profile", cap.zone.attribute)) for cap in caps_of(rule) if cap.zone is not None]
    read = reads_of(nodes, symbols)
    drawn = {kept_name(path[1]) for path in read if path[0] == "experiments"}
    return read | tallies_read(rule) | {("features", name) for name in drawn if name in symbols.features}


def stored_names(reads: Iterable[tuple[str, ...]], symbols: Symbols) -> tuple[tuple[str, str], ...]:
    """Of the names that rules read those that are stored or come with a request, and what their models read."""
    found = set(reads)
    found |= {path for read in reads if read[0] == "models" for path in symbols.model_inputs.get(read[1], ())}
    return tuple(sorted({(path[0], path[1]) for path in found if path[0] in STORED}))


def salts_of(rules: Iterable[Rule]) -> tuple[str, ...]:
    """The salts by which rules let in a share of the subjects, by their ids."""
    rollouts = (rule.rollout for rule in rules if rule.enabled)
    return tuple(sorted({rollout.salt for rollout in rollouts if rollout is not None and rollout.by == "subject"}))


def _packed(rules: Sequence[_Pressed]) -> tuple[str, bytes]:
    ends = array("I", accumulate(len(each.encoded) for each in rules))
    content = _encode(
        Pack(ends.tobytes(), b"".join(each.digest for each in rules), b"".join(each.encoded for each in rules))
    )
    return key_of(content), content


def _cut(rules: Iterable[_Pressed], most: int) -> Iterable[list[_Pressed]]:
    """Blocks of rules: the branches of a rule stay together."""
    block: list[_Pressed] = []
    size = 0
    for each in rules:
        count = len(each.literals)
        border = size >= _LEAST and zlib.crc32(each.rule.id.encode()) % _BORDER == 0
        if size and (border or size + count > most):
            yield block
            block, size = [], 0
        if count:
            block.append(each)
            size += count
    if block:
        yield block


def _block(members: Sequence[_Pressed]) -> tuple[str, bytes]:
    content = _encode(block_of([literals for each in members for literals in each.literals]))
    return key_of(content), content


def _placed(key: str, members: Sequence[_Pressed], numbers: Mapping[int, int]) -> BlockPart:
    rules = array("I")
    branches = bytearray()
    for each in members:
        count = len(each.literals)
        rules.extend([numbers[id(each.rule)]] * count)
        branches.extend(range(count))
    return BlockPart(key, rules.tobytes(), bytes(branches))


def _point(
    declared: DecisionPoint,
    rules: Sequence[_Pressed],
    blocks: Sequence[BlockPart],
    numbers: Mapping[int, int],
    symbols: Symbols,
    ruleset: Ruleset,
) -> PointPart:
    reads = {path for each in rules for path in each.reads}
    models = {path[1] for path in reads if path[0] == "models"}
    reads |= {path for model in models for path in symbols.model_inputs.get(model, ())}
    read = [each for each in ruleset.experiments.each if any(path[:2] == ("experiments", each.name) for path in reads)]
    grouped = {each.rule.group for each in rules if each.rule.enabled}
    bandits = tuple(bandit.name for bandit in ruleset.bandits if bandit.name in grouped)
    actives = [each.rule.active for each in rules if each.rule.enabled and each.rule.active]
    actives += [each.active for each in read if each.enabled and each.active]
    edges = {t for a in actives for t in (a.start, a.until)}.union(*(each.edges for each in read))
    return PointPart(
        name=declared.name,
        blocks=tuple(blocks),
        ranked=array("I", [numbers[id(each.rule)] for each in rules]).tobytes(),
        models=tuple(sorted(models)),
        timeless=not any(path == ("now",) or _ages(path, symbols) for path in reads)
        and not any(active.local for active in actives)
        and not bandits,
        edges=tuple(sorted(t for t in edges if t is not None)),
        accounts=any(path[0] == "account" for path in reads),
        reads=stored_names(reads, symbols),
        salts=salts_of(each.rule for each in rules),
        experiments=tuple(each.name for each in read),
        bandits=bandits,
    )


def _ages(path: Sequence[str], symbols: Symbols) -> bool:
    return path[0] == "features" and symbols.features[path[1]].moves
