"""Adapters come and go on a running server: `/v1/adapters`, behind a key of its own."""

from .key import HEADER
from .routes import admin_operations

__all__ = ["HEADER", "admin_operations"]
