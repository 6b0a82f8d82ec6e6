"""A small synchronous client: plain Python values in and out.

```python
from arbiter.client import Client

with Client("127.0.0.1:50051") as client:
    client.update_profile("ann", set={"country": "US"})
    answer = client.decide("ann", "store.home_banner", context={"device": "ios"})
```
"""

from arbiter.client.answers import Answer, Batch, Ingested, Page, ProfileAnswer
from arbiter.client.arguments import Ask
from arbiter.client.client import Client
from arbiter.client.failures import (
    CallFailed,
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    PreconditionFailed,
    ResourceExhausted,
    ServerFault,
    Unavailable,
    UnknownName,
    Violation,
)

__all__ = [
    "Answer",
    "Ask",
    "Batch",
    "CallFailed",
    "Client",
    "Conflict",
    "DeadlineExceeded",
    "Ingested",
    "InvalidRequest",
    "Page",
    "PreconditionFailed",
    "ProfileAnswer",
    "ResourceExhausted",
    "ServerFault",
    "Unavailable",
    "UnknownName",
    "Violation",
]
