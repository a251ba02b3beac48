"""What keeps a sound adapter from being served, read from its configuration.

vLLM refuses these when it loads an adapter, and the embedded server too (`vllm/lora/peft_helper.py` of vLLM 0.32,
`serving/embedded/mixed_model.py`); an adapter that no server loads is better refused when it is added.
"""

import json
from pathlib import Path
from typing import Any

from .adapter_files import CONFIG
from .errors import WeightsError

_RETRAIN = "train it again without"
_UNSERVED = {
    "use_dora": f"it is a DoRA, whose magnitudes vLLM cannot apply: {_RETRAIN} use_dora",
    "lora_bias": f"it has a bias of its own: {_RETRAIN} lora_bias",
    "modules_to_save": f"it replaces whole layers, for all who share a batch: {_RETRAIN} modules_to_save",
    "alora_invocation_tokens": f"it is an activated LoRA: {_RETRAIN} alora_invocation_tokens",
    "layer_replication": f"it repeats layers: {_RETRAIN} layer_replication",
    "use_bdlora": f"it is a block-diagonal LoRA: {_RETRAIN} use_bdlora",
    "use_qalora": f"it is a QALoRA: {_RETRAIN} use_qalora",
}
_CHANGED_BASES = ("pissa", "olora", "corda", "loftq")


def check_servable(folder: Path) -> None:
    """Check that a server can load the adapter in `folder`, whose files are sound.

    Raises:
        WeightsError: no server of ours can, with the reason.
    """
    settings: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
    if settings["peft_type"] != "LORA":
        raise WeightsError(
            f"{folder}: it is of type {settings['peft_type']}, and LoRA is served alone"
        )
    reason = next((why for key, why in _UNSERVED.items() if settings.get(key)), None)
    if settings.get("bias", "none") != "none":
        reason = f"it changes biases of the base model: {_RETRAIN} bias={settings['bias']!r}"
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASES):
        reason = (
            f"its training began with init_lora_weights={start!r}, which changes the base model: convert it by "
            "PEFT's path_initial_model_for_weight_conversion"
        )
    if reason is not None:
        raise WeightsError(f"{folder} cannot be served: {reason}")
