"""`arbiter serve`: the supervisor and its workers, in the foreground.

Law: turns flags and a config file into settings; what serving is stands in `runtime` and `server`.
"""

import enum
import os
import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from arbiter.cli.remote import DEFAULT_TARGET
from arbiter.errors import did_you_mean

_PLACES = ("rules", "models", "data")


class Transport(enum.StrEnum):
    """What answers the calls."""

    AUTO = "auto"
    INLINE = "inline"
    STOCK = "stock"


class LogLevel(enum.StrEnum):
    """From which level on is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A config file: each flag under its name with `_` for `-`, and the API's limits. Paths count from the file."""

    rules: str = "rules"
    models: str = "models"
    data: str = "data"
    listen: str = DEFAULT_TARGET
    workers: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    transport: Transport = Transport.AUTO
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16
    grace: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0
    snapshots: Annotated[int, msgspec.Meta(ge=2, le=10_000)] = 50
    require_tests: bool = False
    log_level: LogLevel = LogLevel.INFO
    limits: dict[str, Any] = {}  # their names and values are judged once their own table is loaded, see `_face`


Rules = Annotated[str | None, typer.Option(metavar="DIR", help="The rules directory. [default: rules]")]
Models = Annotated[str | None, typer.Option(metavar="DIR", help='The models; "" for none. [default: models]')]
Data = Annotated[
    str | None, typer.Option(metavar="DIR", help="Where profiles, events and snapshots are kept. [default: data]")
]
Listen = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help=f"Port 0 is any free one. [default: {DEFAULT_TARGET}]")
]
Workers = Annotated[int | None, typer.Option(min=1, max=256, help="Worker processes. [default: one per processor]")]
Carrier = Annotated[Transport | None, typer.Option(help="What answers the calls. [default: auto]")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Calls that a worker works on at once. [default: 16]")
]
Grace = Annotated[
    float | None, typer.Option(min=0, max=3600, help="Seconds for the calls under way when it ends. [default: 10]")
]
Required = Annotated[
    bool | None,
    typer.Option("--require-tests", help="Load no rules whose own tests fail, nor rules whose tests hold mistakes."),
]
Snapshots = Annotated[
    int | None, typer.Option(min=2, max=10_000, help="Versions that are kept to go back to. [default: 50]")
]
Level = Annotated[LogLevel | None, typer.Option(help="From which level on is logged. [default: info]")]
File = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="A TOML file with these options, and a table `limits`; flags win."),
]


def serve(
    *,
    rules: Rules = None,
    models: Models = None,
    data: Data = None,
    listen: Listen = None,
    workers: Workers = None,
    transport: Carrier = None,
    threads: Threads = None,
    grace: Grace = None,
    snapshots: Snapshots = None,
    require_tests: Required = None,
    log_level: Level = None,
    config: File = None,
) -> None:
    """Serve decisions until SIGTERM or Ctrl-C.

    Prints one line when every worker answers. Rules and models are watched: a good change is live within a second, a
    bad one changes nothing and is reported.
    """
    given = {
        "rules": rules, "models": models, "data": data, "listen": listen, "workers": workers, "transport": transport,
        "threads": threads, "grace": grace, "snapshots": snapshots,
        "require_tests": require_tests, "log_level": log_level,
    }  # fmt: skip
    chosen = _read(config) if config else Config()
    chosen = msgspec.structs.replace(chosen, **{name: value for name, value in given.items() if value is not None})

    from arbiter.runtime.logs import start_logging  # noqa: PLC0415 - loads onnxruntime and grpc, as do the next
    from arbiter.runtime.settings import Settings  # noqa: PLC0415
    from arbiter.runtime.supervisor import supervise  # noqa: PLC0415
    from arbiter.server.app import open_face  # noqa: PLC0415

    start_logging(chosen.log_level.upper(), "supervisor")
    settings = Settings(
        rules=chosen.rules,
        models=chosen.models,
        data=chosen.data,
        listen=chosen.listen,
        workers=chosen.workers or len(os.sched_getaffinity(0)),
        grace=chosen.grace,
        kept=chosen.snapshots,
        require_tests=chosen.require_tests,
        face=_face(chosen),
        log_level=chosen.log_level.upper(),
    )
    supervise(settings, open_face)


def _read(path: Path) -> Config:
    try:
        config = msgspec.toml.decode(path.read_bytes(), type=Config)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        unknown = re.search(r"unknown field `(.*)`", str(error))
        fields = Config.__struct_fields__
        near = did_you_mean(unknown[1], fields) if unknown else ""
        known = f"; {near or 'the options are ' + ', '.join(fields)}" if unknown else ""
        raise typer.BadParameter(f"{path}: {error}{known}", param_hint="--config") from error
    from_file: dict[str, Any] = {name: str(path.parent / place) for name in _PLACES if (place := getattr(config, name))}
    return msgspec.structs.replace(config, **from_file)


def _face(chosen: Config) -> bytes:
    from arbiter.server.app import FaceSettings  # noqa: PLC0415
    from arbiter.server.limits import Limits  # noqa: PLC0415

    try:
        limits = msgspec.convert(chosen.limits, Limits)
    except msgspec.ValidationError as error:
        known = ", ".join(msgspec.structs.asdict(Limits()))
        raise typer.BadParameter(f"table `limits`: {error}; the limits are {known}", param_hint="--config") from error
    for name, limit in msgspec.structs.asdict(limits).items():
        if limit < 1:
            raise typer.BadParameter(
                f"table `limits`: `{name}` is {limit}, it must be at least 1", param_hint="--config"
            )
    return FaceSettings(transport=chosen.transport.value, threads=chosen.threads, limits=limits).encode()
