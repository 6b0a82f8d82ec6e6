"""The secrets by which ids of subjects are hashed, in files or in the environment.

Law: reads them and judges their form; what becomes of them stands in `profiles.keys`. No message repeats their content.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from arbiter.config.files import UnusableFile, content_of
from arbiter.config.options import SECRET_VARIABLE
from arbiter.profiles.copies import open_existing
from arbiter.profiles.generations import newest
from arbiter.profiles.keys import Secrets, keys_of

if TYPE_CHECKING:
    from arbiter.config.options import Profiles
    from arbiter.runtime.settings import Settings

_LEAST: Final = 32  # bytes, line ends not counted: 256 bits, if they are random
_MAKE: Final = "make one by `head -c 32 /dev/urandom | base64`"


def read_secrets(profiles: Profiles) -> Secrets:
    """What `profiles.key` and `profiles.previous_keys` name, or the environment has. Raises UnusableFile."""
    current = _current(profiles)
    if not current:
        if profiles.previous_keys:
            raise UnusableFile(
                f"`profiles.previous_keys` names {profiles.previous_keys}, and there is no present key: name its file "
                f"in `profiles.key`, or put it into the variable {SECRET_VARIABLE}"
            )
        return Secrets()
    previous: list[bytes] = []
    if profiles.previous_keys:
        folder = Path(profiles.previous_keys)
        try:
            # Volumes of Kubernetes keep what they need themselves under names that begin with a dot.
            files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
        except OSError as error:
            raise UnusableFile(f"cannot read {folder}: {error.strerror or error}") from error
        previous = [_secret(file) for file in files]
    return Secrets(current, tuple(previous))


def _current(profiles: Profiles) -> bytes:
    """The present secret; empty for none of ours."""
    given = os.environ.get(SECRET_VARIABLE, "")
    if not given:
        return _secret(Path(profiles.key)) if profiles.key else b""
    if profiles.key:
        raise UnusableFile(
            f"`profiles.key` names {profiles.key}, and {SECRET_VARIABLE} holds a key too: leave out one of them"
        )
    return _judged(os.fsencode(given), SECRET_VARIABLE)


def check_keys(settings: Settings) -> None:
    """Raise StoreError, or UnusableFile, for keys that are not those of the store, if there is one: before a server
    starts, whose workers would all end for it.
    """
    secrets = read_secrets(settings.profiles)
    if newest(settings.store_directory):
        environment = open_existing(settings.store_directory)
        keys_of(environment, secrets)
        environment.handle.close()


def _secret(file: Path) -> bytes:
    return _judged(content_of(file, secret=True), str(file))


def _judged(content: bytes, place: str) -> bytes:
    secret = content.rstrip(b"\r\n")
    if len(secret) < _LEAST:
        raise UnusableFile(f"{place} holds {len(secret)} bytes, and a key has at least {_LEAST} random ones: {_MAKE}")
    return secret
