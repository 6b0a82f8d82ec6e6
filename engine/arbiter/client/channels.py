"""How gRPC is used: its channels' settings, and how a failure arrives.

Law: with the two faces, the only place in the client that knows grpc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from arbiter.client.failures import CallFailed, failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.client.access import Tls

Option = tuple[str, str | int | float | bool]

_OPTIONS: tuple[Option, ...] = (
    # Batches and profiles may be larger than grpc's 4 MiB; the server limits what it takes.
    ("grpc.max_receive_message_length", -1),
    # A connection of its own for each channel, where grpc would share one between channels to the same target.
    ("grpc.use_local_subchannel_pool", 1),
    # What is sent again is decided in one place, `retry`. It spares a call a tenth of its CPU, too.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # A server that comes back is found within a second or two; grpc would wait for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


def options_of(tls: Tls | None, more: Sequence[Option]) -> list[Option]:
    """Return the settings of a channel; `more` come last and win."""
    name: list[Option] = [("grpc.ssl_target_name_override", tls.server_name)] if tls and tls.server_name else []
    return [*_OPTIONS, *name, *more]


def credentials_of(tls: Tls) -> grpc.ChannelCredentials:
    """Return grpc's credentials. Raises Misconfigured for files that cannot be read."""
    return grpc.ssl_channel_credentials(*tls.read())


def failure_of(error: grpc.RpcError) -> CallFailed:
    """Return the exception for what a call raised. grpc's own errors (no server, too late) bring no details."""
    # What is raised is the call itself, or knows the same of it; the types do not say so.
    call = cast("grpc.Call", error)
    try:
        status = rpc_status.from_call(call)
    except (ValueError, DecodeError):
        # A proxy on the way changed the status and left the details behind.
        status = None
    failed = failure(status or Status(code=call.code().value[0], message=call.details() or ""))
    failed.__cause__ = error
    return failed
