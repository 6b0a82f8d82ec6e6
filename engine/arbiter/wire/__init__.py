"""What both ends of the API must agree on: how values and closed enums are written.

Law: `server` and `client` use it, it uses neither; no gRPC, no clock, no limits.
"""
