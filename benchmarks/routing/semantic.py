"""The baseline of others: aurelio's package `semantic-router`, one route an adapter, told by example requests.

    make benchmarks      installs it into .venv-benchmarks, whose Python runs what compares with it

The package encodes a request, takes the `top_k` most similar utterances of all routes, and gives each route the
mean of its own among them; the best route is chosen where that mean reaches the threshold, else none. All of
this is its own code (`IndexedRouter`, which was `SemanticRouter` up to its version 0.1, over `LocalIndex`); only the
encoders are ours. It has no public call for a batch. Its `acall` is awaited here: a plain call crosses two threads
and takes 0.3 ms more. Two surprises: a route without an utterance among the best `top_k` scores 0, not its
similarity; and the most similar utterance need not win, since its route's mean may lie lower.
"""

# The package lies in an environment of its own, which the type checker does not look into.
# pyright: reportMissingImports=false

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import PrivateAttr
from traitroute.adapters import InputError
from traitroute.profiling.analysis.similarity import embed, load_encoder

try:
    from semantic_router import IndexedRouter, Route
    from semantic_router.encoders import DenseEncoder
    from semantic_router.index import LocalIndex
    from semantic_router.schema import RouteChoice
except ImportError as exc:
    raise ImportError(
        f"the baseline semantic-router cannot be imported ({exc}): `make benchmarks`, then .venv-benchmarks/bin/python",
        name="semantic_router",
    ) from exc

MAX_TOKENS = 256
"""As much of a request as MiniLM can read."""


class GivenVectors(DenseEncoder):
    """An encoder that looks up the vector of a key, for embeddings that were made before."""

    name: str = "given vectors"
    vectors: dict[str, Any] = {}  # noqa: RUF012 (pydantic copies it)

    def __call__(self, docs: list[str]) -> list[list[float]]:
        return [self.vectors[key].tolist() for key in docs]

    async def acall(self, docs: list[str]) -> list[list[float]]:
        """The same; without it the package would look up in another thread."""
        return self(docs)


class PackagedMiniLM(DenseEncoder):
    """An encoder that runs the packaged all-MiniLM-L6-v2 on the processor."""

    name: str = "all-MiniLM-L6-v2"
    _model: Any = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Load the model."""
        self._model = load_encoder(device="cpu", max_tokens=MAX_TOKENS)

    def __call__(self, docs: list[str]) -> list[list[float]]:
        return embed(docs, self._model).tolist()

    async def acall(self, docs: list[str]) -> list[list[float]]:
        """The same; without it the package would encode in another thread."""
        return self(docs)


@dataclass(frozen=True)
class BestRoutes:
    """The best route of each of n requests: index of its adapter, and its score (a mean cosine), both (n,)."""

    adapter: NDArray[np.intp]
    score: NDArray[np.float64]

    def above(self, threshold: float) -> NDArray[np.intp]:
        """Index of the adapter chosen at `threshold`, -1 for none, (n,)."""
        return np.where(self.score >= threshold, self.adapter, -1)


class SemanticRouterBaseline:
    """`semantic-router` with one route an adapter; learns `adapters_` and `router_`."""

    def __init__(self, *, top_k: int = 5, aggregation: Literal["mean", "max", "sum"] = "mean") -> None:
        self.top_k = top_k
        self.aggregation: Literal["mean", "max", "sum"] = aggregation

    def fit(
        self,
        adapter_names: Sequence[str],
        utterance_vectors: Mapping[str, NDArray[Any]],
        threshold: float | None = None,
    ) -> Self:
        """Index the utterances of every adapter, arrays (m, width); without a threshold some route is always chosen.

        Raises:
            InputError: an adapter has no utterance.
        """
        if silent := [n for n in adapter_names if not len(utterance_vectors.get(n, ()))]:
            raise InputError(f"no utterances for {', '.join(silent)}: give each adapter at least 1")
        self.adapters_ = tuple(adapter_names)
        self._encoder = GivenVectors(
            vectors={f"{n}/{i}": v for n in self.adapters_ for i, v in enumerate(utterance_vectors[n])}
        )
        self.router_ = IndexedRouter(
            encoder=self._encoder,
            routes=[
                Route(name=n, utterances=[f"{n}/{i}" for i in range(len(utterance_vectors[n]))]) for n in self.adapters_
            ],
            index=LocalIndex(),
            top_k=self.top_k,
            aggregation=self.aggregation,
            confidence_threshold=threshold,
        )
        return self

    def choose(self, vectors: NDArray[Any]) -> NDArray[np.intp]:
        """Index of the adapter that the package chooses for each of `vectors` (n, width), -1 for none, (n,)."""
        names = [c.name for c in self._ask(vectors, threshold=None)]
        places = {name: i for i, name in enumerate(self.adapters_)}
        return np.array([-1 if n is None else places[n] for n in names], dtype=np.intp)

    def best(self, vectors: NDArray[Any]) -> BestRoutes:
        """The best route of each of `vectors` (n, width) whatever its score: one pass serves all thresholds."""
        choices = self._ask(vectors, threshold=-np.inf)
        places = {name: i for i, name in enumerate(self.adapters_)}
        return BestRoutes(
            adapter=np.array([places[str(c.name)] for c in choices], dtype=np.intp),
            score=np.array([c.confidence for c in choices], dtype=np.float64),
        )

    def _ask(self, vectors: NDArray[Any], threshold: float | None) -> list[RouteChoice]:
        keys = [f"request {i}" for i in range(len(vectors))]
        self._encoder.vectors = dict(zip(keys, vectors, strict=True))

        async def ask() -> list[RouteChoice]:
            return [cast(RouteChoice, await self.router_.acall(key, threshold=threshold)) for key in keys]

        return asyncio.run(ask())
