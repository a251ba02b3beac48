"""The generators of the built-in suite `mini`: eight synthetic tasks, split so that a test means something.

`python scripts/make_mini_suite.py` writes their rows to `suites/mini/`, which is all that TraitRoute reads.
"""

from collections.abc import Mapping

from .entailment import ENTAILMENT
from .generator import Generator, Row
from .long_arithmetic import LONG_ARITHMETIC
from .paraphrase import PARAPHRASE
from .sentiment2 import SENTIMENT2
from .sentiment3 import SENTIMENT3
from .splits import near_duplicates
from .structured import STRUCTURED
from .toxicity import TOXICITY
from .word_problems import WORD_PROBLEMS

__all__ = ["GENERATORS", "Generator", "Row", "generate", "near_duplicates"]

GENERATORS: Mapping[str, Generator] = {
    generator.name: generator
    for generator in (
        WORD_PROBLEMS,
        LONG_ARITHMETIC,
        SENTIMENT2,
        SENTIMENT3,
        ENTAILMENT,
        PARAPHRASE,
        TOXICITY,
        STRUCTURED,
    )
}


def generate(name: str, *, train: int, test: int, seed: int) -> dict[str, list[Row]]:
    """Rows of the two splits of a generated task, the same for the same seed on every machine.

    Raises:
        ValueError: no generator has this name, or it cannot make that many distinct rows.
    """
    if name not in GENERATORS:
        raise ValueError(f"no generator is called {name!r}; use one of {', '.join(GENERATORS)}")
    return GENERATORS[name].splits(train=train, test=test, seed=seed)
