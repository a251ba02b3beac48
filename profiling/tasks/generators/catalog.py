"""Which generators there are, by the name a suite uses."""

from collections.abc import Mapping

from ....adapters.errors import SuiteError
from .entailment import ENTAILMENT
from .generator import Generator, Row
from .long_arithmetic import LONG_ARITHMETIC
from .paraphrase import PARAPHRASE
from .sentiment2 import SENTIMENT2
from .sentiment3 import SENTIMENT3
from .structured import STRUCTURED
from .toxicity import TOXICITY
from .word_problems import WORD_PROBLEMS

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
        SuiteError: no generator has this name, or it cannot make that many distinct rows.
    """
    if name not in GENERATORS:
        raise SuiteError(f"no generator is called {name!r}; use one of {', '.join(GENERATORS)}")
    return GENERATORS[name].splits(train=train, test=test, seed=seed)
