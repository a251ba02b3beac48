"""The page at `/traits`: what adapters do, and a place to try the router; a few files and one plotting library."""

from .routes import page_paths, page_routes

__all__ = ["page_paths", "page_routes"]
