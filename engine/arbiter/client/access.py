"""Where servers are, and by what right they are asked.

Law: judges what a client is given, before anything is sent. A secret is in no repr, no message and no log. Reads the
files that it is told of; no gRPC, no network.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from arbiter.client.failures import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

# A function is asked for every call that is sent, so that a token may change.
Token = str | Callable[[], str]
# PEM, or the path of a file of it.
Pem = bytes | str | Path

_LAST_PORT = 65_535
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})", re.ASCII)
_LOCAL_SCHEMES = ("unix:", "unix-abstract:")
_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


class Target(msgspec.Struct, frozen=True):
    """One place where servers listen. `here`: what is sent there does not leave this machine."""

    text: str
    address: str
    port: int | None
    here: bool


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """How a connection is secured. Without `ca`, the roots that gRPC brings are trusted.

    `certificate` and `key` show the server who calls. `server_name` is the name that its certificate must have, when
    that is not the target's. Each PEM is bytes, or the path of a file.
    """

    ca: Pem | None = None
    certificate: Pem | None = None
    key: Pem | None = None
    server_name: str = ""

    def __repr__(self) -> str:
        """Return what is set, not what it holds."""
        given = [name for name in ("ca", "certificate", "key") if getattr(self, name) is not None]
        return f"Tls({', '.join(f'{name}=…' for name in given)})"

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Return the PEM of roots, key and certificate, as gRPC takes them. Raises Misconfigured."""
        if (self.certificate is None) != (self.key is None):
            missing = "key" if self.key is None else "certificate"
            raise Misconfigured(f"tls has no `{missing}`: a client's certificate and its key go together")
        return _pem(self.ca, "ca"), _pem(self.key, "key"), _pem(self.certificate, "certificate")


def targets_of(given: str | Sequence[str]) -> tuple[Target, ...]:
    """Return the places that are meant, each once. Raises Misconfigured."""
    texts = [given] if isinstance(given, str) else list(given)
    if not texts:
        raise Misconfigured("no target is given: name at least one, as HOST:PORT or unix:PATH")
    return tuple(_target(text) for text in dict.fromkeys(texts))


def check_token(token: Token | None, targets: Sequence[Target], *, secured: bool, insecure_token: bool) -> None:
    """Raise Misconfigured for a token that cannot be sent, or that would cross a network in the open."""
    if token is None:
        return
    if isinstance(token, str):
        bearer(token)
    open_to = [target.text for target in targets if not target.here]
    if open_to and not secured and not insecure_token:
        raise Misconfigured(
            f"the token would go to {open_to[0]} in the open, for anybody on the way to read: connect with TLS, or "
            "allow an insecure token where something else keeps the way safe"
        )


def bearer(token: str) -> str:
    """Return the value of `authorization` for a token. Raises Misconfigured."""
    if not _BEARER.fullmatch(token):
        raise Misconfigured(
            "the token is empty or holds what no token can: letters, digits and -._~+/ are allowed, and = at the end"
        )
    return f"Bearer {token}"


def _target(text: str) -> Target:
    if text.startswith(_LOCAL_SCHEMES):
        return Target(text, text.partition(":")[2], None, here=True)
    scheme, _, rest = text.partition(":///") if ":///" in text else ("", "", text)
    found = _HOST_PORT.fullmatch(rest)
    if scheme not in {"", "dns", "ipv4", "ipv6"} or found is None or int(found["port"]) > _LAST_PORT:
        raise Misconfigured(
            f"`{text}` is no target: write HOST:PORT, as in 127.0.0.1:50051 or [::1]:50051, or unix:PATH"
        )
    host = found["host"].strip("[]")
    return Target(text, host, int(found["port"]), here=_is_here(host))


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _pem(given: Pem | None, name: str) -> bytes | None:
    if given is None or isinstance(given, bytes):
        return given
    try:
        return Path(given).read_bytes()
    except OSError as error:
        raise Misconfigured(f"tls: the `{name}` cannot be read from {given}: {error.strerror}") from error
