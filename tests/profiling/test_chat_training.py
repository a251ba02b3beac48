"""Adapters learn from a conversation its last answer alone, and engines are sent what was learned from."""

import json
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import InputError
from traitroute.profiling.base_model import BaseModelFolder, open_base_model
from traitroute.profiling.matrix.measure import request_for
from traitroute.profiling.row_lengths import check_training, fit_tests
from traitroute.profiling.tasks.suite import Training
from traitroute.profiling.tasks.task import Example, Task, TrainingSet
from traitroute.profiling.training import train_adapter, training_row, training_tokens
from traitroute.serving.engines.engine import PromptTokenizer

pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
pytest.importorskip("transformers")

CHAT = (
    "{% for t in tools or [] %}w18 {{ t.function.name }} {% endfor %}"
    "{% for m in messages %}{% if m.role == 'system' and loop.index > 1 %}{{ raise_exception('system is first') }}"
    "{% endif %}w3 {{ m.content }} w2 {% endfor %}{% if add_generation_prompt %}w3{% endif %}"
)
SETTINGS = Training(rank=2, alpha=4, batch_size=2, max_length=64)
TALK = (
    {"role": "system", "content": "w10"},
    {"role": "user", "content": "w11 w12"},
    {"role": "assistant", "content": "w13"},
    {"role": "user", "content": "w14"},
)
TOOLS = ({"type": "function", "function": {"name": "w17"}},)


@pytest.fixture(scope="module")
def base(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> BaseModelFolder:
    folder = tiny.save(tmp_path_factory.mktemp("base"))
    file = folder / "tokenizer_config.json"
    more = {"chat_template": CHAT, "eos_token": "w2", "pad_token": "w0"}
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    return open_base_model(str(folder))


def example(**more: Any) -> Example:
    return Example(prompt="w14", target="w15 w16", answer="w15 w16", chat=TALK, **more)


@pytest.mark.parametrize("tools", [(), TOOLS])
def test_loss_is_on_the_last_answer_alone(base: BaseModelFolder, tools: Any) -> None:
    prompts = PromptTokenizer(base.path)
    row = training_row(example(tools=tools), prompts.tokenizer, "answer")
    learned = [i for i, learns in zip(row["input_ids"], row["completion_mask"], strict=True) if learns]
    assert prompts.tokenizer.convert_ids_to_tokens(learned) == ["w15", "w16", "w2"]
    sent = prompts.tokenize(request_for(Task(name="t", rows={"folder": "."}), example(tools=tools), None)).prompt  # pyright: ignore[reportArgumentType]
    assert row["input_ids"][: len(sent)] == sent
    assert ("w17" in prompts.tokenizer.convert_ids_to_tokens(sent)) is bool(tools)
    assert training_tokens(example(tools=tools), prompts.tokenizer, "answer").first == len(sent)


def test_an_adapter_is_trained_on_conversations_and_their_tools(base: BaseModelFolder, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    called = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "w17", "arguments": {"a": 1}}}]}
    chats = [example(), example(tools=TOOLS), example().model_copy(update={"chat": (*TALK, called, TALK[-1])})] * 2
    trained = train_adapter(TrainingSet("talk", tuple(chats)), base, SETTINGS, tmp_path / "talk")
    lengths = [training_tokens(chat, PromptTokenizer(base.path).tokenizer, "answer").length for chat in chats]
    assert trained.tokens == sum(lengths)


def test_a_template_that_refuses_a_conversation_is_told_before_anything_is_trained(base: BaseModelFolder) -> None:
    odd = example().model_copy(update={"chat": TALK[::-1]})
    with pytest.raises(InputError, match="chat template refuses messages of the roles user, assistant, user, system"):
        check_training([TrainingSet("odd", (odd,))], base, SETTINGS)


def test_tools_that_the_template_does_not_show_are_told(base: BaseModelFolder, tmp_path: Path) -> None:
    (tmp_path / "talk").mkdir()
    row = {"messages": TALK, "tools": TOOLS, "target": "w15"}
    (tmp_path / "talk" / "test.jsonl").write_text(json.dumps(row))
    given = {"name": "talk", "rows": {"folder": str(tmp_path)}, "max_tokens": 4}
    assert fit_tests([Task.model_validate(given)], base)[1] == []
    (base.path / "blind").mkdir()
    for file in base.path.glob("*.*"):
        (base.path / "blind" / file.name).write_bytes(file.read_bytes())
    settings = base.path / "blind" / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("tools or []", "[]"))
    _, (told,) = fit_tests([Task.model_validate(given)], open_base_model(str(base.path / "blind")))
    assert "its rows have tools, and the chat template of" in told
