"""Where TRL's trainer reads the vocabulary at every token, ours reads it at the answers' only: the same loss."""

from pathlib import Path

import pytest
from traitroute.profiling.base_model import open_base_model
from traitroute.profiling.tasks.suite import Training
from traitroute.profiling.tasks.task import Example, TrainingSet
from traitroute.profiling.training import answer_trainer, sft_trainer

pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")

pytestmark = pytest.mark.slow


def test_the_loss_and_its_gradients_are_those_of_trl(tiny_chat: Path, tmp_path: Path, monkeypatch) -> None:
    import torch
    from trl.trainer.sft_trainer import SFTTrainer

    monkeypatch.setenv("TRAITROUTE_PRECISION", "float32")
    rows = [("Say it.", "a"), ("Say it, and say it at length.", "a long answer, of some words"), ("No.", "yes or no")]
    data = TrainingSet("words", tuple(Example(prompt=p, target=t, answer=t) for p, t in rows * 4))
    settings = Training(rank=2, alpha=4, batch_size=3, learning_rate=1e-2)
    trained = {}
    for kind in (answer_trainer(), SFTTrainer):
        trainer = sft_trainer(kind, data, open_base_model(str(tiny_chat)), settings, tmp_path, lambda share: None)
        loss = trainer.train().training_loss
        trained[kind] = loss, [p.detach() for p in trainer.model.parameters() if p.requires_grad]
    (ours, mine), (trls, theirs) = trained.values()
    assert ours == pytest.approx(trls, rel=1e-5)
    step = settings.learning_rate  # Adam's, however small a gradient is, so that its rounding shows
    assert all(torch.allclose(a, b, atol=step / 100) for a, b in zip(mine, theirs, strict=True))
