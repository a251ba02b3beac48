"""The admin API: adapters are added, changed and removed on a running server at `/v1/adapters`, behind its own key."""

from .routes import HEADER, admin_operations

__all__ = ["HEADER", "admin_operations"]
