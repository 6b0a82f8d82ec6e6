"""What stands between a port and the services, as the settings ask for it: TLS, the gate, the audit log.

Law: makes the three from settings and owns their start and end. With no settings each is absent and costs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from arbiter.server.exposure import authenticates

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from arbiter.server.audit import AuditLog
    from arbiter.server.auth.porter import Porter
    from arbiter.server.calls import Work
    from arbiter.server.settings import FaceSettings


class Guard:
    """`gate` is None without authentication. `pseudonym` names subjects in the audit log.

    Raises AuditFailed, AuthorError and UnusableFile for the files that the settings name.
    """

    def __init__(self, settings: FaceSettings, pseudonym: Callable[[str], str]) -> None:
        self._tls = settings.tls
        self._audit: AuditLog | None = None
        if settings.audit.file:
            from arbiter.server.audit import AuditLog  # noqa: PLC0415 - few servers need it

            self._audit = AuditLog(Path(settings.audit.file), pseudonym)
        self.gate: Porter | None = None
        if authenticates(settings.auth):
            from arbiter.server.auth.porter import Porter  # noqa: PLC0415

            self.gate = Porter(settings.auth, self._audit.denied if self._audit is not None else None)

    def recorded(self, method: str, work: Work) -> Work:
        """Return the work of a method, recorded where it must be."""
        return work if self._audit is None else self._audit.recorded(method, work)

    def bind(self, server: grpc.Server, listen: str) -> int:
        """Let a server listen on ``HOST:PORT``, with TLS if there is a certificate. Raises RuntimeError."""
        if not self._tls.certificate:
            return server.add_insecure_port(listen)
        from arbiter.server.tls import credentials  # noqa: PLC0415 - loads OpenSSL

        return server.add_secure_port(listen, credentials(self._tls))

    def start(self) -> None:
        """Follow the files."""
        if self.gate is not None:
            self.gate.start()

    def stop(self) -> None:
        """Follow them no more, and close the log."""
        if self.gate is not None:
            self.gate.stop()
        if self._audit is not None:
            self._audit.close()
