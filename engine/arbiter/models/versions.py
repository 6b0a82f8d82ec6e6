"""Which version of a model is live, and which is tried on a share: what `models/NAME/versions.yaml` says.

Law: bytes in, a choice or every mistake out, each with its place. This module knows nothing of the disk, nor of what a
version is made of.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.authoring.blocks import Block
from arbiter.authoring.documents import Form, read_documents
from arbiter.authoring.nodes import Mapping, Scalar
from arbiter.authoring.report import Report
from arbiter.models.places import Places

if TYPE_CHECKING:
    from arbiter.authoring.nodes import Node
    from arbiter.errors import Diagnostic

FILE: Final = "versions.yaml"
FORM: Final = Form("a file of versions", 1 << 16, "it says which version is live, and nothing else")
FOLDER: Final = re.compile(r"v?([1-9][0-9]{0,17})")
SALT_BYTES: Final = 256
_WRITE = "write the version, as in `live: v2`"
_TRY = "write `canary: {version: v3, share: 0.1}`"


class Share(msgspec.Struct, frozen=True):
    """A version that scores the subjects whose place under `salt`, see `decision.hashing`, is less than `share`.

    An empty salt is for who reads the file to fill in.
    """

    version: int
    share: float
    salt: str = ""


class Versions(msgspec.Struct, frozen=True):
    """The version that is live, and the one that is tried, if any."""

    live: int
    canary: Share | None = None

    @property
    def read(self) -> frozenset[int]:
        """The versions that a server reads."""
        return frozenset({self.live} if self.canary is None else {self.live, self.canary.version})

    @property
    def named(self) -> list[tuple[str, int]]:
        """The versions that it names, by the key that does."""
        return [("live", self.live), *([] if self.canary is None else [("canary.version", self.canary.version)])]


def version_of(name: str) -> int:
    """The version that a folder of this name holds, ``v2`` or ``2``; 0 when it is no folder of a version."""
    found = FOLDER.fullmatch(name)
    return int(found[1]) if found else 0


def read_versions(content: bytes, file: str) -> tuple[Versions | None, Places, list[Diagnostic]]:
    """Read `content`; `file` is how diagnostics name it. None when there is any diagnostic.

    The places are those of the keys.
    """
    report, places = Report(), Places(file)
    roots = read_documents(file, content, FORM, report)
    if roots is not None and len(roots) != 1:
        report.whole(file, "it must be one mapping (`key: value` lines)", _WRITE)
    found = _read(roots[0], report, places) if roots else None
    return (None if report.found else found), places, report.found


def _read(root: Node, report: Report, places: Places) -> Versions | None:
    if not isinstance(root, Mapping):
        report.at(root, "it must be a mapping (`key: value` lines)", _WRITE)
        return None
    block = Block(root, report, what="a file of versions", keys=("live", "canary"))
    for key in ("live", "canary"):
        if (node := block.get(key)) is not None:
            places.add(key, node)
    block.require("live", _WRITE)
    live = _version(block, "live")
    node = block.mapping("canary", _TRY)
    canary = None if node is None else _share(Block(node, report, what="a canary", path="canary", keys=_KEYS), live)
    return Versions(live, canary) if live else None


_KEYS = Share.__struct_fields__


def _share(block: Block, live: int) -> Share | None:
    for key in ("version", "share"):
        block.require(key, _TRY)
    version = _version(block, "version")
    if version and version == live and (node := block.get("version")) is not None:
        block.refuse(node, f"version {version} is live, and cannot be tried beside itself", key="version")
    share = block.number("share")
    if share is not None and not 0 < share[0] <= 1:
        block.refuse(share[1], "`share` must be more than 0 and at most 1", "0.1 is a tenth of the subjects", "share")
    salt = block.text("salt")
    if salt is not None and not 0 < len(salt.text.encode()) <= SALT_BYTES:
        block.refuse(salt, f"`salt` must have from 1 to {SALT_BYTES} bytes", "leave it out, or write a word", "salt")
    if not version or share is None:
        return None
    return Share(version, share[0], salt.text if salt is not None else "")


def _version(block: Block, key: str) -> int:
    node = block.get(key)
    if node is None:
        return 0
    version = version_of(node.text) if isinstance(node, Scalar) else 0
    if not version:
        block.refuse(node, f"`{key}` must be a version, `v2` or `2`", key=key)
    return version


def with_live(content: bytes, version: int) -> bytes:
    """The same file with another version live, and nothing else changed: comments and a canary stay."""
    before, places, _ = read_versions(content, FILE)
    node = places.node("live")
    if before is not None and node is not None:
        text = node.source.text
        found = f"{text[: node.start]}v{version}{text[node.end :]}".encode()
        if read_versions(found, FILE)[0] == msgspec.structs.replace(before, live=version):
            return found
    return f"live: v{version}\n".encode()
