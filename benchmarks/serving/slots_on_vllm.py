"""Ties to loaded adapters on the real vLLM: the first token's time and the loads, with and without.

The engine runs in this process, so that its loads from disk are counted where they happen (`_load_adapter`) and time is
the processor's own: a request arrives when so much of it has passed, and while nothing is to be done it is set forward
to the next one. Whom a request goes to is `Router.route`'s, with what `Slots` says is held.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray
from rich.table import Table
from traitroute.profiling import PACKAGED, open_base_model
from traitroute.router import RequestTokens, Router
from traitroute.serving.slots import Slots
from traitroute.serving.vllm.options import CPU_VARIABLES, PRIVACY_VARIABLES

from .stand import MODULES, PACKAGED_WEIGHTS, save_adapters

SLOTS, RANK, COST = 8, 32, 0.2
"""Slots, the adapters' rank, and score points that a second of loading is worth: 20 of 100."""
PROMPT, ANSWER, GAP_S = 40, 4, 0.6
"""Tokens asked and answered, and processor seconds between two arrivals on average."""


@dataclass(frozen=True)
class Run:
    """One way: times to the first token (n,) in s, whose adapter was not held (n,), and the mean score."""

    first_token_s: NDArray[np.float64]
    missed: NDArray[np.bool_]
    loads: int
    seconds: float
    score: float
    load_s: float


def measure(
    router: Router,
    marks: Sequence[RequestTokens],
    scores: NDArray[np.float64],
    dataset: NDArray[np.str_],
    **options: int,
) -> Table:
    """Hold the same arrivals both ways; `options` are how many `requests` and the `seed`."""
    count, rng = options["requests"], np.random.default_rng(options["seed"])
    names = np.unique(dataset)
    weights = 1 / np.arange(1, len(names) + 1)
    drawn = rng.choice(rng.permutation(names), count, p=weights / weights.sum())
    rows = [int(rng.choice(np.flatnonzero(dataset == name))) for name in drawn]
    gaps = rng.exponential(GAP_S, count)
    heads = ("ties", "loads", "a minute", "ms a load", "first token ms: median", "mean", "held", "loaded", "score")
    table = Table(*heads)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder), router.profile.adapters)
        for cost in (0.0, COST):
            run = engine.hold(router, [marks[row] for row in rows], scores[rows], gaps, cost)
            ms = 1000 * run.first_token_s
            times = [f"{np.median(part):.0f}" for part in (ms, ms[~run.missed], ms[run.missed])]
            times.insert(1, f"{ms.mean():.0f}")
            loads = (str(run.loads), f"{60 * run.loads / run.seconds:.1f}", f"{1000 * run.load_s:.0f}")
            table.add_row("with" if cost else "without", *loads, *times, f"{100 * run.score:.1f}")
    table.caption = f"{count} requests, {SLOTS} slots, {len(router.profile.adapters)} adapters"
    return table


class Engine:
    """vLLM with SmolLM2-135M and adapters of random weights in `folder`, of these names."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        os.environ |= CPU_VARIABLES | PRIVACY_VARIABLES
        os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING"}
        from vllm import LLM
        from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

        base = open_base_model(PACKAGED).path
        self._folders = {name: folder / name for name in names}
        save_adapters(base, list(self._folders.values()), weights=PACKAGED_WEIGHTS)
        self._numbers = {name: 1 + i for i, name in enumerate(names)}
        self._loads: list[float] = []
        manager_type: Any = LRUCacheWorkerLoRAManager
        load = manager_type._load_adapter

        def counted(manager: Any, request: Any) -> Any:
            start = time.process_time()
            loaded = load(manager, request)
            self._loads.append(time.process_time() - start)
            return loaded

        manager_type._load_adapter = counted
        llm: Any = LLM(
            model=str(base),
            enable_lora=True,
            max_loras=SLOTS,
            max_cpu_loras=SLOTS,
            max_lora_rank=RANK,
            lora_target_modules=MODULES,
            max_model_len=256,
            dtype="float32",
            enforce_eager=True,
            enable_prefix_caching=False,
        )
        self._engine = llm.llm_engine

    def hold(
        self,
        router: Router,
        requests: Sequence[RequestTokens],
        scores: NDArray[np.float64],
        gaps: NDArray[np.float64],
        cost: float,
    ) -> Run:
        """Send the requests as they arrive; with a `cost`, ties go to what is loaded."""
        slots, rng = Slots(SLOTS, cost), np.random.default_rng(0)
        self._loads.clear()
        due, first, answered = np.cumsum(gaps), np.zeros(len(requests)), []
        held: LRUCache[str, None] = LRUCache(SLOTS)
        missed = []
        clock = Clock()
        sent = 0
        while sent < len(requests) or self._engine.has_unfinished_requests():
            if sent < len(requests) and not self._engine.has_unfinished_requests():
                clock.forward(due[sent])
            while sent < len(requests) and due[sent] <= clock.now():
                answered.append(name := self._send(str(sent), router, requests[sent], slots, rng))
                missed.append(name is not None and name not in held)
                held.update({} if name is None else {name: None})
                sent += 1
            for output in self._engine.step():
                place = int(output.request_id)
                if output.outputs[0].token_ids and not first[place]:
                    first[place] = clock.now() - due[place]
            if self._loads:
                slots.load_s = float(np.mean(self._loads))
        columns = [0 if name is None else 1 + router.profile.adapters.index(name) for name in answered]
        score = float(scores[np.arange(len(requests)), columns].mean())
        return Run(first, np.array(missed), len(self._loads), clock.now(), score, float(np.mean(self._loads)))

    def _send(
        self, number: str, router: Router, request: RequestTokens, slots: Slots, rng: np.random.Generator
    ) -> str | None:
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        held = slots.held(number.encode()) if slots.cost else None
        options: dict[str, Any] = {} if held is None else {"held": held.names, "worth": held.worth}
        name = router.route(request, **options).adapter
        lora = None
        if name is not None:
            slots.asked(name)
            lora = LoRARequest(name, self._numbers[name], str(self._folders[name]))
        prompt = {"prompt_token_ids": rng.integers(1000, 40_000, PROMPT).tolist()}
        wanted = SamplingParams(max_tokens=ANSWER, temperature=0, ignore_eos=True)
        self._engine.add_request(number, prompt, wanted, lora_request=lora)
        return name


class Clock:
    """The processor's time of this process, set forward over what is idle."""

    def __init__(self) -> None:
        self._start = time.process_time()

    def now(self) -> float:
        """Seconds since the start."""
        return time.process_time() - self._start

    def forward(self, until: float) -> None:
        """Let it be `until`, unless it is later already."""
        self._start -= max(until - self.now(), 0.0)
