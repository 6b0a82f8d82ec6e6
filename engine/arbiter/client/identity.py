"""The method that links two ids of one subject.

Law: as `methods`, of which it is a part: it builds a `Call` and runs nothing.
"""

from __future__ import annotations

import msgspec

from arbiter.client import arguments
from arbiter.client.calls import Again, Call, Method, rpc
from arbiter.v1 import profile_pb2

_profiles = profile_pb2.DESCRIPTOR.services_by_name["ProfileService"].methods_by_name

# Linking again changes nothing.
LINK_IDENTITY = rpc(
    _profiles["LinkIdentity"], profile_pb2.LinkIdentityRequest, profile_pb2.LinkIdentityResponse, Again.ALWAYS
)


class Linked(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a link. `linked` is False where the two were one before; `version` is the profile's.

    Of the anonymous id's events `events` are the known one's now, `duplicates` were dropped since it had them.
    """

    linked: bool
    version: int
    events: int
    duplicates: int


def read_linked(response: profile_pb2.LinkIdentityResponse) -> Linked:
    """Return what became of a link."""
    return Linked(
        linked=response.linked, version=response.version, events=response.events, duplicates=response.duplicates
    )


class IdentityMethods:
    """The part of `Methods` that is about ids."""

    @Method
    def link_identity(self, anonymous_id: str, known_id: str, *, timeout: float | None = None) -> Call[Linked]:
        """Let an anonymous id stand for a known one from now on, for good; return once it is on disk."""
        message = profile_pb2.LinkIdentityRequest(
            anonymous_id=arguments.text(anonymous_id, "anonymous_id"), known_id=arguments.text(known_id, "known_id")
        )
        return LINK_IDENTITY.call(message, read_linked, timeout)
