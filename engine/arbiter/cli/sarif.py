"""Findings as a SARIF 2.1.0 log, which code review tools show beside the lines.

Law: builds the document; what is in it was found elsewhere. Paths are relative to where the command was called.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from arbiter import __version__
from arbiter.lint.finding import KINDS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.errors import Diagnostic
    from arbiter.lint.run import Noted

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_MISTAKE: Final = "mistake"
_RULES: Final = {
    _MISTAKE: Kind("A mistake: the files do not load", "A server keeps what it runs until every mistake is mended."),
    **KINDS,
}


def sarif_log(noted: Iterable[Noted]) -> str:
    """The log as JSON text."""
    rules = [_descriptor(code, kind) for code, kind in _RULES.items()]
    numbers = {code: number for number, code in enumerate(_RULES)}
    driver = {"name": "arbiter", "semanticVersion": __version__, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(each, numbers) for each in noted],
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return msgspec.json.format(msgspec.json.encode(log)).decode()


def _descriptor(code: str, kind: Kind) -> dict[str, Any]:
    help_text = kind.meaning if code == _MISTAKE else f"{kind.meaning} Accept it with `# arbiter: allow {code}`."
    return {
        "id": code,
        "name": "".join(word.capitalize() for word in code.split("-")),
        "shortDescription": {"text": f"{kind.title}."},
        "fullDescription": {"text": kind.meaning.replace("`", "")},
        "help": {"text": help_text.replace("`", ""), "markdown": help_text},
        "defaultConfiguration": {"level": "error" if code == _MISTAKE else "warning"},
    }


def _result(noted: Noted, numbers: dict[str, int]) -> dict[str, Any]:
    found = noted.diagnostic
    code = found.code if found.code in numbers else _MISTAKE
    sentences = [found.message, *([f"Example: {found.example}"] if found.example else [])]
    sentences += [f"Hint: {found.hint}"] if found.hint else []
    result: dict[str, Any] = {
        "ruleId": code,
        "ruleIndex": numbers[code],
        "level": found.severity,
        "message": {"text": "\n".join(sentences)},
        "locations": [{"physicalLocation": _location(found)}],
    }
    if noted.finding is not None and noted.finding.subject is not None:
        result["properties"] = {"subject": noted.finding.subject.fields(), "outcome": noted.finding.outcome}
    return result


def _location(found: Diagnostic) -> dict[str, Any]:
    location: dict[str, Any] = {"artifactLocation": {"uri": _uri(found.file)}}
    if found.line:
        region = {"startLine": found.line, "startColumn": found.column}
        if found.end_column > found.column:
            region["endColumn"] = found.end_column
        location["region"] = region | ({"snippet": {"text": found.source}} if found.source else {})
    return location


def _uri(file: str) -> str:
    """A relative reference: review tools take it from the root of the repository."""
    path = PurePosixPath(file)
    if path.is_absolute():
        path = PurePosixPath(Path(os.path.relpath(file)).as_posix())
    return quote(path.as_posix())
