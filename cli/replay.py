"""`traitroute replay`: what a profile would have decided on requests that were asked before."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from ..adapters import InputError, Location, Registry
from ..router import Router
from .console import console, progress_bars, say, warn
from .options import DEFAULT_REGISTRY, RegistryPath, newest_profile

if TYPE_CHECKING:
    from ..profiling.replay import Expected, Kept, Replay, Tally

LOG = "log"
LONG_LOG = 2**20
"""A log of so many bytes is worth a progress bar."""
SHOWN = 15
"""So many rows of a table are shown; all are in the JSON."""
SHOWN_FAULTS = 5


def replay(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[LOG]",
            help='Requests: JSONL of OpenAI bodies, batch files, LiteLLM, Langfuse or vLLM logs, `{"input": …}` rows '
            "[default: the features of novel requests that servers kept].",
        ),
    ] = None,
    registry: RegistryPath = DEFAULT_REGISTRY,
    version: Annotated[
        int | None, typer.Option(min=1, help="The profile version to try [default: the newest].")
    ] = None,
    profile: Annotated[
        Location | None,
        typer.Option(
            parser=Location.parse,
            metavar="FILE|URL",
            help="Another registry, whose newest profile is tried, or its --version, with its adapters that are ready.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION|log",
            help="What it is compared with: a version of --registry, or `log`, whoever answered by the log "
            "[default: the version before; with --profile, the newest].",
        ),
    ] = None,
    base: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With `--against log`: a name by which the base model answered; repeatable."),
    ] = None,
    only_auto: Annotated[
        bool, typer.Option("--only-auto", help="Leave out requests for any model but `auto`.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, help="Without a log: how far back to look.")] = 7,
    fail_above: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="SHARE", help="Exit code 1 where a larger share of decisions changes."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which of yesterday's decisions another profile version would have made otherwise, and what that is worth.

    No model is run and no text is kept or shown. Every request is decided as if it had asked for `auto`, with the
    constraints of its body; adapters are those that are ready now.

    Examples:

        traitroute replay yesterday.jsonl --version 7 --against 6

        traitroute replay yesterday.jsonl --profile staging.db --fail-above 0.05

        traitroute replay yesterday.jsonl --against log
    """
    from ..profiling.replay import Replay, read_asked

    tried = registry if profile is None else profile
    with Registry.open(registry, read_only=True) as store, Registry.open(tried, read_only=True) as candidate:
        stored = newest_profile(candidate, version)
        after = Router.from_registry(candidate, stored)
        before, name = _compared(store, against, None if profile is not None else stored.version)
        known = {a.name: a for each in (store, candidate) for a in each.adapters()}
        names = {*(base or ()), stored.summary.base_model, Path(stored.summary.base_model).name}
        kept = None
        counted = Replay(after, before, known, base=names)
        if file is None:
            kept = _kept(store, before, after, days)
            counted.run_features(kept.rows)
        else:
            size = max(file.stat().st_size, 1) if file.is_file() else 1
            bars = not as_json and size > LONG_LOG
            with progress_bars() if bars else Progress(disable=True) as progress:
                bar = progress.add_task("decide the log's requests", total=1.0)
                advance = lambda read: progress.advance(bar, read / size)  # noqa: E731 - one line, used once
                counted.run(read_asked(file, known, on_bytes=advance), only_auto=only_auto)
                progress.update(bar, completed=1.0)
    if not counted.compared:
        raise InputError(_nothing(counted, file, kept, days))
    title = f"version {stored.version}" + ("" if profile is None else f" of {profile}")
    if as_json:
        typer.echo(json.dumps(_as_json(counted, title, name, kept)))
    else:
        _show(counted, title, name, kept)
    if fail_above is not None and counted.share > fail_above:
        typer.echo(f"{counted.share:.2%} of decisions change, more than {fail_above:.2%}", err=True)
        raise typer.Exit(1)


def _compared(store: Registry, against: str | None, version: int | None) -> tuple[Router | None, str]:
    """What is compared with, and its name; `version` is the one that is tried, of the same registry."""
    if against == LOG:
        return None, "the log"
    if against is not None and not against.isdecimal():
        raise InputError(f"--against is a version, as `traitroute profiles list` shows it, or {LOG!r}, not {against!r}")
    if against is None and version is not None:
        earlier = [each for each in store.profile_versions() if each < version]
        if not earlier:
            raise InputError(f"there is no version before {version} to compare with: give a LOG and --against {LOG}")
        against = str(earlier[-1])
    stored = newest_profile(store, None if against is None else int(against))
    return Router.from_registry(store, stored), f"version {stored.version}"


def _kept(store: Registry, before: Router | None, after: Router, days: int) -> "Kept":
    from ..profiling.replay import Kept

    if before is None:
        raise InputError(f"servers keep features, not who answered: give a log to compare with {LOG!r}")
    if not before.profile.features.same_as(after.profile.features):
        raise InputError(
            f"versions {before.version} and {after.version} were fitted apart, so features kept for one say nothing to "
            "the other: give a LOG of the requests"
        )
    windows = store.demand_windows(since=datetime.now(UTC) - timedelta(days=days))
    return Kept.of(windows, {before.version, after.version, *store.lineage()}, after.profile)


def _nothing(counted: "Replay", file: Path | None, kept: "Kept | None", days: int) -> str:
    if kept is not None and not kept.requests:
        return f"servers wrote down no request of the last {days} days: give a LOG of the requests, or --days"
    if kept is not None:
        return (
            f"servers kept features of none of the {kept.requests} requests of the last {days} days that fit these "
            "versions: they keep those of some that are like nothing profiled. Give a LOG of the requests"
        )
    fault = f"; line {counted.faults[0].number}: {counted.faults[0].reason}" if counted.faults else ""
    return (
        f"{file}: nothing to decide: of {counted.entries} entries {counted.faulty} could not be read, {counted.silent} "
        f"requests say nothing, of {counted.unknown} it is not known who answered{fault}"
    )


def _show(counted: "Replay", title: str, against: str, kept: "Kept | None") -> None:
    for fault in counted.faults[:SHOWN_FAULTS]:
        warn(f"line {fault.number}: {fault.reason}")
    if counted.faulty > SHOWN_FAULTS:
        warn(f"{counted.faulty} lines could not be read in all; --json lists more of them")
    say(_read_so(counted, kept))
    say(f"{title} instead of {against} changes {counted.changed} of {counted.compared} decisions ({counted.share:.1%})")
    by_before, by_after = counted.expected()
    for who, expected in ((against, by_before), (title, by_after)):
        if expected.requests:
            say(f"  worth, as {who} expects: {_points(expected)} points a request")
    if not counted.changed:
        return
    _print_moves(counted)
    _print_kinds(counted)
    if kept is None:
        say("examples, by what they are worth:")
    for each in counted.examples if kept is None else ():
        say(
            f"  line {each.number} (sha256 {each.digest}…): {each.before} → {each.after}, {100 * each.gain:+.1f} points"
        )


def _read_so(counted: "Replay", kept: "Kept | None") -> str:
    if kept is not None:
        told = (
            f"servers routed {kept.requests} requests, {kept.novel} of them like nothing profiled; features of "
            f"{len(kept.rows)} of these were kept, and are decided without what training answers tell. The others "
            "cannot be decided again: nothing of them was kept"
        )
        return told + (f"; {kept.other} windows are of profiles that were fitted apart" if kept.other else "")
    told = f"{counted.requests} requests in {counted.entries} entries"
    if counted.silent:
        told += f"; {counted.silent} say nothing to route by, and go to base"
    if counted.unknown:
        names = ", ".join(f"{name} ({count})" for name, count in counted.strangers.most_common(3))
        told += f"; of {counted.unknown} the log does not say which adapter answered, or base"
        told += f" but {names}: --base NAME says which name is the base model's" if names else ""
    return told


def _print_moves(counted: "Replay") -> None:
    table = Table("from", "to", "requests", "share", "points a request, before", "after")
    moves = sorted(counted.moves.items(), key=lambda item: -item[1].requests)
    for (was, now), tally in moves[:SHOWN]:
        table.add_row(was, now, str(tally.requests), f"{tally.requests / counted.compared:.1%}", *_means(tally))
    console.print(table)
    if len(moves) > SHOWN:
        say(f"and {len(moves) - SHOWN} other pairs")


def _print_kinds(counted: "Replay") -> None:
    table = Table("kind of request", "requests", "changed", "points a request, before", "after")
    kinds = sorted(counted.kinds.items(), key=lambda item: -item[1].changed)
    for kind, tally in kinds[:SHOWN]:
        table.add_row(kind, str(tally.requests), f"{tally.changed / tally.requests:.1%}", *_means(tally))
    console.print(table)


def _means(tally: "Tally") -> list[str]:
    pairs = zip(tally.gains, tally.valued, strict=True)
    return [f"{100 * total / n:+.1f}" if n else "" for total, n in pairs]


def _points(expected: "Expected") -> str:
    if expected.interval is None:
        return f"{100 * expected.mean:+.2f}"
    low, high = expected.interval
    return f"{100 * expected.mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


def _as_json(counted: "Replay", title: str, against: str, kept: "Kept | None") -> dict[str, Any]:
    before, after = counted.expected()
    found: dict[str, Any] = {
        "after": title,
        "before": against,
        "entries": counted.entries,
        "requests": counted.requests,
        "compared": counted.compared,
        "changed": counted.changed,
        "share": counted.share,
        "no_text": counted.silent,
        "answerer_unknown": counted.unknown,
        "unread": counted.faulty,
        "faults": [{"line": f.number, "reason": f.reason} for f in counted.faults],
        "expected_gain": {"by_before": _expected(before), "by_after": _expected(after)},
        "moves": [{"from": was, "to": now, **_tallied(t)} for (was, now), t in counted.moves.items()],
        "kinds": [{"kind": kind, **_tallied(t)} for kind, t in counted.kinds.items()],
    }
    if kept is not None:
        kept_of = {"requests": kept.requests, "novel": kept.novel, "sampled": len(kept.rows)}
        return found | {"kept": {**kept_of, "windows_of_other_fits": kept.other}}
    examples = [
        {"line": e.number, "sha256": e.digest, "from": e.before, "to": e.after, "gain": e.gain}
        for e in counted.examples
    ]
    return found | {"examples": examples}


def _expected(expected: "Expected") -> dict[str, Any] | None:
    if not expected.requests:
        return None
    return {"mean": expected.mean, "interval": expected.interval, "requests": expected.requests}


def _tallied(tally: "Tally") -> dict[str, Any]:
    means = [float(total / n) if n else None for total, n in zip(tally.gains, tally.valued, strict=True)]
    return {"requests": tally.requests, "changed": tally.changed, "gain_by_before": means[0], "gain_by_after": means[1]}
