"""The logistic models of the benchmark's baselines: what a column scores on a request, from its embedding.

    score_j(x) = sigmoid(ability_j . project(x) + bias_j + ease(x))

Without `ease`, which all columns share, it is the matrix factorisation of RouteLLM; with it, an item-response model.
Trained by Adam on the cross-entropy with scores between 0 and 1; how long is the one setting.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = NDArray[np.float32]
RANK = 8
STEPS = (20, 40, 80)
"""Steps of training to choose from."""
RATE, DECAY = 0.05, 1e-3


@dataclass(frozen=True, eq=False)
class Logistic:
    """`project` (p, RANK), `ability` (RANK, columns), `ease` (p, 1) and `bias` (columns,)."""

    project: Weights
    ability: Weights
    ease: Weights
    bias: Weights

    def scores(self, x: Array) -> Array:
        """Predicted scores (n, columns) of embeddings (n, p)."""
        X = x.astype(np.float32)
        logits = (X @ self.project) @ self.ability + self.bias + X @ self.ease
        return _sigmoid(logits.astype(np.float32)).astype(np.float64)


def fit_logistic(x: Array, scores: Array, *, shared: bool) -> dict[int, Logistic]:
    """The model after each number of STEPS, fitted to embeddings (n, p) and scores (n, columns)."""
    rng = np.random.default_rng(0)
    X, Y = x.astype(np.float32), np.clip(scores, 0, 1).astype(np.float32)
    p, columns = X.shape[1], Y.shape[1]
    weights = [
        (rng.normal(size=(p, RANK)) / 4).astype(np.float32),
        (rng.normal(size=(RANK, columns)) / 4).astype(np.float32),
        np.zeros((p, 1), np.float32),
        np.zeros(columns, np.float32),
    ]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    kept: dict[int, Logistic] = {}
    for step in range(1, max(STEPS) + 1):
        project, ability, ease, bias = weights
        latent = X @ project
        logits = latent @ ability + bias
        if shared:
            logits += X @ ease
        error = (_sigmoid(logits) - Y) / np.float32(Y.size)
        slopes = [X.T @ (error @ ability.T), latent.T @ error, np.zeros_like(ease), error.sum(axis=0)]
        if shared:
            slopes[2] = X.T @ error.sum(axis=1, keepdims=True)
        for i, slope in enumerate(slopes):
            slope = slope + DECAY * weights[i]
            first[i] = 0.9 * first[i] + 0.1 * slope
            second[i] = 0.999 * second[i] + 0.001 * slope**2
            scaled = np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8
            weights[i] = (weights[i] - RATE * first[i] / (1 - 0.9**step) / scaled).astype(np.float32)
        if step in STEPS:
            kept[step] = Logistic(*weights)
    return kept


def _sigmoid(logits: Weights) -> Weights:
    return np.float32(1) / (np.float32(1) + np.exp(-np.clip(logits, -30, 30)))
