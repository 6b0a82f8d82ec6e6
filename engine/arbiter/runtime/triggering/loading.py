"""The triggers of what is live, opened from the archive as workers open it.

Law: the canary's triggers do not run: what a subject does is looked at once. Decisions that triggers ask for are made
as a worker makes them, for who is in the canary by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.ruleset.triggering import open_triggers
from arbiter.runtime.active import Candidate
from arbiter.runtime.triggering.running import Rules

if TYPE_CHECKING:
    from arbiter.config.options import Triggers
    from arbiter.runtime.admin import Live
    from arbiter.runtime.archive import Archive
    from arbiter.runtime.engine import Engine
    from arbiter.snapshot import Snapshot

_SECOND = 1_000_000


def opened(live: Live, archive: Archive, engine: Engine, options: Triggers) -> Rules:
    """The rules of what is live, by which `engine` decides from now on. Raises StoreError."""
    snapshot, candidate = _snapshot(live.digest, archive, engine), None
    if live.canary is not None:
        other = _snapshot(live.canary.digest, archive, engine)
        candidate = Candidate(other, live.canary.percent, live.canary.salt)
    engine.activate(snapshot, candidate, live.overrides)
    return rules_of(engine, late=round(options.late_seconds * _SECOND), chain=options.chain)


def rules_of(engine: Engine, *, late: int, chain: int) -> Rules:
    """The triggers of the snapshot that `engine` decides by. Raises NotReady."""
    active = engine.current()
    snapshot = active.snapshot
    return Rules(
        digest=snapshot.digest,
        active=active,
        triggers=open_triggers(snapshot.frame, snapshot.symbols),
        engine=engine,
        keys=engine.store.keys,
        late=late,
        chain=chain,
    )


def _snapshot(digest: str, archive: Archive, engine: Engine) -> Snapshot:
    known = engine.snapshots
    if digest in known:
        return known[digest]
    return archive.read(digest, {model.digest: model for each in known.values() for model in each.known_models()})
