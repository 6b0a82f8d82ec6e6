"""The method that asks what models read and said, and its answer.

Law: as `methods`, of which it is a part: it builds a `Call` and runs nothing; messages in, plain data out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.client import arguments
from arbiter.client.calls import Again, Call, Method, rpc
from arbiter.serving import WatchedField, WatchedModel, WatchedWindow
from arbiter.v1 import admin_pb2
from arbiter.wire.values import read_timestamp

if TYPE_CHECKING:
    from arbiter.v1.admin_pb2 import GetModelsResponse

_admin = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name
GET_MODELS = rpc(_admin["GetModels"], admin_pb2.GetModelsRequest, admin_pb2.GetModelsResponse, Again.ALWAYS)


class ModelMethods:
    """The part of `Methods` that is about models."""

    @Method
    def models(self, model: str = "", *, timeout: float | None = None) -> Call[list[WatchedModel]]:
        """Return what all workers saw of each version of a model that is served, of one model or of all."""
        message = admin_pb2.GetModelsRequest(model=arguments.text(model, "model"))
        return GET_MODELS.call(message, read_models, timeout)


def read_models(response: GetModelsResponse) -> list[WatchedModel]:
    """Return what a server says of its models."""
    return [
        WatchedModel(
            name=each.name,
            version=each.version,
            digest=each.digest,
            trained_on=each.trained_on,
            since=read_timestamp(each.since),
            rows=each.rows,
            filling=each.filling,
            judged_at=read_timestamp(each.judged_at) if each.HasField("judged_at") else 0,
            fields=tuple(map(_field, each.fields)),
            windows=tuple(map(_window, each.windows)),
        )
        for each in response.models
    ]


def _field(message: admin_pb2.WatchedField) -> WatchedField:
    return WatchedField(
        name=message.name,
        bins=tuple(message.bins),
        expected=tuple(message.expected),
        counts=tuple(message.counts),
        missing=message.missing,
        missing_before=message.missing_before,
        outside=message.outside,
        drift=message.drift if message.HasField("drift") else None,
        chance=message.chance,
        alarms=tuple(message.alarms),
        withheld=message.withheld,
    )


def _window(message: admin_pb2.WatchedWindow) -> WatchedWindow:
    return WatchedWindow(
        began=read_timestamp(message.began),
        ended=read_timestamp(message.ended),
        rows=message.rows,
        outputs={name: (*sizes.counts, sizes.unknown) for name, sizes in message.outputs.items()},
    )
