"""Train one LoRA adapter per source task, with PEFT through TRL's `SFTTrainer`.

Loss is on the answer only; prompts go through the base model's chat template, so that training,
measuring and serving see the same tokens. Batches are grouped by length. On CPUs small batches are
faster, and so is an allocator that keeps its memory (docs/decisions.md).
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..adapters import Adapter, AdapterFiles
from .base_model import BaseModelFolder
from .suite import Training
from .task import Task

RECORD = "training.json"
Progress = Callable[[float], None]
"""Called with the share of the work done, in [0, 1]."""


@dataclass(frozen=True)
class TrainedAdapter:
    """A PEFT folder and how it was made; `reused` when an earlier run had finished it."""

    task: str
    folder: Path
    seconds: float
    tokens: int
    loss: float
    reused: bool


def train_adapter(
    task: Task,
    base: BaseModelFolder,
    settings: Training,
    folder: Path,
    *,
    progress: Progress = lambda share: None,
) -> TrainedAdapter:
    """Train a LoRA on `task` into `folder`, or return it where a finished run left the same one.

    The record is written last, so a killed run is trained anew and a half-written one never used.
    """
    key = training_key(task, base, settings)
    if (done := _finished(task.name, folder, key)) is not None:
        progress(1.0)
        return done
    shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    trainer = _trainer(task, base, settings, folder, progress)
    loss = trainer.train().training_loss
    trainer.model.save_pretrained(folder)
    record = {
        "key": key,
        "seconds": round(time.perf_counter() - start, 2),
        "tokens": sum(len(ids) for ids in trainer.train_dataset["input_ids"]),
        "loss": round(loss, 4),
    }
    (folder / RECORD).write_text(json.dumps(record))
    return _trained(task.name, folder, record, reused=False)


def adapter_record(name: str, base: BaseModelFolder, files: AdapterFiles) -> Adapter:
    """The registry's record of an adapter trained for `base`, its weights inspected as `files`."""
    return Adapter(
        name=name,
        base_model=base.name,
        base_digest=base.digest,
        weights_digest=files.digest,
        rank=files.rank,
        target_modules=files.target_modules,
        source_task=name,
    )


def training_key(task: Task, base: BaseModelFolder, settings: Training) -> str:
    """Digest of everything that determines the trained weights."""
    rows = [[e.prompt, e.target] for e in task.training_examples]
    parts = [base.digest, settings.model_dump(mode="json"), rows]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _finished(task: str, folder: Path, key: str) -> TrainedAdapter | None:
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
    if record["key"] != key:
        return None
    return _trained(task, folder, record, reused=True)


def _trained(task: str, folder: Path, record: dict[str, Any], *, reused: bool) -> TrainedAdapter:
    seconds, tokens, loss = record["seconds"], record["tokens"], record["loss"]
    return TrainedAdapter(task, folder, seconds, tokens, loss, reused=reused)


def _trainer(
    task: Task, base: BaseModelFolder, settings: Training, folder: Path, progress: Progress
) -> Any:
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            progress(state.global_step / max(state.max_steps, 1))

    cuda = torch.cuda.is_available()
    config = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=5,
        train_sampling_strategy="group_by_length",
        max_length=settings.max_length,
        completion_only_loss=True,
        bf16=True,
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        gradient_checkpointing=False,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=settings.seed,
    )
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.target_modules),
        task_type="CAUSAL_LM",
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.bfloat16),
        args=config,
        train_dataset=_dataset(task),
        processing_class=AutoTokenizer.from_pretrained(base.path),
        peft_config=lora,
        callbacks=[Report()],
    )
    # It would print the last metrics into our progress bars.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _dataset(task: Task) -> Any:
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": e.prompt}],
                "completion": [{"role": "assistant", "content": e.target}],
            }
            for e in task.training_examples
        ]
    )
