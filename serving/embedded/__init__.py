"""The embedded server: OpenAI's API over transformers and PEFT in this process, for machines without vLLM."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ...adapters import Place, Registry
from ..state import BASE

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from ..engines.local_model import Precision

__all__ = ["EmbeddedOptions", "open_app"]
_NEEDED = ("torch", "transformers", "peft", "uvicorn")


@dataclass(frozen=True)
class EmbeddedOptions:
    """The server's options; `queue` is how many requests may be answered or wait at a time.

    Pages of the web `origins` may read answers."""

    max_loras: int = 8
    max_model_len: int = 2048
    queue: int = 128
    api_key: str | None = None
    origins: tuple[str, ...] = ()
    precision: "Precision | None" = None


def open_app(
    base: Path,
    registry: Place,
    *,
    name: str,
    base_digest: str | None = None,
    options: EmbeddedOptions = EmbeddedOptions(),
) -> "Starlette":
    """Load the base model in the folder `base`, called `name` and `base`, and make the application.

    Raises:
        ImportError: a package that the server needs is not installed.
        BaseModelError: `base` holds no model that transformers can load.
    """
    if missing := [package for package in _NEEDED if find_spec(package) is None]:
        raise ImportError(f"the embedded server needs {', '.join(missing)}: pip install 'traitroute[embedded]'")
    from ..engines.engine import PromptTokenizer
    from ..engines.local_model import open_local_model
    from ..engines.probe import TEXTS, messages, within_vocabulary
    from .app import embedded_app
    from .decoder import Decoder
    from .mixed_model import MixedModel

    local = open_local_model(base, options.precision)
    tokenizer = PromptTokenizer(base)
    size = local.model.get_input_embeddings().num_embeddings
    probe = [within_vocabulary(tokenizer.prompt(messages(text)), size) for text in TEXTS]
    return embedded_app(
        Decoder(MixedModel(local, max_loras=options.max_loras, probe=probe), tokenizer),
        tokenizer,
        lambda: Registry.open(registry, read_only=True),
        names=(name, BASE),
        context=min(options.max_model_len, local.context or options.max_model_len),
        queue=options.queue,
        base_digest=base_digest,
        api_key=options.api_key,
        origins=options.origins,
    )
