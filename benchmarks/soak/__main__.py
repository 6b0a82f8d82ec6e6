"""`python -m benchmarks.soak --minutes 30`: soak a server, write `soak.json` and `soak.png`; 1 for any fault."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

from benchmarks.soak.report import draw, table
from benchmarks.soak.run import Plan, apart, soak

_EVERY = 15  # lines told, in a pipe


def main() -> int:
    """Run a soak as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="drawn when it is not given, and printed")
    parser.add_argument("--rate", type=float, default=Plan.rate, help="calls a second")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "out", help="where results go")
    parser.add_argument("--keep", type=Path, default=None, help="an empty directory to run in, which is kept")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.apart:
        apart([*sys.argv[1:], "--apart"])
    seed = random.randrange(1 << 32) if asked.seed is None else asked.seed
    plan = Plan(minutes=asked.minutes, seed=seed, rate=asked.rate)
    print(f"soak of {plan.minutes:g} minutes, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = soak(plan, folder, _teller())
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "soak.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    draw(result, asked.out / "soak.png")
    print(table(result))
    return 1 if result["faults"] else 0


def _teller() -> _Teller:
    return _Teller(terminal=sys.stdout.isatty())


class _Teller:
    """Progress: one line that changes on a terminal, a line now and then in a pipe."""

    def __init__(self, *, terminal: bool) -> None:
        self._terminal = terminal
        self._told = 0

    def __call__(self, line: str) -> None:
        if self._terminal:
            print(f"\r\033[K{line}", end="", flush=True)
        elif self._told % _EVERY == 0:
            print(line, flush=True)
        self._told += 1


if __name__ == "__main__":
    sys.exit(main())
