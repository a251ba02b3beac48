"""The PEFT methods an adapter can be trained with, and what they are good for.

All are profiled by the embedded engine, which merges them. vLLM serves LoRA and rsLoRA only, so an
adapter of another method is recorded with its method and never routed to.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tasks.suite import Training


def peft_config(settings: "Training") -> Any:
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
