"""`arbiter status`: how a server is, processes and all.

Law: asks and prints; what runs is told in more words by `arbiter snapshot show`.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import FINDINGS, plural, print_json, print_table
from arbiter.cli.versions import DIGITS, status_fields
from arbiter.decision.wording import shown
from arbiter.types import from_micros

if TYPE_CHECKING:
    from arbiter.serving import ConsumerInfo, LogFigures, ServerInfo, TriggerInfo, WorkerFigures


@asks_a_server
def status(*, server: Asked, as_json: AsJson = False) -> None:
    """Say how a server is doing: version, uptime, what runs, what became of the last reload, how full the store is.

    And of each worker process: the calls under way, while metrics or traces are on; the writes that wait; and the calls
    that it shed because there were too many. Of one that does not answer soon they are left out.

    Ends with 1 when a worker does not serve, the consumer of Kafka's topics does not read, triggers do not run, the
    last reload failed, or the server is stopping.
    """
    with connected(server) as client:
        info = client.server_info()
    if as_json:
        print_json(_fields(info))
    else:
        _print(info)
    last = info.status.last_reload
    phases = {each.phase for each in (*info.workers, info.consumer, info.triggers) if each is not None}
    well = not info.draining and phases <= {"serving"}
    if not well or last is None or not last.ok:
        raise typer.Exit(FINDINGS)


def _print(info: "ServerInfo") -> None:
    up = timedelta(seconds=(info.at - info.started_at) // 1_000_000)
    rows = [("version", info.version), ("up", f"{up}, since {shown(from_micros(info.started_at))}")]
    if info.draining:
        rows.append(("stopping", "no new calls are taken, those under way are finished"))
    if (runs := info.status.snapshot) is not None:
        rows.append(("snapshot", f"{runs.digest[:DIGITS]}, since {shown(from_micros(runs.loaded_at))}"))
    if (last := info.status.last_reload) is not None:
        became = "went well" if last.ok else f"failed: {last.first_error}"
        rows.append(("last reload", f"{shown(from_micros(last.at))} {became}"))
    if (store := info.store) is not None:
        rows.append(("store", f"{store.used:,} of {store.quota:,} bytes"))
        if store.left:
            changed = ", ".join(store.rebuilding) or "some are gone"
            rows.append(("features", f"{changed}: about {store.left:,} profiles are left to rewrite"))
        if store.previous_ids:
            rows.append(("keys", f"{store.previous_ids:,} ids are left under an earlier key"))
    if (consumer := info.consumer) is not None:
        rows.append(("kafka", _consumed(consumer)))
    if (triggers := info.triggers) is not None:
        rows.append(("triggers", _triggered(triggers)))
    if (log := info.decision_log) is not None:
        rows.append(("decision log", _logged(log)))
    print_table(("what", "is"), rows, prose=("is",))
    print_table(
        ("worker", "process", "phase", "since", "snapshot", "restarts", "calls", "writes", "shed"),
        [
            (str(each.number), str(each.pid or ""), each.phase, shown(from_micros(each.since)), each.digest[:DIGITS],
             str(each.restarts), *_counted(each.figures))
            for each in info.workers
        ],
    )  # fmt: skip


def _consumed(consumer: "ConsumerInfo") -> str:
    """The consumer of Kafka's topics in a sentence or two."""
    said = f"{consumer.phase} as process {consumer.pid}" if consumer.pid else consumer.phase
    if (figures := consumer.figures) is not None:
        said += (
            f", {plural(figures.partitions, 'partition')}, {figures.lag:,} messages behind: {figures.accepted:,} stored"
            f", {figures.duplicates:,} known, {figures.erased:,} of erased subjects, {figures.rejected:,} rejected, "
            f"{figures.missed:,} missed"
        )
        said += f"; waits, since `{figures.paused}` is full" if figures.paused else ""
        if figures.last_error:
            said += f"; last error {shown(from_micros(figures.last_error_at))}: {figures.last_error}"
    return said


def _triggered(triggers: "TriggerInfo") -> str:
    """The process that runs triggers in a sentence."""
    said = f"{triggers.phase} as process {triggers.pid}" if triggers.pid else triggers.phase
    said += f", restarted {plural(triggers.restarts, 'time')}" if triggers.restarts else ""
    if (figures := triggers.figures) is not None:
        said += f", {plural(figures.triggers, 'trigger')}, {plural(figures.firings, 'firing')}"
        said += f", {figures.passed:,} passed over"
        said += f"; {plural(figures.lag, 'event')} and {figures.lag_seconds:,.1f} s behind" if figures.lag else ""
        said += f"; {plural(figures.set_aside, 'event')} set aside" if figures.set_aside else ""
    return said


def _logged(log: "LogFigures") -> str:
    """The log of decisions in a sentence."""
    said = f"{log.written:,} written, {log.dropped:,} dropped, {log.kept:,} made Parquet, {log.size:,} bytes"
    return f"{said}; stopped: {log.error}" if log.error else said


def _counted(figures: "WorkerFigures | None") -> tuple[str, str, str]:
    """Nothing where nothing is known."""
    if figures is None:
        return "", "", ""
    calls = "" if figures.calls is None else str(figures.calls)
    return calls, str(figures.writes), str(sum(figures.shed.values()))


def _fields(info: "ServerInfo") -> dict[str, Any]:
    """For JSON: moments as ISO 8601, as everywhere on the command line."""
    fields: dict[str, Any] = msgspec.to_builtins(info)
    fields |= {
        "at": from_micros(info.at),
        "started_at": from_micros(info.started_at),
        "status": status_fields(info.status),
    }
    for written, each in zip(fields["workers"], info.workers, strict=True):
        written["since"] = from_micros(each.since)
    if info.triggers is not None:
        fields["triggers"]["since"] = from_micros(info.triggers.since)
    if info.consumer is not None:
        fields["consumer"]["since"] = from_micros(info.consumer.since)
        if (figures := info.consumer.figures) is not None:
            at = figures.last_error_at
            fields["consumer"]["figures"]["last_error_at"] = from_micros(at) if at else None
    return fields
