"""What a worker's server needs to know to answer.

Law: plain data that passes to another process; each field is an option of the same name, but for those that say
otherwise. What options there are stands in `config`.
"""

from __future__ import annotations

import msgspec

# Fields' types at run time.
from arbiter.config.limits import Limits
from arbiter.config.options import Audit, Auth, Tls, Transport


class FaceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How calls are answered. `threads` bounds the calls that are worked on at once in one worker.

    `connection_age` and `connection_grace` are seconds. `reuse_port`, which is no option, lets other processes listen
    on the same port.
    """

    transport: Transport = "auto"
    threads: int = 16
    connection_age: float = 300.0
    connection_grace: float = 30.0
    tls: Tls = Tls()
    auth: Auth = Auth()
    audit: Audit = Audit()
    limits: Limits = Limits()
    reuse_port: bool = False

    def encode(self) -> bytes:
        """Return the bytes that `open_face` takes."""
        return msgspec.msgpack.encode(self)
