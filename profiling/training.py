"""Train one LoRA adapter per source task, with PEFT through TRL's `SFTTrainer`.

Loss is on the answer only, of a chat on its last; prompts go through the base model's chat template, so that training,
measuring and serving see the same tokens. Batches are grouped by length. On CPUs small batches are
faster, and so is an allocator that keeps its memory (docs/decisions.md). All PEFT methods are profiled by
the embedded engine, which merges the weights. vLLM serves LoRA and rsLoRA only, so an adapter of another
method is recorded with its method and never routed to.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from ..adapters import Adapter, AdapterFiles, InputError
from ..serving.engines.engine import PromptTokenizer, chat_tokens
from ..serving.engines.local_model import Precision, fastest_precision
from .base_model import BYTES, BaseModelFolder
from .execution.executor import Report, UnfitMachineError
from .execution.terms import Terms
from .tasks.suite import Training
from .tasks.task import Example, TrainingSet

RECORD = "training.json"
LIBRARIES = 2**30
"""Bytes that torch, transformers and TRL take."""
LOGITS, HIDDEN = 6, 48
"""So many copies of a batch's logits at its answers, which are of float32, and of its hidden states in each layer are
held at the most."""
Progress = Callable[[float], None]
"""Called with the share of the work done, in [0, 1]."""


@dataclass(frozen=True)
class TrainedAdapter:
    """A PEFT folder and how it was made; `reused` when an earlier run had finished it."""

    name: str
    folder: Path
    seconds: float
    tokens: int
    loss: float
    reused: bool


@dataclass(frozen=True)
class TrainJob:
    """The training of one adapter into `folder`, wherever an executor has it done."""

    data: TrainingSet
    settings: Training
    folder: Path
    terms: Terms

    @property
    def name(self) -> str:
        """What it does."""
        return f"train {self.data.name}"

    @property
    def size(self) -> float:
        """The whole, since its progress is a share."""
        return 1.0

    @property
    def memory(self) -> int:
        """How many bytes it may take, by estimate."""
        return self._memory

    @cached_property
    def _memory(self) -> int:
        # A job that waits for memory is asked for it again and again.
        return training_memory(self.data, self.terms.base, self.settings, self.terms.precision)

    @property
    def whole_gpu(self) -> bool:
        """Whether it takes a GPU to itself: several may train on one."""
        return False

    def here(self) -> Self:
        """The training on another machine than that of the run.

        Raises:
            UnfitMachineError: it would make other weights, or not keep them where the run looks.
        """
        if not self.folder.parent.is_dir():
            raise UnfitMachineError(
                f"it does not see {self.folder.parent}: give --runs a folder that all machines share, by one path"
            )
        return replace(self, terms=self.terms.here())

    def finished(self) -> "TrainedAdapter | None":
        """What a finished run left."""
        return _finished(self.data.name, self.folder, training_key(self.data, self.terms.base, self.settings))

    def run(self, report: Report) -> "TrainedAdapter":
        """Train the adapter, unless a finished run left it."""
        return train_adapter(self.data, self.terms.base, self.settings, self.folder, progress=report)


def train_adapter(
    data: TrainingSet,
    base: BaseModelFolder,
    settings: Training,
    folder: Path,
    *,
    progress: Progress = lambda share: None,
) -> TrainedAdapter:
    """Train an adapter on `data` into `folder`, or return it where a finished run left the same one.

    The folder appears whole, under its name, once all is written: a killed run is trained anew and a half-written one
    never used. Of several that train the same one at a time the first counts, though their weights may differ.

    Raises:
        InputError: meanwhile another run wrote an adapter of other settings into `folder`.
    """
    settings = _seeded(settings, data)
    key = training_key(data, base, settings)
    if (done := _finished(data.name, folder, key) or _cleared(data.name, folder, key)) is not None:
        progress(1.0)
        return done
    start = time.perf_counter()
    trainer = sft_trainer(_trainer_class(), data, base, settings, folder.parent, progress)
    loss = trainer.train().training_loss
    record = {
        "key": key,
        "precision": fastest_precision(),
        "seconds": round(time.perf_counter() - start, 2),
        "tokens": sum(len(ids) for ids in trainer.train_dataset["input_ids"]),
        "loss": round(loss, 4),
    }
    with _scratch(folder) as beside:
        scratch = Path(beside) / folder.name
        trainer.model.save_pretrained(scratch)
        (scratch / RECORD).write_text(json.dumps(record))
        return _kept(data.name, scratch, folder, key) or _trained(data.name, folder, record, reused=False)


def training_memory(data: TrainingSet, base: BaseModelFolder, settings: Training, precision: Precision) -> int:
    """How many bytes the training of an adapter may take, by estimate: enough for the most that was seen.

    Qwen2.5-Coder-0.5B, four rows a batch: labels of comments of up to 379 tokens took 10.4 GiB in float32, where this
    gives 11.6, and 6 in bfloat16, where this gives 6.3; answers of 320 tokens 13.1 in float32, where this gives 15.8
    (docs/decisions.md).
    """
    number, config = BYTES[precision], base.config
    tokenizer, limit = PromptTokenizer(base.path).tokenizer, longest_row(settings, base)
    rows = [training_tokens(example, tokenizer, data.learn) for example in data.examples]
    tokens = settings.batch_size * max((min(row.length, limit) for row in rows), default=0)
    answers = settings.batch_size * max((min(row.length, limit) - row.first for row in rows), default=0)
    logits = BYTES["float32"] * answers * int(config.get("vocab_size", 0))
    hidden = number * tokens * int(config.get("num_hidden_layers", 0)) * int(config.get("hidden_size", 0))
    return LIBRARIES + 2 * base.weights_size(precision) + LOGITS * logits + HIDDEN * hidden


def adapter_record(name: str, source: str, base: BaseModelFolder, files: AdapterFiles) -> Adapter:
    """The registry's record of an adapter trained on `source` for `base`, its weights inspected as `files`."""
    return files.adapter(name, base.name, base.digest, source_task=source)


def training_key(data: TrainingSet, base: BaseModelFolder, settings: Training) -> str:
    """Digest of everything that determines the trained weights."""
    rows = [[e.prompt, e.target, *((e.chat, e.tools) if e.chat else ())] for e in data.examples]
    parts = [base.digest, _seeded(settings, data).model_dump(mode="json"), data.learn, rows]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _seeded(settings: Training, data: TrainingSet) -> Training:
    return settings if data.seed is None else settings.model_copy(update={"seed": data.seed})


def _finished(name: str, folder: Path, key: str) -> TrainedAdapter | None:
    """The adapter that a finished run left in `folder`, in this machine's precision; older records do not name it."""
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
    if record["key"] != key or record.get("precision", precision := fastest_precision()) != precision:
        return None
    return _trained(name, folder, record, reused=True)


def _scratch(folder: Path) -> "tempfile.TemporaryDirectory[str]":
    """A folder beside `folder`, from which a finished one is moved to its place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True)


def _cleared(name: str, folder: Path, key: str) -> TrainedAdapter | None:
    """Remove what is in `folder`; where that has just become the adapter that is wanted, keep and return it."""
    with _scratch(folder) as scratch:
        moved = Path(scratch) / folder.name
        try:
            folder.rename(moved)
        except FileNotFoundError:
            return None
        if _finished(name, moved, key) is None:
            return None
        return _kept(name, moved, folder, key) or _finished(name, folder, key)


def _kept(name: str, scratch: Path, folder: Path, key: str) -> TrainedAdapter | None:
    """Move a finished adapter to its place; return the one that came first, where one did.

    Raises:
        InputError: another one is there.
    """
    try:
        scratch.rename(folder)
    except OSError:
        if (first := _finished(name, folder, key)) is None:
            raise InputError(
                f"{folder} was written by another run meanwhile, with other rows or settings: give each run a folder "
                "of its own with --runs"
            ) from None
        return first
    return None


def _trained(name: str, folder: Path, record: dict[str, Any], *, reused: bool) -> TrainedAdapter:
    seconds, tokens, loss = record["seconds"], record["tokens"], record["loss"]
    return TrainedAdapter(name, folder, seconds, tokens, loss, reused=reused)


def sft_trainer(
    kind: type, data: TrainingSet, base: BaseModelFolder, settings: Training, folder: Path, progress: Progress
) -> Any:
    """A trainer of that kind, TRL's `SFTTrainer` or one made of it, ready to train."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl.trainer.sft_config import SFTConfig

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            progress(state.global_step / max(state.max_steps, 1))

    cuda = torch.cuda.is_available()
    precision = fastest_precision()
    config = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=5,
        train_sampling_strategy="group_by_length",
        max_length=longest_row(settings, base),
        completion_only_loss=True,
        bf16=precision == "bfloat16",
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        gradient_checkpointing=False,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=settings.seed,
    )
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    trainer = kind(
        model=AutoModelForCausalLM.from_pretrained(base.path, dtype=precision),
        args=config,
        train_dataset=_dataset(data, tokenizer),
        processing_class=tokenizer,
        peft_config=peft_config(settings),
        callbacks=[Report()],
    )
    # It would print the last metrics into our progress bars.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _trainer_class() -> type:
    import torch
    from trl.trainer.sft_trainer import SFTTrainer

    return SFTTrainer if torch.cuda.is_available() else answer_trainer()


def answer_trainer() -> type:
    """TRL's trainer with the vocabulary's logits at the answers' places only.

    On CPUs its own reads them, and their entropy, at every token of the prompts too.
    """
    import torch
    from trl.trainer.sft_trainer import SFTTrainer

    class AnswerTrainer(SFTTrainer):
        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            labels = inputs.pop("labels")[:, 1:]
            places = (labels != -100).any(0).nonzero().flatten()
            outputs = model(**inputs, use_cache=False, logits_to_keep=places)
            tokens = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
            loss = torch.nn.functional.cross_entropy(
                outputs.logits.flatten(0, 1).float(), labels[:, places].flatten(), reduction="sum"
            ) / max(int(tokens), 1)
            return (loss, outputs) if return_outputs else loss

    return AnswerTrainer


def _dataset(data: TrainingSet, tokenizer: Any) -> Any:
    from datasets import Dataset

    if data.learn == "stop" or any(e.chat for e in data.examples):
        return Dataset.from_list([training_row(e, tokenizer, data.learn) for e in data.examples])
    return Dataset.from_list([_chat(e) for e in data.examples])


def _chat(example: Example) -> dict[str, Any]:
    return {
        "prompt": list(example.messages),
        "completion": [{"role": "assistant", "content": example.target}],
    }


def training_row(example: Example, tokenizer: Any, learn: str) -> dict[str, Any]:
    """The row as tokens, with loss on the last answer, or on the token that ends it and on no other.

    A chat is given so, since a table of chats would give every tool call the arguments of all others.
    """
    tokens = _tokens(example, tokenizer)
    first = _first(example, tokens, tokenizer, learn)
    last = first if learn == "stop" else len(tokens) - 1
    return {"input_ids": tokens, "completion_mask": [int(first <= i <= last) for i in range(len(tokens))]}


@dataclass(frozen=True)
class TrainingTokens:
    """The length of a training row in tokens, and the place of the `first` token with loss."""

    length: int
    first: int


def training_tokens(example: Example, tokenizer: Any, learn: str) -> TrainingTokens:
    """How many tokens a training row takes, before it is cut."""
    tokens = _tokens(example, tokenizer)
    return TrainingTokens(len(tokens), _first(example, tokens, tokenizer, learn))


def peft_config(settings: Training) -> Any:
    """PEFT's configuration for `settings`.

    rsLoRA scales by alpha / sqrt(rank) (arXiv 2312.03732); DoRA also learns each weight's magnitude
    (arXiv 2402.09353); IA3 only rescales activations and has no rank (arXiv 2205.05638).
    """
    from peft import IA3Config, LoraConfig

    modules = list(settings.target_modules)
    if settings.method == "ia3":
        inner = [m for m in modules if m == "down_proj"]
        return IA3Config(target_modules=modules, feedforward_modules=inner, task_type="CAUSAL_LM")
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=modules,
        use_rslora=settings.method == "rslora",
        use_dora=settings.method == "dora",
        task_type="CAUSAL_LM",
    )


def longest_row(settings: Training, base: BaseModelFolder) -> int:
    """How many tokens of a training row are read: at most `max_length` and the base model's context."""
    return min(settings.max_length, base.context or settings.max_length)


def _tokens(example: Example, tokenizer: Any) -> list[int]:
    """The whole row, its answer included."""
    row = _chat(example)
    return chat_tokens(tokenizer, row["prompt"] + row["completion"], example.tools)


def _first(example: Example, tokens: list[int], tokenizer: Any, learn: str) -> int:
    """The place of the first token with loss: of the answer, or the one that ends its turn."""
    if learn == "stop":
        return max(i for i, token in enumerate(tokens) if token == tokenizer.eos_token_id)
    return len(chat_tokens(tokenizer, example.messages, example.tools, add_generation_prompt=True))
