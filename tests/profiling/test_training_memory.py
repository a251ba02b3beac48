"""What a training is thought to take goes by the tokens of its rows and by its precision."""

from pathlib import Path

import pytest
from traitroute.profiling.base_model import open_base_model
from traitroute.profiling.tasks.suite import Training
from traitroute.profiling.tasks.task import Example, TrainingSet
from traitroute.profiling.training import training_memory
from traitroute.serving.engines.local_model import Precision

pytest.importorskip("transformers", reason="needs transformers: pip install 'traitroute[profile]'")


def memory(base: Path, prompt: str, answer: str, precision: Precision = "float32", max_length: int = 512) -> int:
    rows = TrainingSet("rows", (Example(prompt=prompt, target=answer, answer=answer),))
    return training_memory(rows, open_base_model(str(base)), Training(max_length=max_length), precision)


def test_tokens_of_answers_take_more_than_those_of_prompts(tiny_chat: Path) -> None:
    short, long = "seven", "seven " * 40
    assert memory(tiny_chat, short, long) > memory(tiny_chat, long, short) > memory(tiny_chat, short, short)


def test_no_more_is_counted_of_a_row_than_is_read(tiny_chat: Path) -> None:
    cut = [memory(tiny_chat, "seven", "seven " * n, max_length=32) for n in (40, 80)]
    assert cut[0] == cut[1]


def test_half_the_bytes_of_a_number_take_less(tiny_chat: Path) -> None:
    assert memory(tiny_chat, "seven", "seven", "bfloat16") < memory(tiny_chat, "seven", "seven")
