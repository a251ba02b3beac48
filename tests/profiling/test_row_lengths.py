"""Rows that there is no room for: counted, told, and refused where they are many; what is counted is what TRL does."""

import json
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import BaseModelError, InputError, WeightStore
from traitroute.profiling.base_model import BaseModelFolder, open_base_model
from traitroute.profiling.matrix.measure import request_for
from traitroute.profiling.row_lengths import check_training, fit_rows, fit_tests
from traitroute.profiling.tasks.suite import Suite, Training
from traitroute.profiling.tasks.task import Example, Task, TrainingSet
from traitroute.profiling.training import train_adapter
from traitroute.serving.engines import TransformersEngine

torch = pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
pytest.importorskip("transformers")

CHAT = "{% for m in messages %}w3 {{ m.content }} w2 {% endfor %}{% if add_generation_prompt %}w3{% endif %}"
SETTINGS = Training(rank=2, alpha=4, batch_size=4, max_length=32)


@pytest.fixture(scope="module")
def base(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> BaseModelFolder:
    """A two-layer Llama of 128 positions that reads a token a word."""
    folder = tiny.save(tmp_path_factory.mktemp("base"))
    file = folder / "tokenizer_config.json"
    more = {"chat_template": CHAT, "eos_token": "w2", "pad_token": "w0"}
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    return open_base_model(str(folder))


def words(n: int) -> str:
    return " ".join(["w9"] * n)


def rows(*sizes: tuple[int, int], learn: Any = "answer") -> TrainingSet:
    """Training rows of so many words asked and answered; each takes four tokens more."""
    examples = [Example(prompt=words(p), target=words(t), answer=words(t)) for p, t in sizes]
    return TrainingSet("words", tuple(examples), learn=learn)


def write_task(folder: Path, *, test: list[int], train: list[int], **settings: Any) -> Task:
    """A task whose rows have so many words in the prompt, and one to answer."""
    (folder / "words").mkdir(exist_ok=True)
    for split, sizes in (("train", train), ("test", test)):
        made = [{"input": words(n), "target": f"w{10 + i}"} for i, n in enumerate(sizes)]
        (folder / "words" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, made)))
    given = {"name": "words", "rows": {"folder": str(folder)}, "max_tokens": 8, **settings}
    return Task.model_validate(given)


def test_rows_that_fit_are_no_matter(base: BaseModelFolder) -> None:
    assert check_training([rows(*[(8, 20)] * 8)], base, SETTINGS) == []


def test_rows_that_vanish_or_lose_their_end_are_counted(base: BaseModelFolder) -> None:
    told = check_training([rows(*[(8, 8)] * 6, (20, 30), (29, 1), (40, 2))], base, SETTINGS)
    assert told == [
        "words: 3 of 9 training rows (33%) are longer than 32 tokens, up to 54: 2 are left out, since nothing of "
        "their answer is within, and 1 are cut short; set training.max_length to 54 to keep them"
    ]
    wide = SETTINGS.model_copy(update={"max_length": 54})
    assert check_training([rows((8, 8), (20, 30), (29, 1), (40, 2))], base, wide) == []


@pytest.mark.parametrize("sizes", [[(8, 8)] * 4 + [(60, 2)] * 12, [(60, 2)] * 16, [(8, 8)] * 3 + [(60, 2)]])
def test_too_few_rows_are_refused(base: BaseModelFolder, sizes: list[tuple[int, int]]) -> None:
    with pytest.raises(InputError, match=r"set training\.max_length to 66.*no adapter is trained"):
        check_training([rows(*sizes)], base, SETTINGS)


def test_rows_beyond_the_models_context_are_told_whatever_max_length_says(
    base: BaseModelFolder,
) -> None:
    wide = SETTINGS.model_copy(update={"max_length": 4096})
    told = check_training([rows(*[(8, 8)] * 8, (100, 60))], base, wide)
    assert "longer than 128 tokens, up to 164" in told[0]
    assert "the base model's context is 128: give shorter rows" in told[0]


def test_a_base_model_without_a_chat_template_is_refused(tiny: Any, tmp_path: Path) -> None:
    plain = open_base_model(str(tiny.save(tmp_path)))
    with pytest.raises(BaseModelError, match="has no chat template"):
        check_training([rows((8, 8))], plain, SETTINGS)


@pytest.mark.parametrize(("learn", "kept"), [("answer", 7), ("stop", 6)])
def test_what_is_counted_is_what_training_reads(base: BaseModelFolder, tmp_path: Path, learn: str, kept: int) -> None:
    pytest.importorskip("trl")
    data = rows(*[(8, 8)] * 6, (20, 30), (29, 1), (40, 2), learn=learn)
    [told] = check_training([data], base, SETTINGS)
    assert f"{9 - kept} are left out" in told
    trained = train_adapter(data, base, SETTINGS, tmp_path / "words")
    assert trained.tokens == 6 * 20 + (kept - 6) * 32


def test_test_rows_beyond_the_context_are_left_out_and_told(base: BaseModelFolder, tmp_path: Path) -> None:
    task = write_task(tmp_path, test=[5, 118, 200, 6, 117], train=[5] * 4)
    [fitted], told = fit_tests([task], base)
    assert told == [
        "words: 2 of 5 test rows (40%) take up to 211 tokens with their answers, more than the base model's context "
        "of 128: they are left out"
    ]
    assert [len(e.prompt.split()) for e in fitted.test_examples] == [5, 6, 117]
    again = Task.model_validate(json.loads(json.dumps(fitted.model_dump(mode="json"))))
    assert again.digest == fitted.digest != task.digest
    assert fit_tests([fitted], base) == ((fitted,), [])


def test_too_few_test_rows_are_refused(base: BaseModelFolder, tmp_path: Path) -> None:
    task = write_task(tmp_path, test=[5, 200, 200], train=[5] * 4)
    with pytest.raises(InputError, match=r"2 of 3 test rows .* too few .*max_tokens \(now 8\)"):
        fit_tests([task], base)


def test_a_suite_is_fitted_as_a_whole(base: BaseModelFolder, tmp_path: Path) -> None:
    first = write_task(tmp_path, test=[5, 6, 200], train=[5] * 8 + [40], source=True)
    others = [
        first.model_copy(update={"name": n, "rows": first.rows.model_copy(update={"dataset": "words"})})
        for n in ("b", "c")
    ]
    suite = Suite(name="s", tasks=(first, *others), training=SETTINGS)
    fitted, told = fit_rows(suite, base)
    assert [len(t.test_examples) for t in fitted.tasks] == [2, 2, 2]
    assert sum("training rows" in said for said in told) == 3
    assert sum("test rows" in said for said in told) == 3


def test_an_engine_refuses_what_it_has_no_room_for(base: BaseModelFolder, tmp_path: Path) -> None:
    task = write_task(tmp_path, test=[5, 200], train=[5] * 4)
    engine = TransformersEngine(base.path, WeightStore(tmp_path / "w"), precision="float32")
    with pytest.raises(InputError, match=r"1 of 2 prompts take up to 211 tokens .* the 128 that"):
        engine.run([request_for(task, e, None) for e in task.test_examples])
