"""What of a text is read, and whether there is anything in it to route by."""

import re

MAX_CHARS = 8_000
"""Of a longer text only the first and last half of so many characters are read, so that routing time is bounded."""

# Invisible fillers that Unicode counts as letters.
_FILLERS = "\u115f\u1160\u3164\uffa0"
_OPERATORS = re.escape("+-*/^=<>%×÷−·≤≥≠")
_SUM = re.compile(rf"\d[\s()]*[{_OPERATORS}][\s().{_OPERATORS}]*\d")


def shortened(text: str) -> str:
    """The part of a text that is read: without surrounding space, and only its two ends where it is long."""
    text = text.strip()
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else text[:half] + "\n" + text[-half:]


def says_something(text: str) -> bool:
    """Whether a text has anything to route by: a letter of any script, or a sum (numbers with an operator between)."""
    text = shortened(text)
    return any(c.isalpha() and c not in _FILLERS for c in text) or _SUM.search(text) is not None
