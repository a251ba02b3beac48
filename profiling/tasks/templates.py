"""Requests grouped by the template that they were made from, told from nothing but their texts.

A template is what many requests have in common word by word. So a request is the set of its runs of three words, those
at its ends counted once more, without the runs that only a few requests hold: these are what was filled in. A run
weighs the more the more requests hold it, and less where nearly all do. (By TF-IDF, the words of a template that half
of a log is made of would weigh less than what is filled in.) A seeded sample is joined by average linkage while
requests of two groups share half of their weight on average; every other request joins the group with which it shares
most on average, or waits for another round over those that are left. Time and memory grow with the number of requests,
and with the square of the sample's size, which is fixed.

Numbers are one word, and of a long text its two ends are read, as the router does. Runs of words are hashed, so nothing
of the vocabulary is kept.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RUN = 3
EDGE = 10
"""So many words at each end are counted once more: instructions stand there."""
SHARE = 0.5
"""Requests of one group share so much of their weight on average (cosine)."""
SAMPLE = 3_000
ROUNDS = 4
FEWEST = 5
"""What fewer requests hold is never of a template."""
LONGEST = 4_000
_PLACES = 2**20
_WORD = re.compile(r"\w+|[^\w\s]|\n+")


def group_by_template(texts: Sequence[str], *, seed: int = 0) -> NDArray[np.int64]:
    """The group of every text, (n,): numbers from 0 by falling size, and -1 where a text is like few others."""
    if not texts:
        return np.zeros(0, np.int64)
    groups = np.full(len(texts), -1)
    if (rows := _weights(texts)) is None:
        return groups
    draw = np.random.default_rng(seed)
    fewest = max(FEWEST, len(texts) // 2_000)
    for _ in range(ROUNDS):
        left = np.flatnonzero((groups < 0) & (rows.getnnz(axis=1) > 0))
        if len(left) < fewest:
            break
        sample = draw.choice(left, min(len(left), SAMPLE), replace=False)
        _join(rows, left, sample, groups)
    return _by_size(groups, fewest)


def template_words(texts: Sequence[str], most: int = 4) -> list[str]:
    """The first words, up to `most`, that at least four in five of a group's texts hold: none that a user filled in."""
    shown = texts[:200]
    held = Counter(word for text in shown for word in set(_words(text)))
    first = [w for w in _words(shown[0]) if held[w] >= 0.8 * len(shown) and w.isalpha()] if len(shown) > 1 else []
    return list(dict.fromkeys(first))[:most]


def cut(text: str) -> str:
    """The part of a text that is read: its two ends where it is long."""
    text = text.strip()
    return text if len(text) <= LONGEST else text[: LONGEST // 2] + "\n" + text[-LONGEST // 2 :]


def _words(text: str) -> list[str]:
    return ["0" if w[0].isdigit() else ("\n" if w[0] == "\n" else w) for w in _WORD.findall(cut(text).lower())]


def _runs(text: str) -> list[str]:
    words = ["<", *_words(text), ">"]
    runs = [" ".join(words[i : i + RUN]) for i in range(max(len(words) - RUN + 1, 1))]
    return [*runs, *(f"edge {run}" for run in (*runs[:EDGE], *runs[-EDGE:]))]


def _weights(texts: Sequence[str]) -> Any:
    """A sparse row of unit length a text, over the runs that enough texts hold; None where there are none."""
    from scipy.sparse import diags
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import normalize

    hashed = HashingVectorizer(
        analyzer=_runs, n_features=_PLACES, binary=True, norm=None, alternate_sign=False, dtype=np.float32
    )
    counted: Any = hashed.transform(texts)
    held = np.bincount(counted.indices, minlength=_PLACES)
    kept = np.flatnonzero(held >= max(FEWEST, len(texts) // 500))
    if not len(kept):
        return None
    weight = np.log1p(held[kept]) * np.sqrt(np.log1p(len(texts) / held[kept]))
    return normalize(counted[:, kept] @ diags(weight.astype(np.float32))).tocsr()


def _join(rows: Any, left: NDArray[np.int64], sample: NDArray[np.int64], groups: NDArray[np.int64]) -> None:
    """Give `sample` new groups, and those `left` that share enough with one of them the same."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.sparse import csr_matrix
    from scipy.spatial.distance import squareform

    if len(sample) < 2:
        return
    distance = 1 - (rows[sample] @ rows[sample].T).toarray()
    np.fill_diagonal(distance, 0)
    joined = fcluster(linkage(squareform(np.maximum(distance, 0), checks=False), "average"), 1 - SHARE, "distance") - 1
    sizes = np.bincount(joined)
    member = csr_matrix((1 / sizes[joined], (joined, np.arange(len(sample)))), shape=(len(sizes), len(sample)))
    # A group of one or two of a sample is no template yet: it may find more of its kind in the next round.
    means = (member @ rows[sample])[np.flatnonzero(sizes > 2)]
    if not means.shape[0]:
        return
    first = groups.max() + 1
    for part in np.array_split(left, len(left) // 2_000 + 1):
        shared = (rows[part] @ means.T).toarray()
        best = shared.argmax(axis=1)
        near = shared[np.arange(len(part)), best] >= SHARE
        groups[part[near]] = first + best[near]


def _by_size(groups: NDArray[np.int64], fewest: int) -> NDArray[np.int64]:
    """The groups numbered by falling size; those of fewer than `fewest` are none."""
    sizes = np.bincount(groups[groups >= 0])
    order = np.argsort(-sizes, kind="stable")
    renamed = np.full(len(sizes) + 1, -1)
    renamed[order] = np.where(sizes[order] >= fewest, np.arange(len(sizes)), -1)
    return renamed[groups]
