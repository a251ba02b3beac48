"""The built-in suite's rows, and the generators that make them."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
mini_suite, make_mini_suite = import_module("mini_suite"), import_module("make_mini_suite")
GENERATORS, Generator = mini_suite.GENERATORS, mini_suite.Generator
generate, near_duplicates = mini_suite.generate, mini_suite.near_duplicates
Row = dict[str, str]

SEEDS = (0, 1, 2)
NUMBER = re.compile(r"\d+")
STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)\b.*")
LABELS = {
    "sentiment2": {"positive", "negative"},
    "sentiment3": {"positive", "neutral", "negative"},
    "entailment": {"entailment", "neutral", "contradiction"},
    "paraphrase": {"yes", "no"},
    "toxicity": {"toxic", "not toxic"},
}
each_generator = pytest.mark.parametrize("name", GENERATORS)
each_seed = pytest.mark.parametrize("seed", SEEDS)


def rows(name: str, seed: int) -> list[Row]:
    return [row for split in generate(name, train=200, test=60, seed=seed).values() for row in split]


def evaluate(left: str, sign: str, right: str) -> float:
    x, y = int(left), int(right)
    return {"+": x + y, "-": x - y, "*": x * y, "/": x / y}[sign]


def test_the_script_makes_the_rows_that_ship(tmp_path: Path):
    make_mini_suite.write_rows(tmp_path)
    made, shipped = (
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.jsonl")}
        for folder in (tmp_path, ROOT / "suites" / "mini")
    )
    assert len(made) == 16
    assert made == shipped


@each_generator
@each_seed
def test_split_has_the_rows_asked_for_and_no_near_duplicate(name: str, seed: int):
    made = generate(name, train=200, test=60, seed=seed)
    train, test = ([row["input"] for row in made[split]] for split in ("train", "test"))
    assert (len(set(train)), len(set(test))) == (200, 60)
    assert near_duplicates(train, test) == []


@each_generator
def test_no_test_frame_is_a_train_frame_with_other_numbers(name: str):
    made = generate(name, train=200, test=60, seed=0)
    train, test = ([NUMBER.sub("0", row["input"]) for row in made[split]] for split in ("train", "test"))
    assert near_duplicates(train, test) == []


@each_generator
def test_rows_depend_on_the_seed_and_on_nothing_else(name: str):
    assert rows(name, 0) == rows(name, 0)
    assert rows(name, 0) != rows(name, 1)


@pytest.mark.slow
def test_another_process_with_another_hash_seed_makes_the_same_rows():
    code = (
        "from mini_suite import GENERATORS, generate\n"
        "print([generate(name, train=9, test=9, seed=5) for name in GENERATORS])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([generate(name, train=9, test=9, seed=5) for name in GENERATORS])


@pytest.mark.parametrize("name", LABELS)
@each_seed
def test_every_label_occurs_in_both_splits_and_is_the_target(name: str, seed: int):
    for split in generate(name, train=200, test=60, seed=seed).values():
        assert {row.get("label") for row in split} == LABELS[name]
        assert all(row["target"] == row.get("label") for row in split)


def test_sentiment3_is_imbalanced_in_train_and_balanced_in_test():
    made = generate("sentiment3", train=200, test=60, seed=0)
    assert Counter(row["target"] for row in made["train"]) == {
        "positive": 120,
        "neutral": 50,
        "negative": 30,
    }
    assert Counter(row["target"] for row in made["test"]) == {
        "positive": 20,
        "neutral": 20,
        "negative": 20,
    }


@each_seed
def test_word_problems_are_short_and_their_steps_hold(seed: int):
    for row in rows("word_problems", seed):
        *steps, last = row["target"].splitlines()
        parsed = [match.groups() for line in steps if (match := STEP.fullmatch(line))]
        assert 1 <= len(parsed) == len(steps) <= 3
        assert all(evaluate(x, sign, y) == int(result) for x, sign, y, result in parsed)
        assert last == f"#### {row.get('answer')}" == f"#### {parsed[-1][-1]}"
        assert len(row["input"].split()) <= 45
        assert "{" not in row["input"] + row["target"]


@each_seed
def test_every_number_of_a_word_problem_is_used_in_its_steps(seed: int):
    for row in rows("word_problems", seed):
        assert set(NUMBER.findall(row["input"])) <= set(NUMBER.findall(row["target"]))


def asked(question: str) -> int:
    """The true answer, worked out from the words of the question."""
    first, second = (int(number) for number in NUMBER.findall(question))
    if re.search(r"\+|plus|\badd\b|sum|total|together", question, re.IGNORECASE):
        return first + second
    if re.search(r" - |minus|subtract|difference|left|exceed|away|invalid", question, re.IGNORECASE):
        return abs(first - second)
    assert re.search(r"\*|times|multiply|product|shift|groups|carries", question, re.IGNORECASE), question
    return first * second


@each_seed
def test_long_arithmetic_answers_what_was_asked(seed: int):
    for row in rows("long_arithmetic", seed):
        *steps, last = row["target"].splitlines()
        assert last == f"#### {asked(row['input'])}" == f"#### {row.get('answer')}"
        assert steps[-1].endswith(f" = {row.get('answer')}")


@each_seed
def test_long_arithmetic_steps_hold_where_a_sign_goes_on_from_the_line_above(seed: int):
    for row in rows("long_arithmetic", seed):
        lines = row["target"].splitlines()[:-1]
        whole = [above.split()[-1] + " " + line if line[0] in "+-" else line for above, line in pairwise(["", *lines])]
        parsed = [match.groups() for line in whole if (match := STEP.fullmatch(line))]
        assert 1 <= len(parsed) == len(lines) <= 3
        assert all(evaluate(x, sign, y) == int(result) for x, sign, y, result in parsed)


@each_seed
def test_structured_targets_are_compact_json_with_slots_from_the_request(seed: int):
    orders: dict[str, list[str]] = {}
    for row in rows("structured", seed):
        parsed = json.loads(row["target"])
        assert list(parsed) == ["intent", "slots"] and parsed["slots"]
        assert all(value in row["input"] for value in parsed["slots"].values())
        assert row["target"] == json.dumps(parsed, separators=(",", ":"), ensure_ascii=False)
        order = orders.setdefault(parsed["intent"], [])
        order += [slot for slot in parsed["slots"] if slot not in order]
    assert len(orders) == 8


def test_structured_slots_come_in_one_order_for_an_intent():
    before: set[tuple[str, str, str]] = set()
    for row in rows("structured", 0):
        parsed = json.loads(row["target"])
        before |= {(parsed["intent"], *pair) for pair in pairwise(parsed["slots"])}
    assert not [pair for pair in before if (pair[0], pair[2], pair[1]) in before]


def test_most_pairs_that_are_no_paraphrase_share_every_word():
    unlike = [row["input"].casefold() for row in rows("paraphrase", 0) if row["target"] == "no"]
    halves = [re.sub(r"sentence [12]: |[.,]", "", text).split("\n") for text in unlike]
    same = [sorted(first.split()) == sorted(second.split()) for first, second in halves]
    assert sum(same) > len(same) / 2


def test_no_pair_repeats_one_sentence():
    for row in rows("paraphrase", 0):
        first, second = (line.split(": ", 1)[1] for line in row["input"].split("\n"))
        assert first != second


def test_near_duplicates_finds_equal_and_exchanged_words_and_nothing_else():
    train = ["The red kettle leaks.", "A long day, well spent!"]
    test = [
        "the BLUE kettle leaks",
        "a long day well spent",
        "the kettle leaks",
        "the blue kettle sings",
    ]
    assert near_duplicates(train, test) == [(test[0], train[0]), (test[1], train[1])]


def test_test_rows_that_repeat_train_rows_are_drawn_again():
    def tell(rng: Random, kind: str, split: str) -> Row:
        return {"input": f"{int(rng.random() * 30)} same {int(rng.random() * 30)}", "target": kind}

    made = Generator("numbers", tell, {"any": 1}).splits(train=8, test=8, seed=0)
    assert near_duplicates([row["input"] for row in made["train"]], [row["input"] for row in made["test"]]) == []


def test_an_exhausted_generator_says_how_far_it_came():
    def tell(rng: Random, kind: str, split: str) -> Row:
        return {"input": f"coin {int(rng.random() * 2)}", "target": kind}

    with pytest.raises(ValueError, match=r"coins made 2 distinct train rows .* 3 were asked for"):
        Generator("coins", tell, {"any": 1}).splits(train=3, test=0, seed=0)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'poetry'.*word_problems.*toxicity"):
        generate("poetry", train=1, test=1, seed=0)
