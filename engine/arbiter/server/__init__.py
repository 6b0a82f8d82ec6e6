"""The gRPC face: servicers, values, status mapping, health."""
