"""The gRPC face: servicers, values, status mapping, health."""

import os

# grpc otherwise reads sockets in threads of its own and hands each call on from one to the next, which costs as much
# again as the call. It looks at this once, when it is imported first: a program that imports grpc before this keeps
# what it had.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
