"""A load generator: enough calls from one core of one Python process to saturate a gRPC server on another.

    load = Load("127.0.0.1:50051", "/arbiter.v1.DecisionService/Decide", bodies, streams=32, seconds=3)
    (result,) = drive(load); print(result.goodput, result.latency.percentile(99))

Law: speaks HTTP/2 and gRPC's framing, and knows nothing of decisions: what is sent and what comes back are bytes.
"""

from arbiter.bench.drive import drive
from arbiter.bench.histogram import Histogram
from arbiter.bench.load import Load, LoadError, Result
from arbiter.bench.run import NoServer

__all__ = ["Histogram", "Load", "LoadError", "NoServer", "Result", "drive"]
