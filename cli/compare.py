"""`traitroute compare`: do two profiles, as of two base models, agree; and does one help to choose on the other."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from ..adapters import InputError, Location, Registry
from .console import console, say, warn
from .options import newest_profile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..profiling.analysis.agreement import Agreement, Permuted, ProfiledGains
    from ..profiling.report import Missing
    from ..profiling.study import Study
    from ..profiling.twins import Ranking, Routing, Twins

First = Annotated[
    Location, typer.Argument(help="One registry: of the smaller base.", metavar="A.db", parser=Location.parse)
]
Second = Annotated[
    Location, typer.Argument(help="The other; it may be the same.", metavar="B.db", parser=Location.parse)
]
ProfileVersion = Annotated[int | None, typer.Option(help="Profile version; default: the latest.")]


def compare(
    first: First,
    second: Second,
    version_a: ProfileVersion = None,
    version_b: ProfileVersion = None,
    permutations: Annotated[int, typer.Option(min=99, help="Size of the nulls.")] = 9999,
    seed: Annotated[int, typer.Option(help="Of permutations, resamples and what is held out.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two profiles, as of a small and a larger base, on what both have: adapters, tasks and test rows.

    Says whether traits and gains agree, whether A ranks two adapters as B does, and what B loses if A's router decides.
    Adapters and tasks are matched by name: train and measure both on the same data.

    Example:

        traitroute compare smollm.db llama.db
    """
    from ..profiling.analysis.agreement import agreement

    side_a, side_b = _read_side(first, version_a), _read_side(second, version_b)
    if (first.resolve(), side_a.version) == (second.resolve(), side_b.version):
        raise InputError(
            f"both are version {side_a.version} of {first}: a profile always agrees with itself; "
            "give another registry, or --version-a and --version-b"
        )
    result = agreement(side_a.gains, side_b.gains, n_permutations=permutations, seed=seed)
    chosen = _choosing(side_a, side_b, permutations, seed)
    if as_json:
        typer.echo(json.dumps(_plain({"A": side_a.about, "B": side_b.about, "agreement": result} | chosen.parts)))
        return
    say(f"A: {side_a.describe()}\nB: {side_b.describe()}")
    for warning in (*_warnings(side_a, side_b, result.tasks), *chosen.warnings):
        warn(warning)
    console.print(_tests(result))
    console.print(_places("task", result.tasks, result.by_task))
    console.print(_places("adapter", result.adapters, result.by_adapter))
    say(result.conclusion)
    chosen.show()


@dataclass(frozen=True)
class _Side:
    """One profile of a registry; `bases` of its adapters by digest, `digests` of its tasks, as last profiled."""

    place: Location
    version: int
    bases: Mapping[str, str]
    gains: "ProfiledGains"
    digests: dict[str, str]
    study: "Study | Missing"

    def describe(self) -> str:
        """File, version, base model and size in a line."""
        return (
            f"{self.place} version {self.version}, {', '.join(sorted(set(self.bases.values()))) or 'unknown base'}: "
            f"{len(self.gains.adapters)} adapters, {len(self.gains.tasks)} tasks, "
            f"n_traits {self.gains.n_traits}"
        )

    @property
    def about(self) -> dict[str, Any]:
        """Which profile it is."""
        return {"registry": str(self.place), "version": self.version, "bases": sorted(set(self.bases.values()))}


def _read_side(place: Location, version: int | None) -> _Side:
    from ..profiling.analysis.agreement import ProfiledGains
    from ..profiling.report import attempt
    from ..profiling.study import Study

    with Registry.open(place, read_only=True) as store:
        profile = newest_profile(store, version)
        gains = ProfiledGains.of(profile.summary)
        bases = {a.base_digest: a.base_model for a in store.adapters() if a.name in gains.adapters}
        study = attempt(lambda: Study.open(store, profile.version))
        return _Side(place, profile.version, bases, gains, store.task_digests(), study)


def _warnings(a: _Side, b: _Side, tasks: tuple[str, ...]) -> list[str]:
    found = []
    if same := a.bases.keys() & b.bases.keys():
        base = a.bases[min(same)]
        found.append(f"both are of the base {base}: what differs is another method, seed or version, not the base")
    if other := [t for t in tasks if a.digests.get(t) != b.digests.get(t)]:
        found.append(
            f"not the same test rows or rules on both sides: {', '.join(other)}; "
            "differences between these tasks count as disagreement"
        )
    return found


@dataclass(frozen=True)
class _Choosing:
    """What choosing by either base comes to, or why that is `Missing`."""

    twins: "Twins | Missing"
    ranking: "Ranking | Missing"
    routing: "list[Routing | Missing]"

    @property
    def parts(self) -> dict[str, Any]:
        """For JSON: what is missing has a reason."""
        return {"ranking": self.ranking, "routing": self.routing}

    @property
    def warnings(self) -> list[str]:
        """What of the profiles is not comparable."""
        from ..profiling.report import Missing

        if isinstance(self.twins, Missing):
            return []
        found = [(self.twins.other_rules, "judged by other rules, so choices on them are not compared")]
        found.append((self.twins.other_training, "not trained on the same rows on both sides"))
        return [f"{', '.join(names)}: {what}" for names, what in found if names]

    def show(self) -> None:
        """Print it."""
        from ..profiling.report import Missing

        if isinstance(self.twins, Missing):
            say(f"rankings and routing decisions left out: {self.twins.reason}")
            return
        if not isinstance(self.ranking, Missing):
            say(ranking_sentence(self.ranking))
        for each in self.routing:
            if isinstance(each, Missing):
                say(f"left out: {each.reason}")
            else:
                console.print(worth_table(each))
                say(decision_sentence(each))


def _choosing(a: _Side, b: _Side, permutations: int, seed: int) -> _Choosing:
    from ..profiling.report import Missing, attempt
    from ..profiling.twins import WAYS, Twins, compare_routing, rank_pairs

    if missing := next((side.study for side in (a, b) if isinstance(side.study, Missing)), None):
        return _Choosing(missing, missing, [])
    small, large = a.study, b.study
    assert not isinstance(small, Missing)
    assert not isinstance(large, Missing)
    twins = attempt(lambda: Twins.of(small, large))
    if isinstance(twins, Missing):
        return _Choosing(twins, twins, [])
    both = twins
    ranking = attempt(lambda: rank_pairs(both, n_permutations=permutations, seed=seed))
    return _Choosing(both, ranking, [attempt(lambda w=way: compare_routing(both, w, seed=seed)) for way in WAYS])


def ranking_sentence(ranking: "Ranking") -> str:
    """How often A ranks two adapters as B does."""
    of = f"of {ranking.pairs} pairs of adapters on a task, B tells {ranking.shown} apart"
    others = "" if np.isnan(ranking.all_alike) else f"; of all that differ on B, {100 * ranking.all_alike:.0f}%"
    if ranking.alike is None:
        return f"{of}, so there is no ranking for A to find again{others}"
    test = ranking.alike
    return (
        f"{of}; A ranks {100 * test.value:.0f}% of these alike (95% interval {100 * ranking.low:.0f} to "
        f"{100 * ranking.high:.0f}% over tasks and adapters; by chance {100 * test.null_median:.0f}%, "
        f"p = {test.p:.3g}; {100 * ranking.ties:.0f}% are ties on A, counted half){others}"
    )


def decision_sentence(routing: "Routing") -> str:
    """How often both routers choose alike."""
    return (
        f"both routers choose alike in {100 * routing.equal:.0f}% of the requests, by chance "
        f"{100 * routing.by_chance:.0f}% (kappa {routing.kappa:+.2f}, 95% interval {routing.low:+.2f} to "
        f"{routing.high:+.2f} over tasks)"
    )


def worth_table(routing: "Routing") -> Table:
    """What every choice scores on either base."""
    from ..profiling.twins import WAYS

    table = Table(title=f"mean score, %, on {WAYS[routing.way]}", title_justify="left")
    table.add_column("choice", overflow="fold")
    for side in routing.worth:
        table.add_column(f"on {side}", justify="right")
        table.add_column(f"less {side}'s router", justify="right")
    for choice in next(iter(routing.worth.values())):
        cells = []
        for side, worths in routing.worth.items():
            worth = worths[choice]
            own = choice == f"router of {side}"
            bounds = f"{100 * worth.less:+.1f} ({100 * worth.low:+.1f} to {100 * worth.high:+.1f})"
            cells += [f"{100 * worth.score:.1f}", "" if own else bounds]
        table.add_row(choice, *cells)
    return table


def _tests(result: "Agreement") -> Table:
    k = result.n_traits
    table = Table(title="agreement against chance", title_justify="left")
    table.add_column()
    for column in ("found", "95% over tasks", "by chance", "p"):
        table.add_column(column, justify="right")
    spaces: list[tuple[str, Permuted]] = [
        (f"Procrustes disparity of {k} trait scores (0: the same)", result.disparity),
        (f"canonical correlations {_listed(result.canonical_correlations)}, squared", result.canonical),
        (f"loadings, angles {_listed(result.loading_angles, '.0f')} degrees", result.loadings),
    ]
    for name, test in spaces:
        table.add_row(name, f"{test.value:.2f}", "", f"{test.null_median:.2f}", f"{test.p:.3g}")
    gains, columns, rows = result.gains, result.columns, result.rows
    correlations = [
        (f"rank correlation of {gains.cells} gains", gains.r, result.gains_interval, gains.null_mean, gains.p),
        ("… over adapters, mean of tasks", columns.value, (columns.low, columns.high), columns.null_median, columns.p),
        ("… over tasks, mean of adapters", rows.value, (rows.low, rows.high), rows.null_median, rows.p),
    ]
    for name, found, (low, high), chance, p in correlations:
        table.add_row(name, f"{found:+.2f}", f"{low:+.2f} to {high:+.2f}", f"{chance:+.2f}", f"{p:.3g}")
    return table


def _places(kind: str, names: tuple[str, ...], correlations: "NDArray[np.float64]") -> Table:
    """Where they agree: one correlation a task or adapter, highest first."""
    over = "adapters" if kind == "task" else "tasks, less the task's mean"
    title = f"rank correlation of gains over {over}"
    table = Table(title=title, title_justify="left", min_width=len(title))
    table.add_column(kind, overflow="fold")
    table.add_column("r", justify="right")
    # NaN sorts last.
    for i in np.argsort(-correlations):
        value = correlations[i]
        table.add_row(names[i], "does not vary" if np.isnan(value) else f"{value:+.2f}")
    return table


def _listed(values: "NDArray[np.float64]", form: str = ".2f") -> str:
    return ", ".join(format(v, form) for v in values)


def _plain(value: Any) -> Any:
    """The value as JSON has it; what is not known is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value
