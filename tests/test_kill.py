"""kill -9 in the middle of writes: whatever was acknowledged is there, whole, and the store opens."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Store
from arbiter.ruleset.rules import Feature

ENGINE = Path(__file__).parent.parent / "engine"
COUNT = Feature("buys", "count", "buy", "", None, None, 1, "buys", "int")
NOW = 1 << 60
WRITER = """
import sys, threading
from pathlib import Path
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.rules import Feature
from arbiter.types import Event
start = int(sys.argv[2])
lock = threading.Lock()
def tell(text):
    with lock:
        sys.stdout.write(text + "\\n")
        sys.stdout.flush()
with Store.open(Path(sys.argv[1])) as store:
    store.use_features(FeatureSet([Feature("buys", "count", "buy", "", None, None, 1, "buys", "int")]))
    room = threading.Semaphore(40)
    def acknowledged(kind, number):
        def done(future):
            future.result()
            tell(f"{kind} {number}")
            room.release()
        return done
    for number in range(start, start + 1_000_000):
        room.acquire()
        room.acquire()
        store.update(Update(f"s{number % 7}", {f"a{number % 50}": number})).add_done_callback(acknowledged("u", number))
        event = Event(f"e{number}", f"s{number % 7}", "buy", number)
        store.ingest([event]).add_done_callback(acknowledged("e", number))
"""


def test_nothing_acknowledged_is_missing_after_kill_9(tmp_path: Path) -> None:
    generator = random.Random(20261120)  # noqa: S311 - moments, not secrets
    latest: dict[str, int] = {}
    events: set[int] = set()
    acknowledged = 0
    for turn in range(6):
        start = turn * 1_000_000
        process = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-c", WRITER, str(tmp_path), str(start)],
            env={"PYTHONPATH": str(ENGINE)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(20)]
        time.sleep(generator.uniform(0.01, 0.3))
        process.kill()
        lines += process.communicate()[0].splitlines(keepends=True)
        whole = [line.split() for line in lines if line.endswith("\n")]
        acknowledged += len(whole)
        for kind, number in whole:
            if kind == "e":
                events.add(int(number))
            else:
                latest[f"{int(number) % 7}.a{int(number) % 50}"] = int(number)
        with Store.open(tmp_path, background=False) as store:
            store.use_features(FeatureSet([COUNT]))
            logged = {n: [event.at for event in store.events(f"s{n}", limit=1_000_000)] for n in range(7)}
            for n in range(7):
                profile = store.read(f"s{n}", NOW)
                assert profile.features == {"buys": len(logged[n])}
                for name, value in latest.items():
                    subject, attribute = name.split(".")
                    if subject == str(n):
                        assert profile.attributes[attribute] >= value
            assert events <= {at for times in logged.values() for at in times}
    assert acknowledged > 100
