"""What we need of grpcio beside what that publishes, and what of it is not there.

Law: names, and how to read them. With `inline` the one place that knows them (docs/decisions/0027): when grpcio
changes, this says what is missing, and the stock transport takes over.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc

try:
    from grpc import _common, _server
    from grpc._cython import cygrpc  # type: ignore[attr-defined] # the stubs have public names
except ImportError:  # `missing` says so
    _common = _server = cygrpc = None  # type: ignore[assignment]

__all__ = ["_common", "_server", "cygrpc", "missing", "only_lost"]

_MODULE_NAMES = (
    "_SHUTDOWN_TAG", "_ServerStage", "_process_event_and_continue", "_request_call", "_request_registered_call",
    "_stop_serving",
)  # fmt: skip
_STATE_NAMES = (
    "completion_queue", "due", "lock", "registered_method_handlers", "rpc_states", "server", "stage",
)  # fmt: skip
_CORE_NAMES = (
    "CompletionType", "ReceiveCloseOnServerOperation", "ReceiveMessageOperation", "SendInitialMetadataOperation",
    "SendMessageOperation", "SendStatusFromServerOperation", "StatusCode",
)  # fmt: skip


def missing(server: grpc.Server) -> str:
    """Say what this transport needs and grpcio does not have, ``""`` when all is there."""
    state = getattr(server, "_state", None)
    wanted = [
        *(("grpc._server", _server, name) for name in _MODULE_NAMES),
        *(("cygrpc", cygrpc, name) for name in _CORE_NAMES),
        *(("the state of grpc's server", state, name) for name in _STATE_NAMES),
        ("cygrpc.Server", getattr(state, "server", None), "register_method"),
        ("cygrpc.Server", getattr(state, "server", None), "request_registered_call"),
        ("cygrpc.CompletionQueue", getattr(state, "completion_queue", None), "poll"),
    ]
    lacking = [f"{where} has no `{name}`" for where, thing, name in wanted if not hasattr(thing, name)]
    if lacking:
        return "; ".join(lacking)
    takes = tuple(inspect.signature(_server._process_event_and_continue).parameters)  # noqa: SLF001 - see the law
    if takes != ("state", "event"):
        return f"grpc._server._process_event_and_continue takes {', '.join(takes)}"
    return ""


def only_lost(server: grpc.Server) -> bool:
    """Whether a server that stops waits for calls that nobody will answer: each that it knows has ended, and all its
    questions for more have come back. grpc's core loses a call that comes as it begins to stop (docs/decisions/0066).
    """
    if missing(server):
        return False
    state = server._state  # type: ignore[attr-defined] # noqa: SLF001 - see the law
    with state.lock:
        return not state.rpc_states and state.due == {_server._SHUTDOWN_TAG}  # noqa: SLF001
