"""The gate of a server with authentication: tokens, JWTs and client certificates.

Law: judges what a call brings, quickly, and follows the files that say who is known. A token is looked up by its
SHA-256, which takes no longer for a good guess than for a bad one.
"""

from __future__ import annotations

import threading
import time
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import TYPE_CHECKING, Final

from arbiter.config.files import content_of
from arbiter.server.auth.callers import NEVER, Callers, Known, read_callers
from arbiter.server.auth.roles import NEEDS
from arbiter.server.gate import Caller, PermissionDenied, Unauthenticated
from arbiter.server.lastgood import LastGood

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.config.options import Auth
    from arbiter.server.auth.signed import Signers
    from arbiter.server.gate import Identities, Metadata

_LOOK_S: Final = 1.0
_REMEMBERED: Final = 4096  # JWTs whose signature was verified; each would take some 100 µs again
_ANYBODY: Final = Caller("")
_SCHEME: Final = "bearer "
_NOBODY: Final = "no credentials: send the metadata `authorization: Bearer TOKEN`"
_DOTS: Final = 2


class Porter:
    """Lets callers in by `auth`, whose files are read now, and again within a second of a change.

    `denied` is told of callers who asked for what they may not. `clock` gives seconds since the epoch. It follows the
    files from `start` to `stop`. Raises AuthorError, UnusableFile.
    """

    def __init__(
        self,
        auth: Auth,
        denied: Callable[[str, Caller], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._denied = denied
        self._clock = clock
        self._callers = _followed_callers(auth)
        self._signers = _followed_signers(auth)
        self._verified: dict[bytes, Known] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="arbiter-callers", daemon=True)

    def start(self) -> None:
        """Follow the files from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Follow them no more."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Take in what changed in the files."""
        if self._callers is not None:
            self._callers.look()
        if self._signers is not None and self._signers.look():
            self._verified = {}

    def admit(self, method: str, metadata: Metadata, identities: Identities) -> Caller:
        """Return who calls `method`. Raises Unauthenticated, PermissionDenied."""
        need = NEEDS.get(method, "any")
        if need == "open":
            return _ANYBODY
        given: str | bytes | None = None
        for key, value in metadata:
            if key == "authorization":
                if given is not None:
                    raise Unauthenticated("`authorization` is sent twice: send it once")
                given = value
        known = self._by_certificate(identities) if given is None else self._by_token(given)
        if known.expires != NEVER and known.expires <= self._clock():
            raise Unauthenticated("the credentials have expired: get new ones")
        caller = known.caller
        if need != "any" and need not in caller.roles:
            if self._denied is not None:
                self._denied(method, caller)
            held = ", ".join(sorted(caller.roles))
            raise PermissionDenied(f"{method[1:]} needs the role `{need}`, and `{caller.name}` has {held}")
        return caller

    def _by_token(self, given: str | bytes) -> Known:
        if not isinstance(given, str) or given[:7].lower() != _SCHEME:
            raise Unauthenticated("`authorization` is no bearer token: send `Bearer TOKEN`")
        token = given[7:]
        digest = sha256(token.encode(errors="replace")).digest()
        followed = self._callers
        known = None if followed is None else followed.content.tokens.get(digest)
        if known is not None and compare_digest(known.digest, digest):
            return known
        # In this order: what keys that are just replaced verify then goes into a memory that nobody asks again.
        verified, signers = self._verified, None if self._signers is None else self._signers.content
        known = verified.get(digest)
        if known is not None:
            return known
        if signers is None or token.count(".") != _DOTS:
            raise Unauthenticated("the token is not known: it is mistyped, was never made, or was taken back")
        known = signers.verify(token)
        if len(verified) >= _REMEMBERED:
            verified.clear()
        verified[digest] = known
        return known

    def _by_certificate(self, identities: Identities) -> Known:
        followed = self._callers
        if followed is None or not followed.content.certificates:
            raise Unauthenticated(_NOBODY)
        certificates = followed.content.certificates
        for name in identities() or ():
            known = certificates.get(name.decode(errors="replace"))
            if known is not None:
                return known
        raise Unauthenticated(f"{_NOBODY}, or a client certificate whose name stands in the file of callers")

    def _follow(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.look()


def _followed_callers(auth: Auth) -> LastGood[Callers] | None:
    if not auth.tokens:
        return None
    path = Path(auth.tokens)
    return LastGood("the callers", [path], lambda: read_callers(path, content_of(path, secret=False)))


def _followed_signers(auth: Auth) -> LastGood[Signers] | None:
    if not auth.jwt_keys:
        return None
    from arbiter.server.auth.signed import read_signers  # noqa: PLC0415 - few servers take JWTs

    path = Path(auth.jwt_keys)

    def read() -> Signers:
        signers = read_signers(path, content_of(path, secret=False), auth.jwt_issuer, auth.jwt_audience)
        if signers.secret:
            content_of(path, secret=True)
        return signers

    return LastGood("the keys of JWTs", [path], read)
