"""A generator: one synthetic task, told row by row and drawn into a train and a test split."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal, NotRequired, TypedDict

from .phrases import shuffled
from .splits import mask_set, masks, words

Split = Literal["train", "test"]

# Draws in a row that bring nothing new before a generator is taken to be exhausted.
_PATIENCE = 500


class Row(TypedDict):
    """One example; `label` for classification, `answer` where the target ends in a number."""

    input: str
    target: str
    label: NotRequired[str]
    answer: NotRequired[str]


Tell = Callable[[Random, str, Split], Row]


def classified(text: str, label: str) -> Row:
    """A classification row, whose target is its label."""
    return {"input": text, "target": label, "label": label}


@dataclass(frozen=True)
class Generator:
    """How a task tells one row of a kind, and each kind's share of the train split.

    Kinds are the labels of a classification task, else what should be evenly spread (operations,
    intents). The test split holds every kind equally often.
    """

    name: str
    tell: Tell
    kinds: Mapping[str, int]

    def splits(self, *, train: int, test: int, seed: int) -> dict[str, list[Row]]:
        """Draw both splits; a test row is never a near duplicate of a train row.

        Raises:
            ValueError: more distinct rows are asked for than the generator can make.
        """
        trained = self._draw("train", train, self.kinds, seed, barred=())
        barred = mask_set(row["input"] for row in trained)
        tested = self._draw("test", test, dict.fromkeys(self.kinds, 1), seed, barred=barred)
        return {"train": trained, "test": tested}

    def _draw(
        self,
        split: Split,
        count: int,
        shares: Mapping[str, int],
        seed: int,
        *,
        barred: Collection[str],
    ) -> list[Row]:
        rng = Random(f"{self.name} {split} {seed}")
        rows: list[Row] = []
        seen: set[str] = set()
        for kind in shuffled(rng, _schedule(shares, count)):
            for _ in range(_PATIENCE):
                row = self.tell(rng, kind, split)
                key = " ".join(words(row["input"]))
                if key not in seen and not any(mask in barred for mask in masks(row["input"])):
                    break
            else:
                raise ValueError(
                    f"{self.name} made {len(rows)} distinct {split} rows and then {_PATIENCE} repeats of "
                    f"kind {kind!r}, but {count} were asked for; ask for fewer"
                )
            seen.add(key)
            rows.append(row)
        return rows


def _schedule(shares: Mapping[str, int], count: int) -> list[str]:
    """The kind of each row: at every length, as near to the shares as whole rows allow."""
    whole, given = sum(shares.values()), dict.fromkeys(shares, 0)
    schedule: list[str] = []
    for length in range(1, count + 1):
        kind = max(shares, key=lambda kind: shares[kind] * length - given[kind] * whole)
        given[kind] += 1
        schedule.append(kind)
    return schedule
