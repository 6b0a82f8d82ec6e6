"""The Python SDK: plain values in and out, blocking (`Client`) or for asyncio (`AsyncClient`).

```python
from arbiter.client import Client

with Client("127.0.0.1:50051") as client:
    client.update_profile("ann", set={"country": "US"})
    answer = client.decide("ann", "store.home_banner", context={"device": "ios"})
```
"""

from arbiter.client.access import Tls
from arbiter.client.aio import AsyncClient, AsyncDecisionStream, AsyncDecisionWatch, AsyncSubscription
from arbiter.client.answers import Answer, Batch, Erasure, HeldPage, Ingested, Page
from arbiter.client.arguments import Ask
from arbiter.client.bandits import BanditArm
from arbiter.client.client import Client, DecisionStream, DecisionWatch, Subscription
from arbiter.client.consents import Consent, ConsentAnswer
from arbiter.client.deciding import Decided
from arbiter.client.events import EventPage
from arbiter.client.failures import (
    CallFailed,
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    Misconfigured,
    OutOfRange,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
    ServerFault,
    Unauthenticated,
    Unavailable,
    UnknownName,
    Violation,
)
from arbiter.client.fallback import Fallback
from arbiter.client.firings import (
    EmittedEvent,
    Firing,
    PendingFiring,
    StepStanding,
    SubjectStanding,
    TriggerEvent,
    TriggerStanding,
)
from arbiter.client.identity import Linked
from arbiter.client.known import AttributeChange, ProfileAnswer, ProfileVersion
from arbiter.client.onlooking import WatchedDecision
from arbiter.client.outcomes import Exposure, Outcome, ReportResult
from arbiter.client.retry import Retries
from arbiter.client.streaming import Streamed

__all__ = [
    "Answer",
    "Ask",
    "AsyncClient",
    "AsyncDecisionStream",
    "AsyncDecisionWatch",
    "AsyncSubscription",
    "AttributeChange",
    "BanditArm",
    "Batch",
    "CallFailed",
    "Client",
    "Conflict",
    "Consent",
    "ConsentAnswer",
    "DeadlineExceeded",
    "Decided",
    "DecisionStream",
    "DecisionWatch",
    "EmittedEvent",
    "Erasure",
    "EventPage",
    "Exposure",
    "Fallback",
    "Firing",
    "HeldPage",
    "Ingested",
    "InvalidRequest",
    "Linked",
    "Misconfigured",
    "OutOfRange",
    "Outcome",
    "Page",
    "PendingFiring",
    "PermissionDenied",
    "PreconditionFailed",
    "ProfileAnswer",
    "ProfileVersion",
    "ReportResult",
    "ResourceExhausted",
    "Retries",
    "ServerFault",
    "StepStanding",
    "Streamed",
    "SubjectStanding",
    "Subscription",
    "Tls",
    "TriggerEvent",
    "TriggerStanding",
    "Unauthenticated",
    "Unavailable",
    "UnknownName",
    "Violation",
    "WatchedDecision",
]
