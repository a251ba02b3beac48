"""The `traitroute` command: parse, delegate, print."""

from .main import main

__all__ = ["main"]
