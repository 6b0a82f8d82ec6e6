"""What a server refuses to start with: an open door on a public address, and files that let nobody in.

Law: judged once, before anything listens, from the options alone; each refusal says what to do, and that with
`auth.insecure` the operator means it. Loopback is for whoever may log in to the machine, everything else is public.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from typing import TYPE_CHECKING, Final

from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from arbiter.config.options import Auth, Tls

_log = logging.getLogger("arbiter.security")
_MEANT: Final = "or set `auth.insecure` (`--auth-insecure`) if you mean it"


class Exposed(ArbiterError):
    """The options would open the server to whoever reaches its address."""


def check_start(listeners: Mapping[str, str], metrics: str, tls: Tls, auth: Auth) -> None:
    """Refuse what is unsafe or cannot work. `listeners` are the addresses for calls by their option (``HOST:PORT``,
    empty for none), `metrics` is that of the Prometheus endpoint.

    Raises Exposed; UnusableFile and AuthorError for files of certificates, keys and callers. With `auth.insecure` an
    open door is logged instead.
    """
    if auth.jwt_keys and not (auth.jwt_issuer and auth.jwt_audience):
        raise Exposed(
            "`auth.jwt_keys` is set without `auth.jwt_issuer` and `auth.jwt_audience`: a JWT that was made for another "
            "service would be let in; set both"
        )
    if authenticates(auth):
        from arbiter.server.auth.porter import Porter  # noqa: PLC0415 - most servers start without

        Porter(auth)
    if tls.certificate:
        from arbiter.server.tls import credentials  # noqa: PLC0415 - loads OpenSSL

        credentials(tls)
    for door in _open_doors(listeners, metrics, tls, auth):
        if not auth.insecure:
            raise Exposed(f"{door}, {_MEANT}")
        _log.warning("insecure, as was asked for: %s", door)


def authenticates(auth: Auth) -> bool:
    """Whether callers must say who they are."""
    return bool(auth.tokens or auth.jwt_keys)


def _open_doors(listeners: Mapping[str, str], metrics: str, tls: Tls, auth: Auth) -> Iterator[str]:
    for option, address in listeners.items():
        if not address or not is_public(address):
            continue
        if not authenticates(auth):
            what = (
                "a client certificate says who calls, not what they may call"
                if tls.client_ca
                else "anybody who reaches it could decide, write and administer"
            )
            yield (
                f"`{option}` is the public address {address}, and nothing says who may call what ({what}): set "
                "`auth.tokens` or `auth.jwt_keys`, listen on 127.0.0.1"
            )
        elif not tls.certificate:
            yield (
                f"`{option}` is the public address {address} without TLS, so tokens and profiles would cross the "
                "network readable: set `tls.certificate` and `tls.key`, listen on 127.0.0.1"
            )
    if metrics and is_public(metrics):
        yield (
            f"`metrics` is the public address {metrics}, and anybody who reaches it could read the metrics: listen on "
            "127.0.0.1, send them over OTLP"
        )


def is_public(address: str) -> bool:
    """Whether ``HOST:PORT`` can be reached from another machine. A name that cannot be resolved counts as such."""
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if not host:
        return True
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return True
    return not all(ipaddress.ip_address(each[4][0]).is_loopback for each in found)
