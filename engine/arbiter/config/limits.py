"""Every limit of the API, in one place.

Law: names and numbers only. A limit's name here is the name that an answer gives, and the name in the configuration.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from arbiter.config.declare import option

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_MOST: Final = 2**31 - 1


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request may hold. Sizes are in bytes, counts in pieces, depth in nested lists and maps.

    A field that breaks a limit of its own form (ids, names, values) is INVALID_ARGUMENT; too many or too much of what
    is each allowed is RESOURCE_EXHAUSTED.
    """

    # The form of one field.
    id_bytes: Annotated[
        int,
        option("Bytes of an id, or of the name of a decision point or a rule.", least=1, most=256),
    ] = 256
    name_bytes: Annotated[int, option("Bytes of a key of a map.", least=1, most=_MOST)] = 256
    value_depth: Annotated[int, option("Lists and maps inside each other.", least=1, most=64)] = 8
    value_bytes: Annotated[int, option("Bytes of one string.", least=1, most=_MOST)] = 64 * _KIB
    list_items: Annotated[int, option("Items of one list.", least=1, most=_MOST)] = 1000
    map_entries: Annotated[int, option("Entries of one map.", least=1, most=_MOST)] = 1000
    validate_path_bytes: Annotated[int, option("Bytes of a path of `Validate`.", least=1, most=4096)] = 1024
    slots: Annotated[int, option("Slots that a call may ask for.", least=1, most=_MOST)] = 100
    page_events: Annotated[int, option("Events of one page of `ListEvents`.", least=1, most=100_000)] = 1000
    page_entries: Annotated[int, option("Entries of one page of `ExportProfile`.", least=1, most=100_000)] = 10_000
    # How much of it.
    context_bytes: Annotated[int, option("Bytes of a request's context.", least=1, most=_MOST)] = 256 * _KIB
    decisions: Annotated[int, option("Decision points of a page.", least=1, most=_MOST)] = 32
    explain_rules: Annotated[int, option("Rules that an explanation names.", least=1, most=_MOST)] = 100
    batch_requests: Annotated[int, option("Requests of one `DecideBatch`.", least=1, most=_MOST)] = 1000
    batch_events: Annotated[int, option("Events of one `IngestEvents`.", least=1, most=_MOST)] = 10_000
    validate_files: Annotated[int, option("Files of one `Validate`.", least=1, most=_MOST)] = 2000
    validate_file_bytes: Annotated[int, option("Bytes of one file of `Validate`.", least=1, most=_MOST)] = 4 * _MIB
    overrides: Annotated[int, option("Overrides that stand at once.", least=0, most=10_000)] = 100
    # What is stored.
    record_bytes: Annotated[
        int, option("Bytes of the attributes of one profile, as MessagePack.", least=1, most=16 * _MIB)
    ] = 64 * _KIB
    event_bytes: Annotated[int, option("Bytes of one event, as MessagePack.", least=1, most=16 * _MIB)] = 16 * _KIB
    consent_purposes: Annotated[int, option("Purposes of which a subject said something.", least=1, most=10_000)] = 100
    link_events: Annotated[
        int, option("Events of an id that `LinkIdentity` makes another's.", least=0, most=10_000_000)
    ] = 100_000
    aliases: Annotated[int, option("Ids that stand for one subject.", least=0, most=100_000)] = 1000
    write_queue: Annotated[int, option("Writes that wait in one worker.", least=1, most=1_000_000)] = 10_000
    # The whole call.
    message_bytes: Annotated[int, option("Bytes of one call, as sent.", least=1, most=_MOST)] = 16 * _MIB
    metadata_bytes: Annotated[int, option("Bytes of the metadata of one call.", least=1024, most=_MIB)] = 16 * _KIB
    decide_streams: Annotated[int, option("Streams of `DecideStream` in one worker.", least=0, most=1024)] = 32
    ingest_streams: Annotated[int, option("Streams of `IngestStream` in one worker.", least=1, most=1024)] = 16
    followers: Annotated[int, option("Streams of `Subscribe` in one worker.", least=0, most=1024)] = 32
    watchers: Annotated[int, option("Streams of `WatchDecisions` in one process.", least=0, most=100)] = 4
    # Beyond which a worker closes new connections at once.
    connections: Annotated[int, option("Connections to one worker.", least=1, most=_MOST)] = 10_000
    # Calls under way: on one connection, beyond which the client waits, and in one worker, beyond which it is refused.
    connection_calls: Annotated[int, option("Calls under way on one connection.", least=1, most=_MOST)] = 100
    concurrent_calls: Annotated[int, option("Calls under way in one worker.", least=1, most=_MOST)] = 512
