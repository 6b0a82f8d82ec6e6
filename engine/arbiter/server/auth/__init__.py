"""Who calls, and what they may call.

Law: from what a call brings (a token, a JWT, the names in a certificate) to a caller with roles, and which role a
method needs. Knows no services and no transport: both ask it through `server.gate`.
"""
