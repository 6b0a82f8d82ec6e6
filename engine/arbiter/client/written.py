"""Requests as they cross the wire, for whoever sends them by other means than the client: load above all.

Law: a path and bytes, checked as the client checks them; sends nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from arbiter.client import arguments
from arbiter.client.methods import DECIDE, DECIDE_BATCH, UPDATE_PROFILE
from arbiter.v1 import decision_pb2, profile_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbiter.client.arguments import Ask


class Written(NamedTuple):
    """A request: the method's path as HTTP/2 has it, and the serialised message."""

    path: str
    content: bytes


def written_decide(asked: Ask) -> Written:
    """Return one question. Raises InvalidRequest."""
    return Written(DECIDE.path, asked.message().SerializeToString())


def written_batch(asked: Iterable[Ask]) -> Written:
    """Return a batch of questions. Raises InvalidRequest."""
    requests = [each.message(f"requests[{place}].") for place, each in enumerate(asked)]
    return Written(DECIDE_BATCH.path, decision_pb2.DecideBatchRequest(requests=requests).SerializeToString())


def written_update(subject_id: str, attributes: Mapping[str, Any]) -> Written:
    """Return an update that sets attributes. Raises InvalidRequest."""
    request = profile_pb2.UpdateProfileRequest(
        subject_id=arguments.text(subject_id, "subject_id"), set=arguments.values(attributes, "set")
    )
    return Written(UPDATE_PROFILE.path, request.SerializeToString())
