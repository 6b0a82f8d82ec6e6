"""A soak from its start to its end: server, callers, weather, the last kill -9, the audit.

Law: owns every process and ends each by its id, whatever happens. Says what was found; judges by what others state.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import machine
from benchmarks.soak.board import Board, Phase
from benchmarks.soak.calls import PATIENCE_S
from benchmarks.soak.served import Disk, Files, Served
from benchmarks.soak.watch import Flatness, Watch
from benchmarks.soak.weather import ROUND, Clock, Weather, drawn, summary

if TYPE_CHECKING:
    from collections.abc import Callable

_TICK_S = 0.02
_WORKERS = 2
_AFTER_S = 5.0  # traffic after the last restart, before the audit


@dataclass(frozen=True)
class Plan:
    """How long and how hard. `rate` is calls a second, of all callers; `processes` times `threads` make the callers."""

    minutes: float
    seed: int
    rate: float = 450.0
    processes: int = 2
    threads: int = 3
    subjects: int = 60  # of each thread

    @property
    def pause_s(self) -> float:
        """Between two disturbances, on average."""
        return min(8.0, max(0.4, self.minutes * 2.0))

    @property
    def disk_mib(self) -> int:
        """Room for all that is written."""
        return int(96 + 40 * self.minutes)


class Callers:
    """The processes of callers, and what they said last."""

    def __init__(self, plan: Plan, folder: Path, target: str) -> None:
        self.said: dict[str, dict[str, Any]] = {}
        self._processes: list[subprocess.Popen[str]] = []
        for number in range(plan.processes):
            name = f"c{number}"
            command = [
                sys.executable, "-m", "benchmarks.soak.caller", name, str(folder), target, "--seed", str(plan.seed),
                "--threads", str(plan.threads), "--subjects", str(plan.subjects),
                "--rate", str(plan.rate / plan.processes),
            ]  # fmt: skip
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own program
            self._processes.append(process)
            threading.Thread(target=self._listen, args=(name, process), daemon=True).start()

    def _listen(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.said[name] = json.loads(line)

    def total(self, of: str) -> Counter[str]:
        """The sum of a count over all processes."""
        found: Counter[str] = Counter()
        for said in list(self.said.values()):
            found.update(said[of])
        return found

    def faults(self) -> list[str]:
        """All that was wrong."""
        return [fault for said in list(self.said.values()) for fault in said["faults"]]

    def wait(self) -> bool:
        """Wait for their end; whether all ended well."""
        last = time.monotonic() + 2 * PATIENCE_S
        ended = True
        for process in self._processes:
            try:
                ended &= process.wait(max(0.0, last - time.monotonic())) == 0
            except subprocess.TimeoutExpired:
                ended = False
        time.sleep(0.2)  # for what they said last to be read
        return ended

    def end(self) -> None:
        """End those that still run."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def soak(plan: Plan, folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run it in `folder`, which must be empty; what was found. `tell` gets a line now and then."""
    rng, began = random.Random(plan.seed), time.monotonic()
    disk = Disk(folder / "data", plan.disk_mib)
    files = Files(folder / "files")
    served = Served(folder, files, disk.folder / "arbiter", _WORKERS)
    clock = Clock()
    board = Board(folder / "board", int((plan.minutes + 10) * 60 / _TICK_S))
    board.show(clock.now())
    ended = threading.Event()
    ticking = threading.Thread(target=_tick, args=(board, clock, ended), daemon=True)
    weather = Weather(folder, served, disk, files, board, clock, rng, began)
    callers: Callers | None = None
    watch = Watch(lambda: _processes(served), disk.used, began, 0.5 if plan.minutes < 5 else 2.0)
    try:
        board.begin()
        board.settle(weather.prepare())
        ticking.start()
        served.start()
        callers = Callers(plan, folder, served.target)
        watch.start()
        pulse = _Pulse(callers, weather, watch.began, tell)
        pulse.start()
        _weather(plan, weather, served, rng)
        watch.end()
        tell("kill -9 of everything, and a start")
        served.kill_all()
        served.start()
        time.sleep(_AFTER_S)
        board.enter(Phase.AUDIT)
        tell("comparing every subject with the ledger")
        complete = callers.wait()
        pulse.end()
        code = served.stop()
    finally:
        board.enter(Phase.END)
        ended.set()
        if callers is not None:
            callers.end()
        served.stop()
        disk.leave()
    return _result(plan, disk, weather, callers, watch, pulse, complete=complete, code=code)


def _tick(board: Board, clock: Clock, ended: threading.Event) -> None:
    while not ended.wait(_TICK_S):
        board.show(clock.now())


def _processes(served: Served) -> dict[str, int]:
    return {"supervisor": served.pid} | {f"worker {pid}": pid for pid in served.workers()}


def _weather(plan: Plan, weather: Weather, served: Served, rng: random.Random) -> None:
    """Rounds of disturbances until the time is up, one at least. From a tenth to nine tenths of it one worker is
    spared, so that there is one old enough to tell whether memory grows.
    """
    began = time.monotonic()
    whole = plan.minutes * 60
    weather.hold_s = min(15.0, 2.0 + plan.minutes / 2)
    time.sleep(min(2.0, plan.pause_s))
    while True:
        for kind in drawn(rng):
            share = (time.monotonic() - began) / whole
            if 0.1 < share < 0.9:
                workers = served.workers()
                if weather.spared not in workers and workers:
                    weather.spared = rng.choice(workers)
            else:
                weather.spared = 0
            weather.disturb(kind)
            time.sleep(rng.uniform(0.5, 1.5) * plan.pause_s)
            if len(weather.events) >= len(ROUND) and time.monotonic() - began > whole:
                weather.await_all()
                return


class _Pulse(threading.Thread):
    """Calls a second and how busy the machine is, as time goes on."""

    def __init__(self, callers: Callers, weather: Weather, began: float, tell: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self.calls: list[tuple[float, float]] = []
        self.busy: list[float] = []
        self._callers, self._weather, self._began, self._tell = callers, weather, began, tell
        self._ended = threading.Event()

    def run(self) -> None:
        """Until ended."""
        began, before = self._began, time.monotonic()
        count, spent = 0, _processor()
        while not self._ended.wait(2.0):
            now, counted, used = time.monotonic(), self._callers.total("calls").total(), _processor()
            self.calls.append((round(now - began, 1), round((counted - count) / (now - before), 1)))
            if used[1] > spent[1]:
                self.busy.append((used[0] - spent[0]) / (used[1] - spent[1]))
            before, count, spent = now, counted, used
            done = self._callers.total("done")
            faults = done["faults"] + len(self._weather.faults)
            self._tell(
                f"{now - began:.0f} s, {self.calls[-1][1]:.0f} calls/s, {done['decisions checked']:,} decisions and "
                f"{done['profiles checked']:,} profiles checked, {done['writes acknowledged']:,} writes, "
                f"{len(self._weather.events)} disturbances, {faults} faults"
            )

    def end(self) -> None:
        """Stop."""
        self._ended.set()


def _processor() -> tuple[int, int]:
    """Ticks that the machine's cores worked, and ticks in all."""
    spent = [int(each) for each in Path("/proc/stat").read_text("ascii").partition("\n")[0].split()[1:9]]
    return sum(spent) - spent[3] - spent[4], sum(spent)


def _result(
    plan: Plan,
    disk: Disk,
    weather: Weather,
    callers: Callers,
    watch: Watch,
    pulse: _Pulse,
    *,
    complete: bool,
    code: int | None,
) -> dict[str, Any]:
    rule = Flatness()
    judged = [found for history in watch.histories.values() if history.samples and (found := rule.judge(history))]
    done, calls = callers.total("done"), callers.total("calls")
    subjects = plan.processes * plan.threads * plan.subjects
    audited = sum(said["audited"] for said in callers.said.values())
    faults = [*weather.faults, *callers.faults()]
    if audited != subjects or not complete:
        faults.append(f"of {subjects} subjects {audited} were compared with the ledger at the end")
    if code != 0:
        faults.append(f"the server ended with {code}")
    faults += [f"{each['process']}: {wrong}" for each in judged for wrong in each["wrong"]]
    return {
        "machine": machine(), "seed": plan.seed, "minutes": plan.minutes, "rate": plan.rate, "disk": disk.how,
        "faults": max(done["faults"] + len(weather.faults), len(faults)), "first_faults": faults[:40],
        "done": dict(done), "calls": dict(sorted(calls.items())), "audited_subjects": audited,
        "slowest_call_s": round(max((said["slowest_s"] for said in callers.said.values()), default=0.0), 2),
        "machine_busy": round(sum(pulse.busy) / max(1, len(pulse.busy)), 2),
        "disturbances": summary(weather.events), "flatness": judged,
        "flatness_rule": {name: getattr(rule, name) for name in rule.__dataclass_fields__},
        "data_mib_last": round(watch.data[-1][1], 1) if watch.data else 0.0,
        "series": {
            "disturbances": weather.events, "calls_per_s": pulse.calls,
            "data_mib": [(at, round(mib, 1)) for at, mib in watch.data],
            "processes": [
                {
                    "process": history.name,
                    "samples": [(s.at, round(s.own, 1), round(s.resident, 1), s.files, s.threads)
                                for s in history.samples],
                }
                for history in watch.histories.values()
            ],
        },
    }  # fmt: skip


def apart(arguments: list[str]) -> None:
    """Go on in a mount namespace of our own where that is allowed, so that no mount outlives us."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0:  # noqa: S607
        os.execvp("unshare", ["unshare", "-m", sys.executable, "-m", "benchmarks.soak", *arguments])  # noqa: S606, S607
