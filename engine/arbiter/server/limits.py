"""Every limit of the API, in one place.

Law: names and numbers only. A limit's name here is the name that an answer gives, and the name in the config.
"""

from __future__ import annotations

import msgspec

_KIB = 1024
_MIB = 1024 * _KIB


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request may hold. Sizes are in bytes, counts in pieces, depth in nested lists and maps.

    A field that breaks a limit of its own form (ids, names, values) is INVALID_ARGUMENT; too many or too much of what
    is each allowed is RESOURCE_EXHAUSTED.
    """

    # The form of one field.
    id_bytes: int = 256
    name_bytes: int = 256
    value_depth: int = 8
    value_bytes: int = 64 * _KIB
    list_items: int = 1000
    map_entries: int = 1000
    slots: int = 100
    # How much of it.
    context_bytes: int = 256 * _KIB
    decisions: int = 32
    explain_rules: int = 100
    batch_requests: int = 1000
    batch_events: int = 10_000
    validate_files: int = 2000
    validate_file_bytes: int = 4 * _MIB
    # The whole call.
    message_bytes: int = 16 * _MIB
    # Calls under way: on one connection, beyond which the client waits, and in one worker, beyond which it is refused.
    connection_calls: int = 256
    concurrent_calls: int = 512
