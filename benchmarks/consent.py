"""What consent adds to a decision: the view of a subject with 30 attributes and 20 features, made by the engine's code.

`none` declares no purposes, `all` has purposes that are all granted, `some` hides six attributes and four features.
The ratio that is asserted is what hiding adds, over the read of the profile that every decision pays for.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from arbiter.profiles.consenting import ConsentChange
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.active import Active
from arbiter.runtime.engine import wall_clock
from arbiter.runtime.views import view_of
from arbiter.snapshot import Snapshot
from arbiter.types import ConsentState, Request
from benchmarks.measure import alternate

ATTRIBUTES, FEATURES = 30, 20
HIDDEN = {"a": 6, "f": 4}
SUBJECT = "somebody"


def run() -> dict[str, Any]:
    """The µs that a view takes, and what hiding adds over the read."""
    plain, bound = _active(bound=False), _active(bound=True)
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "store", background=False) as store:
        store.use_features(bound.features)
        store.update(Update(SUBJECT, {f"a{n}": n * 1.5 for n in range(ATTRIBUTES)})).result()
        now = wall_clock()
        request = Request(SUBJECT, (), now)
        hidden = store.read(SUBJECT, now)
        store.set_consent(ConsentChange(SUBJECT, "ads", ConsentState.GRANTED, "benchmark")).result()
        shown = store.read(SUBJECT, now)
        if len(view_of(hidden, request, bound).profile) != ATTRIBUTES - HIDDEN["a"]:
            raise ValueError("what is to be hidden is seen")
        took = alternate(
            {
                "none": lambda: view_of(shown, request, plain),
                "all": lambda: view_of(shown, request, bound),
                "some": lambda: view_of(hidden, request, bound),
                "read": lambda: store.read(SUBJECT, now),
            }
        )
    added = {name: took[name] - took["none"] for name in ("all", "some")}
    return {"took_us": took, "added_us": added, "ratios": {"hiding_over_read": added["some"] / took["read"]}}


def _active(*, bound: bool) -> Active:
    attributes = ", ".join(
        f"a{n}: {'{type: double, purposes: [ads]}' if bound and n < HIDDEN['a'] else 'double'}"
        for n in range(ATTRIBUTES)
    )
    features = "\n".join(
        f"  f{n}: {{count: buy, window: {n + 1}d{', purposes: [ads]' if bound and n < HIDDEN['f'] else ''}}}"
        for n in range(FEATURES)
    )
    consent = "consent: {purposes: [ads]}\n" if bound else ""
    text = f"{consent}schema: {{profile: {{{attributes}}}}}\nfeatures:\n{features}\ndecisions: {{d: }}\n"
    ruleset, found = load_ruleset({"a.yaml": text.encode()}, {})
    if ruleset is None:
        raise ValueError(found)
    snapshot = Snapshot(ruleset, {})
    return Active(snapshot, FeatureSet(snapshot.frame.features))
