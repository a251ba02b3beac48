"""Ablations: a source altered in one way, to learn which property of it the transfer came from.

change       what the adapter is trained on                              what it tests
mislabelled  every label replaced by a wrong one                         does the content matter? (paper)
balanced     as many rows of every class                                 class balance (paper)
imbalanced   a share `share` of the rows from the class `label`          class balance (paper)
short, long  rows from the third with the shortest, longest answers      output length
shuffled     every answer moved to another row's prompt                  control: form without content
stop_only    loss on the end of the turn alone                           control: stopping without form
retrained    nothing; `seed` is that of the training                     how far luck of training goes

The paper has no controls. `shuffled` keeps the answers' form, lengths and class shares, and cuts the
link from prompt to answer: what it gains, the source's content cannot have given.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...adapters import Name, SuiteError
from .task import Example, Task, TrainingSet

Change = Literal["mislabelled", "balanced", "imbalanced", "short", "long", "shuffled", "stop_only", "retrained"]
CONTROLS = frozenset({"shuffled", "stop_only"})
POOL = 5
"""Rows that a change may choose among, as a multiple of the source's training rows."""


class Ablation(BaseModel):
    """A source `of` a suite, altered by `change`; the adapter trained on it is called `name`.

    It is measured on the suite's source tasks, and on those named in `measured_on`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    of: Name
    change: Change
    label: str | None = None
    share: Annotated[float, Field(gt=0, lt=1)] = 0.8
    seed: int = 0
    measured_on: tuple[Name, ...] = ()

    @property
    def is_control(self) -> bool:
        """Whether the change leaves nothing of the source's content to learn."""
        return self.change in CONTROLS

    @property
    def is_unchanged(self) -> bool:
        """Whether the source is as it was, and only the training's seed is another."""
        return self.change == "retrained"

    def training_set(self, source: Task) -> TrainingSet:
        """As many rows as `source` trains on, altered.

        Raises:
            SuiteError: the source has too few rows of a class, or no classes where they are needed.
        """
        rows = _CHANGES[self.change](self, source, random.Random(self.seed))
        learn = "stop" if self.change == "stop_only" else "answer"
        return TrainingSet(self.name, tuple(rows), learn, self.seed if self.is_unchanged else None)


_Rows = Callable[[Ablation, Task, random.Random], Sequence[Example]]


def _unchanged(ablation: Ablation, source: Task, draw: random.Random) -> Sequence[Example]:
    return source.training_examples


def _mislabelled(ablation: Ablation, source: Task, draw: random.Random) -> Sequence[Example]:
    rows = source.training_examples
    targets = {label: group[0].target for label, group in _by_class(ablation, source, rows).items()}

    def wrong(row: Example) -> Example:
        label = draw.choice([other for other in sorted(targets) if other != row.answer])
        return row.model_copy(update={"answer": label, "target": targets[label]})

    return [wrong(row) for row in rows]


def _shuffled(ablation: Ablation, source: Task, draw: random.Random) -> Sequence[Example]:
    """A cyclic shift of a random order: no row keeps its own answer, every answer is kept."""
    rows = source.training_examples
    order = draw.sample(range(len(rows)), len(rows))
    giver = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [
        row.model_copy(update={"answer": rows[giver[i]].answer, "target": rows[giver[i]].target})
        for i, row in enumerate(rows)
    ]


def _balanced(ablation: Ablation, source: Task, draw: random.Random) -> Sequence[Example]:
    classes = _by_class(ablation, source, source.examples("train", POOL * source.train))
    each, rest = divmod(source.train, len(classes))
    return _draw(ablation, classes, {c: each + (i < rest) for i, c in enumerate(classes)}, draw)


def _imbalanced(ablation: Ablation, source: Task, draw: random.Random) -> Sequence[Example]:
    classes = _by_class(ablation, source, source.examples("train", POOL * source.train))
    major = ablation.label if ablation.label is not None else max(classes, key=lambda c: len(classes[c]))
    if major not in classes:
        raise SuiteError(
            f"ablation {ablation.name}: {source.name} has no rows of class {major!r}; "
            f'"label" is one of {sorted(classes)}'
        )
    minors = [c for c in classes if c != major]
    each, rest = divmod(source.train - round(ablation.share * source.train), len(minors))
    counts = {c: each + (i < rest) for i, c in enumerate(minors)}
    return _draw(ablation, classes, {major: source.train - sum(counts.values()), **counts}, draw)


def _by_length(ablation: Ablation, source: Task, draw: random.Random) -> Sequence[Example]:
    pool = source.examples("train", POOL * source.train)
    pool.sort(key=lambda e: len(e.target), reverse=ablation.change == "long")
    return draw.sample(pool[: max(source.train, len(pool) // 3)], min(source.train, len(pool)))


def _by_class(ablation: Ablation, source: Task, rows: Sequence[Example]) -> dict[str, list[Example]]:
    if not source.labels:
        raise SuiteError(
            f"ablation {ablation.name}: {ablation.change!r} needs classes, and {source.name} has "
            "no labels; choose a source with labels, or another change"
        )
    classes = defaultdict(list)
    for row in rows:
        classes[row.answer].append(row)
    return dict(sorted(classes.items()))


def _draw(
    ablation: Ablation, classes: dict[str, list[Example]], counts: dict[str, int], draw: random.Random
) -> list[Example]:
    for label, count in counts.items():
        if count > len(classes[label]):
            raise SuiteError(
                f"ablation {ablation.name}: {count} rows of class {label!r} are wanted and "
                f'{len(classes[label])} are there; set a smaller "train" for {ablation.of}'
            )
    rows = [row for label, count in counts.items() for row in draw.sample(classes[label], count)]
    draw.shuffle(rows)
    return rows


_CHANGES: dict[Change, _Rows] = {
    "mislabelled": _mislabelled,
    "balanced": _balanced,
    "imbalanced": _imbalanced,
    "short": _by_length,
    "long": _by_length,
    "shuffled": _shuffled,
    "stop_only": _unchanged,
    "retrained": _unchanged,
}
