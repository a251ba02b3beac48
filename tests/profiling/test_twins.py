"""Two bases: agreement is found where it was planted, not where there is none, and two real models line up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from traitroute.adapters import InputError, Registry
from traitroute.profiling import Suite, profile
from traitroute.profiling.study import Study
from traitroute.profiling.twins import Twins, compare_routing, rank_pairs

Scores = np.ndarray
WORDS = ("recipe", "compiler", "novel", "invoice", "planet", "violin", "harbour", "vaccine", "tournament")
ADAPTERS, TASKS, ROWS = 6, len(WORDS), 24


def skills(seed: int) -> Scores:
    """How likely each adapter is right on each task, (adapters, tasks): on most as base, on some much better."""
    random = np.random.default_rng(seed)
    return np.where(random.random((ADAPTERS, TASKS)) < 0.3, 0.85, 0.2)


def answered(skill: Scores, seed: int) -> Scores:
    """Right or wrong answers of base, at one in five, and of adapters with such skills, (n, 1 + adapters)."""
    chance = np.vstack([np.full(TASKS, 0.2), skill]).T.repeat(ROWS, axis=0)
    return (np.random.default_rng(seed).random(chance.shape) < chance).astype(float)


def twins(small: Scores, large: Scores) -> Twins:
    task = np.repeat(np.arange(TASKS), ROWS)
    return Twins(
        adapters=tuple(f"a{i}" for i in range(ADAPTERS)),
        tasks=WORDS,
        texts=[f"Tell me about the {WORDS[t]}: what is {WORDS[t]} number {i}?" for i, t in enumerate(task)],
        task=task,
        group=task,
        small=small,
        large=large,
        sources=[None] * ADAPTERS,
    )


@pytest.fixture(scope="module")
def agreeing() -> Twins:
    return twins(answered(skills(0), 1), answered(skills(0), 2))


@pytest.fixture(scope="module")
def unrelated() -> Twins:
    return twins(answered(skills(3), 1), answered(skills(0), 2))


def test_planted_rankings_are_found_again(agreeing: Twins) -> None:
    found = rank_pairs(agreeing, n_permutations=499)
    assert found.pairs == 15 * TASKS
    assert found.shown > 20
    assert found.alike is not None
    assert found.alike.value > 0.95
    assert found.alike.p <= 0.01
    assert found.low > 0.9
    assert found.alike.null_median == pytest.approx(0.5, abs=0.1)
    assert found.all_alike < found.alike.value
    assert sum(count for _, count in found.by_task.values()) == found.shown


@pytest.mark.slow
def test_unrelated_bases_rank_no_better_than_chance() -> None:
    p_values, covered = [], 0
    for seed in range(40):
        small, large = answered(skills(1000 + seed), 2 * seed + 1), answered(skills(seed), 2 * seed)
        found = rank_pairs(twins(small, large), n_permutations=199)
        assert found.alike is not None
        p_values.append(found.alike.p)
        covered += found.low <= 0.5 <= found.high
    assert np.sum(np.array(p_values) <= 0.05) <= 5  # a twentieth expected
    assert covered >= 36


def test_what_the_small_base_cannot_tell_apart_counts_half(agreeing: Twins) -> None:
    dull = replace(agreeing, small=np.zeros_like(agreeing.small))
    found = rank_pairs(dull, n_permutations=99)
    assert found.alike is not None
    assert (found.alike.value, found.ties, found.alike.p) == (0.5, 1.0, 1.0)


def test_where_the_larger_base_shows_no_difference_there_is_no_ranking(agreeing: Twins) -> None:
    found = rank_pairs(replace(agreeing, large=np.zeros_like(agreeing.large)))
    assert (found.shown, found.alike) == (0, None)


@pytest.mark.slow
def test_the_router_of_a_base_that_agrees_is_as_good_on_the_other(agreeing: Twins) -> None:
    found = compare_routing(agreeing, "known")
    assert found.kappa > 0.6
    assert found.low <= found.kappa <= found.high
    assert found.equal > found.by_chance + 0.3
    on_b = found.worth["B"]
    assert on_b["router of A"].score > on_b["best single adapter of B"].score + 0.15
    assert on_b["router of A"].low <= 0 <= on_b["router of A"].high
    assert on_b["router of B"].less == 0
    assert on_b["base"].score == pytest.approx(agreeing.large[:, 0].mean())
    assert on_b["best of each task, in hindsight"].score > on_b["router of B"].score - 0.05


@pytest.mark.slow
def test_the_router_of_a_base_that_does_not_agree_loses(unrelated: Twins) -> None:
    found = compare_routing(unrelated, "known")
    assert found.kappa < 0.3
    for side, other in (("A", "B"), ("B", "A")):
        lost = found.worth[side][f"router of {other}"]
        assert lost.high < 0
        assert lost.less < -0.2


@pytest.mark.slow
def test_tasks_that_are_held_out_are_routed_by_both(agreeing: Twins) -> None:
    found = compare_routing(agreeing, "new")
    assert set(found.worth) == {"A", "B"}
    # Nothing is known of a task without any word in common, so neither surely gains there.
    assert found.worth["B"]["router of B"].score < found.worth["B"]["best of each task, in hindsight"].score
    few = replace(agreeing, group=np.zeros(TASKS * ROWS, dtype=int))
    with pytest.raises(InputError, match="1 groups of tasks are common"):
        compare_routing(few, "new")


def suite(base: Path, *, sources: Sequence[str] = ("sentiment2", "paraphrase"), test: int = 10) -> Suite:
    labels: Mapping[str, Sequence[str]] = {"sentiment2": ("negative", "positive"), "paraphrase": ("no", "yes")}
    labels = labels | {"toxicity": ("not toxic", "toxic")}
    tasks = [
        {"name": name, "rows": {"built_in": "mini"}, "labels": of, "metric": "label", "source": name in sources}
        | {"train": 12, "test": test, "max_tokens": 3}
        for name, of in labels.items()
    ]
    training = {"rank": 2, "learning_rate": 1e-2}
    return Suite.model_validate(
        {"name": "twins", "base_model": str(base), "engine": "transformers", "training": training, "tasks": tasks}
    )


@pytest.fixture(scope="module")
def wider_chat(tmp_path_factory: pytest.TempPathFactory, tiny_chat: Path) -> Path:
    """A random model like `tiny_chat`, of twice its width."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(tiny_chat)
    config.hidden_size, config.intermediate_size = 2 * config.hidden_size, 2 * config.intermediate_size
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("wider")
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_chat).save_pretrained(folder)
    return folder


Studied = Callable[[str], Study]


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory, tiny_chat: Path, wider_chat: Path) -> Studied:
    """Open the study of a small, a wide, or another real model that was trained and measured."""
    folder = tmp_path_factory.mktemp("studied")
    suites = {"small": suite(tiny_chat), "wide": suite(wider_chat, test=8)}
    for name, each in suites.items():
        with Registry.create(folder / f"{name}.db") as registry:
            profile(each, registry, folder / name)

    def opened(name: str) -> Study:
        with Registry.open(folder / f"{name}.db", read_only=True) as registry:
            return Study.open(registry)

    return opened


@pytest.mark.slow
def test_two_real_models_are_lined_up_on_the_rows_that_both_measured(studied: Studied) -> None:
    small, wide = studied("small"), studied("wide")
    found = Twins.of(small, wide)
    assert (found.adapters, found.tasks) == (("sentiment2", "paraphrase"), ("sentiment2", "paraphrase", "toxicity"))
    assert found.small.shape == found.large.shape == (24, 3)
    rows = [e.routed for e in wide.tasks["toxicity"].test_examples]
    assert list(found.texts[16:]) == rows
    place = [e.routed for e in small.tasks["toxicity"].test_examples].index(rows[0])
    assert found.small[16, 1] == small.outcomes["sentiment2", "toxicity"].score[place]
    assert (found.other_rules, found.other_training) == ((), ())
    assert all(source is not None for source in found.sources)
    assert compare_routing(found, "new").way == "new"


@pytest.mark.slow
def test_what_two_profiles_lack_is_said(studied: Studied) -> None:
    small, wide = studied("small"), studied("wide")
    with pytest.raises(InputError, match=r"share sentiment2 of their adapters.*A has sentiment2, paraphrase"):
        Twins.of(small, replace(wide, adapters=("sentiment2", "new")))
    with pytest.raises(InputError, match=r"share no task by name.*B has other"):
        Twins.of(small, replace(wide, tasks={"other": wide.tasks["toxicity"]}))
    shorter = {name: task.model_copy(update={"max_tokens": 2}) for name, task in wide.tasks.items()}
    with pytest.raises(InputError, match="have other metrics, labels or token limits"):
        Twins.of(small, replace(wide, tasks=shorter))
    mixed = Twins.of(small, replace(wide, tasks={**wide.tasks, "toxicity": shorter["toxicity"]}))
    assert mixed.other_rules == ("toxicity",)
