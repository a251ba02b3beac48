"""What is said of a name that nobody has: which one is like it, and which there are, however many."""

import difflib
from collections.abc import Collection, Sequence

COMPARED = 500
"""With how many names one is compared at most; comparing ten thousand takes a tenth of a second."""
LONGEST = 80
"""Of a name so much is compared; no name is longer, and comparing takes its length times that of the others."""
SHOWN = 20
PREFIX = 2


def hint(name: str, names: Collection[str]) -> str:
    """The end of a message that there is no `name` among `names`."""
    some = names if len(names) <= COMPARED else [n for n in names if n[:PREFIX] == name[:PREFIX]]
    return told(name, sorted(some)[:COMPARED], shown=sorted(names)[:SHOWN], total=len(names))


def told(name: str, alike: Sequence[str], *, shown: Sequence[str], total: int) -> str:
    """The same, of the names that may be `alike`, the first few in order, and how many there are in all."""
    close = difflib.get_close_matches(name[:LONGEST], alike, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    more = f" and {total - len(shown)} more" if total > len(shown) else ""
    return f"{meant} Known: {', '.join(shown)}{more}"
