"""The Arrow baseline, over random adapters of a tiny random Llama in float32, so that equality can be asked for."""

import json
from pathlib import Path
from typing import Any

import pytest
import routing_arrow as arrow
from traitroute.adapters import InputError, WeightStore
from traitroute.profiling import BaseModelFolder, Task, open_base_model
from traitroute.profiling.training import adapter_record
from traitroute.serving.engines import EngineRequest, TransformersEngine

torch = pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'traitroute[profile]'")
peft = pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")

PROMPTS = [
    "w5",
    "w5 w6",
    "w9 w8 w7 w6 w5 w4",
    "w11 w12 w13 w11 w12 w13 w14 w15 w16 w17",
    "w5 w6 w7",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> BaseModelFolder:
    folder = tiny.save(tmp_path_factory.mktemp("base"))
    return open_base_model(str(folder))


@pytest.fixture(scope="module")
def folders(base: BaseModelFolder, tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> list[Path]:
    """Four random adapters, as outcomes.py leaves trained ones."""
    runs = tmp_path_factory.mktemp("work") / "runs"
    saved = []
    for seed, name in enumerate("abcd"):
        saved.append(tiny.save_adapter(base.path, runs / name, seed=seed))
        (saved[-1] / "training.json").write_text(json.dumps({"key": name}))
    return saved


def numbers(text: str) -> list[int]:
    return [int(word[1:]) for word in text.split()]


def some_task(folder: Path) -> Task:
    rows = [{"input": p, "target": "w5"} for p in PROMPTS]
    (folder / "words").mkdir()
    (folder / "words" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return Task.model_validate({"name": "words", "rows": {"folder": str(folder)}, "max_tokens": 4})


def test_answers_equal_plain_generation_of_each_prompt(base: BaseModelFolder, folders: list[Path], tiny: Any) -> None:
    routed = arrow.ArrowModel(base, folders, precision="float32")
    answers = routed.answer([numbers(p) for p in PROMPTS], 12)
    assert [numbers(a) for a in answers] == [tiny.plain_answer(routed.model, numbers(p), 12) for p in PROMPTS]
    with routed.model.disable_adapter():
        assert routed.answer([numbers(p) for p in PROMPTS], 12) != answers


def test_one_adapter_alone_answers_as_our_engine_does_with_it(
    base: BaseModelFolder, folders: list[Path], tmp_path: Path
) -> None:
    alone = arrow.ArrowModel(base, folders[:1], precision="float32")
    store = WeightStore(tmp_path)
    adapter = adapter_record("a", "a", base, store.add(folders[0]))
    requests = [EngineRequest(({"role": "user", "content": p},), adapter, 12) for p in PROMPTS]
    results = TransformersEngine(base.path, store, precision="float32").run(requests)
    assert alone.answer([numbers(p) for p in PROMPTS], 12) == [r.text for r in results]


def test_a_cell_is_measured_again_only_over_other_adapters(
    base: BaseModelFolder, folders: list[Path], tmp_path: Path
) -> None:
    task = some_task(tmp_path)
    file = arrow.cell_file(tmp_path, "words")
    arrow.measure(arrow.ArrowModel(base, folders[:2], precision="float32"), task, 3, file)
    three = arrow.ArrowModel(base, folders[:3], precision="float32")
    assert arrow.measure(three, task, 3, file).adapters == ("a", "b", "c")
    assert arrow.read_arrow(tmp_path, ["words", "unmeasured"])["words"].shape == (3, 2)
    three.model = None
    assert arrow.measure(three, task, 3, file).adapters == ("a", "b", "c")


def test_cells_over_different_adapters_are_not_read_together(tmp_path: Path) -> None:
    right = torch.ones(2, dtype=torch.bool).numpy()
    for task, adapters in (("one", ("a",)), ("two", ("a", "b"))):
        arrow.ArrowCell("key", adapters, right, right).save(arrow.cell_file(tmp_path, task))
    assert arrow.read_arrow(tmp_path, ["one"])["one"].all()
    with pytest.raises(InputError, match="different adapters"):
        arrow.read_arrow(tmp_path, ["one", "two"])


def test_only_adapters_whose_training_is_complete_are_routed_to(folders: list[Path], tmp_path: Path) -> None:
    work = folders[0].parents[1]
    assert arrow.trained_folders(work, ["b", "later", "a"]) == [folders[1], folders[0]]
    with pytest.raises(InputError, match=r"no trained adapter in .*runs"):
        arrow.trained_folders(tmp_path, ["a"])
