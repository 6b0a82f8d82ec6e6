"""Files that were damaged as disks and hands do it: cut short, pages torn, pages of other bytes, bits that turned.

Each is opened by a child, which reads all and writes: it never dies of it, and is told of what is no page of LMDB's.
What only changes bytes within a value LMDB cannot see; docs/decisions/0071 says what of that we do.
"""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from arbiter.errors import ArbiterError, StoreError
from arbiter.profiles.checking import check_store
from arbiter.profiles.copies import damage_of
from arbiter.profiles.store import Store, Update
from arbiter.types import Event
from tests.faults.kills import forked

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
NOW = 1 << 60
SUBJECTS = 300
CASES = int(os.environ.get("TORN_FILES", "48"))
WELL, REFUSED, TOLD, WRONG = 0, 10, 20, 30  # how a child ends that was not ended by the file


def value(n: int) -> dict[str, object]:
    return {"name": f"person {n}", "text": "x" * (n * 97 % 3000)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a store that holds people and events, some of them on pages of their own."""
    folder = tmp_path_factory.mktemp("whole")

    def fill() -> None:  # a process that has had a store open must not fork
        with Store.open(folder, background=False) as store:
            for future in [store.update(Update(f"s{n}", value(n))) for n in range(SUBJECTS)]:
                future.result()
            store.ingest([Event(f"e{n}", f"s{n}", "buy", n, {}) for n in range(SUBJECTS)]).result()

    assert os.waitpid(forked(fill), 0)[1] == 0
    return (folder / "1" / "data.mdb").read_bytes()


def use(place: Path) -> None:
    """What a server does with it. Exits with what came of it."""
    try:
        with Store.open(place, background=False) as store:
            told = False
            for n in range(SUBJECTS):
                try:
                    read, logged = store.read(f"s{n}", NOW).attributes, store.events(f"s{n}")
                except StoreError:
                    told = True
                else:
                    if read != value(n) or [event.id for event in logged] != [f"e{n}"]:
                        os._exit(WRONG)
            try:
                store.update(Update("new", {"a": 1})).result()
            except ArbiterError:
                told = True
            os._exit(TOLD if told else WELL)
    except StoreError:
        os._exit(REFUSED)


def used(place: Path, torn: bytes) -> int:
    """How a child ended that used it."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "1").mkdir(parents=True)
    (place / "made").write_text("1")
    (place / "1" / "data.mdb").write_bytes(torn)
    return os.waitstatus_to_exitcode(os.waitpid(forked(lambda: use(place)), 0)[1])


def page_in(generator: random.Random, content: bytes) -> int:
    """Where a page begins that holds something; the first two are tested by a cut."""
    return generator.randrange(2, len(content) // PAGE) * PAGE


@pytest.mark.parametrize("seed", range(CASES))
def test_a_file_with_torn_pages_is_refused_or_told_of_or_right_and_ends_nobody(
    whole: bytes, tmp_path: Path, seed: int
) -> None:
    generator, torn = random.Random(seed), bytearray(whole)  # noqa: S311 - places, not secrets
    if seed % 3 == 0:
        del torn[generator.randrange(len(torn)) :]
    elif seed % 3 == 1:  # the half that has the head of the page never reached the disk
        at = page_in(generator, whole)
        torn[at : at + PAGE // 2] = bytes(PAGE // 2)
    else:
        at = page_in(generator, whole)
        torn[at : at + PAGE] = generator.randbytes(PAGE)
    came = used(tmp_path / "store", bytes(torn))
    assert came in {WELL, REFUSED, TOLD}, came
    if seed % 3 == 0:
        assert came == REFUSED or not damage_of(tmp_path / "store" / "1" / "data.mdb")
    elif came == TOLD:
        assert check_store(tmp_path / "store").count


@pytest.mark.parametrize("seed", range(CASES // 4))
def test_bits_that_turn_end_nobody(whole: bytes, tmp_path: Path, seed: int) -> None:
    generator, torn = random.Random(seed), bytearray(whole)  # noqa: S311 - places, not secrets
    for _ in range(20):
        torn[generator.randrange(2 * PAGE, len(torn))] ^= 1 << generator.randrange(8)
    assert used(tmp_path / "store", bytes(torn)) in {WELL, REFUSED, TOLD, WRONG}
