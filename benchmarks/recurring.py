"""What are recurring requests worth that nothing profiled is like, once a judge has compared adapters on some of them?

    python benchmarks/recurring.py                         from the committed outcomes; no model is run
    python benchmarks/recurring.py --groups 10             where only ten groups of data sets were profiled
    python benchmarks/recurring.py --rounds 5 --judges "no errors;errs in 20%"
    python benchmarks/recurring.py --json OUT

Of the groups of data sets to design on a third is hidden from the fit. In each round three quarters of their requests
arrive as traffic, in a random order; those that are like nothing profiled are grouped and sampled as servers do it
(`serving/traffic/sampling.py`), up to fifty a kind. A simulated judge is tried on twenty profiled data sets drawn anew,
twenty answers of each adapter, and then compares the adapters on each kind of at least twenty requests. What it says is
believed as `profiling/judge_trial.py` has it, and kinds join the profile where the product's gate lets them. The other
quarter of the requests is then routed by the profile before and after.

Shown are the mean gain over base on the hidden data sets, each alike, before and after, in points; the share of what
the best adapter of each data set reaches, chosen by the traffic's own outcomes; and the change over rounds, with
its 5% and 95% points. A judge's verdict on a pair is wrong with a probability: then the worse answer wins, or of two
that are as good, either. Judges that *like* an adapter on a data set (each with a probability of one in five) say that
its answers there are better than base's, whatever they are.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from learning.world import World, is_new_kind
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from routing.table import SMOLLM2
from routing.trials import design_table
from traitroute.adapters import MetricError
from traitroute.profiling.judge_trial import JudgeTrial, TrialCell
from traitroute.profiling.recurring import LEAST_REQUESTS, TRIAL_ANSWERS, TRIAL_TASKS
from traitroute.router import NOVEL, Router, RoutingProfile
from traitroute.serving.traffic.sampling import WAITING, recurring

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
SAMPLED = 50
TRAFFIC = 0.75


@dataclass(frozen=True)
class SimulatedJudge:
    """Errs with probability `errs`; likes each adapter on each data set with probability `likes`, `how_much` of its
    answers there, and the adapters `always` everywhere; with `hidden_only` it likes none while it is tried."""

    errs: float
    likes: float = 0.0
    how_much: float = 1.0
    always: tuple[int, ...] = ()
    hidden_only: bool = False

    def liked(self, name: str, adapters: int, seed: int, *, tried: bool) -> NDArray[np.bool_]:
        """Which adapters it likes on a data set, (a,)."""
        draw = np.random.default_rng([seed, *name.encode()])
        liked = (draw.random(adapters) < self.likes) & ~np.array(tried and self.hidden_only)
        liked[list(self.always)] = True
        return liked

    def verdicts(self, gains: Array, liked: NDArray[np.bool_], draw: np.random.Generator) -> Array:
        """On answers with these gains over base (n, a), of which it likes some (n, a)."""
        wrong = draw.random(gains.shape) < self.errs
        either = draw.choice([-1.0, 1.0], gains.shape)
        said = np.where(wrong, np.where(gains != 0, -gains, either), gains)
        return np.where(liked & (draw.random(gains.shape) < self.how_much), 1.0, said)


JUDGES: Mapping[str, SimulatedJudge] = {
    "no errors": SimulatedJudge(0.0),
    "errs in 10%": SimulatedJudge(0.1),
    "errs in 20%": SimulatedJudge(0.2),
    "errs in 30%": SimulatedJudge(0.3),
    "errs in 45%": SimulatedJudge(0.45),
    "no errors, likes by data set": SimulatedJudge(0.0, likes=0.2),
    "errs in 20%, likes by data set": SimulatedJudge(0.2, likes=0.2),
    "errs in 20%, half likes by data set": SimulatedJudge(0.2, likes=0.2, how_much=0.5),
    "errs in 20%, a quarter likes by data set": SimulatedJudge(0.2, likes=0.2, how_much=0.25),
    "errs in 20%, likes one everywhere": SimulatedJudge(0.2, always=(2,)),
    "errs in 20%, likes by data set when not tried": SimulatedJudge(0.2, likes=0.2, hidden_only=True),
    "no errors, likes by data set when not tried": SimulatedJudge(0.0, likes=0.2, hidden_only=True),
}


@dataclass(frozen=True)
class Found:
    """What a judge brought: gains over base on hidden data sets, in points, before and after, the best there could be,
    and changes over rounds; kinds compared and admitted a round, and rounds in which the judge was refused."""

    judge: str
    before: float
    after: float
    best: float
    change: float
    low: float
    high: float
    compared: float
    admitted: float
    worse: float
    refused: int


@dataclass(frozen=True)
class Traffic:
    """The hidden data sets in one round: requests that arrive, `sampled` by kind, and those `asked` afterwards."""

    sampled: Mapping[str, Rows]
    asked: Rows
    best: float
    base: float

    @classmethod
    def of(cls, world: World, features: Array, seed: int) -> "Traffic":
        """Let three quarters of the hidden requests arrive, and group what is new among them."""
        draw = np.random.default_rng(seed)
        hidden = np.unique(world.names[world.novel])
        parts = [draw.permutation(np.flatnonzero(world.names == name)) for name in hidden]
        came = np.concatenate([part[: int(TRAFFIC * len(part))] for part in parts])
        rest = [part[int(TRAFFIC * len(part)) :] for part in parts]
        best = [world.right[part[: int(TRAFFIC * len(part))]].mean(axis=0).argmax() for part in parts]
        kinds: dict[str, list[int]] = {}
        waiting: list[int] = []
        arriving = draw.permutation(came[1 - world.likeness[came].max(axis=1) >= NOVEL]).tolist()
        while arriving:
            waiting += [arriving.pop() for _ in range(min(WAITING // 4, len(arriving)))]
            known = {kind: features[rows] for kind, rows in kinds.items()}
            found = recurring(features[waiting], world.profile, known)
            for row, kind in zip(waiting, found, strict=True):
                if kind and len(kinds.setdefault(kind, [])) < SAMPLED:
                    kinds[kind].append(row)
            waiting = [row for row, kind in zip(waiting, found, strict=True) if kind is None][-WAITING:]
        return cls(
            {kind: np.array(rows) for kind, rows in kinds.items() if len(rows) >= LEAST_REQUESTS},
            np.concatenate(rest),
            float(np.mean([world.right[rows, column].mean() for rows, column in zip(rest, best, strict=True)])),
            float(np.mean([world.right[rows, 0].mean() for rows in rest])),
        )


@dataclass(frozen=True)
class Ground:
    """The world, the features (n, p) of its requests, who is `chosen` now for each (n,), and the `profiled` data sets:
    the gains (m, a) of all their requests, those that were fitted on included."""

    world: World
    features: Array
    chosen: Rows
    profiled: Mapping[str, Array]

    @classmethod
    def of(cls, file: Path, groups: int = 0) -> "Ground":
        """Fit the router to two thirds of the groups to design on, or to some `groups` of these (0: all)."""
        table = design_table(file)
        if groups:
            shown = [g for g in np.unique(table.group) if not is_new_kind(str(g))]
            left_out = np.random.default_rng(0).permutation(shown)[groups:]
            table = table.of_requests(np.flatnonzero(~np.isin(table.group, left_out)))
        with TemporaryDirectory() as folder:
            table.save(Path(folder) / "table.safetensors")
            world = World.measured(Path(folder) / "table.safetensors", new_kinds=True)
        hidden = set(world.names[world.novel].tolist())
        right, names = table.strict.astype(np.float64), table.dataset
        profiled = {
            str(name): right[names == name, 1:] - right[names == name, :1]
            for name in np.unique(names)
            if name not in hidden
        }
        features = world.profile.features.transform(world.marks)
        return cls(world, features, world.chosen(world.gains), profiled)


def trial_of(judge: SimulatedJudge, ground: Ground, seed: int) -> JudgeTrial:
    """Try the judge on some profiled data sets."""
    draw = np.random.default_rng([seed, 1])
    cells = []
    for name in draw.permutation(list(ground.profiled))[:TRIAL_TASKS]:
        gains = draw.permutation(ground.profiled[str(name)])[:TRIAL_ANSWERS]
        liked = judge.liked(str(name), gains.shape[1], seed, tried=True)
        verdicts = judge.verdicts(gains, np.broadcast_to(liked, gains.shape), draw)
        cells += [TrialCell(str(i), str(name), verdicts[:, i], gains[:, i]) for i in range(gains.shape[1])]
    return JudgeTrial.of(cells)


def grown(judge: SimulatedJudge, ground: Ground, traffic: Traffic, seed: int) -> RoutingProfile:
    """The profile with the kinds that are admitted.

    Raises:
        MetricError: the judge cannot be believed at all.
    """
    trial, world = trial_of(judge, ground, seed), ground.world
    profile = world.profile
    draw, adapters = np.random.default_rng([seed, 2]), len(world.adapters)
    for kind, rows in traffic.sampled.items():
        gains = world.right[rows, 1:] - world.right[rows, :1]
        liked = np.array([judge.liked(str(name), adapters, seed, tried=False) for name in world.names[rows]])
        verdicts = list(judge.verdicts(gains, liked, draw).T)
        predicted = world.gains[rows].mean(axis=0)
        believed = trial.judged(verdicts, predicted, profile.error_unknown)
        now = world.chosen(world.gains)[rows]
        then = world.chosen(world.gains + believed.means - predicted)[rows]
        before, after = (np.bincount(choice, minlength=1 + adapters)[1:] / len(rows) for choice in (now, then))
        _, low = believed.lead(before, after)
        if low > 0:
            error = float(np.sqrt(believed.variances.max()))
            profile = profile.with_kind(kind, ground.features[rows], believed.means - predicted, error)
    return profile


def judged(name: str, judge: SimulatedJudge, ground: Ground, rounds: list[Traffic]) -> Found:
    """What a judge brings, over all rounds."""
    world = ground.world
    figures, refused, worse = [], 0, []
    for seed, traffic in enumerate(rounds):
        rows, names = traffic.asked, world.names[traffic.asked]
        before = _by_name(world.right[rows, ground.chosen[rows]], names)
        after, admitted = before, 0
        try:
            profile = grown(judge, ground, traffic, seed)
        except MetricError:
            refused += 1
        else:
            admitted = len(profile.recurring.names) if profile.recurring is not None else 0
            columns = Router(profile).choose([world.marks[i] for i in rows]).chosen + 1
            after = _by_name(world.right[rows, columns], names)
        worse.append(float(np.mean(after < before - 0.02)))
        figures.append((before.mean() - traffic.base, after.mean() - traffic.base, len(traffic.sampled), admitted))
    table = np.array(figures)
    changes = 100 * (table[:, 1] - table[:, 0])
    return Found(
        judge=name,
        before=100 * float(table[:, 0].mean()),
        after=100 * float(table[:, 1].mean()),
        best=100 * float(np.mean([t.best - t.base for t in rounds])),
        change=float(changes.mean()),
        low=float(np.quantile(changes, 0.05)),
        high=float(np.quantile(changes, 0.95)),
        compared=float(table[:, 2].mean()),
        admitted=float(table[:, 3].mean()),
        worse=100 * float(np.mean(worse)),
        refused=refused,
    )


def _by_name(values: Array, names: NDArray[np.str_]) -> Array:
    return np.array([values[names == name].mean() for name in np.unique(names)])


def shown(found: list[Found], rounds: int) -> Table:
    """One line a judge."""
    table = Table("judge", title=f"hidden data sets, {rounds} rounds", title_justify="left")
    columns = ("gain before", "after", "of best, %", "change", "5% to 95%", "kinds", "admitted", "sets worse, %")
    for column in (*columns, "refused"):
        table.add_column(column, justify="right")
    for f in found:
        share = f"{100 * f.before / f.best:.0f} → {100 * f.after / f.best:.0f}"
        figures = (f"{f.before:+.1f}", f"{f.after:+.1f}", share, f"{f.change:+.1f}", f"{f.low:+.1f} to {f.high:+.1f}")
        table.add_row(
            f.judge, *figures, f"{f.compared:.1f}", f"{f.admitted:.1f}", f"{f.worse:.0f}", f"{f.refused} of {rounds}"
        )
    return table


def main() -> None:
    """Simulate, print the table, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, default=SMOLLM2, help="the outcome table")
    parser.add_argument(
        "--groups", type=int, default=0, help="groups of data sets that are profiled; 0: all not hidden"
    )
    parser.add_argument("--rounds", type=int, default=20, help="of traffic, each with a trial of its own")
    parser.add_argument("--judges", default="", help="only those of these names, separated by semicolons")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    judges = _named(arguments.judges)
    ground = Ground.of(arguments.outcomes, arguments.groups)
    rounds = [Traffic.of(ground.world, ground.features, seed) for seed in range(arguments.rounds)]
    found = [judged(name, judge, ground, rounds) for name, judge in judges.items()]
    Console(width=150).print(shown(found, arguments.rounds))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")


def _named(given: str) -> dict[str, SimulatedJudge]:
    names = [name.strip() for name in given.split(";") if name.strip()] or list(JUDGES)
    if lost := [name for name in names if name not in JUDGES]:
        raise SystemExit(f"no judge {lost[0]!r}; there are: {'; '.join(JUDGES)}")
    return {name: JUDGES[name] for name in names}


if __name__ == "__main__":
    main()
