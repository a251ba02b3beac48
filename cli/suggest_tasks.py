"""`traitroute suggest-tasks`: which task to profile next, by the traffic that is unlike everything profiled."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.table import Table

from ..adapters import DemandWindow, InputError, Registry
from .console import console
from .options import DEFAULT_REGISTRY, RegistryPath, newest_profile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..router import RoutingProfile
    from ..serving.traffic.suggestion import Group, Losses, NovelShare, Suggestion

PROMPTS = 50
"""So many prompts of a candidate task are compared with the traffic."""

RISING = 0.05
"""The p-value below which a trend in the traffic is stated."""


def suggest_tasks(
    registry: RegistryPath = DEFAULT_REGISTRY,
    data: Annotated[
        Path | None, typer.Option(help="Folder of candidates, `<task>/{train,test}.jsonl`: which would help?")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How far back to look.")] = 30,
) -> None:
    """Say how much of the traffic is unlike everything profiled, and which task to profile for it.

    Servers count what they route, and keep features of some requests that are like nothing profiled, never text
    (TRAITROUTE_WATCH=0 turns this off). What answers are worth is known where feedback tells.

    Example:

        traitroute suggest-tasks --data my_tasks
    """
    from ..router import RoutingProfile
    from ..serving.skills.recalibration import read_rewards
    from ..serving.traffic.suggestion import groups_of, losses_of, novelty_of, suggestions

    since = datetime.now(UTC) - timedelta(days=days)
    with Registry.open(registry, read_only=True) as store:
        stored = newest_profile(store)
        lineage = set(store.lineage())
        windows = [w for w in store.demand_windows(since=since) if w.profile_version in lineage]
        losses = losses_of([each.reward - each.expected for each in read_rewards(store, since)])
    if not windows:
        console.print(f"no server has routed requests with profile version {stored.version} in {days} days yet")
        return
    profile = RoutingProfile.from_bytes(stored.data)
    rows = _rows(windows)
    _show_novelty(novelty_of(windows), days)
    _show_losses(losses)
    _show_groups(groups_of(rows, profile))
    if data is None:
        console.print("--data FOLDER says which tasks of yours would cover them")
    else:
        _show_suggestions(suggestions(rows, _candidates(data, profile), profile), data)


def _rows(windows: list[DemandWindow]) -> "NDArray[np.float64]":
    """Features of all sampled requests, (n, p)."""
    sampled = [rows for w in windows if (rows := w.rows()).size]
    return np.concatenate(sampled) if sampled else np.zeros((0, 0))


def _candidates(folder: Path, profile: "RoutingProfile") -> "Mapping[str, NDArray[np.float64]]":
    """Features of some prompts of each task of a folder that was not profiled yet."""
    from ..profiling.tasks.inference import infer_task

    names = sorted(p.name for p in folder.glob("*") if p.is_dir()) if folder.is_dir() else []
    if not names:
        raise InputError(f"{folder} holds no folders of tasks: give one with <task>/test.jsonl")
    features = {}
    for name in names:
        if name not in profile.tasks:
            task = infer_task(folder, name, source=False, train=0, test=PROMPTS)
            features[name] = profile.features.transform([e.routed for e in task.test_examples])
    return features


def _show_novelty(novel: "NovelShare", days: int) -> None:
    share = novel.novel / max(novel.requests, 1)
    console.print(
        f"{novel.requests} requests in {days} days, {novel.novel} of them ({share:.0%}) like nothing profiled; "
        f"{novel.earlier:.1%} in the earlier half, {novel.later:.1%} in the later"
        + (f": rising (p = {novel.p:.3f})" if novel.p < RISING else ""),
        highlight=False,
    )


def _show_losses(losses: "Losses | None") -> None:
    if losses is None:
        console.print("too little feedback to say whether answers get worse", highlight=False)
        return
    console.print(
        f"rewards less what was expected: {losses.earlier:+.3f} in the earlier half of {losses.rewarded} decisions, "
        f"{losses.later:+.3f} in the later" + (f": falling (p = {losses.p:.3f})" if losses.p < RISING else ""),
        highlight=False,
    )


def _show_groups(groups: "list[Group]") -> None:
    if not groups:
        console.print("nothing to suggest: no request was like nothing profiled")
        return
    table = Table("group", "share", "least unlike", title="requests like nothing profiled", title_justify="left")
    for i, group in enumerate(groups, start=1):
        table.add_row(str(i), f"{group.share:.0%}", ", ".join(group.nearest))
    console.print(table)


def _show_suggestions(suggested: "list[Suggestion]", data: Path) -> None:
    if not suggested:
        console.print("none of these tasks is like the requests that nothing profiled is like")
        return
    table = Table("task", "covers of them", title="profile next", title_justify="left")
    for each in suggested:
        table.add_row(each.task, f"{each.share:.0%}")
    console.print(table)
    console.print(f"next: traitroute tasks add {data / suggested[0].task}", soft_wrap=True)
