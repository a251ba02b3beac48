"""The lenient score of short answers: whether an answer holds the right one."""

import json
from pathlib import Path

import pytest
from routing.lenient import holds_answer
from routing.plan import as_written

OPTIONS = "Which?\nOptions:\n(A) red\n(B) blue\n(C) green"


def holds(folder: Path, prompt: str, right: str, given: str, others: tuple[str, ...] = ()) -> bool:
    """Whether `given` holds the answer `right`; `others` are right in other rows of the wording."""
    (folder / "train.jsonl").write_text("".join(row(f"{prompt} {x}", x) for x in (right, *others)))
    (folder / "test.jsonl").write_text(row(prompt, right))
    data = as_written(folder, "group", {"metric": "text", "answer": "short"})
    data.write(folder / "rows", data.test)
    return bool(holds_answer(data.asked(folder / "rows", 1), [given])[0])


def row(prompt: str, target: str) -> str:
    return json.dumps({"input": prompt, "target": target, "template": "t", "row": prompt}) + "\n"


@pytest.mark.parametrize(
    ("prompt", "right", "given", "others", "wanted"),
    [
        (OPTIONS, "(A)", "(B)", (), False),
        (OPTIONS, "(A)", "(A) red", (), True),
        (OPTIONS, "(A)", "A", (), True),
        (OPTIONS, "blue", "The answer is (B).", (), True),
        ("Is it?", "No", "No, that is not so: yes would be wrong.", ("Yes",), True),
        ("Is it?", "No", "Yes, and no.", ("Yes",), False),
        ("Is it?", "No", "Nothing is known.", ("Yes",), False),
        ("Where?", "StubHub Center", "They played in the StubHub Center.", tuple("abcdefghijk"), True),
        ("Where?", "StubHub Center", "They played in the Center.", tuple("abcdefghijk"), False),
        ("Letter?", "i", "I do not know.", tuple("abcdefghjkl"), False),
    ],
)
def test_an_answer_holds_the_right_one(
    tmp_path: Path, prompt: str, right: str, given: str, others: tuple[str, ...], *, wanted: bool
) -> None:
    assert holds(tmp_path, prompt, right, given, others) is wanted


def test_graded_answers_keep_the_score_of_their_metric(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / f"{part}.jsonl").write_text(row("Sum it up.", "Rain fell."))
    assert not as_written(tmp_path, "group", {"metric": "rouge_l", "answer": "text"}).answers
