"""Signals say what a dataset is like, cost nothing the second time, and do not move with what they ignore."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traitroute.adapters import BaseModelError
from traitroute.profiling import Task, load_suite, open_base_model
from traitroute.profiling.analysis import linguistics
from traitroute.profiling.analysis.similarity import STYLE_NAMES
from traitroute.profiling.base_model import BaseModelFolder
from traitroute.profiling.forecast.loss_probe import GRADIENTS, LossProbe
from traitroute.profiling.forecast.signals import (
    NAMES,
    PairFeatures,
    SignalReader,
    Signals,
    answer_form,
    pair_features,
    signal_folder,
)
from traitroute.profiling.tasks.task import Example

torch = pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")

needs_parser = pytest.mark.skipif(
    find_spec("spacy") is None or not any(map(find_spec, linguistics.PARSERS)),
    reason="needs spaCy and an English parser",
)
LONG, SHORT = "word_problems", "sentiment3"


class Letters:
    """A sentence encoder of letter counts."""

    def encode(self, sentences: list[str], **options: Any) -> np.ndarray:
        return np.array([[s.count(c) for c in "aeiou"] for s in sentences], dtype=np.float32)


def write_llama(folder: Path) -> BaseModelFolder:
    """A random two-layer Llama that reads bytes and ends a turn with token 256."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate([*alphabet, "</s>", "<unk>"])}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>").save_pretrained(
        folder
    )
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        eos_token_id=vocabulary["</s>"],
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return open_base_model(str(folder))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFolder:
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def probe(llama: BaseModelFolder) -> LossProbe:
    return LossProbe(llama)


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return {task.name: task for task in load_suite("mini").tasks}


def reader(base: BaseModelFolder, folder: Path) -> SignalReader:
    return SignalReader(base, folder, encoder=Letters())


def read(one: SignalReader, task: Task, *, test: bool = False) -> Signals:
    rows = task.test_examples if test else task.training_examples
    return one.read(rows, labels=task.labels, metric=task.metric.name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signals")


@pytest.fixture(scope="module")
def found(llama: BaseModelFolder, folder: Path, tasks: dict[str, Task]) -> dict[str, Signals]:
    if not any(map(find_spec, linguistics.PARSERS)):
        pytest.skip("needs an English parser")
    one = reader(llama, folder)
    return {name: read(one, tasks[name]) for name in (LONG, SHORT, "entailment", "structured")}


def pairs(found: dict[str, Signals]) -> PairFeatures:
    return pair_features(found, found, np.full(len(found), 0.5))


def test_a_dataset_is_described_as_it_is(found: dict[str, Signals], tasks: dict[str, Task], probe: LossProbe) -> None:
    rows = tasks[SHORT].training_examples
    short = found[SHORT]
    np.testing.assert_array_equal(short.lengths, [len(e.target) for e in rows])
    assert short.classes is not None
    counts = [sum(e.answer == label for e in rows) for label in tasks[SHORT].labels]
    np.testing.assert_array_equal(short.classes.counts, counts)
    assert short.classes.imbalance == max(counts) / min(counts)
    assert sum(short.relations.values()) == pytest.approx(1)
    assert short.style.shape == (len(STYLE_NAMES),)
    assert short.gradient.shape == (512,)
    assert short.log_length < found[LONG].log_length
    assert found[LONG].classes is None
    assert {name: s.form for name, s in found.items()} == {
        LONG: "number",
        SHORT: "label",
        "entailment": "label",
        "structured": "json",
    }


def test_a_second_reading_comes_from_the_folder(
    found: dict[str, Signals],
    tasks: dict[str, Task],
    llama: BaseModelFolder,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(SignalReader, "_measure", refuse)
    again = read(SignalReader(llama, folder), tasks[SHORT])
    assert again.labels == found[SHORT].labels
    assert again.relations == found[SHORT].relations
    for name in ("lengths", "class_counts", "style", "meaning", "nats", "gradient"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found[SHORT], name))


@needs_parser
def test_a_reading_that_was_cut_off_is_read_again(
    tasks: dict[str, Task], llama: BaseModelFolder, tmp_path: Path
) -> None:
    first = read(reader(llama, tmp_path), tasks[SHORT])
    (arrays,) = tmp_path.glob("*.safetensors")
    arrays.write_bytes(arrays.read_bytes()[:100])
    second = read(reader(llama, tmp_path), tasks[SHORT])
    np.testing.assert_array_equal(first.gradient, second.gradient)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]


@needs_parser
def test_other_rows_are_another_reading(tasks: dict[str, Task], llama: BaseModelFolder, tmp_path: Path) -> None:
    one = reader(llama, tmp_path)
    read(one, tasks[SHORT])
    read(one, tasks[SHORT], test=True)
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_loss_is_that_of_the_model_itself(llama: BaseModelFolder, probe: LossProbe) -> None:
    example = Example(prompt="What is 2 + 2?", target="It is 4.", answer="4")
    model = transformers.AutoModelForCausalLM.from_pretrained(llama.path, dtype=torch.float32)
    prompt = probe.prompts.prompt([{"role": "user", "content": example.prompt}])
    answer = probe.prompts.candidate(example.target)
    tokens = torch.tensor([prompt + answer])
    with torch.no_grad():
        logs = model(tokens).logits[0].log_softmax(dim=-1)
    places = torch.arange(len(prompt), tokens.shape[1])
    expected = -logs[places - 1, tokens[0, places]].mean()
    # Where bfloat16 is the faster type, it has about three digits.
    np.testing.assert_allclose(probe.read([example]).nats, [float(expected)], rtol=0.02)


def test_long_examples_are_cut_and_an_empty_answer_can_be_read(probe: LossProbe) -> None:
    rows = [Example(prompt="a" * 5000, target="b" * 5000, answer="b"), Example(prompt="a", target="", answer="")]
    reading = probe.read(rows)
    assert np.isfinite(reading.nats).all()
    assert np.linalg.norm(reading.gradient) > 0


def test_gradients_point_alike_for_alike_data(probe: LossProbe, tasks: dict[str, Task]) -> None:
    def half(name: str, start: int) -> np.ndarray:
        rows = tasks[name].training_examples[start : start + GRADIENTS]
        vector = probe.read(rows).gradient
        return vector / np.linalg.norm(vector)

    own, other = (half(SHORT, 0) @ half(name, GRADIENTS) for name in (SHORT, LONG))
    assert own > 0.5 > 0.3 > other


def test_gradients_follow_the_seed_alone(llama: BaseModelFolder, tasks: dict[str, Task]) -> None:
    rows = tasks[SHORT].training_examples[:2]
    torch.manual_seed(7)
    a, b, c = (LossProbe(llama, seed=seed).read(rows).gradient for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


def test_the_random_state_of_others_is_left_alone(llama: BaseModelFolder, tasks: dict[str, Task]) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    LossProbe(llama).read(tasks[SHORT].training_examples[:1])
    assert torch.rand(1) == expected


def test_a_model_without_the_wanted_modules_is_refused(tmp_path: Path) -> None:
    write_llama(tmp_path)
    config = transformers.GPTNeoXConfig(
        vocab_size=258, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48
    )
    transformers.GPTNeoXForCausalLM(config).save_pretrained(tmp_path)
    rows = [Example(prompt="a", target="b", answer="b")]
    with pytest.raises(BaseModelError, match="has no modules named q_proj or v_proj"):
        LossProbe(open_base_model(str(tmp_path))).read(rows)


def test_pairs_of_a_dataset_with_itself_are_as_near_as_can_be(found: dict[str, Signals]) -> None:
    features = pairs(found)
    for i in range(len(found)):
        own = dict(zip(NAMES, features.values[i, i], strict=True))
        assert own["length distance"] == own["length difference"] == own["syntax distance"] == 0
        assert own["same answer form"] == 1
        assert own["gradient cosine"] == pytest.approx(1)
        assert own["style cosine"] == pytest.approx(1)
        assert own["label overlap"] == (1 if list(found.values())[i].labels else 0)


def test_pairs_tell_which_side_is_longer_and_what_labels_they_share(found: dict[str, Signals]) -> None:
    features = pairs(found)
    place = features.sources.index

    def value(name: str, source: str, target: str) -> float:
        return features.part([name])[place(source), place(target), 0]

    difference = found[LONG].log_length - found[SHORT].log_length
    assert value("length difference", LONG, SHORT) == pytest.approx(difference)
    assert value("length difference", SHORT, LONG) == pytest.approx(-difference)
    # neutral, of positive, negative, neutral, contradiction and entailment
    assert value("label overlap", SHORT, "entailment") == pytest.approx(1 / 5)
    assert value("same answer form", SHORT, "entailment") == 1
    assert value("source log perplexity", LONG, SHORT) == found[LONG].nats_per_token


def test_a_pair_does_not_depend_on_other_sources(found: dict[str, Signals]) -> None:
    whole = pairs(found)
    alone = pair_features({SHORT: found[SHORT]}, found, np.full(len(found), 0.5))
    np.testing.assert_array_equal(whole.rows([SHORT]).values, alone.values)


def test_numbers_are_known_by_the_answers() -> None:
    def rows(*answers: str) -> list[Example]:
        return [Example(prompt="", target=a, answer=a) for a in answers]

    assert answer_form(rows("1", "-2.5"), (), "exact") == "number"
    assert answer_form(rows("1", "two"), (), "exact") == "text"
    assert answer_form(rows("1", "2"), ("1", "2"), "label") == "label"


def test_signals_lie_beside_the_registry() -> None:
    assert signal_folder(Path("runs/small.db")) == Path("runs/small.signals")
