"""The texts behind a study, read and parsed once for all analyses that need them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ...adapters import SuiteError
from ..analysis.linguistics import Syntax, load_parser, parse
from ..analysis.similarity import Encoder, load_encoder
from ..study import Study
from ..tasks.task import Example

if TYPE_CHECKING:
    from spacy.language import Language

TEXTS = 64
"""Texts of a data set that are parsed and embedded: rows come in a seeded order, so these are a sample."""


@dataclass(frozen=True)
class Corpus:
    """Texts of `study`; `digests` of its tasks, where given, guard against rows that have changed."""

    study: Study
    digests: Mapping[str, str] = field(default_factory=dict)
    parser_name: str | None = None
    encoder_given: Encoder | None = None
    texts: int = TEXTS

    @cached_property
    def parser(self) -> "Language":
        """The parser; raises ImportError or InputError where there is none."""
        return load_parser(self.parser_name)

    @cached_property
    def encoder(self) -> Encoder:
        """The sentence encoder; raises ImportError where there is none."""
        if self.encoder_given is None and find_spec("transformers") is not None:
            from transformers.utils import logging

            # Its progress bar would overwrite ours.
            logging.disable_progress_bar()
        return self.encoder_given or load_encoder()

    def test_examples(self, task: str) -> list[Example]:
        """The rows that `task` was measured on.

        Raises:
            SuiteError: they are not where they were, or are not those that were measured.
        """
        spec = self.study.tasks[task]
        examples, measured = spec.test_examples, len(self.study.outcomes[None, task])
        changed = task in self.digests and spec.digest != self.digests[task]
        if changed or len(examples) != measured:
            raise SuiteError(
                f"the test rows of {task} are not those that were measured ({len(examples)} here, "
                f"{measured} measured): put the data back, or run `traitroute profile` again"
            )
        return examples

    @cached_property
    def prompts(self) -> dict[str, list[Syntax]]:
        """The parse of every test prompt, by task."""
        prompts = {t: [e.prompt for e in self.test_examples(t)] for t in self.study.tasks}
        return self._parse(prompts)

    @cached_property
    def data(self) -> dict[str, list[str]]:
        """Prompt and target of up to `texts` rows a task: training rows of a source, else test rows."""
        texts = {}
        for task in self.study.tasks:
            source = task in self.study.sources
            rows = (self.study.training_set(task).examples if source else self.test_examples(task))[: self.texts]
            texts[task] = [f"{row.prompt}\n{row.target}" for row in rows]
        return texts

    @cached_property
    def parsed_data(self) -> dict[str, list[Syntax]]:
        """The parse of `data`."""
        return self._parse(self.data)

    def parse(self, texts: Sequence[str]) -> list[Syntax]:
        """The parse of other texts."""
        return parse(texts, self.parser)

    def _parse(self, texts: Mapping[str, Sequence[str]]) -> dict[str, list[Syntax]]:
        """All in one pass: a parser is slow on small batches."""
        every = iter(self.parse([text for group in texts.values() for text in group]))
        return {name: [next(every) for _ in group] for name, group in texts.items()}
