"""What a training takes by TRL's loss and by ours, which reads the vocabulary at the answers' tokens only.

    python benchmarks/training_loss.py --data DATA --sources gsm8k,mnli [--base FILE.gguf] [--rows 16]

The same rows are trained on by both, in this process on one thread, the first step of each apart: in seconds of
processor, since other work may share the machine.
"""

import argparse
import tempfile
import time
from pathlib import Path

from traitroute.profiling import load_suite
from traitroute.profiling.base_model import PACKAGED, BaseModelFolder, open_base_model
from traitroute.profiling.profile import quiet_libraries
from traitroute.profiling.tasks.suite import Training
from traitroute.profiling.tasks.task import TrainingSet
from traitroute.profiling.training import answer_trainer, sft_trainer


def step_seconds(
    kind: type, data: TrainingSet, base: BaseModelFolder, settings: Training
) -> tuple[list[float], float, int]:
    """Seconds of processor of each step, the mean loss, and the tokens of all rows."""
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = sft_trainer(kind, data, base, settings, Path(folder), lambda share: ends.append(time.process_time()))
        start = time.process_time()
        loss = trainer.train().training_loss
    steps = [after - before for before, after in zip([start, *ends], ends, strict=False)]
    return steps, loss, sum(len(ids) for ids in trainer.train_dataset["input_ids"])


def main() -> None:
    import torch
    from trl.trainer.sft_trainer import SFTTrainer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of <task>/{train,test}.jsonl")
    parser.add_argument("--sources", default="gsm8k,product_sentiment3", help="tasks of the suite paper-local")
    parser.add_argument("--base", default=PACKAGED)
    parser.add_argument("--rows", type=int, default=16)
    given = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    base, suite = open_base_model(given.base), load_suite("paper-local").over(given.data)
    for source in suite.sources:
        if source.name not in given.sources.split(","):
            continue
        data = source.model_copy(update={"train": given.rows}).training_set
        for name, kind in (("TRL's", SFTTrainer), ("ours", answer_trainer())):
            steps, loss, tokens = step_seconds(kind, data, base, suite.training)
            later = sum(steps[1:]) / max(len(steps) - 1, 1)
            print(
                f"{source.name}, {tokens} tokens, {name}: first step {steps[0]:.2f} s, later ones {later:.2f} s each, "
                f"loss {loss:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
