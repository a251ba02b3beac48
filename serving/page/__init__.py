"""The page at `/traits`: what each adapter gains and loses, and a form to try the router."""

from .page import page_paths, page_routes

__all__ = ["page_paths", "page_routes"]
