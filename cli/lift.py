"""`traitroute lift`: by how much `auto` is better than base on live traffic, from a control group."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from ..adapters import FeedbackSource, InputError, Registry
from ..serving.lift import Lift, LiftReport, read_outcomes
from ..serving.lift.report import Estimate
from .console import console, say
from .options import DEFAULT_REGISTRY, RegistryPath

_NONE = "–"


class By(StrEnum):
    """How the gain is split."""

    KIND = "kind"
    ADAPTER = "adapter"
    DAY = "day"


def lift(
    registry: RegistryPath = DEFAULT_REGISTRY,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="Count decisions from this time (UTC) on; all without it."
        ),
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Count decisions of the last so many days.")] = None,
    source: Annotated[FeedbackSource, typer.Option(help="Whose outcomes to compare by.")] = FeedbackSource.USER,
    by: Annotated[By, typer.Option(help="Split by kind of request, by adapter chosen, or by day.")] = By.KIND,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say by how much `auto` is better than base on your own traffic, from a control group.

    It needs a control group and outcomes. With TRAITROUTE_HOLDBACK=0.02 a server lets base answer 2% of the
    conversations with auto, drawn at random; and POST /v1/feedback says how answers turned out, from 0 to 1. A gain of
    +0.04 is four points: four more right answers in a hundred, where rewards are 1 for right and 0 for wrong.

    Intervals hold at every look: look every hour and stop when you like, and one in twenty such histories errs, not one
    in twenty looks. Those by kind and by adapter hold for all rows of a table at once. A kind is the profiled task
    nearest to the request, with those that are like it where more than twenty were profiled (--json names them);
    `worse` says that auto surely harms it.

    Give the day on which the measurement began as --since, and leave it so: --days moves with the clock, and a start
    that is chosen anew at each look is outside the guarantee.

    Example:

        traitroute lift
        traitroute lift --since 2026-11-03 --by adapter
        traitroute lift --source checker --json
    """
    now = datetime.now(UTC)
    if since is not None and days is not None:
        raise InputError("--since and --days both say where to begin: give one of them")
    begin = since.replace(tzinfo=UTC) if since else now - timedelta(days=days) if days else None
    if begin is not None and begin > now:
        raise InputError(
            f"--since {begin:%Y-%m-%dT%H:%M} lies ahead of now, {now:%Y-%m-%dT%H:%M} UTC: give an earlier time"
        )
    with Registry.open(registry, read_only=True) as store:
        reported = read_outcomes(store, since=begin, source=source)
    report = LiftReport.of(reported, now)
    if as_json:
        typer.echo(report.model_dump_json(indent=1))
        return
    _show(report, by)


def _show(report: LiftReport, by: By) -> None:
    say(_headline(report))
    if report.total.conversations:
        tables = {By.KIND: (report.kinds, "kind of request"), By.ADAPTER: (report.adapters, "adapter chosen")}
        console.print(_days(report) if by is By.DAY else _split(report.total, *tables[by]))
    if report.planning is not None:
        say(_plan(report))
    for note in report.notes:
        say(f"note: {note}")


def _headline(report: LiftReport) -> str:
    """What the figures come to, in a sentence or two."""
    total, estimate = report.total, report.total.estimate
    counted = f"{total.conversations:,} conversations with an outcome by {report.source.value}"
    if report.settling:
        counted += f", {report.settling:,} more within the hour"
    if estimate is None:
        return f"The gain of auto over base is not known ({counted})."
    where = (
        f"{counted}; auto chose an adapter in {total.chosen:,}, and base answered {total.control:,} of these instead"
    )
    answer = {
        "better": "auto is better than base",
        "worse": "auto is WORSE than base",
        "not known": "whether auto is better than base is not known yet",
    }[total.verdict]
    return f"{answer}: {_gain(estimate)} score points a conversation, 95% {_range(estimate)} at every look.\n{where}."


def _plan(report: LiftReport) -> str:
    assert report.planning is not None
    plan = f"Outcomes like these show a gain of {report.planning.detectable:.3f} in four cases of five."
    days = report.planning.days_for_a_point
    if days is None:
        return f"{plan} One of 0.01 would take years of such traffic: hold back more."
    return f"{plan} One of 0.01 takes {days:,.0f} days of such traffic in all; a larger share held back takes fewer."


def _split(total: Lift, rows: Sequence[Lift], what: str) -> Table:
    table = Table(
        what,
        title="gain of auto over base, in score points, with intervals that hold for all rows and at every look",
        title_justify="left",
    )
    for column in ("conversations", "by an adapter", "held back", "auto", "base", "gain", "95%", "by weights alone"):
        table.add_column(column, justify="right")
    table.add_column("auto is")
    for row in rows:
        table.add_row(row.name or "like no task", *_cells(row))
    table.add_section()
    table.add_row("all", *_cells(total))
    return table


def _cells(row: Lift) -> tuple[str, ...]:
    counts = (f"{row.conversations:,}", f"{row.chosen:,}", f"{row.control:,}")
    rewards = (_NONE if reward is None else f"{reward:.3f}" for reward in (row.reward_auto, row.reward_base))
    estimates = (_gain(row.estimate), _range(row.estimate), _gain(row.weighted))
    verdict = {"worse": "[bold red]worse[/]", "better": "[bold]better[/]"}.get(row.verdict, row.verdict)
    return (*counts, *rewards, *estimates, verdict if row.chosen else "base itself")


def _days(report: LiftReport) -> Table:
    table = Table("day (UTC)", title="gain of auto over base, in score points, by day", title_justify="left")
    for column in ("conversations", "gain of the day", "gain so far", "95% so far"):
        table.add_column(column, justify="right")
    for day in report.days:
        gains = (f"{day.gain:+.3f}", _gain(day.so_far), _range(day.so_far))
        table.add_row(day.day, f"{day.conversations:,}", *gains)
    return table


def _gain(estimate: Estimate | None) -> str:
    return _NONE if estimate is None else f"{estimate.gain:+.3f}"


def _range(estimate: Estimate | None) -> str:
    return _NONE if estimate is None else f"{estimate.low:+.3f} to {estimate.high:+.3f}"
