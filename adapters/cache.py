"""Where what can be made again is kept between runs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Converted models and what was measured of this machine: `$TRAITROUTE_CACHE`, else `~/.cache/traitroute`."""
    return Path(os.environ.get("TRAITROUTE_CACHE") or Path.home() / ".cache" / "traitroute")
