"""Which role each method needs.

Law: the one table. A method that is not in it needs a caller that is known, whatever its roles; so a new method is
never open by accident, and a test holds that every method of the protos stands here.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

Role = Literal["decide", "write", "follow", "privacy", "admin"]
Need = Role | Literal["any", "open"]

# No role holds another: who administers rules need not read profiles.
ROLES: Final[tuple[Role, ...]] = get_args(Role)

_BY_SERVICE: Final[dict[str, dict[str, Need]]] = {
    "arbiter.v1.DecisionService": {"Decide": "decide", "DecideBatch": "decide", "DecideStream": "decide"},
    "arbiter.v1.ProfileService": {
        "UpdateProfile": "write",
        "IngestEvents": "write",
        "IngestStream": "write",
        "GetProfile": "privacy",
        "ListEvents": "privacy",
        "ExportProfile": "privacy",
        "DeleteProfile": "privacy",
        # Who asks subjects for their consent, a web site say, need not be able to read or erase what is held of them.
        "SetConsent": "write",
        "LinkIdentity": "write",
    },
    # An id of a decision is all that who reports must know: what came of it is an event, whoever says so.
    "arbiter.v1.OutcomeService": {
        "RecordExposures": "write",
        "RecordOutcomes": "write",
        "GetBandits": "admin",
        "ResetBandit": "admin",
        "RollbackBandit": "admin",
    },
    "arbiter.v1.TriggerService": {
        # Who acts on what triggers do hears of many subjects, and need not be able to look one up, or erase it.
        "Subscribe": "follow",
        "ExplainTriggers": "privacy",
    },
    "arbiter.v1.AdminService": {
        "GetStatus": "admin",
        "GetSnapshot": "admin",
        "GetModels": "admin",
        "ListSnapshots": "admin",
        "Reload": "admin",
        "Validate": "admin",
        "Rollback": "admin",
        "SetCanary": "admin",
        "PromoteCanary": "admin",
        "DropCanary": "admin",
        "SetOverride": "admin",
        "WatchDecisions": "admin",
    },
    # Probes carry no secrets; what went wrong with a reload is told to callers with a role only.
    health.SERVICE_NAME: {"Check": "open", "List": "open", "Watch": "open"},
    reflection.SERVICE_NAME: {"ServerReflectionInfo": "any"},
}
# By full path, as in ``/arbiter.v1.DecisionService/Decide``.
NEEDS: Final[dict[str, Need]] = {
    f"/{service}/{method}": need for service, methods in _BY_SERVICE.items() for method, need in methods.items()
}
# Beside what needs `admin` or `privacy`: who said so is a part of a consent; who follows is told of everybody.
RECORDED: Final = frozenset(
    {
        "/arbiter.v1.ProfileService/SetConsent",
        "/arbiter.v1.ProfileService/LinkIdentity",
        "/arbiter.v1.TriggerService/Subscribe",
    }
)
