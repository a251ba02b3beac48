"""What a training is thought to take goes by its tokens and by its precision."""

from pathlib import Path

from traitroute.profiling.base_model import open_base_model
from traitroute.profiling.tasks.suite import Training
from traitroute.profiling.tasks.task import Example, TrainingSet
from traitroute.profiling.training import training_memory
from traitroute.serving.engines.local_model import Precision


def memory(base: Path, answer: str, precision: Precision = "float32") -> int:
    rows = TrainingSet("rows", (Example(prompt="How many?", target=answer, answer=answer),))
    return training_memory(rows, open_base_model(str(base)), Training(), precision)


def test_digits_are_tokens_of_their_own(tiny_chat: Path) -> None:
    assert memory(tiny_chat, "7" * 90) == memory(tiny_chat, "a" * 270) > memory(tiny_chat, "a" * 90)


def test_half_the_bytes_of_a_number_take_less(tiny_chat: Path) -> None:
    assert memory(tiny_chat, "a" * 90, "bfloat16") < memory(tiny_chat, "a" * 90)
