"""Generated tasks for the built-in suite: written here, so free to ship, and split so that a test means something."""

from .catalog import GENERATORS, generate
from .generator import Generator, Row
from .splits import near_duplicates

__all__ = ["GENERATORS", "Generator", "Row", "generate", "near_duplicates"]
