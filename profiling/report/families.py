"""The families of analyses in the report's order, each with how it is found and how it is shown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..findings import (
    Corpus,
    Missing,
    attempt,
    find_ablations,
    find_classes,
    find_gains,
    find_lengths,
    find_similarity,
    find_syntax,
    find_traits,
)
from ..study import Study
from .section import LeftOut, Section
from .sections import (
    ablation_section,
    class_section,
    gain_section,
    length_section,
    similarity_section,
    syntax_section,
    trait_section,
)


@dataclass(frozen=True)
class Family:
    """One family: `find` makes its findings, `show` its section."""

    key: str
    title: str
    find: Callable[[Study, Corpus], Any]
    show: Callable[[Any], Section]

    def section(self, study: Study, corpus: Corpus) -> Section:
        """The family's section; where its data, model or library is absent, a sentence that says so."""
        found = attempt(lambda: self.find(study, corpus))
        if isinstance(found, Missing):
            return Section(self.key, self.title, left_out=(LeftOut(self.title, found.reason),))
        return self.show(found)


FAMILIES = (
    Family("gains", "Gains and side effects", lambda s, _: find_gains(s), gain_section),
    Family("traits", "Traits", lambda s, _: find_traits(s), trait_section),
    Family("lengths", "Length habits", lambda s, _: find_lengths(s), length_section),
    Family("classes", "Class habits", find_classes, class_section),
    Family("syntax", "Syntax", find_syntax, syntax_section),
    Family("similarity", "Likeness of the data", find_similarity, similarity_section),
    Family("ablations", "Ablations and controls", lambda s, _: find_ablations(s), ablation_section),
)
