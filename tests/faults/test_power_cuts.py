"""Power cuts: what a run wrote and synced is recorded, and every moment of it is played back on a disk that lost power.

A write that no sync covers yet may be on the disk, or not, or in part, sector by sector, in any order. Whatever is
there, the store opens, and holds what was acknowledged until then.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from arbiter.errors import StoreError
from arbiter.profiles.copies import damage_of
from arbiter.profiles.store import Store
from tests.faults.preload import preloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
NOW = 1 << 60
SECTOR = 512
SUBJECTS = 7
# At each moment so many ways of what may have reached the disk are played back; 0 for one, drawn by lot.
WAYS = int(os.environ.get("POWER_CUTS", "0"))
RUN = """
import ctypes, shutil, sys
from pathlib import Path
from arbiter.profiles.compaction import compact
from arbiter.profiles.store import Store, Update
from arbiter.types import Event
place, base, recorder = Path(sys.argv[1]), Path(sys.argv[2]), ctypes.CDLL(sys.argv[3])
note = lambda text: recorder.note(text.encode())
with Store.open(place, background=False) as store:
    if sys.argv[4] == "writes":
        shutil.copyfile(place / "1" / "data.mdb", base)
        note("begin")
        for start in range(0, 60, 4):
            waiting = []
            for n in range(start, start + 4):
                value = "x" * (n * 97 % 6000)
                waiting.append((f"u {n}", store.update(Update(f"s{n % 7}", {f"a{n % 5}": [n, value]}))))
                waiting.append((f"e {n}", store.ingest([Event(f"e{n}", f"s{n % 7}", "buy", n, {})])))
            for told, future in waiting:
                future.result()
                note(told)
    else:
        for n in range(50):
            store.update(Update(f"s{n}", {"a": n})).result()
        note("begin")
        compact(store._environment, 1 << 30)
        store.update(Update("s1", {"a": 2})).result()
        note("acknowledged")
"""


class Op(NamedTuple):
    """A recorded call: see recorder.c."""

    kind: str
    path: str
    offset: int
    content: bytes


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorder, compiled."""
    return preloaded("recorder", tmp_path_factory.mktemp("recorder"))


def recorded(folder: Path, recorder: Path, what: str) -> list[Op]:
    """What a run did from its note "begin" on."""
    trace = folder / "trace"
    subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", RUN, str(folder / "store"), str(folder / "base"), str(recorder), what],
        env={"PYTHONPATH": str(ROOT / "engine"), "LD_PRELOAD": str(recorder), "RECORD_TO": str(trace)},
        check=True,
        timeout=120,
    )
    ops = list(read_trace(trace.read_bytes()))
    return ops[ops.index(Op("n", "", 0, b"begin")) + 1 :]


def read_trace(trace: bytes) -> Iterator[Op]:
    at = 0
    while at < len(trace):
        kind, length = struct.unpack_from("=cI", trace, at)
        path = trace[at + 5 : at + 5 + length].decode()
        offset, size = struct.unpack_from("=QI", trace, at + 5 + length)
        at += 17 + length
        yield Op(kind.decode(), path, offset, trace[at : at + size])
        at += size


class Disk:
    """A file as it is on the disk for certain, and the writes that may be."""

    def __init__(self, content: bytes) -> None:
        self._certain = bytearray(content)
        self.pending: list[Op] = []

    def do(self, op: Op) -> None:
        if op.kind == "w":
            self.pending.append(op)
        elif op.kind == "d":
            put(self._certain, op)
        elif op.kind == "s":
            for each in self.pending:
                put(self._certain, each)
            self.pending.clear()

    def after_a_cut(self, generator: random.Random, way: int) -> bytes:
        """One of the contents that may be found. The ways 0 and 1 are none and all of what is pending."""
        found = bytearray(self._certain)
        if way == 1:
            for op in self.pending:
                put(found, op)
        elif way:
            for op in generator.sample(self.pending, generator.randint(0, len(self.pending))):
                for start in range(0, len(op.content), SECTOR):
                    if generator.random() < 0.7:
                        put(found, op._replace(offset=op.offset + start, content=op.content[start : start + SECTOR]))
        return bytes(found)


def put(content: bytearray, op: Op) -> None:
    end = op.offset + len(op.content)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[op.offset : end] = op.content


def missing(place: Path, acknowledged: list[str]) -> list[str]:
    """What the store in `place` lacks of what was acknowledged."""
    latest: dict[tuple[int, int], int] = {}
    events = set()
    for kind, number in (each.split() for each in acknowledged):
        n = int(number)
        if kind == "u":
            latest[n % SUBJECTS, n % 5] = n
        else:
            events.add(n)
    lacking = []
    with Store.open(place, background=False) as store:
        logged = [event.at for n in range(SUBJECTS) for event in store.events(f"s{n}")]
        assert len(set(logged)) == len(logged)
        lacking += [f"e {n}" for n in events - set(logged)]
        for (subject, name), n in latest.items():
            stored = store.read(f"s{subject}", NOW).attributes.get(f"a{name}", [-1])
            if stored[0] < n:
                lacking.append(f"u {n}")
    return lacking


def lay(place: Path, content: bytes) -> None:
    """Put a disk's content where a store is opened."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "1").mkdir(parents=True)
    (place / "1" / "data.mdb").write_bytes(content)
    (place / "made").write_text("1")


def test_at_every_moment_a_power_cut_leaves_a_store_with_all_that_was_acknowledged(
    tmp_path: Path, recorder: Path
) -> None:
    generator = random.Random(20261128)  # noqa: S311 - moments, not secrets
    ops = recorded(tmp_path, recorder, "writes")
    disk, acknowledged, cuts, place = Disk((tmp_path / "base").read_bytes()), [], 0, tmp_path / "cut"
    assert sum(op.kind == "s" for op in ops) >= 15
    for op in ops:
        if op.kind == "n":
            acknowledged.append(op.content.decode())
            continue
        disk.do(op)
        for way in range(WAYS) if WAYS else [generator.randrange(4)]:
            cuts += 1
            lay(place, disk.after_a_cut(generator, way))
            if cuts % 50 == 0:
                assert not damage_of(place / "1" / "data.mdb")
            assert not missing(place, acknowledged)
    assert len(acknowledged) == 120
    assert cuts > 100


def test_a_disk_that_lies_about_a_sync_is_found_out(tmp_path: Path, recorder: Path) -> None:
    """That the playback can fail: without the writes that one sync covered, something is missing."""
    ops = recorded(tmp_path, recorder, "writes")
    acknowledged = [op.content.decode() for op in ops if op.kind == "n"]
    harmed = 0
    for lie in range(3, 15, 3):
        disk, syncs = Disk((tmp_path / "base").read_bytes()), 0
        for op in ops:
            syncs += op.kind == "s"
            if syncs == lie and op.kind == "s":
                disk.pending.clear()
            disk.do(op)
        lay(tmp_path / "cut", disk.after_a_cut(random.Random(0), 0))  # noqa: S311
        if damage_of(tmp_path / "cut" / "1" / "data.mdb"):
            harmed += 1
            continue
        try:
            harmed += bool(missing(tmp_path / "cut", acknowledged))
        except StoreError:
            harmed += 1
    assert harmed >= 1


def test_a_new_generation_is_on_disk_before_it_counts_and_its_name_before_anything_is_acknowledged(
    tmp_path: Path, recorder: Path
) -> None:
    ops = recorded(tmp_path, recorder, "compaction")
    data, store = str(tmp_path / "store" / "next" / "data.mdb"), str(tmp_path / "store")
    renamed = next(n for n, op in enumerate(ops) if op.kind == "r" and op.path.endswith("/next"))
    written = max(n for n, op in enumerate(ops) if op.kind in "wd" and op.path == data)
    synced = max(n for n, op in enumerate(ops[:renamed]) if op.kind == "s" and op.path == data)
    marked = next(n for n, op in enumerate(ops) if op.kind == "w" and op.path.endswith("1/superseded"))
    named = next(n for n, op in enumerate(ops) if n > renamed and op.kind == "s" and op.path == store)
    acknowledged = next(n for n, op in enumerate(ops) if op.content == b"acknowledged")
    assert written < renamed
    assert ops[written].kind == "d" or written < synced
    assert all(op.kind != "w" or op.path != data for op in ops[synced:renamed])
    assert marked < renamed < named < acknowledged
