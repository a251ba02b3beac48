"""Do merged adapters beat the best single one on data that no adapter was trained on, and LoraHub's search?

    python benchmarks/composites.py --data DATA --data PROMPTS --work runs/measure        20 minutes of one core
    python benchmarks/composites.py --data DATA --data PROMPTS --work runs/measure --show        what is measured so far

Leave one source out: of each data set that an adapter was trained on, all adapters are hidden that saw data of its
group. The others are merged as `traitroute compose` does it: proposed by their outcomes on 40 rows, measured on
anchors of these, and the best of them judged against the best single adapter on rows that chose nothing. Beside it
stands a search as LoraHub makes it (arXiv 2307.13269): weights of all the adapters, moved without gradients to lower
the loss of the right answers (and the sum of the weights) on as many measured rows in all, by SciPy's COBYLA.

--work is the folder in which outcomes.py trained and measured the adapters; it is only read. Data sets of the groups to
confirm on are never looked at. A killed run goes on where it was: what is measured is kept in --out.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from routing.measured import Measured
from routing.plan import Asked, Sizes, read_plan
from routing.table import SMOLLM2, OutcomeTable, load
from routing.trials import design_table
from scipy.optimize import minimize
from traitroute.adapters import Adapter, Recipe, WeightStore
from traitroute.profiling import open_base_model
from traitroute.profiling.composites.merging import Merger, Parent, read_parents
from traitroute.profiling.composites.proposals import PARENTS, Search, recipes_of
from traitroute.profiling.matrix.anchors import AnchorRow, TaskAnchors
from traitroute.profiling.profile import quiet_libraries
from traitroute.profiling.statistics.significance import paired_bootstrap, score_bounds
from traitroute.serving.engines import EngineRequest, TransformersEngine

Array = NDArray[np.float64]
LEAST_SCORE = 0.15
"""A data set counts where the best of the other adapters scores so much: elsewhere there is nothing to be added to."""
SHOTS, BOUND, L1 = 5, 1.5, 0.05
"""LoraHub's rows, its bounds of a weight, and what a weight costs beside the loss in nats a token."""


@dataclass(frozen=True)
class Trial:
    """One data set without the adapters that know it: the rows `chosen` by, which were measured, and those `judged` on.

    `known` (chosen, 1 + adapters) are what was measured, of base and of the `adapters` that remain.
    """

    asked: Asked
    adapters: tuple[str, ...]
    chosen: tuple[int, ...]
    judged: tuple[int, ...]
    known: Array

    @property
    def single(self) -> str:
        """The best of the other adapters on the rows chosen by, or base."""
        return ("base", *self.adapters)[int(self.known.mean(axis=0).argmax())]

    @property
    def tokens(self) -> int:
        """About how long its rows are."""
        return int(np.mean([len(e.prompt) for e in self.asked.task.test_examples]) / 4) + 3 * self.asked.task.max_tokens


def trials(design: OutcomeTable, measured: Measured, adapters: Sequence[str], asked: Sequence[Asked]) -> list[Trial]:
    """The data sets that some adapter was trained on and that others can do a little, the cheapest of each group.

    `asked` are the measured rows of each data set, and further ones.
    """
    groups = dict(zip(design.datasets, design.groups, strict=True))
    homes = {s.name: {groups.get(name, name) for name in s.datasets} for s in measured.plan.sources}
    further = {each.name: each for each in asked}
    found: list[Trial] = []
    for each in (a for a in measured.plan.asked if a.kind == "main" and a.dataset in groups):
        group = groups[each.dataset]
        kept = tuple(name for name in adapters if group not in homes[name])
        if any(group in of for of in homes.values()):
            trial = _trial(measured, each, further[each.name], kept)
            if trial.known.mean(axis=0).max() >= LEAST_SCORE:
                found.append(trial)
    cheapest = sorted(found, key=lambda trial: trial.tokens)
    first = {trial.asked.group: trial for trial in reversed(cheapest)}
    return [trial for trial in cheapest if first[trial.asked.group] is trial]


def _trial(measured: Measured, few: Asked, asked: Asked, adapters: tuple[str, ...]) -> Trial:
    sources = {source.name: source for source in measured.plan.sources}
    cells = [measured.cell(sources[name] if name else None, few) for name in (None, *adapters)]
    known = np.stack([cell["metric"] for cell in cells if cell is not None], axis=1).astype(np.float64)
    items = {row["item"] for row in few.rows}
    if known.shape[1] < len(cells) or [r["item"] for r in asked.rows[: len(few.rows)]] != [r["item"] for r in few.rows]:
        raise SystemExit(f"{few.name}: --work has not measured it as the plan asks; run benchmarks/outcomes.py on")
    judged = tuple(i for i in range(len(few.rows), len(asked.rows)) if asked.rows[i]["item"] not in items)
    return Trial(asked, adapters, tuple(range(len(few.rows))), judged, known)


def measured_adapters(measured: Measured, design: OutcomeTable) -> list[str]:
    """The adapters that lie in the work folder, and with which all data sets to design on were measured."""
    asked = [a for a in measured.plan.asked if a.kind == "main" and a.dataset in design.datasets]
    here = [source for source in measured.plan.sources if source.name in measured.weights]
    return [s.name for s in here if all(measured.cell(s, each) is not None for each in asked)]


@dataclass
class Bench:
    """Measures `adapters` and merges of them on rows, once each; what is measured lies in `folder`."""

    folder: Path
    work: Path
    base_model: str
    adapters: Sequence[str]
    _made: dict[Recipe, Adapter] = field(default_factory=dict)

    @cached_property
    def store(self) -> WeightStore:
        return WeightStore(self.folder / "weights")

    @cached_property
    def engine(self) -> TransformersEngine:
        return TransformersEngine(open_base_model(self.base_model).path, self.store)

    @cached_property
    def parents(self) -> dict[str, Parent]:
        """The adapters, by name."""
        files = {name: self.store.add(self.work / "runs" / name) for name in self.adapters}
        adapters = [each.adapter(name, self.base_model, "0" * 64) for name, each in files.items()]
        return {parent.adapter.name: parent for parent in read_parents(adapters, self.store)}

    def merged(self, merger: Merger, recipe: Recipe) -> Adapter:
        """The adapter of a recipe."""
        if recipe not in self._made:
            self._made[recipe] = self._merge(merger, recipe)
        return self._made[recipe]

    def _merge(self, merger: Merger, recipe: Recipe) -> Adapter:
        with self.store.scratch_folder() as scratch:
            merger.merge(recipe, scratch / "merged")
            return self.store.add(scratch / "merged").adapter("merged", self.base_model, "0" * 64)

    def scores(self, trial: Trial, adapter: Adapter | None, rows: Sequence[int]) -> Array:
        """The scores of an adapter on rows of the data set, (rows,)."""
        return self._measured(trial, adapter, rows, "score", self._answer)

    def losses(self, trial: Trial, adapter: Adapter | None, rows: Sequence[int]) -> Array:
        """Nats a token of the right answers, (rows,)."""
        return self._measured(trial, adapter, rows, "loss", self._read)

    def _measured(self, trial: Trial, adapter: Adapter | None, rows: Sequence[int], what: str, measure: Any) -> Array:
        weights = adapter.weights_digest[:16] if adapter else "base"
        file = self.folder / "measured" / trial.asked.name / f"{weights}.{what}.json"
        kept: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
        if missing := [row for row in rows if str(row) not in kept]:
            kept |= dict(zip(map(str, missing), measure(trial, adapter, missing), strict=True))
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_suffix(".draft")
            draft.write_text(json.dumps(kept))
            draft.replace(file)
        return np.array([kept[str(row)] for row in rows])

    def _answer(self, trial: Trial, adapter: Adapter | None, rows: Sequence[int]) -> list[float]:
        task = trial.asked.task
        examples = [task.test_examples[row] for row in rows]
        asked = [EngineRequest(e.messages, adapter, max_tokens=task.max_tokens) for e in examples]
        return [float(each.score) for each in task.judge([r.text for r in self.engine.run(asked)], examples)]

    def _read(self, trial: Trial, adapter: Adapter | None, rows: Sequence[int]) -> list[float]:
        examples = [trial.asked.task.test_examples[row] for row in rows]
        results = self.engine.run([EngineRequest(e.messages, adapter, candidates=(e.target,)) for e in examples])
        return [-r.log_likelihoods[0] / max(r.candidate_tokens[0], 1) for r in results]


def composed(bench: Bench, trial: Trial, merger: Merger, search: Search) -> tuple[Recipe, int]:
    """The composite that `traitroute compose` would hold against the best adapter, and how many answers chose it."""
    gains = {name: trial.known[:, 1 + i] - trial.known[:, 0] for i, name in enumerate(trial.adapters)}
    best = sorted(trial.adapters, key=lambda name: -gains[name].mean())[:PARENTS]
    recipes = recipes_of([bench.parents[name] for name in best], gains, search, most_rank=16)
    anchors = TaskAnchors.of(trial.known)
    rows = {recipe: AnchorRow([anchors]) for recipe in recipes}

    def measure(recipe: Recipe, count: int) -> None:
        places = rows[recipe].next(count)[0]
        adapter = bench.merged(merger, recipe)
        rows[recipe].add(0, places, bench.scores(trial, adapter, [trial.chosen[i] for i in places]))

    def score(recipe: Recipe) -> float:
        return float(rows[recipe].estimate().scores[0])

    best = search.ranked(recipes, len(anchors), measure, score)[0]
    return best, search.answers(len(recipes), len(anchors))


def searched(bench: Bench, trial: Trial, merger: Merger, answers: int) -> Recipe:
    """The weights of all adapters that LoraHub's search finds by so many answers, of the same few rows a step."""
    rows, steps = trial.chosen[:SHOTS], answers // SHOTS
    parents = [bench.parents[name] for name in trial.adapters]
    tried: dict[Recipe, float] = {}

    def loss(weights: Array) -> float:
        recipe = Recipe(
            parents=trial.adapters,
            digests=tuple(p.files.digest for p in parents),
            weights=tuple(np.round(np.clip(weights, -BOUND, BOUND), 4).tolist()),
            method="linear",
            rank=16,
        )
        if recipe not in tried and len(tried) < steps:
            nats = bench.losses(trial, bench.merged(merger, recipe), rows).mean()
            tried[recipe] = float(nats + L1 * np.abs(recipe.weights).sum() / len(parents))
        return tried.get(recipe, max(tried.values()))

    start = np.full(len(parents), 1 / len(parents))
    minimize(loss, start, method="COBYLA", options={"maxiter": steps, "rhobeg": 0.5})
    return min(tried, key=lambda recipe: tried[recipe])


def measure(bench: Bench, trial: Trial, search: Search) -> dict[str, Any]:
    """What single adapter, composite and search score on the rows that chose nothing."""
    merger = Merger([bench.parents[name] for name in trial.adapters], bench.store)
    recipe, answers = composed(bench, trial, merger, search)
    hub = searched(bench, trial, merger, answers)
    single = None if trial.single == "base" else bench.parents[trial.single].adapter
    scores = {
        "single": bench.scores(trial, single, trial.judged),
        "composite": bench.scores(trial, bench.merged(merger, recipe), trial.judged),
        "lorahub": bench.scores(trial, bench.merged(merger, hub), trial.judged),
    }
    return {
        "data set": trial.asked.name,
        "adapters": trial.adapters,
        "best single": trial.single,
        "recipe": str(recipe),
        "lorahub": str(hub),
        "tried": search.candidates,
        "answers": answers,
        "scores": {name: each.tolist() for name, each in scores.items()},
    }


COMPARED = (("composite", "single"), ("lorahub", "single"), ("composite", "lorahub"))


def show(results: Sequence[Mapping[str, Any]]) -> None:
    """Print a line a data set, and what comes of all."""
    leads: dict[tuple[str, str], list[float]] = {pair: [] for pair in COMPARED}
    admitted = 0
    print(
        f"{'data set':32s}{'rows':>5s}{'single':>8s}{'composite':>11s}{'lorahub':>9s}"
        "  composite's lead [95%, of all tried]  recipe"
    )
    for result in results:
        scores = {name: np.array(each) for name, each in result["scores"].items()}
        lead = scores["composite"] - scores["single"]
        low, high = (float(end[0]) for end in score_bounds(lead[:, None], tried=result["tried"]))
        admitted += low > 0
        means = {name: float(each.mean()) for name, each in scores.items()}
        for (one, other), of in leads.items():
            of.append(means[one] - means[other])
        print(
            f"{result['data set']:32s}{len(lead):5d}{means['single']:8.3f}{means['composite']:11.3f}"
            f"{means['lorahub']:9.3f}  {lead.mean():+.3f} [{low:+.3f}, {high:+.3f}]  "
            f"{result['recipe']}, against {result['best single']}"
        )
    for (one, other), of in leads.items():
        mean = paired_bootstrap(of)
        print(
            f"{one} less {other}: higher on {sum(x > 0 for x in of)} of {len(of)} data sets, lower on "
            f"{sum(x < 0 for x in of)}; mean {mean.mean:+.3f} ({mean.low:+.3f} to {mean.high:+.3f} over data sets)"
        )
    print(f"composites that would be admitted: {admitted} of {len(results)}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="folder of data sets; may be repeated"
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="where `outcomes.py --work` trained the adapters of the table"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/composites"), help="what is measured; kept between runs")
    parser.add_argument(
        "--adapters", default="", help="comma-separated [default: those of which --work has all outcomes]"
    )
    parser.add_argument("--sets", type=int, default=8, help="so many data sets, the cheapest first")
    parser.add_argument("--candidates", type=int, default=8, help="composites that are tried")
    parser.add_argument("--examples", type=int, default=24, help="rows that choose between the better ones")
    parser.add_argument("--judge", type=int, default=60, help="rows of a data set that choose nothing")
    parser.add_argument("--show", action="store_true", help="only print what is measured")
    return parser.parse_args()


def main() -> None:
    """Measure a data set after the other, and print."""
    given = arguments()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    quiet_libraries()
    search = Search(candidates=given.candidates, examples=given.examples)
    done = given.out / "results"
    done.mkdir(parents=True, exist_ok=True)
    if not given.show:
        from rich.progress import track

        plan, design = read_plan(given.data, given.out / "plan"), design_table(SMOLLM2)
        further = read_plan(given.data, given.out / "further", test=Sizes().test + given.judge)
        measured = Measured(plan, given.work, open_base_model(plan.base_model), load(SMOLLM2))
        adapters = list(filter(None, given.adapters.split(","))) or measured_adapters(measured, design)
        bench = Bench(given.out, given.work, plan.base_model, adapters)
        found = trials(design, measured, adapters, further.asked)[: given.sets]
        for trial in track(found, "data sets"):
            file = done / f"{trial.asked.name}.json"
            if not file.is_file():
                text = json.dumps(measure(bench, trial, search))
                file.with_suffix(".draft").write_text(text)
                file.with_suffix(".draft").replace(file)
    show([json.loads(file.read_text()) for file in sorted(done.glob("*.json"))])


if __name__ == "__main__":
    main()
