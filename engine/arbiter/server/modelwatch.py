"""What models read and said, as messages.

Law: from what `serving` tells to what the API says, field by field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.v1 import admin_pb2
from arbiter.wire.values import write_timestamp

if TYPE_CHECKING:
    from arbiter.serving import WatchedField, WatchedModel, WatchedWindow


def watched_model(model: WatchedModel) -> admin_pb2.WatchedModel:
    """A version of a model, and what was seen of it."""
    return admin_pb2.WatchedModel(
        name=model.name,
        version=model.version,
        digest=model.digest,
        trained_on=model.trained_on,
        since=write_timestamp(model.since),
        rows=model.rows,
        filling=model.filling,
        judged_at=write_timestamp(model.judged_at) if model.judged_at else None,
        fields=map(_field, model.fields),
        windows=map(_window, model.windows),
    )


def _field(field: WatchedField) -> admin_pb2.WatchedField:
    return admin_pb2.WatchedField(
        name=field.name,
        bins=field.bins,
        expected=field.expected,
        counts=field.counts,
        missing=field.missing,
        missing_before=field.missing_before,
        outside=field.outside,
        drift=field.drift,
        chance=field.chance,
        alarms=field.alarms,
        withheld=field.withheld,
    )


def _window(window: WatchedWindow) -> admin_pb2.WatchedWindow:
    sizes = {name: admin_pb2.Sizes(counts=counts[:-1], unknown=counts[-1]) for name, counts in window.outputs.items()}
    return admin_pb2.WatchedWindow(
        began=write_timestamp(window.began), ended=write_timestamp(window.ended), rows=window.rows, outputs=sizes
    )
