"""Asks whether the installed dependencies have known holes: ends with 1 for those that have.

Law: `pip-audit` asks, this says what came of it. Where the advisories cannot be reached nothing is known, and it says
so in place of saying that all is well; with `--strict` that is a failure too.
"""

from __future__ import annotations

import subprocess
import sys

import msgspec

_COMMAND = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable"]
_PATIENCE_S = 240


class Hole(msgspec.Struct):
    """A known hole, and the versions without it."""

    id: str
    fix_versions: list[str] = []


class Dependency(msgspec.Struct):
    """An installed package; `skip_reason` says why nothing is known of it."""

    name: str
    version: str = ""
    skip_reason: str = ""
    vulns: list[Hole] = []


class Answer(msgspec.Struct):
    """What `pip-audit` prints."""

    dependencies: list[Dependency]


def main() -> int:
    """Ask, and say what came of it."""
    try:
        done = subprocess.run(_COMMAND, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)  # noqa: S603
        found = msgspec.json.decode(done.stdout, type=Answer).dependencies
    except (subprocess.TimeoutExpired, msgspec.DecodeError):
        found = []
    known = [each for each in found if not each.skip_reason]
    if not known:
        sys.stdout.write("the advisories cannot be reached from here: NOTHING WAS AUDITED\n")
        return int("--strict" in sys.argv)
    for each in known:
        for hole in each.vulns:
            fixed = ", ".join(hole.fix_versions) or "no version yet"
            sys.stdout.write(f"{each.name} {each.version} has {hole.id}, mended in {fixed}\n")
    holes = sum(len(each.vulns) for each in known)
    unknown = len(found) - len(known)
    sys.stdout.write(f"{len(known)} dependencies audited, {holes} known holes; nothing is known of {unknown}\n")
    return int(bool(holes))


if __name__ == "__main__":
    sys.exit(main())
