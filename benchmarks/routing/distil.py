"""Static token vectors from a sentence encoder, so that their sum over a text points where the encoder's vector does.

Three steps. Each token goes through the encoder alone, which gives it a vector (model2vec's recipe); frequent tokens
count less. A linear map takes the mean vectors of some texts to what the encoder says of them. What is left is given to
the tokens by ridge regression, so that words learn from the texts that they stand in. The texts of the benchmark's
groups to confirm on have no part in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from traitroute.router.meaning import MeaningEncoder, Vocabulary

Array32 = NDArray[np.float32]

WIDTH = 256
"""Length of the vectors: so many main axes of the encoder's."""
RARE = 1e-3
"""A token with this share of all words counts half."""
MAP = 3e-3
"""Ridge of the linear map, as a share of the number of texts."""
LEFT = 0.02
"""Ridge of what tokens learn beyond it."""
BATCH = 512


@dataclass(frozen=True)
class TokenVectors:
    """What the encoder says of each token alone: `vectors` (tokens, width of the encoder)."""

    tokens: tuple[str, ...]
    vectors: Array32


def read_tokens(encoder: Any) -> TokenVectors:
    """Send every token of the encoder's vocabulary through it, by itself."""
    import torch

    tokenizer, transformer = encoder.tokenizer, encoder[0].auto_model
    known = {
        i: t for t, i in tokenizer.get_vocab().items() if not (t.startswith("[") and t.endswith("]") and t != "[]")
    }
    places = sorted(known)
    found = []
    with torch.inference_mode():
        for start in range(0, len(places), BATCH):
            ids = torch.tensor(places[start : start + BATCH])
            ends = [torch.full_like(ids, end) for end in (tokenizer.cls_token_id, tokenizer.sep_token_id)]
            framed = torch.stack([ends[0], ids, ends[1]], dim=1)
            hidden = transformer(input_ids=framed, attention_mask=torch.ones_like(framed)).last_hidden_state
            found.append(hidden[:, 1].numpy())
    return TokenVectors(tuple(known[i] for i in places), np.concatenate(found))


def distil(alone: TokenVectors, texts: Sequence[str], said: Array32, *, width: int = WIDTH) -> MeaningEncoder:
    """The encoder of the token vectors that come nearest to what was `said` of `texts`, (n, width of the encoder)."""
    weights = _weights(len(alone.tokens))
    shares = _shares(Vocabulary(alone.tokens), texts, weights)
    own = alone.vectors - alone.vectors.mean(axis=0)
    wanted = (said - said.mean(axis=0)).astype(np.float64)
    axes = np.linalg.eigh(wanted.T @ wanted)[1][:, ::-1][:, :width]
    wanted = wanted @ axes
    seen = (shares @ own).astype(np.float64)
    center = seen.mean(axis=0)
    linear = _ridge(seen - center, wanted, MAP * len(texts))
    mapped = (own - center) @ linear
    left = wanted - shares @ mapped
    mapped += shares.T @ np.linalg.solve((shares @ shares.T).toarray() + LEFT * np.eye(len(texts)), left)
    return MeaningEncoder.of(alone.tokens, mapped * weights[:, None])


def _weights(count: int) -> Array32:
    """What a token counts, by its rank: the vocabulary lists tokens from frequent to rare (Zipf's law)."""
    share = 1 / np.arange(1, count + 1)
    share /= share.sum()
    return (RARE / (RARE + share)).astype(np.float32)


def _shares(vocabulary: Vocabulary, texts: Sequence[str], weights: Array32) -> csr_matrix:
    """The share of each token in each text, weighted, (n, tokens)."""
    counted = [vocabulary.counts(t) for t in texts]
    ends = np.cumsum([0, *(len(places) for places, _ in counted)])
    places = np.concatenate([p for p, _ in counted])
    parts = np.concatenate([c * weights[p] / max(float((c * weights[p]).sum()), 1e-9) for p, c in counted])
    return csr_matrix((parts, places, ends), shape=(len(texts), len(vocabulary)))


def _ridge(x: NDArray[np.float64], y: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    return np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)
