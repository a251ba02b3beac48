"""Which training recipe for the routing benchmark's adapters: rate and passes, by the loss on rows held out.

    python benchmarks/adapter_recipe.py --data DATA --data PROMPTS                        15 minutes on 2 cores
    python benchmarks/adapter_recipe.py --data DATA --data PROMPTS --adapters json --recipes 1e-4x2,3e-4x1

For each adapter named and each recipe, RATExPASSES, an adapter is trained as `outcomes.py` would, and scored on rows of
its data sets that it was not trained on: nats a token of the gold answer, beside the base model's. A gentle recipe that
is as good is preferred: what is trained hard answers everything in its own labels. A killed run goes on where it was.
"""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from routing.plan import MEASURE, read_plan
from traitroute.adapters import WeightStore
from traitroute.profiling import open_base_model, train_adapter
from traitroute.profiling.profile import quiet_libraries
from traitroute.profiling.tasks.suite import Training
from traitroute.profiling.tasks.task import TrainingSet
from traitroute.profiling.training import adapter_record
from traitroute.serving.engines import EngineRequest, TransformersEngine

HELD_OUT = 60
RECIPES = "1e-4x2,3e-4x1,3e-4x2,1e-3x1,1e-3x2"


@dataclass(frozen=True)
class Recipe:
    """A learning rate and a number of passes over the rows."""

    rate: float
    passes: float

    @classmethod
    def of(cls, text: str) -> "Recipe":
        """Read `3e-4x2`."""
        rate, passes = text.split("x")
        return cls(float(rate), float(passes))

    def of_training(self, training: Training) -> Training:
        """The settings with this rate and these passes."""
        return training.model_copy(update={"learning_rate": self.rate, "epochs": self.passes})

    def __str__(self) -> str:
        return f"{self.rate:g} x {self.passes:g}"


@dataclass(frozen=True)
class Trial:
    """One adapter to train by one recipe."""

    base_model: str
    training: Training
    rows: TrainingSet
    work: Path


def loss(trial: Trial) -> tuple[float, float]:
    """Nats a token of base and of the trained adapter on the held-out rows."""
    import torch

    quiet_libraries()
    torch.set_num_threads(1)
    base = open_base_model(trial.base_model)
    rows, held_out = trial.rows.examples[:-HELD_OUT], trial.rows.examples[-HELD_OUT:]
    folder = trial.work / f"{trial.rows.name}-{trial.training.learning_rate:g}-{trial.training.epochs:g}"
    trained = train_adapter(replace(trial.rows, examples=rows), base, trial.training, folder)
    store = WeightStore(trial.work / "weights")
    adapter = adapter_record(trial.rows.name, trial.rows.name, base, store.add(trained.folder))
    engine = TransformersEngine(base.path, store)
    found = []
    for each in (None, adapter):
        asked = [EngineRequest(e.messages, adapter=each, max_tokens=1, candidates=(e.target,)) for e in held_out]
        answers = engine.run(asked)
        nats = sum(a.log_likelihoods[0] for a in answers) / sum(a.candidate_tokens[0] for a in answers)
        found.append(-nats)
    return found[0], found[1]


def show(names: Sequence[str], recipes: Sequence[Recipe], found: Sequence[tuple[float, float]]) -> None:
    """Print the table, and the mean over adapters of what each recipe leaves of base's loss."""
    losses = np.array(found).reshape(len(recipes), len(names), 2)
    print(f"held-out loss, nats a token, {HELD_OUT} rows\n{'':12s}" + "".join(f"{n:>12s}" for n in [*names, "of base"]))
    print(f"{'base':12s}" + "".join(f"{x:12.3f}" for x in losses[0, :, 0]))
    for recipe, row in zip(recipes, losses, strict=True):
        share = (row[:, 1] / row[:, 0]).mean()
        print(f"{recipe!s:12s}" + "".join(f"{x:12.3f}" for x in row[:, 1]) + f"{share:12.1%}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="folder of data sets; may be repeated"
    )
    parser.add_argument("--plan", type=Path, default=MEASURE, help="says what adapters there are, and on which base")
    parser.add_argument("--work", type=Path, default=Path("runs/recipe"), help="kept between runs")
    parser.add_argument("--adapters", default="words,intents,steps", help="comma-separated")
    parser.add_argument("--recipes", default=RECIPES, help="RATExPASSES, comma-separated")
    parser.add_argument("--train", type=int, default=300, help="training rows")
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Train, score, print."""
    given = arguments()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    plan = read_plan(given.data, given.work, given.plan, train=given.train + HELD_OUT)
    rows = {s.name: s for s in plan.sources}
    names = given.adapters.split(",")
    recipes = [Recipe.of(text) for text in given.recipes.split(",")]
    trials = [
        Trial(plan.base_model, recipe.of_training(plan.training), shuffled(rows[name]), given.work)
        for recipe in recipes
        for name in names
    ]
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        show(names, recipes, list(pool.map(loss, trials)))


def shuffled(rows: TrainingSet) -> TrainingSet:
    """The rows in another order, so that those held out are of all of an adapter's data sets."""
    order = np.random.default_rng(0).permutation(len(rows.examples))
    return replace(rows, examples=tuple(rows.examples[i] for i in order))


if __name__ == "__main__":
    main()
