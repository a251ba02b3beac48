"""The routers of `latency.py`: TraitRoute's and the package semantic-router, with any number of adapters.

What is made up, since the time of a decision does not depend on it: the gains that our profile is fitted to, all
adapters but ten (drawn with the covariance of the fitted ones' traits), and the vectors of semantic-router's
utterances.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from traitroute.profiling.traits.space import TraitSpace
from traitroute.router import FitRequests, Router, RoutingProfile, TrainingRows, fit_profile
from traitroute.router.training_profiles import IN_ALL

from .texts import Rows

FITTED = 10
"""For so many adapters a profile is fitted; more are drawn."""

THRESHOLD = 0.3
"""Of semantic-router; with none it would also build a result for every route, and be slower."""

WIDTH = 384
"""Of MiniLM's vectors."""


@dataclass(frozen=True)
class Contender:
    """A router under test: `ask` decides on a text; a fresh process starts the same from the file `start`."""

    router: str
    adapters: int
    ask: Callable[[str], object]
    start: Path | None = None


def our_contenders(rows: Rows, sizes: Sequence[int], folder: Path, rng: np.random.Generator) -> list[Contender]:
    """TraitRoute's router for each number of adapters, fitted on `rows`."""
    fitted = fitted_profile(rows, rng)
    contenders = []
    for size in sizes:
        file = folder / f"{size}.profile"
        file.write_bytes(enlarged(fitted, size, rng).to_bytes())
        contenders.append(Contender("TraitRoute", size, our_router(file).route, file))
    return contenders


def our_router(file: Path) -> Router:
    """The router of a stored profile."""
    return Router(RoutingProfile.from_bytes(file.read_bytes()))


def fitted_profile(rows: Rows, rng: np.random.Generator) -> RoutingProfile:
    """A profile of real requests and made-up gains: each adapter gains alike on a task, give or take."""
    tasks = [task for task, texts in rows.items() for _ in texts]
    of = np.array([list(rows).index(t) for t in tasks])
    by_task = rng.normal(0, 0.4, (len(rows), 3)) @ rng.normal(0, 0.6, (3, FITTED))
    gains = np.clip(np.round(by_task[of] + rng.normal(0, 0.4, (len(tasks), FITTED))), -1, 1)
    cells = np.stack([gains[of == t].mean(axis=0) for t in range(len(rows))], axis=1)
    space = TraitSpace(n_permutations=50).fit(cells)
    texts = [text for texts in rows.values() for text in texts]
    sources = [TrainingRows.read(texts[i::FITTED][:50], ["yes", "no"]) for i in range(FITTED)]
    requests = FitRequests(texts, tasks, gains, sources=sources)
    names = [f"adapter-{i}" for i in range(FITTED)]
    return fit_profile(names, requests, space.transform(cells), n_traits=space.n_traits_)


def enlarged(profile: RoutingProfile, size: int, rng: np.random.Generator) -> RoutingProfile:
    """The profile with `size` adapters, drawn with the mean and covariance of its own; all but its own have joined
    since.
    """
    supply, tasks, training = profile.trait_scores, len(profile.tasks), profile.training
    spread = np.atleast_2d(np.cov(supply, rowvar=False))
    like = [i % FITTED for i in range(size)]
    # Those that join once there is no more room have one place each.
    roomy = IN_ALL * FITTED // int(training.places.sum())
    firsts = np.cumsum(training.places) - training.places
    single = replace(
        training,
        places=np.ones_like(training.places),
        **{part: getattr(training, part)[firsts] for part in ("prompts", "meanings", "typical")},
    )
    return replace(
        profile,
        adapters=tuple(f"adapter-{i}" for i in range(size)),
        trait_scores=rng.multivariate_normal(supply.mean(axis=0), spread, size),
        residuals=np.vstack([np.zeros((FITTED, tasks)), rng.normal(0, 0.05, (size, tasks))], dtype=np.float32)[:size],
        training=training.take(like[:roomy]).join(single.take(like[roomy:])),
        learnt=profile.learnt[like],
        everyday_losses=profile.everyday_losses[like],
    )


def their_contenders(sizes: Sequence[int], utterances: int, folder: Path, rng: np.random.Generator) -> list[Contender]:
    """MiniLM alone, and semantic-router on it for each number of routes; `acall` is its fastest call."""
    from routing.semantic import PackagedMiniLM

    encoder, loop = PackagedMiniLM(), asyncio.new_event_loop()
    contenders = [Contender("MiniLM alone", 0, lambda text: encoder([text]))]
    for size in sizes:
        file = folder / f"{size}.npy"
        np.save(file, rng.normal(0, 1, (size, utterances, WIDTH)).astype(np.float32))
        acall = their_router(np.load(file), encoder).acall
        contenders.append(
            Contender(
                "semantic-router",
                size,
                lambda text, acall=acall: loop.run_until_complete(acall(text)),
                file,
            )
        )
    return contenders


def their_router(vectors: NDArray[np.float32], encoder: Any) -> Any:
    """An `IndexedRouter` of the utterances `vectors` (routes, utterances, width) that encodes requests."""
    from routing.semantic import SemanticRouterBaseline

    names = [f"adapter-{i}" for i in range(len(vectors))]
    fitted = SemanticRouterBaseline().fit(names, dict(zip(names, vectors, strict=True)), THRESHOLD)
    fitted.router_.encoder = encoder
    return fitted.router_


def measured_start(file: Path) -> dict[str, float]:
    """Seconds to a router ready for requests, imports left out, and MB that it and its first request took."""
    make = _start_ours if file.suffix == ".profile" else _start_theirs()
    gc.collect()
    before, begin = psutil.Process().memory_info().rss, time.perf_counter()
    ask = make(file)
    seconds = time.perf_counter() - begin
    ask("Is this review positive or negative? I loved every minute.")
    gc.collect()
    grown = psutil.Process().memory_info().rss - before
    return {"start_s": seconds, "growth_mb": grown / 2**20}


def _start_ours(file: Path) -> Callable[[str], object]:
    return our_router(file).route


def _start_theirs() -> Callable[[Path], Callable[[str], object]]:
    import sentence_transformers  # noqa: F401 (imports are left out of the time)
    from routing.semantic import PackagedMiniLM

    return lambda file: their_router(np.load(file), PackagedMiniLM())
