"""A base model that comes as one GGUF file: checked, then dequantised once into a folder of safetensors.

The header is read here before transformers reads anything, in bounded time and memory, so that a file that is cut
short, of another format or made up is refused in a sentence. What transformers cannot read is said in its own words.

Weights that the file ties stay tied: without `output.weight` the embedding is the head. A file that has both keeps
both, for they are mostly quantised differently.
"""

import json
import math
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from ..adapters import BaseModelError

PROOF = "complete.json"
"""Written last into a folder of dequantised weights: without it the folder is unfinished."""
MAGIC = b"GGUF"
HEADER_BYTES, ELEMENTS, KEYS, TENSORS = 64 << 20, 3_000_000, 10_000, 200_000
"""More than any model's header has: its size, what all its lists hold together, its fields and its tensors."""
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _LIST = 8, 9
_UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
)
"""What transformers is seen to raise over files that it does not know, or that are not as it thinks."""
_CURE = "give the model as safetensors: a folder with config.json, or a Hub id"


class _EndError(Exception):
    """The file ends within its header."""


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself: `fields` without its lists, and how many bytes the file must have."""

    fields: Mapping[str, Any]
    size: int

    @classmethod
    def read(cls, file: Path) -> "GgufHeader":
        """Read the header of `file`, and nothing more.

        Raises:
            BaseModelError: it cannot be read, is no GGUF file, is cut short, or its header is not as the format says.
        """
        try:
            with file.open("rb") as stream:
                _check_magic(file, stream.read(len(MAGIC)))
                header = _Cursor(stream).header()
        except OSError as exc:
            raise BaseModelError(f"{file} cannot be read ({exc.strerror or exc})") from exc
        except _EndError as exc:
            raise BaseModelError(f"{file} is cut short: it ends within its header; download it again") from exc
        except (ValueError, LookupError) as exc:
            raise BaseModelError(f"{file} cannot be read as GGUF ({exc}): download it again, or {_CURE}") from exc
        if (size := file.stat().st_size) < header.size:
            raise BaseModelError(
                f"{file} is cut short: it has {size:,} bytes, and its tensors end at {header.size:,}; download it again"
            )
        return header


class _Cursor:
    """Goes over a header, little-endian."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._elements = 0

    def header(self) -> GgufHeader:
        version = self._scalar("I")
        if version not in (2, 3):
            raise ValueError(f"version {version}; 2 and 3 can be read, little-endian")
        tensors, keys = self._scalar("Q"), self._scalar("Q")
        if tensors > TENSORS or keys > KEYS:
            raise ValueError(f"{tensors:,} tensors and {keys:,} fields, more than a model has")
        fields: dict[str, Any] = {}
        for _ in range(keys):
            name = self._text()
            fields[name] = self._value(self._scalar("I"))
        ends = [self._tensor_end() for _ in range(tensors)]
        align = fields.get("general.alignment", 32)
        if not isinstance(align, int) or align < 1:
            raise ValueError(f"general.alignment {align!r}")
        return GgufHeader(fields, math.ceil(self._stream.tell() / align) * align + max(ends, default=0))

    def _take(self, count: int) -> bytes:
        if self._stream.tell() + count > HEADER_BYTES:
            raise ValueError(f"a header of more than {HEADER_BYTES >> 20} MB")
        if len(data := self._stream.read(count)) < count:
            raise _EndError
        return data

    def _scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]

    def _text(self) -> str:
        return self._take(self._scalar("Q")).decode("utf-8", errors="replace")

    def _value(self, kind: int) -> Any:
        """The value that follows, None for a list."""
        if kind == _STRING:
            return self._text()
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind != _LIST:
            raise ValueError(f"a field of the type {kind}")
        of, count = self._scalar("I"), self._scalar("Q")
        self._elements += count
        if self._elements > ELEMENTS:
            raise ValueError(f"lists of more than {ELEMENTS:,} elements")
        if of == _STRING:
            for _ in range(count):
                self._take(self._scalar("Q"))
        elif of in _SCALARS:
            self._take(count * struct.calcsize(f"<{_SCALARS[of]}"))
        else:
            raise ValueError(f"a list of the type {of}")
        return None

    def _tensor_end(self) -> int:
        """Where the tensor that is described next ends, in bytes after the header."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        _, dimensions = self._text(), self._scalar("I")
        if dimensions > 4:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        shape = [self._scalar("Q") for _ in range(dimensions)]
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(self._scalar("I"))]
        return self._scalar("Q") + math.prod(shape) // block * size


def dequantised(file: Path, target: Path) -> Path:
    """Return `target`, a folder with the weights of `file` as bfloat16 safetensors, its configuration and tokenizer.

    It is written once, under another name that is then changed, so that a killed run leaves nothing that is taken for
    a model; whoever comes meanwhile waits.

    Raises:
        BaseModelError: the file is broken, is no language model that transformers can read, or there is no room.
    """
    if (target / PROOF).is_file():
        return target
    if find_spec("gguf") is None or find_spec("transformers") is None:
        raise ImportError("GGUF files need the extra: pip install 'traitroute[profile]'")
    from filelock import FileLock

    _check_model(file, GgufHeader.read(file).fields)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not (target / PROOF).is_file():
                _write(file, target)
    except (OSError, SafetensorError) as exc:
        raise BaseModelError(
            f"{file} cannot be dequantised into {target} ({exc}): it may take {4 * file.stat().st_size / 1e9:.1f} GB "
            "there; name a folder with room by TRAITROUTE_CACHE"
        ) from exc
    return target


def _write(file: Path, target: Path) -> None:
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        _convert(file, draft)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check_magic(file: Path, start: bytes) -> None:
    if start != MAGIC:
        raise BaseModelError(
            f"{file} is no GGUF file: it begins with {start.hex(' ') or 'nothing'}, not with {MAGIC.hex(' ')}; a base "
            "model is a folder with config.json and *.safetensors, a GGUF file, or a Hub id"
        )


def _check_model(file: Path, fields: Mapping[str, Any]) -> None:
    """Check that a header's `fields` are those of a whole model."""
    kind, parts = fields.get("general.type", "model"), fields.get("split.count", 1)
    if kind != "model":
        raise BaseModelError(f"{file} holds no model but, by its header, a part of the type {kind!r}: name the model's")
    if isinstance(parts, int) and parts > 1:
        raise BaseModelError(
            f"{file} is one of {parts} files of a model: join them (llama-gguf-split --merge) and name the whole"
        )
    if not isinstance(fields.get("general.architecture"), str):
        raise BaseModelError(f"{file} states no architecture (general.architecture), so it cannot be read: {_CURE}")


def _convert(file: Path, folder: Path) -> None:
    """Write what transformers makes of `file` into `folder`; the proof of completion comes last."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder.mkdir()
    # Some files have no suffix, by which transformers knows them.
    source = folder / "source.gguf"
    source.symlink_to(file.resolve())
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=source.name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=source.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
            output_loading_info=True,
        )
        model, found = loaded
    except _UNREADABLE as exc:
        said = " ".join(str(exc).split())[:200] or type(exc).__name__
        raise BaseModelError(
            f"{file}: transformers {transformers.__version__} cannot read it ({said}): {_CURE}"
        ) from exc
    if lost := sorted(found["missing_keys"]):
        raise BaseModelError(f"{file} lacks {len(lost)} of its model's weights, {lost[0]} for one: {_CURE}")
    source.unlink()
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    (folder / PROOF).write_text(json.dumps({"from": file.name}))
