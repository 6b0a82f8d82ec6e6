"""Libraries that are loaded before libc's, to see or to harm what a process writes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def preloaded(name: str, folder: Path) -> Path:
    """The library made of `name`.c beside this file, compiled into a folder. Skips where that cannot be."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("what is loaded before libc needs Linux and a C compiler")
    library, source = folder / f"{name}.so", Path(__file__).parent / f"{name}.c"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own source
    assert done.returncode == 0, done.stderr
    return library
