"""Every option of `arbiter serve`, once: name, type, bounds, default and meaning.

Law: declarations only. A field here is all there is to an option: the file, the environment, the flags, the tables in
the docs, the schema and `arbiter config show` follow from it. `Settings` and `FaceSettings` take what they need from it
by name. A secret is never a value here, only the name of a file that holds it.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from arbiter.config.declare import declared, option
from arbiter.config.limits import Limits

Transport = Literal["auto", "inline", "stock"]
LogLevel = Literal["debug", "info", "warning", "error"]
KafkaFormat = Literal["json", "protobuf"]
KafkaStart = Literal["earliest", "latest"]
TimeUnit = Literal["s", "ms", "us"]


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Encryption, and who is on the other side. The files are PEM."""

    certificate: Annotated[
        str,
        option("The server's certificate, and behind it those that lead to the root (PEM).", shown="FILE", needs="key"),
    ] = ""
    key: Annotated[str, option("The private key of the certificate (PEM).", shown="FILE", needs="certificate")] = ""
    client_ca: Annotated[
        str,
        option(
            "Authorities (PEM): callers must show a certificate that one of these signed.",
            shown="FILE",
            needs="certificate",
        ),
    ] = ""


class Auth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may call."""

    tokens: Annotated[
        str,
        option(
            "The file of callers, as `arbiter token new` writes it: hashed tokens, names in certificates, roles.",
            shown="FILE",
        ),
    ] = ""
    jwt_keys: Annotated[
        str, option("The public keys (JWKS) by which signed tokens (JWT) are trusted.", shown="FILE")
    ] = ""
    jwt_issuer: Annotated[str, option("Who must have issued a JWT.", shown="TEXT", needs="jwt_keys")] = ""
    jwt_audience: Annotated[str, option("Whom a JWT must be meant for.", shown="TEXT", needs="jwt_keys")] = ""
    insecure: Annotated[bool, option("Serve though a public address is without authentication or TLS.")] = False


class Audit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The record of administration and privacy calls."""

    file: Annotated[
        str, option("The file in which calls of administration and privacy are recorded; empty for none.", shown="FILE")
    ] = ""


class Telemetry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What OpenTelemetry is told."""

    traces: Annotated[
        float, option("The share of calls that are traced where the caller has not decided.", least=0, most=1)
    ] = 0.0


class Events(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events are taken, and how long they are kept."""

    late_days: Annotated[
        float,
        option(
            "Days that a new event may be dated back; ids are remembered for longer. 0 for ever.", least=0, most=36_500
        ),
    ] = 0.0
    ahead_seconds: Annotated[
        float, option("Seconds that an event may be dated ahead of the server's clock.", least=0, most=3_153_600_000)
    ] = 86_400.0
    keep_days: Annotated[
        float,
        option(
            "Days that the log keeps events, or longer where a window reaches further; 0 for ever.",
            least=0,
            most=36_500,
        ),
    ] = 0.0
    keep_count: Annotated[
        int,
        option(
            "Events of one subject that the log keeps, the newest, and those that a window reaches; 0 for all.",
            least=0,
            most=2**31 - 1,
        ),
    ] = 0


class Profiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long subjects are kept, what beside their attributes, and under which keys."""

    inactive_days: Annotated[
        float,
        option(
            "Days after the last update or event at which a subject is dropped whole; 0 for never.",
            least=0,
            most=36_500,
        ),
    ] = 0.0
    versions: Annotated[
        int, option("Versions of each profile whose changes its history tells; 0 for none.", least=0, most=10_000)
    ] = 20
    idempotency_hours: Annotated[
        float, option("Hours that the answer to an idempotency key is remembered.", least=0, most=8_784)
    ] = 24.0
    compact_hours: Annotated[
        float,
        option(
            "Hours within which what was erased leaves the disk too, by compaction; 0 for never.", least=0, most=8_784
        ),
    ] = 24.0
    consent_history: Annotated[
        int,
        option(
            "Entries that are kept of what a subject said of one purpose; the newest always is.", least=1, most=10_000
        ),
    ] = 100
    key: Annotated[
        str,
        option(
            "The secret by which ids of subjects are hashed; empty for one in the environment or the store.",
            shown="FILE",
        ),
    ] = ""
    previous_keys: Annotated[
        str,
        option(
            "The folder of files that were `profiles.key` before, while subjects move to the present one.",
            shown="DIR",
        ),
    ] = ""


class Kafka(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Topics whose messages become events. Fields of JSON are named by their path, as in ``user.id``."""

    brokers: Annotated[
        str,
        option("Brokers to ask first, `host:port`, with commas between them; empty for no consumer.", shown="TEXT",
               needs="topics"),
    ] = ""  # fmt: skip
    topics: Annotated[
        str,
        option("The topics, with commas between them; one that begins with `^` is a pattern.", shown="TEXT",
               needs="brokers"),
    ] = ""  # fmt: skip
    group: Annotated[str, option("The consumer group; each has its own place in every topic.", shown="TEXT")] = (
        "arbiter"
    )
    properties: Annotated[
        str,
        option("A file of librdkafka's properties, `name=value` lines: how to connect, and secrets.", shown="FILE",
               needs="brokers"),
    ] = ""  # fmt: skip
    format: Annotated[
        KafkaFormat, option("What messages are: `json` objects, or `protobuf`, messages `arbiter.v1.Event`.")
    ] = "json"
    start: Annotated[
        KafkaStart, option("Where to begin in a partition of which nothing was read: its oldest message, or its end.")
    ] = "earliest"
    id_field: Annotated[str, option("JSON: the field with the event's id.", shown="TEXT", none=True)] = "id"
    subject_field: Annotated[
        str, option("JSON: the field with the subject's id; empty for the message's key.", shown="TEXT", none=True)
    ] = "subject_id"
    type_field: Annotated[
        str, option("JSON: the field with the event's type; empty for the topic's name.", shown="TEXT", none=True)
    ] = "type"
    at_field: Annotated[
        str,
        option("JSON: the field with the event's time, a number or ISO 8601; absent, the message's own time.",
               shown="TEXT", none=True),
    ] = "at"  # fmt: skip
    at_unit: Annotated[TimeUnit, option("JSON: what a time that is a number counts since 1970.")] = "ms"
    properties_field: Annotated[
        str,
        option("JSON: the field with the event's properties; empty for all fields that have no other meaning.",
               shown="TEXT", none=True),
    ] = "properties"  # fmt: skip
    rejected_file: Annotated[
        str, option("The file for messages that are no events; empty for none.", shown="FILE", needs="brokers")
    ] = ""
    rejected_topic: Annotated[
        str, option("The topic for messages that are no events; empty for none.", shown="TEXT", needs="brokers")
    ] = ""


class Triggers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How triggers run, and how long what they fired is kept."""

    late_seconds: Annotated[
        float,
        option(
            "Seconds after its moment in which a trigger still fires, by the arrival of events.",
            least=0,
            most=31_536_000,
        ),
    ] = 3_600.0
    keep_days: Annotated[
        float, option("Days that firings are kept, for who follows them; 0 for ever.", least=0, most=36_500)
    ] = 30.0
    chain: Annotated[
        int,
        option("Firings that may follow from one another by events that they emit.", least=0, most=1_000),
    ] = 8
    watchdog_seconds: Annotated[
        float,
        option(
            "Seconds without a sign of life after which the process that runs triggers is ended and started again.",
            least=5,
            most=3_600,
        ),
    ] = 30.0


class DecisionLog(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether decisions are written down, whose, and for how long that is kept."""

    directory: Annotated[
        str, option("The folder in which decisions are written down, as Parquet; empty for none.", shown="DIR")
    ] = ""
    purpose: Annotated[
        str,
        option(
            "Where purposes are declared: the one that covers a log; of who has not granted it no personal row is "
            "written. Empty where something else than consent covers it.",
            shown="TEXT",
            none=True,
        ),
    ] = "analytics"
    losers: Annotated[
        float,
        option(
            "The share of decisions, at most, of which it is also written which rules lost, and where.", least=0, most=1
        ),
    ] = 0.01
    flush_seconds: Annotated[
        float, option("Seconds of decisions that a crash may take from the log.", least=0.05, most=60)
    ] = 1.0
    rotate_seconds: Annotated[
        float, option("Seconds after which a worker begins a new segment, and Parquet is made of the old.", least=1,
                      most=86_400),
    ] = 300.0  # fmt: skip
    rotate_mib: Annotated[int, option("MiB of rows after which it begins one earlier.", least=1, most=16_384)] = 64
    keep_days: Annotated[float, option("Days that the log is kept; 0 for ever.", least=0, most=36_500)] = 30.0
    keep_mib: Annotated[int, option("MiB that the log may take: the oldest goes first.", least=1, most=2**31 - 1)] = (
        10_240
    )
    spare_mib: Annotated[
        int, option("MiB that are left free on its disk: with less, decisions go on and the log does not.", least=0,
                    most=2**31 - 1),
    ] = 256  # fmt: skip
    guardrail_seconds: Annotated[
        float, option("Seconds between two looks at the guardrails of experiments, at least.", least=0.1, most=86_400)
    ] = 300.0


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All options; a field whose type is a struct is a group."""

    rules: Annotated[str, option("The rules directory.", shown="DIR")] = "rules"
    models: Annotated[str, option("The models directory; empty for none.", shown="DIR", none=True)] = "models"
    data: Annotated[
        str, option("Where profiles, events and snapshots are kept; one server at a time.", shown="DIR")
    ] = "data"
    listen: Annotated[
        str, option("Where calls are answered; port 0 for any free one, an IPv6 host in brackets.", shown="HOST:PORT")
    ] = "127.0.0.1:50051"
    admin: Annotated[
        str,
        option(
            "Where the supervisor itself answers health and administration, however busy workers are; empty for none.",
            shown="HOST:PORT",
        ),
    ] = ""
    metrics: Annotated[str, option("Where Prometheus finds the metrics; empty for none.", shown="HOST:PORT")] = ""
    sockets: Annotated[
        str, option("Where each worker also listens, on `worker-N.sock`; empty for none.", shown="DIR")
    ] = ""
    workers: Annotated[int, option("Worker processes; 0 for one per processor.", least=0, most=256)] = 0
    transport: Annotated[
        Transport,
        option("What carries calls: `inline`, our fast loop; `stock`, grpcio's own; `auto`, the first that works."),
    ] = "auto"
    threads: Annotated[
        int,
        option(
            "Threads of a worker: for every call with `stock`, for those that take long with `inline`.",
            least=1,
            most=1024,
        ),
    ] = 16
    connection_age: Annotated[
        float,
        option("Seconds after which a connection is told to go elsewhere; 0 for never.", least=0, most=86_400),
    ] = 300.0
    connection_grace: Annotated[
        float, option("Seconds that the calls on such a connection have to end.", least=0, most=3600)
    ] = 30.0
    grace: Annotated[
        float, option("Seconds that calls under way have to end when the server stops.", least=0, most=3600)
    ] = 10.0
    snapshots: Annotated[int, option("Versions that are kept to go back to.", least=2, most=10_000)] = 50
    require_tests: Annotated[
        bool, option("Load no rules whose own tests fail, nor rules whose tests hold mistakes.")
    ] = False
    log_level: Annotated[LogLevel, option("The least severe messages that are logged.")] = "info"
    tls: Tls = Tls()
    auth: Auth = Auth()
    audit: Audit = Audit()
    telemetry: Telemetry = Telemetry()
    events: Events = Events()
    profiles: Profiles = Profiles()
    kafka: Kafka = Kafka()
    triggers: Triggers = Triggers()
    decision_log: DecisionLog = DecisionLog()
    limits: Limits = Limits()


OPTIONS: Final = {each.name: each for each in declared(Options)}
# What the file `profiles.key` holds may stand in this variable instead.
SECRET_VARIABLE: Final = "ARBITER_PROFILES_SECRET"  # noqa: S105 - its name
# Variables with our prefix that are no options: what the commands that ask a server read, that secret, and the file
# itself.
OTHER_VARIABLES: Final = frozenset({
    "ARBITER_CONFIG", "ARBITER_TARGET", "ARBITER_TOKEN", "ARBITER_CA_FILE", "ARBITER_CERTIFICATE_FILE",
    "ARBITER_KEY_FILE", "ARBITER_TOKEN_FILE", "ARBITER_TLS", "ARBITER_INSECURE_TOKEN", SECRET_VARIABLE,
})  # fmt: skip
