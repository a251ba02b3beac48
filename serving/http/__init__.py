"""HTTP that all servers share: errors, keys, paging, request bodies, OpenAPI."""

KEEP_ALIVE_S = 75
"""Until a server of ours closes an idle connection: longer than clients and load balancers keep one (5 to 60 s).

A server whose event loop was late by more than that closes connections with the next request unread in them, whose
clients see a reset.
"""
