"""The parts of snapshots on disk: files that are known by their content, shared by all snapshots that hold them.

Law: a part never changes. Its name is the digest of its content, which is held to when it is read.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from mmap import mmap
from typing import TYPE_CHECKING, Final

from arbiter.durable import sync_folder, write_through
from arbiter.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping
    from pathlib import Path

    from arbiter.snapshot import Buffer

_PIECE: Final = 1 << 16  # bytes


class Parts:
    """The parts in one folder. One process writes, any number read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, contents: Mapping[str, bytes]) -> None:
        """Put parts on disk, by their keys; one that is there and whole is left alone. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        wrote = False
        for key, content in contents.items():
            path = self._folder / key
            if _content(path) == content:
                continue
            # A reader must not meet half a part.
            draft = path.with_name(f".{key}")
            write_through(draft, content)
            draft.rename(path)
            wrote = True
        if wrote:
            sync_folder(self._folder)

    def get(self, key: str) -> Generator[None, None, Buffer]:
        """The content of a part, in steps of some 50 µs. Raises OSError when it is not there, StoreError when it is
        damaged.
        """
        hashed = blake2b(digest_size=len(key) // 2)
        with (self._folder / key).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            # Memory that the system gives page by page while the file is read, and not while Python waits for it.
            content = memoryview(mmap(-1, max(size, 1)))[:size]
            for start in range(0, size, _PIECE):
                piece = content[start : start + _PIECE]
                file.readinto(piece)
                hashed.update(piece)
                yield
        if hashed.hexdigest() != key:
            raise StoreError(f"its part {key[:12]} is damaged")
        return content

    def keep(self, keys: Collection[str]) -> None:
        """Remove all other parts."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name not in keys:
                    path.unlink(missing_ok=True)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
