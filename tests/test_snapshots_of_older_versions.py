"""Snapshots that an older version archived: they open, decide as they did, and what is damaged is still found."""

from __future__ import annotations

import itertools
import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from arbiter.errors import StoreError
from arbiter.ruleset.image import key_of
from arbiter.ruleset.rules import Rule, Ruleset
from arbiter.runtime.archive import Archive
from arbiter.runtime.local import open_local
from arbiter.types import Request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arbiter.runtime.engine import Engine

RULES = """
schema: {profile: {plan: string}}
features: {visits: {count: visit}}
decisions: {home: {default: {action: rest}}}
rules:
  - {id: a, decision: home, when: profile.plan == "gold", then: {action: show, params: {text: gold}}}
  - {id: b, decision: home, when: features.visits == 0, then: {action: show, params: {text: new}}}
"""
encode = msgspec.msgpack.Encoder(order="sorted").encode


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "r.yaml").write_text(RULES)
    found, _ = open_local(tmp_path / "rules", None, tmp_path / "data")
    yield found
    found.store.close()


def without_defaults(kind: type[msgspec.Struct], written: dict[str, Any]) -> dict[str, Any]:
    """As a version wrote it that did not know the fields that have defaults, where these say nothing."""
    said = {
        field.name: field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        for field in msgspec.structs.fields(kind)
        if not field.required
    }
    silent: dict[str, Any] = msgspec.msgpack.decode(encode(said))
    return {name: value for name, value in written.items() if name not in silent or silent[name] != value}


def age(folder: Path, digest: str) -> str:
    """Have the snapshot of `digest` be one that an older version wrote; gives the digest that this had."""
    image = msgspec.msgpack.decode((folder / digest / "image.msgpack").read_bytes())
    frame = without_defaults(Ruleset, image[1])
    assert frame.keys() < image[1].keys()
    image[1] = frame
    keys = []
    for key, count in image[2]:
        ends, digests, blob = msgspec.msgpack.decode((folder / "parts" / key).read_bytes())
        bounds = [0, *memoryview(ends).cast("I")]
        rules = [
            encode(without_defaults(Rule, msgspec.msgpack.decode(blob[start:end])))
            for start, end in itertools.pairwise(bounds)
        ]
        assert sum(map(len, rules)) < len(blob)
        sizes = [sum(map(len, rules[: n + 1])) for n in range(len(rules))]
        content = encode([b"".join(size.to_bytes(4, "little") for size in sizes), digests, b"".join(rules)])
        (folder / "parts" / key_of(content)).write_bytes(content)
        keys.append([key_of(content), count])
    image[2] = keys
    older = blake2b(encode([frame, keys, []]), digest_size=16).hexdigest()
    (folder / digest).rename(folder / older)
    (folder / older / "image.msgpack").write_bytes(encode(image))
    meta = json.loads((folder / older / "meta.json").read_bytes())
    (folder / older / "meta.json").write_text(json.dumps(meta | {"digest": older}))
    return older


def test_a_snapshot_of_before_a_field_was_there_opens_and_decides(engine: Engine, tmp_path: Path) -> None:
    assert engine.snapshot is not None
    folder = tmp_path / "data" / "snapshots"
    older = age(folder, engine.snapshot.digest)
    assert older != engine.snapshot.digest
    read = Archive(folder).read(older, {})
    assert (read.digest, read.ruleset) == (older, engine.snapshot.ruleset)
    engine.activate(read)
    (decision,) = engine.decide(Request("ann", ("home",), engine.clock()))
    assert [each.rule_id for each in decision.treatments] == ["b"]
    # It is put on disk as it was, and so under the name that it has.
    Archive(tmp_path / "again").write(read, (), {})
    again, kept = (each / older / "image.msgpack" for each in (tmp_path / "again", folder))
    assert again.read_bytes() == kept.read_bytes()


def test_what_is_damaged_in_it_is_found(engine: Engine, tmp_path: Path) -> None:
    assert engine.snapshot is not None
    folder = tmp_path / "data" / "snapshots"
    older = age(folder, engine.snapshot.digest)
    image = folder / older / "image.msgpack"
    image.write_bytes(image.read_bytes().replace(b"r.yaml", b"q.yaml"))
    with pytest.raises(StoreError, match="is damaged"):
        Archive(folder).read(older, {})
