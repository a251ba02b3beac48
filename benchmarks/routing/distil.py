"""Static token vectors from a sentence encoder, so that their sum over a text points where the encoder's vector does.

A vector has two parts. *Learnt*: each token goes through the encoder alone (model2vec's recipe); a linear map takes the
mean of a text's tokens to what the encoder says of the text; what is left is given to the tokens by ridge regression,
so that words learn from the texts that they stand in. *Words*: the main axes of the encoder's own word embeddings,
which know nothing of the texts and so hold where those are of other kinds. Frequent tokens count less in both. The
texts of the benchmark's groups to confirm on have no part in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from traitroute.router.meaning import MeaningEncoder, Vocabulary

Array32 = NDArray[np.float32]

LEARNT, WORDS = 160, 96
"""Widths of the two parts."""
SHARE = 0.7
"""What the learnt part makes of a mean squared vector."""
RARE = 1e-3
"""A token with this share of all words counts half."""
MAP = 1e-4
"""Ridge of the linear map, as a share of the number of texts."""
LEFT = 0.003
"""Ridge of what tokens learn beyond it."""
BATCH = 512


@dataclass(frozen=True)
class TokenVectors:
    """What the encoder says of each token `alone`, and its embeddings of `words`: both (tokens, its width)."""

    tokens: tuple[str, ...]
    alone: Array32
    words: Array32


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
        words = transformer.get_input_embeddings().weight[places].numpy()
    return TokenVectors(tuple(known[i] for i in places), np.concatenate(found), words)


def distil(
    vectors: TokenVectors,
    texts: Sequence[str],
    said: NDArray[np.floating[Any]],
    *,
    learnt: int = LEARNT,
    words: int = WORDS,
) -> MeaningEncoder:
    """The encoder whose sums come near to what was `said` of `texts`, (n, width of the encoder)."""
    weights = _weights(vectors.tokens)
    shares = _shares(Vocabulary(vectors.tokens), texts, weights)
    parts = [
        (SHARE, _learnt(vectors.alone, shares, said.astype(np.float64), learnt)),
        (1 - SHARE, _main_axes(vectors.words, shares, words)),
    ]
    scaled = [np.sqrt(share / np.square(shares @ part).sum(axis=1).mean()) * part for share, part in parts]
    return MeaningEncoder.of(vectors.tokens, np.hstack(scaled) * weights[:, None])


def _learnt(alone: Array32, shares: csr_matrix, said: NDArray[np.float64], width: int) -> NDArray[Any]:
    """Token vectors (tokens, width) whose mean over a text is nearest to the main axes of what was said of it."""
    count = len(said)
    wanted = said - said.mean(axis=0)
    wanted = wanted @ _axes(wanted, width)
    seen = (shares @ alone).astype(np.float64)
    center = seen.mean(axis=0)
    mapped = (alone - center) @ _ridge(seen - center, wanted, MAP * count)
    kernel = (shares @ shares.T).toarray() + LEFT * np.eye(count)
    return mapped + shares.T @ np.linalg.solve(kernel, wanted - shares @ mapped)


def _main_axes(words: Array32, shares: csr_matrix, width: int) -> NDArray[Any]:
    """Token vectors (tokens, width) along the main axes of their means over texts."""
    seen = (shares @ words).astype(np.float64)
    center = seen.mean(axis=0)
    return (words - center) @ _axes(seen - center, width)


def _axes(rows: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    return np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :width]


def _weights(tokens: Sequence[str]) -> Array32:
    """What a token counts, by its rank: after single characters the vocabulary lists frequent tokens first (Zipf)."""
    first = next((i for i, t in enumerate(tokens) if len(t) > 1 and t.isalpha()), 0)
    share = 1 / np.maximum(np.arange(len(tokens)) - first + 1, 1)
    share /= share.sum()
    return (RARE / (RARE + share)).astype(np.float32)


def _shares(vocabulary: Vocabulary, texts: Sequence[str], weights: Array32) -> csr_matrix:
    """The share of each token in each text, weighted, (n, tokens)."""
    counted = [vocabulary.counts(t) for t in texts]
    ends = np.cumsum([0, *(len(places) for places, _ in counted)])
    places = np.concatenate([p for p, _ in counted])
    parts = np.concatenate([c * weights[p] / max(float((c * weights[p]).sum()), 1e-9) for p, c in counted])
    return csr_matrix((parts, places, ends), shape=(len(texts), len(vocabulary)))


def _ridge(x: NDArray[Any], y: NDArray[Any], strength: float) -> NDArray[Any]:
    return np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)
