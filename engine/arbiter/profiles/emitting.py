"""An event that happens inside, as one is logged that was sent: checked, once, and counted in the features.

Law: it is a known subject's, whose key is given; it is dated as whoever emits it says, and no bound on that holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.errors import InvalidField
from arbiter.profiles import records
from arbiter.profiles.preparing import encoded

if TYPE_CHECKING:
    from arbiter.profiles.group import Group
    from arbiter.types import Event


def emit(group: Group, key: bytes, event: Event) -> None:
    """Log an event of the subject with this key; one whose id is known is there already. Raises InvalidField,
    LimitExceeded.
    """
    event, written = encoded(event, "emit", group.declared, group.limits)
    if event.at <= group.erased_until(key):
        raise InvalidField("the subject was erased after it happened", field="emit")
    seen = records.seen_key(key, event.id)
    if not group.txn.put(seen, records.moment(event.at), overwrite=False, db=group.environment.seen):
        return
    opened, states = group.open_states(key)
    group.log(key, event, written)
    group.features.insert(states, event)
    opened.profile.touched = group.now
