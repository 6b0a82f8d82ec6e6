"""`arbiter bench`: load on a running server, and what came of it.

Law: turns options into requests and a result into rows; how load is made stands in `arbiter.bench`.
"""

import enum
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arbiter.cli.asking import AsJson, Context
from arbiter.cli.remote import DEFAULT_TARGET, Asked, asks_a_server, read_token, tls_of
from arbiter.cli.terminal import FINDINGS, err, fail, print_json, print_table
from arbiter.cli.values import read_assignments, read_context

if TYPE_CHECKING:
    import ssl

    from arbiter.bench import Load, Result
    from arbiter.client.written import Written

_LONGEST_S = 600
_FEW_BATCHES = 64


class Method(enum.StrEnum):
    """What is called."""

    DECIDE = "decide"
    BATCH = "batch"
    UPDATE = "update"


Decision = Annotated[str, typer.Argument(metavar="DECISION", help="The decision point; none with `--method update`.")]
How = Annotated[Method, typer.Option(help="What is called. An update changes the profiles of the subjects for good.")]
Subjects = Annotated[
    Path | None,
    typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Subjects to ask for, one a line, by turns."),
]
Prefix = Annotated[str, typer.Option(metavar="TEXT", help="Without --subjects: what their ids begin with.")]
Count = Annotated[
    int, typer.Option(metavar="N", min=1, max=1_000_000, help="Without --subjects: how many, numbered from 0.")
]
Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="With `--method update`: what is set.")
]
Batch = Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="With `--method batch`: the decisions in each.")]
Streams = Annotated[
    int, typer.Option(metavar="N", min=1, max=10_000, help="Callers, each of whom calls again when answered.")
]
Connections = Annotated[
    int, typer.Option(metavar="N", min=1, max=256, help="Connections that the calls are spread over.")
]
Rate = Annotated[
    float | None,
    typer.Option(min=0.1, max=1e6, metavar="N", help="N calls a second at random moments, instead of callers."),
]
Seconds = Annotated[float, typer.Option(metavar="N", min=0.1, max=_LONGEST_S, help="Seconds that are measured.")]
Warmup = Annotated[float, typer.Option(metavar="N", min=0, max=60, help="Seconds of load before that, not measured.")]
Timeout = Annotated[
    float | None, typer.Option(metavar="N", min=0.001, max=60, help="The deadline of each call, in seconds.")
]
Remote = Annotated[bool, typer.Option("--remote", help="Allow a target that is not this machine.")]


@asks_a_server
def bench(
    decision: Decision = "",
    *,
    server: Asked,
    method: How = Method.DECIDE,
    subjects: Subjects = None,
    prefix: Prefix = "customer-",
    count: Count = 1000,
    context: Context = "{}",
    setting: Setting = None,
    batch: Batch = 100,
    streams: Streams = 32,
    connections: Connections = 1,
    rate: Rate = None,
    seconds: Seconds = 5.0,
    warmup: Warmup = 0.5,
    timeout: Timeout = None,
    remote: Remote = False,
    as_json: AsJson = False,
) -> None:
    """Put load on a running server, and tell how many calls it answers and how long they take.

    By default --streams callers call again as soon as they are answered. With --rate calls come at that rate instead,
    whether or not those before were answered, and each is timed from when it was due. Ends with 1 when a call was not
    answered OK.
    """
    from arbiter.bench import Load, LoadError, NoServer, drive  # noqa: PLC0415 - numpy, which other commands do without

    token = read_token(server.token_file)
    place = _allowed(server, token, remote=remote)
    requests = _requests(method, decision, _subjects(subjects, prefix, count), read_context(context), setting, batch)
    try:
        load = Load(
            target=place,
            path=requests[0].path,
            bodies=[each.content for each in requests],
            streams=streams,
            connections=connections,
            seconds=seconds,
            rate=rate,
            poisson=rate is not None,
            warmup=warmup,
            timeout=timeout,
            metadata=[("authorization", f"Bearer {token}")] if token else (),
            tls=_secured(server),
        )
    except LoadError as error:
        raise typer.BadParameter(str(error)) from error
    with err().status(f"putting load on {place} for {warmup + seconds:g} s"):
        try:
            (result,) = drive(load)
        except NoServer as error:
            way = "say --no-tls if it speaks none" if load.tls else "say --tls or --ca FILE if it speaks TLS"
            fail(f"{error}: start one with `arbiter serve`, or name another with --target HOST:PORT; {way}")
    decisions = batch if method is Method.BATCH else 1
    if as_json:
        print_json({"target": place, "method": method.value} | result.summary() | _more(result, decisions))
    else:
        print_table(("what", "measured"), _rows(load, result, decisions), title=f"{method.value}, {place}")
    if result.failed:
        raise typer.Exit(FINDINGS)


def _allowed(server: Asked, token: str | None, *, remote: bool) -> str:
    """The target, where load may be put. Raises a usage error for another machine unless that was said, and for a token
    that would cross a network in the open.
    """
    from arbiter.client import Misconfigured  # noqa: PLC0415 - brings grpc
    from arbiter.client.access import check_token, targets_of  # noqa: PLC0415

    target = server.target or DEFAULT_TARGET
    try:
        (place,) = targets_of(target)
    except Misconfigured as error:
        raise typer.BadParameter(str(error), param_hint="--target") from error
    if not (place.here or remote):
        raise typer.BadParameter(
            f"`{target}` is not this machine: load can bring down what others use; say --remote if it is yours",
            param_hint="--target",
        )
    try:
        secured = tls_of(server) is not None
        check_token(token, [place], secured=secured, insecure_token=bool(server.insecure_token))
    except Misconfigured as error:
        raise typer.BadParameter(str(error), param_hint="--token-file") from error
    return target


def _secured(server: Asked) -> "ssl.SSLContext | None":
    """What secures the connections; None for in the open. Raises LoadError, and a usage error."""
    from arbiter.bench.secured import trusting  # noqa: PLC0415
    from arbiter.client import Misconfigured  # noqa: PLC0415 - brings grpc

    tls = tls_of(server)
    if tls is None:
        return None
    try:
        tls.read()
    except Misconfigured as error:
        raise typer.BadParameter(str(error)) from error
    return trusting(server.ca, server.certificate, server.key)


def _subjects(file: Path | None, prefix: str, count: int) -> list[str]:
    if file is None:
        return [f"{prefix}{number}" for number in range(count)]
    try:
        subjects = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"cannot read {file}: {error}", param_hint="--subjects") from error
    if not subjects:
        raise typer.BadParameter(f"{file} names nobody: write one subject a line", param_hint="--subjects")
    return subjects


def _requests(
    method: Method, decision: str, subjects: list[str], context: dict[str, Any], setting: list[str] | None, batch: int
) -> "list[Written]":
    """What is sent by turns. Raises InvalidRequest, and a usage error for options that do not go together."""
    from arbiter.client import Ask  # noqa: PLC0415 - brings grpc
    from arbiter.client.written import written_batch, written_decide, written_update  # noqa: PLC0415

    if (method is Method.UPDATE) == bool(decision):
        said = "an update asks no decision point: leave it out" if decision else "say which decision point is asked"
        raise typer.BadParameter(said)
    if (method is Method.UPDATE) != bool(setting):
        said = "only `--method update` sets attributes" if setting else "say what is set, as in --set visits=1"
        raise typer.BadParameter(said, param_hint="--set")
    if method is Method.UPDATE:
        attributes = read_assignments(setting or ())
        return [written_update(subject, attributes) for subject in subjects]
    asked = [Ask(subject_id=subject, decision=decision, context=context) for subject in subjects]
    if method is Method.DECIDE:
        return [written_decide(each) for each in asked]
    following = itertools.cycle(asked)
    turns = min(_FEW_BATCHES, -(-len(asked) // batch))
    return [written_batch(itertools.islice(following, batch)) for _ in range(turns)]


def _more(result: "Result", decisions: int) -> dict[str, Any]:
    return {"decisions_per_second": round(result.goodput * decisions, 1)} if decisions > 1 else {}


def _rows(load: "Load", result: "Result", decisions: int) -> list[tuple[str, str]]:
    told = result.summary()
    loop = f"{load.streams} callers" if load.rate is None else f"{load.rate:,g} calls a second, at random"
    rows = [
        ("load", f"{loop}, {load.connections} connection{'s' if load.connections > 1 else ''}, {load.seconds:g} s"),
        ("answers a second", f"{result.throughput:,.0f}"),
        ("OK a second", f"{result.goodput:,.0f}"),
        *([("decisions a second", f"{result.goodput * decisions:,.0f}")] if decisions > 1 else ()),
        *((f"{name} of OK", f"{value:,.0f} µs") for name, value in told["latency_us"].items()),
        *((status, f"{number:,}") for status, number in told["statuses"].items()),
    ]
    if load.rate is not None:
        rows.append(("sent late, median", f"{told['lag_us']['p50']:,.0f} µs"))
    for name, said in (("unanswered", "no answer came"), ("unsent", "not sent, too many were open")):
        if told[name]:
            rows.append((said, f"{told[name]:,}"))
    if result.reconnected:
        rows.append(("connections made again", f"{result.reconnected:,}"))
    return rows
