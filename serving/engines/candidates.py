"""Log-likelihoods of candidate answers, all of a prompt's in one pass.

Candidates of a prompt are laid out as a tree: a start that several share is read once, a last token is not
read at all, and each token sees the prompt and its own ancestors only. So labels of a single token cost
nothing beyond the prompt.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .decoding import PromptBatch, branch

SCORE_TOKENS = 1024
"""Tokens read at once; bounds the logits held in memory (vocabulary x this)."""


@dataclass(frozen=True)
class TokenTree:
    """A prompt's candidates as the tokens to read: `tokens[n]` comes after node `parents[n]`.

    `paths` has, for each candidate, the nodes that its tokens come after; -1 is the prompt.
    """

    candidates: Sequence[list[int]]
    tokens: list[int]
    parents: list[int]
    paths: list[list[int]]

    @classmethod
    def of(cls, candidates: Sequence[list[int]]) -> "TokenTree":
        """The tree of `candidates`."""
        nodes: dict[tuple[int, int], int] = {}
        paths: list[list[int]] = []
        for candidate in candidates:
            path = [-1][: len(candidate)]
            for token in candidate[:-1]:
                path.append(nodes.setdefault((path[-1], token), len(nodes)))
            paths.append(path)
        return cls(candidates, [token for _, token in nodes], [parent for parent, _ in nodes], paths)

    def lineage(self) -> torch.Tensor:
        """(nodes, nodes) booleans: which are a node's ancestors, itself included."""
        lineage = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                lineage[node] |= lineage[parent]
        return lineage


def score(model: Any, batch: PromptBatch, trees: Sequence[TokenTree]) -> list[list[float]]:
    """Sum of natural-log probabilities of every candidate's tokens after its prompt, a tree a prompt.

    Neighbours are read together, so rows are best sorted by the size of their trees.
    """
    if not batch.shareable:
        return _score_apart(model, batch, trees)
    scores: list[list[float]] = []
    for start, stop in _groups([len(t.tokens) for t in trees]):
        logits = _read_trees(model, batch, trees[start:stop], start)
        for row in range(start, stop):
            row_logits = torch.cat([batch.logits[row, None], logits[row - start]])
            scores.append(_sums(row_logits, trees[row].paths, trees[row].candidates))
    return scores


def _read_trees(model: Any, batch: PromptBatch, trees: Sequence[TokenTree], start: int) -> list[torch.Tensor]:
    """Logits (nodes, vocabulary) after every node of each tree; tree 0 belongs to row `start`."""
    rows, width = len(trees), max(len(t.tokens) for t in trees)
    if width == 0:
        return [batch.logits[:0] for _ in trees]
    ids = torch.zeros(rows, width, dtype=torch.long)
    sees = torch.zeros(rows, width, width, dtype=torch.bool)
    for row, tree in enumerate(trees):
        size = len(tree.tokens)
        ids[row, :size] = torch.tensor(tree.tokens, dtype=torch.long)
        sees[row, :size, :size] = tree.lineage()
    ids, sees = ids.to(model.device), sees.to(model.device)
    prompt = batch.mask[start : start + rows]
    depths = (sees.sum(dim=2) - 1).clamp(min=0)
    visible = torch.cat([prompt.bool()[:, None].expand(-1, width, -1), sees], dim=2)
    mask = torch.zeros_like(visible, dtype=model.dtype)
    mask.masked_fill_(~visible, torch.finfo(model.dtype).min)
    logits = model(
        input_ids=ids,
        attention_mask=mask[:, None],
        position_ids=prompt.sum(dim=1, keepdim=True) + depths,
        past_key_values=branch(batch.cache, start, start + rows),
        use_cache=True,
    ).logits
    return [row[: len(t.tokens)] for row, t in zip(logits, trees, strict=True)]


def _sums(logits: torch.Tensor, paths: Sequence[list[int]], candidates: Sequence[list[int]]) -> list[float]:
    """Scores of one prompt's candidates, from `logits` (1 + nodes, vocabulary), the prompt's first."""
    norms = logits.float().logsumexp(dim=-1)
    sums = []
    for path, tokens in zip(paths, candidates, strict=True):
        nodes = torch.tensor(path, dtype=torch.long, device=logits.device) + 1
        picked = logits[nodes, torch.tensor(tokens, dtype=torch.long, device=logits.device)]
        sums.append(float((picked.float() - norms[nodes]).sum()))
    return sums


def _groups(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges of rows that hold up to `SCORE_TOKENS` tokens, padding included."""
    start, widest = 0, 0
    if not sizes:
        return
    for row, size in enumerate(sizes):
        widest = max(widest, size)
        if row > start and (row - start + 1) * widest > SCORE_TOKENS:
            yield start, row
            start, widest = row, size
    yield start, len(sizes)


def _score_apart(model: Any, batch: PromptBatch, trees: Sequence[TokenTree]) -> list[list[float]]:
    """For models whose cache cannot be shared: each candidate continues a copy of its prompt's."""
    pairs = {(row, tuple(c)) for row, tree in enumerate(trees) for c in tree.candidates}
    ordered = sorted(pairs, key=lambda pair: (len(pair[1]), pair))
    scores: dict[tuple[int, tuple[int, ...]], float] = {}
    for start, stop in _groups([len(tokens) for _, tokens in ordered]):
        group = ordered[start:stop]
        for (row, tokens), logits in zip(group, _continue(model, batch, group), strict=True):
            all_logits = torch.cat([batch.logits[row, None], logits])
            path = list(range(-1, len(tokens) - 1))
            scores[row, tokens] = _sums(all_logits, [path], [list(tokens)])[0]
    return [[scores[row, tuple(c)] for c in tree.candidates] for row, tree in enumerate(trees)]


def _continue(model: Any, batch: PromptBatch, pairs: Sequence[tuple[int, tuple[int, ...]]]) -> torch.Tensor:
    """Logits (pairs, tokens, vocabulary) after the tokens of each candidate, padded on the right."""
    width = max(1, *(len(tokens) for _, tokens in pairs))
    padded = [[*tokens, *[0] * (width - len(tokens))] for _, tokens in pairs]
    rows = torch.tensor([row for row, _ in pairs], device=model.device)
    cache = copy.deepcopy(batch.cache)
    cache.reorder_cache(rows)
    mask = batch.mask[rows]
    return model(
        input_ids=torch.tensor(padded, device=model.device),
        attention_mask=torch.cat([mask, mask.new_ones(len(pairs), width)], dim=1),
        position_ids=mask.sum(dim=1, keepdim=True) + torch.arange(width, device=model.device),
        past_key_values=cache,
        use_cache=True,
    ).logits
