"""`traitroute demo`: the whole line on real input, from training to routed answers."""

import time
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..adapters import Registry
from ..profiling import Profile, Suite, Task, load_suite, open_base_model
from ..profiling.execution.places import check_place, open_executor
from ..profiling.profile import prepare, profile_prepared
from ..router import Router
from ..serving import EngineRequest, open_engine
from .console import console, progress_bars, say, warn
from .options import On
from .profile import show_profile

UNLIKE_ANY_TASK = (
    "What is the capital of France?",
    "Write two sentences about the sea.",
    "Who painted the Mona Lisa?",
    "Translate to French: good morning",
)
"""Requests that resemble no profiled task: the base model should answer them."""

MAX_TOKENS = 64


@dataclass(frozen=True)
class Answer:
    """What came back for one request; `gain` is the predicted gain over base in score points."""

    request: str
    adapter: str
    gain: str
    text: str
    streamed: bool


def demo(
    runs: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("runs/demo"),
    suite: Annotated[str, typer.Option(help="A suite file, or a built-in suite.")] = "mini",
    base: Annotated[
        str | None, typer.Option(help="Base model: a Hub id, a folder or a GGUF file, instead of the suite's.")
    ] = None,
    on: On = "local",
) -> None:
    """Train adapters, measure them, fit traits, serve with vLLM, send requests to `auto`, stop.

    What an earlier run finished is reused; delete the folder to start anew.

    Example:

        traitroute demo

        traitroute demo --base HuggingFaceTB/SmolLM2-360M-Instruct

        traitroute demo --on local:2
    """
    check_place(on)
    start = time.perf_counter()
    chosen = load_suite(suite)
    if base is not None:
        chosen = chosen.model_copy(update={"base_model": base})
    prepared = prepare(chosen, warn=warn)
    say(f"prepared: rows of suite {chosen.name}, base model {prepared.base.name}; {prepared.seconds:.0f} s")
    runs.mkdir(parents=True, exist_ok=True)
    path = runs / "registry.db"
    with open_executor(on, warn=warn) as executor, Registry.create(path) as registry, progress_bars() as progress:
        result = profile_prepared(prepared, registry, runs / "adapters", executor=executor, progress=progress)
    show_profile(result)
    answers = _answers(path, chosen, runs, result)
    _show(answers)
    console.print(
        f"demo: {len(result.matrix.adapters)} adapters, {len(answers)} requests, "
        f"{time.perf_counter() - start:.0f} s in all; registry: {path}"
    )


def new_requests(suite: Suite, each: int = 2) -> list[str]:
    """Prompts of test rows that no cell was measured on, `each` per task, then some unlike any task."""
    fresh = []
    for task in suite.tasks:
        more = Task.model_validate(task.model_dump() | {"test": task.test + each})
        measured = {e.prompt for e in task.test_examples}
        unseen = (e.prompt for e in more.test_examples if e.prompt not in measured)
        fresh += islice(unseen, each)
    return [*fresh, *UNLIKE_ANY_TASK]


def _answers(path: Path, suite: Suite, runs: Path, result: Profile) -> list[Answer]:
    requests = new_requests(suite)
    if find_spec("vllm") is None:
        warn(f"vLLM is not installed: {len(requests)} requests are answered by the embedded engine")
        return _embedded(path, suite, requests)
    return _served(path, suite, requests, runs / "server.log", list(result.matrix.adapters))


def _served(path: Path, suite: Suite, requests: list[str], log: Path, adapters: list[str]) -> list[Answer]:
    """Answers of a real `vllm serve` with our plugin, through the openai client; every third streams."""
    from openai import OpenAI

    from ..serving.vllm import running_server

    with Registry.open(path, read_only=True) as registry:
        records = [registry.adapter(name) for name in adapters]
    base = open_base_model(suite.base_model).path
    with progress_bars() as progress:
        starting = progress.add_task("start vllm serve", total=1)
        with running_server(path, base, records, log_path=log) as server:
            progress.advance(starting)
            client = OpenAI(base_url=f"{server.base_url}/v1", api_key="none", max_retries=0)
            bar = progress.add_task("send requests", total=len(requests))
            answers = []
            for i, text in enumerate(requests):
                answers.append(_ask(client, text, stream=i % 3 == 0))
                progress.advance(bar)
            return answers


def _ask(client: Any, text: str, *, stream: bool) -> Answer:
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": text}], max_tokens=MAX_TOKENS, temperature=0, stream=stream
    )
    answer = raw.parse()
    if stream:
        content = "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    else:
        content = answer.choices[0].message.content or ""
    headers = raw.headers
    return Answer(text, headers["x-traitroute-adapter"], headers["x-traitroute-gain"], content, stream)


def _embedded(path: Path, suite: Suite, requests: list[str]) -> list[Answer]:
    with Registry.open(path, read_only=True) as registry:
        router = Router.from_registry(registry)
        decisions = [router.route(text) for text in requests]
        adapters = {a.name: a for a in registry.adapters()}
        base = open_base_model(suite.base_model).path
        engine = open_engine("transformers", base, registry.weights, list(adapters.values()))
        results = engine.run(
            [
                EngineRequest(
                    messages=({"role": "user", "content": text},),
                    adapter=adapters[d.adapter] if d.adapter else None,
                    max_tokens=MAX_TOKENS,
                )
                for text, d in zip(requests, decisions, strict=True)
            ]
        )
        engine.close()
    return [
        Answer(text, d.adapter or "base", f"{d.gain:+.3f}", r.text, streamed=False)
        for text, d, r in zip(requests, decisions, results, strict=True)
    ]


def _show(answers: list[Answer]) -> None:
    table = Table(title='requests with model="auto" (~ streamed)', title_justify="left")
    table.add_column("request", ratio=5)
    table.add_column("adapter", no_wrap=True)
    table.add_column("gain", no_wrap=True)
    table.add_column("answer", ratio=4)
    for a in answers:
        mark = "~ " if a.streamed else ""
        table.add_row(mark + _short(a.request), a.adapter, a.gain, _short(a.text))
    console.print(table)


def _short(text: str, limit: int = 110) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
