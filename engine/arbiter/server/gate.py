"""Who may call what, as the transports ask it.

Law: the shape of the question alone. What a token or a certificate is worth is judged elsewhere; both transports ask
before any work, and ask the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from arbiter.errors import ArbiterError

# What a call brings beside its message: pairs of a lower-case key and a value, bytes where the key ends in "-bin".
Metadata = Sequence[tuple[str, str | bytes]]
# The names in the client's certificate, once it was verified; None or nothing without one.
Identities = Callable[[], Iterable[bytes] | None]


class Unauthenticated(ArbiterError):
    """Nobody knows who calls: no credentials, or none that hold."""


class PermissionDenied(ArbiterError):
    """It is known who calls, and that they may not call this."""


class Caller(msgspec.Struct, frozen=True):
    """Who calls: `name` for the audit log, what they may do, and by what they are known (`token`, `jwt`,
    `certificate`).
    """

    name: str
    roles: frozenset[str] = frozenset()
    by: str = ""


class Gate(Protocol):
    """Lets callers in, or does not."""

    def admit(self, method: str, metadata: Metadata, identities: Identities) -> Caller:
        """Return who calls `method`, a full path as in ``/arbiter.v1.DecisionService/Decide``.

        Raises Unauthenticated, PermissionDenied. Called from any thread, for every call: it must be quick.
        """
