"""A profile that is measured on a server which runs already: found, and checked to run this base and these adapters.

All is checked before anything is measured: a server may run another model than is believed, may not know an adapter, or
may be unable to load it. What it does later (going away, answering nonsense) is the engine's to notice.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..adapters import Adapter, BaseModelError, Registry, ServerError
from ..adapters.adapter import Base
from ..serving.engines.completions import GATEWAY_BASE, CompletionsClient, served_context
from ..serving.engines.openai import OpenAIEngine
from .base_model import BaseModelFolder, open_base_files, open_base_model
from .tasks.suite import Suite

OPENING_S, PATIENCE_S = 10.0, 600.0
"""How long a server may be away before the run, and in its midst: large models take minutes to start again."""
FOLLOWS_WITHIN_S = 15.0
"""A server that follows the registry offers within so long what was added to it."""
DEFAULT_RANK = 16
"""vLLM's highest rank of an adapter where nothing is said."""
SAMPLE = "The quick brown fox: 31,415 naïve façades, Übergröße №7, 東京 and Ελλάδα.\n\tdef f(x): return x ** 2  # {}"
"""A text of which hardly two families of models make as many tokens."""


@dataclass(frozen=True)
class MeasuringServer:
    """A server that is not started by us, and how it is asked; `card` is its base model's.

    With `same_base` its base model is the one that is profiled, whatever it is named.
    """

    client: CompletionsClient
    concurrency: int
    same_base: bool = False

    def open_base(self, suite: Suite, known: Mapping[str, str]) -> BaseModelFolder:
        """The suite's base model: with weights only where something is trained. `known` are names by digest.

        Raises:
            BaseModelError: it cannot be found, or is by its name not what the server runs.
            ServerError: the server is away.
        """
        card, name = self.client.models()[0], suite.base_model
        base = open_base_model(name) if suite.sources else open_base_files(name, known)
        named = [str(card[key]) for key in ("id", "root") if card.get(key) not in (None, GATEWAY_BASE)]
        if named and not self.same_base and not any(Base(name, base.digest).is_named(each) for each in named):
            raise BaseModelError(
                f"{self.client.url} runs {' from '.join(dict.fromkeys(named))}, and this profile is for {name}: name "
                "its base model with --base, or say with --same-base that it is this one under another name"
            )
        return replace(base, room=served_context(card))

    def open_engine(self, base: BaseModelFolder) -> OpenAIEngine:
        """The engine that measures there, once a text has as many tokens there as here.

        Raises:
            BaseModelError: it has not: the server runs another model.
            RefusalError: the server answers no completions, or not to this key.
            ServerError: it is away.
        """
        engine = OpenAIEngine(self.client, base.path, concurrency=self.concurrency)
        here, there = engine.count_tokens(SAMPLE)
        # Some put a token before every text, and some do not.
        if there is not None and abs(here - there) > 1:
            raise BaseModelError(
                f"{self.client.url} makes {there} tokens of a text of which the tokenizer of {base.name} makes {here}: "
                "it runs another model; name that one with --base"
            )
        self.client.patience_s = PATIENCE_S
        return engine

    def check(self, engine: OpenAIEngine, adapters: Sequence[Adapter], registry: Registry) -> None:
        """Check that the server offers all `adapters`, with these weights, and answers with each.

        Raises:
            ServerError: it does not, or is away.
        """
        until = time.monotonic() + FOLLOWS_WITHIN_S
        while (lacking := engine.lacking(adapters)) and time.monotonic() < until and self._follows():
            time.sleep(0.25)
        if lacking:
            told = ", ".join(f"{why} {name!r}" for name, why in lacking.items())
            raise ServerError(f"{self.client.url} {told}: nothing was measured; {self._cure(adapters, registry)}")
        if refused := engine.refused(adapters):
            raise ServerError(
                f"the server answers with {len(adapters) - len(refused)} of {len(adapters)} adapters: nothing was "
                f"measured; {'; '.join(refused.values())}; mend that, or leave adapters out: traitroute adapters "
                f"disable {next(iter(refused))}"
            )

    def _follows(self) -> bool:
        """Whether the server is one of ours, which follow a registry."""
        return any(card["id"] == "auto" for card in self.client.models())

    def _cure(self, adapters: Sequence[Adapter], registry: Registry) -> str:
        if self._follows():
            return f"it follows another registry: start it with --registry {registry.location}"
        modules = " ".join(f"{a.name}={registry.weights.path(a.weights_digest)}" for a in adapters)
        rank = max(a.rank for a in adapters)
        flag = f" --max-lora-rank {rank}" if rank > DEFAULT_RANK else ""
        return (
            f"start it with all of them: vllm serve … --enable-lora{flag} --lora-modules {modules} (or copies of these "
            "folders)"
        )


@contextmanager
def measuring_server(
    url: str, *, api_key: str | None, concurrency: int, same_base: bool = False, warn: Callable[[str], None]
) -> Iterator[MeasuringServer]:
    """The server at `url`, until the block ends; `warn` is called while it is away.

    Raises:
        InputError: `url` is not the address of a server.
    """
    with CompletionsClient(url, api_key=api_key, patience_s=OPENING_S, on_wait=warn) as client:
        yield MeasuringServer(client, concurrency, same_base)
