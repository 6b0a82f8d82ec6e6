"""ExportProfile and DeleteProfile: everything that is held on a subject, given out or erased.

Law: turns what the store shows into messages. What is held and what erasing it means is the store's to say; that it is
recorded, the audit log's.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from arbiter.errors import InvalidField
from arbiter.profiles.attributes import check_owner
from arbiter.server.calls import Later, parse, parsed
from arbiter.v1 import profile_pb2
from arbiter.wire.values import write_entries, write_timestamp

if TYPE_CHECKING:
    from arbiter.config.limits import Limits
    from arbiter.profiles.records import Erased
    from arbiter.runtime.engine import Engine
    from arbiter.server.calls import Call, Work
    from arbiter.telemetry.counters import Counters

_PAGE = 1_000
# Where a record speaks of features, under the hashes of their definitions.
_OF_FEATURES = ("features", "states", "changed")


class Privacy:
    """The calls of ProfileService for whoever answers a subject that asks what is held, or to be forgotten."""

    def __init__(self, engine: Engine, limits: Limits, counters: Counters) -> None:
        self._engine = engine
        self._allowed = limits.page_entries
        self._counters = counters

    def works(self) -> dict[str, Work]:
        """Return the work of each RPC by name."""
        return {
            "ExportProfile": parsed(profile_pb2.ExportProfileRequest, self._export),
            "DeleteProfile": self._delete,
        }

    def _export(self, request: profile_pb2.ExportProfileRequest, _call: Call) -> profile_pb2.ExportProfileResponse:
        subject_id, account_id, store = request.subject_id, request.account_id, self._engine.store
        check_owner(subject_id, account_id)
        if request.page_size > self._allowed:
            raise InvalidField(
                f"page_size is {request.page_size:,}, and `page_entries` allows {self._allowed:,}: ask for fewer, and "
                "for more pages",
                field="page_size",
                reason="page_entries",
            )
        token, limit = _token(request.page_token), request.page_size or min(_PAGE, self._allowed)
        found = store.export(subject_id, account_id=account_id, token=token, limit=limit)
        names = self._feature_names()
        response = profile_pb2.ExportProfileResponse(
            subject_id=subject_id,
            account_id=account_id,
            pseudonym=store.pseudonym(subject_id, account_id=account_id),
            next_page_token=base64.urlsafe_b64encode(found.following).decode(),
            at=write_timestamp(self._engine.clock()),
        )
        if found.erased is not None:
            response.erased_at.CopyFrom(write_timestamp(found.erased))
        for holding, fields in found.entries:
            write_entries(response.entries.add(holding=holding).fields, _named(fields, names))
        return response

    def _feature_names(self) -> dict[str, str]:
        snapshot = self._engine.snapshot
        return {} if snapshot is None else {each.key: name for name, each in snapshot.symbols.features.items()}

    def _delete(self, content: bytes, _call: Call) -> Later:
        request = parse(profile_pb2.DeleteProfileRequest, content)
        subject_id, account_id, store = request.subject_id, request.account_id, self._engine.store
        check_owner(subject_id, account_id)
        pseudonym = store.pseudonym(subject_id, account_id=account_id)

        def erased(done: Erased) -> bytes:
            self._counters.store_writes += 1
            return profile_pb2.DeleteProfileResponse(
                erased_at=write_timestamp(done.at), erased=done.entries, pseudonym=pseudonym
            ).SerializeToString()

        return Later(store.erase(subject_id, account_id=account_id), erased)


def _token(text: str) -> bytes:
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b"\xc1"  # no token of the store's, which says so


def _named(fields: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """An entry with the features that rules declare today under their names."""
    shown = dict(fields)
    for field in _OF_FEATURES:
        if isinstance(fields.get(field), dict):
            shown[field] = {_renamed(key, names): value for key, value in fields[field].items()}
    return shown


def _renamed(key: str, names: dict[str, str]) -> str:
    root, dot, rest = key.partition(".")
    return f"{root}.{names.get(rest, rest)}" if dot and root == "features" else names.get(key, key)
