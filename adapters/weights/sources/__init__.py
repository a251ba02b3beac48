"""Where adapters come from: folders, the Hub and other file systems, as far as the operator allows them."""

from .allowed import AllowedSources
from .fetching import fetch
from .licence import read_licence
from .source import Source

__all__ = ["AllowedSources", "Source", "fetch", "read_licence"]
