"""Files that options name and that hold secrets or say who may do what.

Law: whether a file may be used at all, by who else may read or change it; what stands in it is for who reads it.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from pathlib import Path


class UnusableFile(ArbiterError):
    """A file of certificates, keys or callers cannot be used; the message names it and says how to mend it."""


def content_of(path: Path, *, secret: bool) -> bytes:
    """Return a file's bytes. Raises UnusableFile when it cannot be read, when every user of the machine may change it,
    or, if it is `secret`, may read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise UnusableFile(f"{path} is no regular file")
            if mode & stat.S_IWOTH:
                raise UnusableFile(f"every user of this machine may change {path}: run `chmod o-w {path}`")
            if secret and mode & stat.S_IROTH:
                raise UnusableFile(
                    f"every user of this machine may read {path}, which holds secrets: run `chmod o-r {path}`, or set "
                    "`defaultMode: 0440` where it is a volume of Kubernetes"
                )
            return file.read()
    except OSError as error:
        raise UnusableFile(f"cannot read {path}: {error.strerror or error}") from error
