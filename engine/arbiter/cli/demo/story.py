"""The story: its steps in their order, and what they need from each other.

Law: no step's work is done here. Whatever happens, what was started is ended: the server by its id, the copies with
their directory.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from arbiter.cli.demo import change, customers, newcomers, purchases
from arbiter.cli.demo.flow import Flow
from arbiter.cli.demo.plot import draw, percentile
from arbiter.cli.demo.scene import Scene, copies
from arbiter.cli.demo.server import serving
from arbiter.cli.demo.stage import Stage, StepFailed, require
from arbiter.cli.terminal import plural, print_table
from arbiter.client import Client

if TYPE_CHECKING:
    from types import FrameType

    from arbiter.cli.demo.change import Change
    from arbiter.cli.demo.customers import Asked

_SHARES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to tell it, as the command's options."""

    rules: Path
    models: Path
    plot: Path
    workers: int
    quick: bool


def tell(options: Options) -> None:
    """Tell the whole story. Raises StepFailed, or another ArbiterError, at the first thing that did not happen."""
    require(
        importlib.util.find_spec("matplotlib"), "the picture needs matplotlib: install arbiter with its extra `demo`"
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)  # so that what was started is ended then, too
    stage = Stage()
    with tempfile.TemporaryDirectory(prefix="arbiter-demo-") as folder:
        place = Path(folder)
        rules, models = copies(options.rules, options.models, place)
        stage.step("A server")
        with (
            serving(rules, models, place / "data", place / "server.log", workers=options.workers) as target,
            Client(target) as client,
        ):
            _tell(Scene(stage, client, rules, quick=options.quick), options)
    stage.say(f"[bold green]All of it happened[/bold green], in {stage.seconds:.0f} s.")


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _tell(scene: Scene, options: Options) -> None:
    stage = scene.stage
    _say_what_runs(scene, options.workers)

    stage.step("39 weeks of purchases arrive")
    record = purchases.read_record(quick=scene.quick)
    purchases.replay(scene, record)

    stage.step("Who gets what on the home page, and why")
    asked = customers.ask_many(scene, record.customers)
    customers.print_who_got_what(scene, asked)

    stage.step("New customers buy for the first, second and third time")
    newcomers.join(scene, record.newcomers)

    stage.step("One decision explained, and changed by what we learn")
    customers.explain_and_tell_a_name(scene, asked)

    changed = _change(scene, asked)

    stage.step("How long decisions took")
    ordered = sorted(scene.latencies)
    print_table(
        ("decisions", *(name for name, _ in _SHARES)),
        [(f"{len(ordered):,}", *(f"{percentile(ordered, share) * 1e6:,.0f} µs" for _, share in _SHARES))],
    )
    draw(
        options.plot,
        got=customers.shares(asked),
        latencies=ordered,
        watched=changed.watched,
        moments=changed.moments,
        took_ms=changed.took_ms,
    )
    require(options.plot.stat().st_size, "the picture is empty")
    stage.done(f"the picture is {options.plot}")


def _say_what_runs(scene: Scene, workers: int) -> None:
    status = scene.client.snapshot()
    require(status.snapshot is not None and len(status.workers) == workers, "not all workers serve")
    if status.snapshot is None:
        raise StepFailed("the server serves no snapshot")
    counts = msgspec.structs.asdict(status.snapshot.counts)
    scene.stage.done(
        f"{plural(workers, 'worker')} on {scene.client.target}, snapshot {status.snapshot.digest[:12]}: "
        + ", ".join(f"{count} {noun}" for noun, count in counts.items())
    )


def _change(scene: Scene, asked: list[Asked]) -> Change:
    watched = next((each.customer for each in asked if each.given.rule_id == change.EDITED_RULE), None)
    if watched is None:
        raise StepFailed(f"no customer among {len(asked)} gets `{change.EDITED_RULE}`: the example rules have changed")
    others = [each.customer for each in asked if each.customer != watched]
    with Flow(scene.client.target, watched, others) as flow:
        changed = change.edit_break_mend(scene, flow, watched)
    scene.latencies += [call.took for call in flow.calls]
    return changed
