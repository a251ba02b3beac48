"""Replacement: an adapter gets new weights while many streams run, and no answer may come from weights that were not
due.

As a user does it: `traitroute adapters replace` records the weights, which wait and are to be had as NAME@VERSION; once
they are measured they take the name over. That last step is made here as `adapters measure` makes it, but with a
profile of made-up gains. Until then the old weights must answer, and after the server's next look at its registry the
new ones.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from made_up_summary import made_up_summary
from rich.table import Table
from traitroute.adapters import ServerError
from traitroute.serving.state import AUTO

from .client import Answer, open_client, stream_answer
from .load import PROMPTS_EACH, keep_asking, listed, seen_status
from .stand import Stand, save_adapter, topic_profile
from .truth import MAX_TOKENS, Truth, Verdict, learn_truth

SEEN_WITHIN_S = 2.0
"""How long a server may go on with the old weights: the promise of docs/adapters.md."""
START_LIMIT_S = 30.0


@dataclass(frozen=True)
class Replacement:
    """What clients saw: `verdicts` of answers by weights that were not replaced, the others by phase and the weights
    that spoke.

    `before` are those that ended before the new weights were admitted, `after` those that began `seen_within_s` later;
    in seconds after the admission began the last answer by old weights (`last_old_s`) and the first by new ones
    (`first_new_s`).
    """

    concurrency: int
    seen_within_s: float
    requests: int
    statuses: Mapping[str, int]
    verdicts: Mapping[str, int]
    before: Mapping[str, int]
    between: Mapping[str, int]
    after: Mapping[str, int]
    last_old_s: float
    first_new_s: float

    @property
    def wrong(self) -> int:
        """Answers by weights that were not due."""
        due = self.verdicts.get(Verdict.RIGHT, 0)
        due += self.before.get("old", 0) + self.after.get("new", 0)
        due += self.between.get("old", 0) + self.between.get("new", 0)
        return self.requests - due

    def table(self) -> Table:
        """Name and figure."""
        title = f"an adapter replaced under {self.concurrency} streams at a time"
        shown = Table("", "", title=title, title_justify="left", show_header=False)
        shown.add_row("requests", f"{self.requests:,}")
        shown.add_row("status", listed(self.statuses))
        shown.add_row("answers of the other adapters and base", listed(self.verdicts))
        shown.add_row("of the replaced one, before the new weights were due", listed(self.before))
        shown.add_row(f"in the {self.seen_within_s:.0f} s in which both are right", listed(self.between))
        shown.add_row("later", listed(self.after))
        shown.add_row("last answer by the old weights began after", f"{self.last_old_s:+.2f} s")
        shown.add_row("first by the new ones", f"{self.first_new_s:+.2f} s")
        shown.add_row("wrong answers", str(self.wrong))
        return shown


async def measure_replacement(
    stand: Stand,
    concurrency: int,
    hold_s: float,
    *,
    seen_within_s: float = SEEN_WITHIN_S,
    seed: int,
) -> Replacement:
    """Keep `concurrency` streams open, replace an adapter's weights after `hold_s`, and admit them as long after."""
    victim = next(iter(stand.rows))
    folder = await asyncio.to_thread(save_adapter, stand.base_path, stand.folder / "replacement", seed=1000)
    profile = topic_profile().to_bytes()
    async with open_client(stand.server.base_url, concurrency + 2, stand.key) as client:
        prompts = [text for rows in stand.rows.values() for text in rows[:PROMPTS_EACH]]
        truth, over, answers = await learn_truth(client, stand, prompts), asyncio.Event(), []
        workers = [
            asyncio.create_task(keep_asking(client, truth, over, answers.append, random.Random(f"{seed} {i}")))
            for i in range(concurrency)
        ]
        try:
            await asyncio.sleep(hold_s)
            await _replace(stand, victim, folder)
            new = await _said(client, f"{victim}@2", truth.prompts)
            await asyncio.sleep(hold_s)
            admitted = time.monotonic()
            await asyncio.to_thread(_admit, stand, victim, profile)
            await asyncio.sleep(seen_within_s + hold_s)
        finally:
            over.set()
            await asyncio.gather(*workers)
    return summary(answers, truth, victim, new, admitted, concurrency, seen_within_s)


def summary(
    answers: Sequence[Answer],
    truth: Truth,
    victim: str,
    new: Mapping[str, str],
    admitted: float,
    concurrency: int,
    seen_within_s: float,
) -> Replacement:
    """Judge answers; `new` is what the new weights of `victim` say to each prompt, `admitted` when they were due."""
    replaced = Truth({**truth.said, **{(victim, p): text for p, text in new.items()}}, truth.base)
    alike = [p for p in truth.prompts if truth.said[victim, p] == new[p]]
    if alike:
        raise ServerError(f"old and new weights answer alike, so neither can be told: {alike}")
    phases: dict[str, Counter[str]] = {
        "before": Counter(),
        "between": Counter(),
        "after": Counter(),
    }
    others, old, late = Counter[str](), [0.0], [float("inf")]
    for answer in answers:
        if (answer.adapter if answer.asked == AUTO else answer.asked) != victim:
            others[str(truth.judge(answer))] += 1
            continue
        spoke = _weights(answer, truth, replaced)
        phases[_phase(answer, admitted, seen_within_s)][spoke] += 1
        if spoke == "old":
            old.append(answer.began - admitted)
        elif spoke == "new":
            late.append(answer.began - admitted)
    return Replacement(
        concurrency=concurrency,
        seen_within_s=seen_within_s,
        requests=len(answers),
        statuses=dict(Counter(seen_status(a) for a in answers)),
        verdicts=dict(others),
        **{name: dict(counts) for name, counts in phases.items()},
        last_old_s=max(old),
        first_new_s=min(late),
    )


def _phase(answer: Answer, admitted: float, seen_within_s: float) -> str:
    if answer.began + answer.seconds < admitted:
        return "before"
    return "after" if answer.began > admitted + seen_within_s else "between"


def _weights(answer: Answer, old: Truth, new: Truth) -> str:
    """Which weights gave an answer, else what is wrong with it."""
    if old.judge(answer) is Verdict.RIGHT:
        return "old"
    verdict = new.judge(answer)
    return "new" if verdict is Verdict.RIGHT else str(verdict)


async def _replace(stand: Stand, victim: str, folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("traitroute")), "adapters", "replace", victim]
    process = await asyncio.create_subprocess_exec(
        *command,
        str(folder),
        "--registry",
        str(stand.registry.path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    if process.returncode:
        raise ServerError(f"adapters replace ended with {process.returncode}: {told.decode()}")


async def _said(client: httpx.AsyncClient, name: str, prompts: Sequence[str]) -> dict[str, str]:
    """What an adapter says to each prompt, once the server knows its name."""
    until = time.monotonic() + START_LIMIT_S
    while (await stream_answer(client, name, prompts[0], max_tokens=1)).status != 200:
        if time.monotonic() > until:
            raise ServerError(f"{name} did not answer within {START_LIMIT_S:.0f} s")
        await asyncio.sleep(0.2)
    asked = [stream_answer(client, name, prompt, max_tokens=MAX_TOKENS) for prompt in prompts]
    return {answer.prompt: answer.text for answer in await asyncio.gather(*asked)}


def _admit(stand: Stand, victim: str, profile: bytes) -> None:
    """Let the waiting weights take the name over, with the next profile, as measuring them does."""
    registry = stand.registry
    waiting, stored = registry.replacement(victim), registry.latest_profile()
    assert waiting is not None and stored is not None
    registry.admit(waiting, profile, made_up_summary(), parent=stored.version)
