"""What the commands print: the transfer matrix, the traits, and decisions."""

from rich.console import Console
from rich.table import Table

from ..profiling import Profile
from ..router import RoutingDecision


def show_profile(result: Profile, console: Console) -> None:
    """Print matrix, traits against the null, and the time that each stage took."""
    show_matrix(result, console)
    show_traits(result, console)
    laps = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in result.seconds.items())
    reused = sum(t.reused for t in result.training)
    console.print(f"time: {laps}" + (f" ({reused} adapters reused)" if reused else ""))


def show_matrix(result: Profile, console: Console) -> None:
    """Print score of base and adapters on each task, in percent; gains in green, losses in red."""
    matrix = result.matrix
    table = Table(title="transfer matrix: % strictly correct (gain over base)", title_justify="left")
    table.add_column("adapter \\ task", overflow="fold")
    for task in matrix.tasks:
        table.add_column(task, justify="right", overflow="fold")
    table.add_row("base", *(f"{100 * s:.0f}" for s in matrix.base))
    for name, scores, gains in zip(matrix.adapters, matrix.scores, matrix.gains, strict=True):
        table.add_row(name, *map(_cell, scores, gains))
    console.print(table)


def show_traits(result: Profile, console: Console) -> None:
    """Print each component's share of variance beside its permutation null."""
    traits = result.traits
    table = Table(title="components of the gains", title_justify="left")
    for column in ("component", "variance", "95% of null", "p", "trait?", "strongest loadings"):
        table.add_column(column)
    rows = zip(traits.explained_variance_ratio_, traits.null_, traits.p_values_, strict=True)
    for i, (share, null, p) in enumerate(rows):
        order = abs(traits.components_[i]).argsort()[::-1][:3]
        loadings = ", ".join(f"{result.matrix.tasks[j]} {traits.components_[i, j]:+.2f}" for j in order)
        figures = (f"{i + 1}", f"{100 * share:.1f}%", f"{100 * null:.1f}%", f"{p:.3f}")
        table.add_row(*figures, "yes" if traits.supported_[i] else "no", loadings)
    console.print(table)
    routing = result.routing
    console.print(
        f"router: {routing.trait_scores.shape[1]} components, penalty {routing.demand.alpha:g}; "
        f"error of a task's gain: {routing.error_known:.2f} on profiled tasks, "
        f"{routing.error_new:.2f} on tasks left out"
    )


def decision_table(decision: RoutingDecision) -> Table:
    """The ranking of a decision, base in its place."""
    table = Table()
    for column in ("adapter", "predicted gain", "interval"):
        table.add_column(column)
    rows = [(a.gain, a.adapter, f"[{a.low:+.2f}, {a.high:+.2f}]") for a in decision.ranking]
    for gain, name, interval in sorted([*rows, (0.0, "base", "")], key=lambda r: -r[0]):
        chosen = name == (decision.adapter or "base")
        table.add_row(name, f"{gain:+.3f}", interval, style="bold green" if chosen else "")
    return table


def _cell(score: float, gain: float) -> str:
    text = f"{100 * score:.0f} ({100 * gain:+.0f})"
    return f"[green]{text}[/]" if gain > 0 else f"[red]{text}[/]" if gain < 0 else text
