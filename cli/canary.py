"""`traitroute adapters canary`: how adapters do that get a share of the traffic they would win, and the next step."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..adapters import Adapter, CanaryStep, FeedbackSource, InputError, Registry
from .console import console, say
from .options import DEFAULT_REGISTRY, RegistryPath

if TYPE_CHECKING:
    from ..serving.lift.canary import CanaryFigures

CanaryShare = Annotated[
    str | None,
    typer.Option(
        "--canary",
        metavar="SHARE",
        help="Enter with a share of the conversations it would win, as in 1% or 0.1; it is promoted or rolled back by "
        "their outcomes [default: all].",
    ),
]
Replaces = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="With --canary: the adapter in whose place it answers, and which gets no more once this one gets all.",
    ),
]
_WORDS = {"all": 1.0, "off": 0.0}
_NONE = "–"


def canary(
    name: Annotated[str | None, typer.Argument(help="The adapter's name; all canaries without it.")] = None,
    registry: RegistryPath = DEFAULT_REGISTRY,
    to: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Give it this share from now on: 1%, 10%, all or off.")
    ] = None,
    step: Annotated[
        bool, typer.Option("--step", help="Promote it, or roll it back, where its figures ask for it.")
    ] = False,
    source: Annotated[FeedbackSource, typer.Option(help="Whose outcomes to compare by.")] = FeedbackSource.USER,
    margin: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="What a promotion may cost at most, in score points.")
    ] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show how canaries do against who would have answered instead, and take the step that follows.

    An adapter that was added with --canary 1% answers 1% of the conversations it would win, drawn by a hash; whoever
    comes next answers the others. Both sides are compared by the outcomes that POST /v1/feedback reports.

    It is rolled back where it is surely worse, and promoted to 10%, then to all, where what that may cost is surely
    below the margin: the worst loss that the interval leaves, times the next share. The 95% intervals hold at every
    look. `traitroute worker` takes such steps by itself every five minutes; --step does so once, as in a cron job.

    Examples:

        traitroute adapters canary

        traitroute adapters canary polite --step

        traitroute adapters canary polite --to off
    """
    from ..serving.lift.canary import read_figures, take_step

    if to is not None and name is None:
        raise InputError("--to changes one adapter: give its name")
    share = None if to is None else parse_share(to)
    with Registry.open(registry, read_only=not (step or to)) as store:
        now, chosen = datetime.now(UTC), store.canaries() if name is None else [store.adapter(name)]
        found = [read_figures(store, each, now, source=source, margin=margin) for each in chosen if each.canary]
        kept = [None if each.estimate is None else each.model_dump(mode="json") for each in found]
        if share is not None:
            chosen = [store.set_canary(chosen[0].name, share, figures=kept[0] if kept else None)]
        elif step:
            running = {each.name: each for each in chosen if each.canary}
            for figures in found:
                take_step(store, running[figures.adapter], figures)
            chosen = [store.adapter(each.name) for each in chosen]
        steps = {each.name: store.canary_steps(each.name) for each in chosen}
    if as_json:
        _print_json(found, steps)
        return
    if found:
        console.print(_table(found))
    for each in found:
        for line in _said(each):
            say(line)
    for each in chosen:
        _show_steps(each, steps[each.name])
    if not chosen:
        say("no canaries: traitroute adapters add NAME PLACE --canary 1%, or traitroute adapters canary NAME --to 10%")


def enter(store: Registry, name: str, share: float | None, replaces: str | None) -> None:
    """Have an adapter enter with a share, where one was given.

    Raises:
        InputError: only what it replaces was given.
    """
    if share is not None:
        store.set_canary(name, share, replaces=replaces, why="entered")
    elif replaces is not None:
        raise InputError("--replaces says whom a canary is compared with: give its share too, as in --canary 1%")


def parse_share(given: str) -> float:
    """The share of the traffic that is meant, from 0 to 1: a number, a percentage, all or off.

    Raises:
        InputError: it is none.
    """
    text = given.strip().lower()
    try:
        share = _WORDS[text] if text in _WORDS else float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = -1.0
    # Written so that NaN is refused too.
    if not 0 <= share <= 1:
        raise InputError(f"{given[:32]!r} is no share of the traffic: give 1%, 0.1, all or off")
    return share


def shown_share(adapter: Adapter) -> str:
    """The share of what it would win that an adapter gets."""
    return "all" if adapter.canary is None else _percent(adapter.canary)


def _percent(share: float) -> str:
    return {0.0: "off", 1.0: "all"}.get(share, f"{100 * share:g}%")


def _table(found: "Sequence[CanaryFigures]") -> Table:
    table = Table(
        "canary", title="gain over who would have answered, in score points, at every look", title_justify="left"
    )
    for column in ("share", "conversations", "given", "canary", "incumbent", "gain", "95%", "verdict"):
        table.add_column(column, justify="right")
    for f in found:
        rewards = (_NONE if reward is None else f"{reward:.3f}" for reward in (f.reward_canary, f.reward_incumbent))
        gain = _NONE if f.estimate is None else f"{f.estimate.gain:+.3f}"
        bounds = _NONE if f.estimate is None else f"{f.estimate.low:+.3f} to {f.estimate.high:+.3f}"
        counts = (f"{f.conversations:,}", f"{f.given:,}")
        table.add_row(f.adapter, _percent(f.share), *counts, *rewards, gain, bounds, f.verdict)
    return table


def _said(figures: "CanaryFigures") -> list[str]:
    """What the figures come to, in sentences."""
    name, to = figures.adapter, _percent(figures.next_share)
    if figures.estimate is None:
        more = f"; {figures.settling} more within the hour" if figures.settling else ""
        lines = [
            f"{name}: nothing to compare since {figures.since:%Y-%m-%d %H:%M} UTC: {figures.conversations} "
            f"conversations with an outcome by {figures.source.value}, {figures.given} of them its own{more}"
        ]
    elif figures.verdict == "roll back":
        lines = [f"{name}: surely worse than who would have answered: it is to be rolled back"]
    elif figures.verdict == "promote":
        lines = [f"{name}: to be promoted to {to}: that surely costs less than {figures.margin:g} on its conversations"]
    else:
        left = (
            ""
            if figures.days_left is None
            else f"; at this traffic one as good as the incumbent takes some {figures.days_left:,.1f} days more"
        )
        lines = [f"{name}: not known yet whether {to} would cost less than {figures.margin:g}{left}"]
    return [*lines, *(f"note: {note}" for note in figures.notes)]


def _show_steps(adapter: Adapter, steps: Sequence[CanaryStep]) -> None:
    for each in steps:
        at = f"{each.made_at:%Y-%m-%d %H:%M}"
        why = each.why if each.figures is None else f"{each.why}, {_because(each)}"
        say(f"{at}  {adapter.name} {_percent(each.share)}: {why} ({each.made_by})")
    say(f"{adapter.name}: {adapter.state}, auto gives it {shown_share(adapter)} of the conversations it would win")


def _because(step: CanaryStep) -> str:
    figures = step.figures or {}
    estimate = figures.get("estimate") or {}
    gain, low, high = (estimate.get(part, float("nan")) for part in ("gain", "low", "high"))
    return f"{gain:+.3f} [{low:+.3f}, {high:+.3f}] of {figures.get('conversations')} conversations"


def _print_json(found: "Sequence[CanaryFigures]", steps: dict[str, list[CanaryStep]]) -> None:
    import json

    rows = {name: [step.model_dump(mode="json") for step in each] for name, each in steps.items()}
    typer.echo(json.dumps({"canaries": [f.model_dump(mode="json") for f in found], "steps": rows}, indent=1))
