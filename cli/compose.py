"""`traitroute compose`: merge adapters for what none of them does well, and admit the result only if it is better."""

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.table import Table

from ..adapters import Adapter, InputError, Recipe, Registry
from .console import console, progress_bars, say
from .options import DEFAULT_REGISTRY, RegistryPath, engine_name

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..profiling.composites.proposals import Composer, Target
    from ..profiling.composites.trial import Composed
    from ..profiling.matrix.profiled import Profiled


def compose(
    registry: RegistryPath = DEFAULT_REGISTRY,
    task: Annotated[
        list[str] | None, typer.Option(help="A profiled task that it is wanted for; repeatable.", show_default=False)
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="A kind of recurring requests, as `samples list` names it: the tasks nearest to it."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Without --task and --kind: how far back to look at traffic.")] = 30,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="Merge these, two or more; repeatable [default: the best four on the tasks].", show_default=False
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="How to merge; repeatable: cat, svd, linear, ties, dare_linear or dare_ties [default: svd, linear, "
            "ties and dare_linear, where the ranks allow it].",
            show_default=False,
        ),
    ] = None,
    density: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="The share of numbers that ties and dare keep.")
    ] = 0.5,
    max_rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=512,
            help="Its highest rank, no higher than the servers' max_lora_rank [default: the highest in the registry].",
            show_default=False,
        ),
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, max=100, help="So many composites are tried.")] = 8,
    examples: Annotated[int, typer.Option(min=6, help="Examples that choose between the better ones of them.")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Of what dare draws.")] = 0,
    name: Annotated[
        str | None, typer.Option(help="What it is called [default: its parents and a digest].", show_default=False)
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The largest share of its row that is measured once it is admitted.")
    ] = 0.1,
    engine: Annotated[str, typer.Option(help="auto, transformers or vllm.")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be tried and what that costs; measure nothing.")
    ] = False,
) -> None:
    """Merge two or three adapters into one for what none of them does well; admit it only if it is surely better.

    1. What for: the tasks named by --task; or the two profiled tasks nearest to a --kind, or to the largest group of
    requests that servers saw and nothing profiled is like. Their examples are halved.

    2. Candidates: sums of the best adapters there, weighted by what each gains on the first half, merged by PEFT. All
    are measured on the third of --examples that tells most, the better ones on all, always of the first half.

    3. The best is held against the best single adapter on the second half. It is admitted where it is better by more
    than an interval that allows for all that were tried; then its row is measured, and `auto` may choose it.

    Where none is, the profile stays as it was. A killed run goes on where it was: give the same command again. What
    is admitted is an ordinary LoRA: vLLM serves it as one adapter, and its card says how it was made (`traitroute
    adapters show NAME --card`).

    Examples:

        traitroute compose --dry-run

        traitroute compose --task spider_sql --task snips_json

        traitroute compose --task spider_sql --adapter sql --adapter json --method cat --max-rank 32
    """
    from ..profiling.base_model import open_base_model
    from ..profiling.composites.proposals import Composer, Search
    from ..profiling.composites.trial import compose as compose_adapters
    from ..profiling.matrix.profiled import Profiled
    from ..profiling.profile import quiet_libraries
    from ..serving import open_engine

    chosen = engine_name(engine)
    search = Search(
        adapters=tuple(dict.fromkeys(adapter or ())),
        methods=tuple(dict.fromkeys(method or ())),
        density=density,
        most_rank=max_rank,
        candidates=candidates,
        examples=examples,
        seed=seed,
    )
    quiet_libraries()
    with Registry.open(registry, read_only=dry_run) as store:
        profiled = Profiled.open(store)
        target = _target(store, profiled, task or [], kind, days)
        composer = Composer.of(store, profiled, target, search)
        recipes = composer.propose(composer.known_gains())
        say(f"for {', '.join(target.tasks)} ({target.origin})")
        if dry_run:
            _show_plan(composer, recipes)
            return
        base = open_base_model(profiled.summary.base_model)
        with (
            closing(open_engine(chosen, base.path, store.weights, _room(composer))) as opened,
            progress_bars() as progress,
        ):
            done = compose_adapters(
                composer,
                opened,
                base,
                name=name,
                share=share,
                on_stage=lambda stage: _begin(progress, stage),
                on_answers=lambda done, of: progress.update(progress.task_ids[-1], completed=done, total=of),
            )
            _end(progress)
    _show(done)


def _begin(progress: "Progress", stage: str) -> None:
    _end(progress)
    progress.add_task(stage, total=None)


def _end(progress: "Progress") -> None:
    for bar in progress.task_ids:
        progress.remove_task(bar)


def _target(store: Registry, profiled: "Profiled", tasks: list[str], kind: str | None, days: int) -> "Target":
    from ..profiling.composites.proposals import Target

    if tasks and kind is not None:
        raise InputError("--task and --kind both say what it is wanted for: leave one of them out")
    if tasks:
        return Target(tuple(tasks))
    if kind is not None:
        return Target.of_kind(profiled, store, kind)
    lineage = set(store.lineage())
    windows = store.demand_windows(since=datetime.now(UTC) - timedelta(days=days))
    rows = [rows for w in windows if w.profile_version in lineage and (rows := w.rows()).size]
    return Target.of_traffic(profiled, np.concatenate(rows) if rows else np.zeros((0, 0)))


def _room(composer: "Composer") -> list[Adapter]:
    """The adapters that the engine needs room for; a composite has the rank of one of them."""
    singles = composer.singles()
    return [singles[0].model_copy(update={"rank": composer.most_rank}), *singles[1:]]


def _show_plan(composer: "Composer", recipes: Sequence[Recipe]) -> None:
    from ..profiling.composites.trial import least_lead

    table = Table("composite", "rank", title="to be tried", title_justify="left")
    for recipe in recipes:
        table.add_row(str(recipe), str(recipe.rank))
    console.print(table)
    choose, judge = (sum(map(len, half)) for half in (composer.halves.choose, composer.halves.judge))
    waiting = [a.name for a in composer.singles() if a.name not in composer.profiled.whole]
    alone = f", and on all of them of {', '.join(waiting)}, measured in part so far" if waiting else ""
    answers = composer.search.answers(len(recipes), choose) + judge
    say(f"to be admitted the best has to lead by some {least_lead(judge, len(recipes)):.2f} on {judge} examples")
    say(
        f"{answers} answers are measured at most, {judge} of them to judge the best by{alone}; nothing was measured now"
    )


def _show(done: "Composed") -> None:
    from ..profiling.composites.trial import least_lead

    table = Table("composite", "rank", "score", "examples", title="tried, the best first", title_justify="left")
    for each in done.tried:
        table.add_row(str(each.recipe), str(each.recipe.rank), f"{each.score:.2f}", str(each.examples))
    console.print(table)
    found = done.found
    say(f"the best adapter by itself, {found.single}, scores {done.score:.2f} on the half that these were chosen by")
    say(
        f"on the other half, {found.examples} examples, the best of these leads {found.single} by {found.lead:+.2f}; "
        f"allowing for {found.tried} tried, the interval begins at {found.low:+.2f}"
    )
    if done.row is None:
        least = least_lead(found.examples, found.tried)
        say(f"so none is admitted, which takes a lead of some {least:.2f} or more on so many examples")
        say("what was measured is kept, and the profile is as it was")
        return
    say(f"so it is admitted as {done.name}: profile version {done.row.version} has its row, and auto may choose it")
    say(f"how it was made: traitroute adapters show {done.name} --card")
