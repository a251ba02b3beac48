"""Adapters come and go on a running server: `/v1/adapters`, behind a key of its own."""

from .routes import admin_routes

__all__ = ["admin_routes"]
