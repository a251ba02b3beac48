"""Serve `"model": "auto"`: choose an adapter for each request, in front of any OpenAI-compatible app.

Doubt means the base model: whatever goes wrong while choosing or loading, the request is answered, and
a header says why. An adapter asked for by name is never replaced: it is served, or refused with a 400.
"""

from .middleware import RoutingMiddleware

__all__ = ["RoutingMiddleware"]
