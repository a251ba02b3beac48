"""What a study shows, a family of analyses a module: a `Study` in, frozen values out, nothing drawn."""

from .ablations import AblationFindings, find_ablations
from .classes import ClassFindings, find_classes
from .corpus import Corpus
from .gains import GainFindings, Shares, find_gains
from .lengths import LengthFindings, Lengths, find_lengths
from .missing import Missing, attempt
from .similarity import MantelRow, SimilarityFindings, find_similarity
from .syntax import SyntaxFindings, Writing, find_syntax
from .traits import TraitFindings, find_traits

__all__ = [
    "AblationFindings",
    "ClassFindings",
    "Corpus",
    "GainFindings",
    "LengthFindings",
    "Lengths",
    "MantelRow",
    "Missing",
    "Shares",
    "SimilarityFindings",
    "SyntaxFindings",
    "TraitFindings",
    "Writing",
    "attempt",
    "find_ablations",
    "find_classes",
    "find_gains",
    "find_lengths",
    "find_similarity",
    "find_syntax",
    "find_traits",
]
