"""Static token vectors from a sentence encoder, so that their sum over a text says what the text means.

Two views of each token are put side by side: what the encoder makes of the token alone (model2vec's recipe), and the
word embedding that it starts from. Frequent tokens count less, and the main axes of both are kept. No text has a part
in it, so the vectors know no data set better than another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from traitroute.router.meaning import MeaningEncoder

Array32 = NDArray[np.float32]

WIDTH = 256
RARE = 1e-3
"""A token with this share of all words counts half."""
BATCH = 512


@dataclass(frozen=True)
class TokenVectors:
    """What the encoder makes of each token `alone`, and its embeddings of `words`: both (tokens, its width)."""

    tokens: tuple[str, ...]
    alone: Array32
    words: Array32


def read_tokens(encoder: Any) -> TokenVectors:
    """Send every token of the encoder's vocabulary through it, by itself."""
    import torch

    tokenizer, transformer = encoder.tokenizer, encoder[0].auto_model
    marks = set(tokenizer.all_special_tokens)
    known = {i: t for t, i in tokenizer.get_vocab().items() if t not in marks and not t.startswith("[unused")}
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


def distil(vectors: TokenVectors, *, width: int = WIDTH) -> MeaningEncoder:
    """The encoder of the main axes of both views, frequent tokens counting less."""
    share = _shares(vectors.tokens)
    weights = RARE / (RARE + share)
    # About what a text of such shares would sum to: what all texts have in common says nothing.
    usual = share * weights / (share @ weights)
    views = [(v - usual @ v) / v.std() for v in (vectors.alone, vectors.words)]
    both = np.hstack(views) * weights[:, None]
    axes = np.linalg.eigh(both.T @ both)[1][:, ::-1][:, :width]
    return MeaningEncoder.of(vectors.tokens, both @ axes)


def _shares(tokens: Sequence[str]) -> NDArray[np.float64]:
    """The share of each token in texts, by Zipf's law: the vocabulary has characters first, then the frequent words."""
    first = next((i for i, t in enumerate(tokens) if len(t) > 1 and t.isalpha()), 0)
    rank = np.maximum(np.arange(len(tokens)) - first + 1, 1)
    # Signs of other scripts stand among the characters.
    rank[[i for i, t in enumerate(tokens) if not t.isascii()]] = len(tokens)
    share = 1 / rank
    return share / share.sum()
