"""The licence that an adapter's README states, in the front matter that the Hub reads."""

from pathlib import Path
from typing import Any

import yaml

_LONGEST = 64
_KEYS = ("license:", "license_name:")


def read_licence(readme: Path) -> str | None:
    """Return the `license` of a README's front matter, or None where it states none that can be read."""
    if not readme.is_file():
        return None
    text = readme.read_text(encoding="utf-8", errors="replace")
    opening, _, rest = text.partition("---\n")
    front, end, _ = rest.partition("\n---")
    if opening.strip() or not end:
        return None
    # A front matter of a megabyte takes YAML many seconds.
    lines = [line[:200] for line in front.splitlines() if line.startswith(_KEYS)]
    try:
        stated: Any = yaml.safe_load("\n".join(lines[:4]))
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    if not isinstance(stated, dict):
        return None
    licence = stated.get("license")
    named = stated.get("license_name") if licence == "other" else licence
    return named if isinstance(named, str) and _is_short_text(named) else None


def _is_short_text(text: str) -> bool:
    return 0 < len(text) <= _LONGEST and text.isprintable()
