"""From the file of callers to who is known by which token or certificate.

Law: every mistake that can be seen in the file, each with its place, all in one pass. Tokens stand in it hashed, so
that who reads it can call nothing. No clock: an expiry is kept, who asks judges it.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.authoring.blocks import Block, one_of
from arbiter.authoring.documents import Form, read_documents
from arbiter.authoring.nodes import Mapping, Node, Scalar, kind_of
from arbiter.authoring.report import Report
from arbiter.errors import AuthorError, did_you_mean
from arbiter.ruleset.times import rfc3339
from arbiter.server.auth.roles import ROLES, Role
from arbiter.server.gate import Caller

if TYPE_CHECKING:
    from pathlib import Path

FORM: Final = Form("a file of callers", 1 << 20, "a caller takes some 150 bytes: ten thousand of them are too many")
KEYS: Final = ("name", "roles", "sha256", "certificate", "expires")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HOW: Final = "run `arbiter token new --name NAME --role ROLE`, which prints an entry"
NEVER: Final = math.inf


class Known(msgspec.Struct, frozen=True, gc=False):
    """Who is let in by one token or certificate. `digest` is the token's, `expires` in seconds since the epoch."""

    caller: Caller
    digest: bytes = b""
    expires: float = NEVER


class Callers(msgspec.Struct, frozen=True):
    """Everybody in the file: by the SHA-256 of their token, and by the name in their certificate."""

    tokens: dict[bytes, Known] = {}
    certificates: dict[str, Known] = {}


def read_callers(path: Path, content: bytes) -> Callers:
    """Read a file's content. Raises AuthorError with every mistake in it."""
    file = path.name
    report = Report()
    roots = read_documents(file, content, FORM, report) or []
    callers = Callers({}, {})
    if not roots and not report:
        report.whole(file, "nobody stands in the file", f"{_HOW}; `callers: []` lets nobody in")
    for root in roots[1:]:
        report.at(root, "the callers are one document, and here begins another", "remove the line `---` before it")
    if roots:
        _read(roots[0], report, callers)
    if report:
        raise refusal(report)
    return callers


def refusal(report: Report) -> AuthorError:
    """The mistakes in a file of secrets: their lines are not shown, since errors are logged."""
    return AuthorError(msgspec.structs.replace(each, source="") for each in report.found)


def _read(root: Node, report: Report, callers: Callers) -> None:
    if not isinstance(root, Mapping):
        report.at(root, f"the file must be a mapping, this is {kind_of(root)}", "begin it with `callers:`")
        return
    block = Block(root, report, what="a file of callers", keys=("callers",))
    if not block.require("callers", _HOW):
        return
    for path, item in block.items("callers", "write `- name: …` lines"):
        if not isinstance(item, Mapping):
            report.at(item, f"a caller must be a mapping, this is {kind_of(item)}", _HOW, path)
            continue
        _read_caller(Block(item, report, what="a caller", path=path, keys=KEYS), callers)


def _read_caller(block: Block, callers: Callers) -> None:
    block.require("name", "it stands in the audit log")
    name = block.identifier("name")
    block.require("roles", f"some of {one_of(ROLES)}")
    roles = _roles(block)
    expires = _expires(block)
    if block.has("sha256") == block.has("certificate"):
        said = "both" if block.has("sha256") else "neither"
        block.refuse(
            block.node,
            f"a caller is known by `sha256` or by `certificate`, and this one has {said}",
            "give one of them; a caller may stand here several times under one name",
        )
        return
    digest, certificate = block.text("sha256"), block.text("certificate")
    if digest is not None and not _DIGEST.fullmatch(digest.text):
        block.refuse(digest, "`sha256` must be 64 hexadecimal digits in small letters", _HOW, "sha256")
        return
    if certificate is not None and not certificate.text:
        block.refuse(certificate, "`certificate` is empty", "write the name that stands in it", "certificate")
        return
    if name is None or not roles:
        return
    if digest is not None:
        hashed = bytes.fromhex(digest.text)
        if hashed in callers.tokens:
            block.refuse(digest, "this token stands here twice", "remove one of the two entries", "sha256")
        callers.tokens[hashed] = Known(Caller(name.text, roles, "token"), hashed, expires)
    elif certificate is not None:
        if certificate.text in callers.certificates:
            block.refuse(certificate, "this certificate stands here twice", "remove one of the two", "certificate")
        callers.certificates[certificate.text] = Known(Caller(name.text, roles, "certificate"), expires=expires)


def _roles(block: Block) -> frozenset[Role]:
    found: set[Role] = set()
    for path, item in block.items("roles", f"write `[decide]`; there are {one_of(ROLES)}"):
        word = item.text if isinstance(item, Scalar) else ""
        if word not in ROLES:
            hint = did_you_mean(word, ROLES) or f"there are {one_of(ROLES)}"
            block.report.at(item, f"there is no role `{word}`" if word else "a role must stand here", hint, path)
        else:
            found.add(word)
    node = block.get("roles")
    if node is not None and not found and not block.report:
        block.refuse(node, "`roles` is empty, so the caller could call nothing", f"some of {one_of(ROLES)}", "roles")
    return frozenset(found)


def _expires(block: Block) -> float:
    node = block.text("expires", 'write a moment, as in `"2027-01-31T00:00:00Z"`')
    if node is None:
        return NEVER
    moment = rfc3339(node.text)
    if moment is None:
        block.refuse(node, f"`{node.text}` is no moment with a time zone", "write 2027-01-31T00:00:00Z", "expires")
        return NEVER
    return moment.timestamp()
