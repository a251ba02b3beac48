"""Clients that ask a live system all the while, in a thread of their own."""

import asyncio
import random
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from serving.client import Answer, open_client
from serving.load import PROMPTS_EACH, keep_asking
from serving.truth import Truth, learn_truth
from traitroute.serving.state import AUTO

from .stand import LiveSystem

CLIENTS = 2


@dataclass
class SteadyClients:
    """What they were told so far, and what each model says when nothing else runs."""

    truth: Truth
    answers: list[Answer] = field(default_factory=list)

    def verdicts(self) -> dict[str, int]:
        """Who gave the answers: of `auto`, those that adapters gave which were there from the start."""
        known = set(self.truth.models)
        judged = [a for a in self.answers if a.asked != AUTO or not a.adapter or a.adapter in known]
        return self.truth.count(judged)


@contextmanager
def steady_clients(system: LiveSystem, *, but: Collection[str] = (), seed: int = 0) -> Iterator[SteadyClients]:
    """Ask `auto`, base and the first adapters for as long as the block lasts; those in `but` are not asked by name."""
    loop, over, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    found: list[SteadyClients] = []

    async def ask() -> None:
        stand = system.stand
        async with open_client(stand.server.base_url, CLIENTS + 2) as client:
            prompts = [text for rows in stand.rows.values() for text in rows[:PROMPTS_EACH]]
            told = await learn_truth(client, stand, prompts)
            said = {key: text for key, text in told.said.items() if key[0] not in but}
            clients = SteadyClients(Truth(said, told.base))
            found.append(clients)
            ready.set()
            each = [
                keep_asking(
                    client,
                    clients.truth,
                    over,
                    clients.answers.append,
                    random.Random(f"{seed} {i}"),
                )
                for i in range(CLIENTS)
            ]
            await asyncio.gather(*each)

    task = loop.create_task(ask())
    thread = threading.Thread(target=loop.run_until_complete, args=[task])
    thread.start()
    while not ready.wait(0.1) and thread.is_alive():
        pass
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
        # What went wrong in the thread is told here.
        task.result()
