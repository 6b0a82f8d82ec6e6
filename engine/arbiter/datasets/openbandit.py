"""The Open Bandit sample: a week of what a fashion shop recommended, under two policies, with true propensities.

Law: fetches, checks, caches and reads the log; knows nothing of models or estimates.

Saito, Aihara, Matsutani and Narita, "Open Bandit Dataset and Pipeline", NeurIPS 2021 Datasets and Benchmarks. The
sample lies inside the package `obp`: of each of three campaigns, 10,000 rows that a uniformly random policy logged and
10,000 of Bernoulli Thompson sampling. A row is one item that was shown at one of three places of a page, and whether
it was clicked; the users' features are hashed words.
"""

from __future__ import annotations

import csv
import hashlib
import io
import tempfile
import zipfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from arbiter.datasets.wheels import DataUnavailable, cache_directory, download

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "0.4.1"  # later ones have no wheel that every Python can read
PACKAGE = f"obp=={VERSION}"
SHA256 = "87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208"
Campaign = Literal["all", "men", "women"]
Policy = Literal["random", "bts"]
CAMPAIGNS: tuple[Campaign, ...] = get_args(Campaign)
ROWS = 10_000
USER_FEATURES = 4


class Shown(msgspec.Struct, frozen=True):
    """One row: which item stood at which place (1 to 3), whether it was clicked, and with what probability it was
    chosen. `user` are the user's hashed features, `affinity` counts earlier clicks of the user on the item.
    """

    at: datetime
    item: int
    position: int
    clicked: bool
    propensity: float
    user: tuple[str, ...]
    affinity: float


def fetch_wheel(cache: Path | None = None) -> Path:
    """The path of the package, from the cache when it is there and intact, else by pip. Raises DataUnavailable."""
    path = (cache or cache_directory()) / f"obp-{VERSION}-{SHA256[:16]}.whl"
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="fetch-") as scratch:
        fetched = download(PACKAGE, Path(scratch))
        digest = hashlib.sha256(fetched.read_bytes()).hexdigest()
        if digest != SHA256:
            raise DataUnavailable(f"the package {PACKAGE} has SHA-256 {digest}, expected {SHA256}")
        fetched.replace(path)  # whole or not at all, also when several processes fetch at once
    return path


def load(policy: Policy, campaign: Campaign, cache: Path | None = None) -> list[Shown]:
    """Fetch if need be, and read one log, in its own order. Raises DataUnavailable."""
    return [_shown(row) for row in _rows(policy, campaign, f"{campaign}.csv", cache)]


def items(campaign: Campaign, cache: Path | None = None) -> dict[int, tuple[float, tuple[str, ...]]]:
    """By item what is known of it: a number, and hashed words. Raises DataUnavailable."""
    found = {}
    for row in _rows("random", campaign, "item_context.csv", cache):
        words = tuple(row[f"item_feature_{number}"] for number in (1, 2, 3))
        found[int(row["item_id"])] = (float(row["item_feature_0"]), words)
    return found


def _rows(policy: Policy, campaign: Campaign, name: str, cache: Path | None) -> Iterator[dict[str, Any]]:
    member = f"obp/dataset/obd/{policy}/{campaign}/{name}"
    try:
        with zipfile.ZipFile(fetch_wheel(cache)) as wheel:
            text = wheel.read(member).decode()
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise DataUnavailable(f"{PACKAGE} does not hold {member}") from error
    return iter(csv.DictReader(io.StringIO(text)))


def _shown(row: dict[str, Any]) -> Shown:
    return Shown(
        datetime.fromisoformat(row["timestamp"]),
        int(row["item_id"]),
        int(row["position"]),
        row["click"] == "1",
        float(row["propensity_score"]),
        tuple(row[f"user_feature_{number}"] for number in range(USER_FEATURES)),
        float(row[f"user-item_affinity_{row['item_id']}"]),
    )
