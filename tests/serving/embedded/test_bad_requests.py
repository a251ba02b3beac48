"""What the embedded server says to requests that it cannot take: what was given, what was wanted, and where."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitroute.serving.embedded.requests import Context
from traitroute.serving.engines.engine import PromptTokenizer

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TOKENS = 128
"""The context of the server."""
HALF = "\ud83d"


def chat(*messages: Any, **more: Any) -> dict[str, Any]:
    spoken = list(messages) or [{"role": "user", "content": "w7 w57"}]
    return {"model": "red", "messages": spoken, "temperature": 0, "max_tokens": 4, **more}


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def error(client: httpx.Client, path: str, body: Any, status: int = 400) -> tuple[str, str]:
    # Python's own JSON writes halves of surrogate pairs; httpx does not.
    response = client.post(path, content=json.dumps(body))
    assert response.status_code == status, response.text
    found = response.json()["error"]
    return found["param"], found["message"]


TEXT = {"type": "text", "text": "w5"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}


@pytest.mark.parametrize(
    ("message", "param", "said"),
    [
        (5, "messages.0", "wanted an object with role and content, not a number"),
        (user(None), "messages.0.content", "null is not taken by this server; wanted text"),
        ({"role": "user"}, "messages.0.content", "null is not taken"),
        (user({"a": 1}), "messages.0.content", "an object is not taken"),
        (user([TEXT, IMAGE]), "messages.0.content.1", "image parts are not taken by this server"),
        (user([{"type": "input_audio"}]), "messages.0.content.0", "audio parts are not taken"),
        (user([{"type": "file"}]), "messages.0.content.0", "file parts are not taken"),
        (user(["w5"]), "messages.0.content.0", "wanted a text part"),
        (user([{"type": "text", "text": 5}]), "messages.0.content.0", "wanted a text part"),
        (user([{"type": ["text"]}]), "messages.0.content.0", "wanted a text part"),
        ({"role": "tool", "content": "w5"}, "messages.0.role", "tool messages (tool history)"),
        ({"role": "boss", "content": "w5"}, "messages.0.role", "'boss' is no role; wanted system"),
        ({"role": ["user"], "content": "w5"}, "messages.0.role", "is no role"),
        ({"content": "w5"}, "messages.0.role", "None is no role"),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]},
            "messages.0.tool_calls",
            "tool history is not taken by this server",
        ),
        (user("w5", refusal="no"), "messages.0.refusal", "wanted text, in content"),
        (user("w5", colour="red"), "messages.0", "'colour' is not known; a message has role"),
    ],
)
def test_a_message_is_refused_with_what_was_wrong(client: httpx.Client, message: Any, param: str, said: str) -> None:
    found, text = error(client, CHAT, chat(message))
    assert found == param
    assert text.startswith(f"{param}: ")
    assert said in text


def test_answers_sent_back_whole_are_taken(client: httpx.Client) -> None:
    """As clients keep them: with nothing in the fields that are not offered."""
    nothing = {"refusal": None, "tool_calls": None, "annotations": [], "audio": None}
    before = {"role": "assistant", "content": "w5", **nothing, "reasoning_content": None}
    told = chat(user("w7", name="me"), before, user("w8"))
    assert client.post(CHAT, json=told).status_code == 200


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"messages": "hello"}, "messages", "wanted a list of messages, not text"),
        ({"messages": []}, "messages", "the list is empty"),
        ({"stop": 5}, "stop", "wanted a text or a list of texts, not a number"),
        ({"stop": ["w1", None]}, "stop", "wanted a text or a list of texts, not null"),
        ({"stop": ["w1"] * 17}, "stop", "17 stop strings are more than 16"),
        ({"stop": "w" * 1001}, "stop", "wanted texts of 1 to 1000 characters"),
        ({"n": "two"}, "n", '"n" is not offered'),
        ({"logprobs": 5}, "logprobs", '"logprobs" is not offered'),
        ({"response_format": "json"}, "response_format", '"response_format" is not offered'),
        ({"tools": "all"}, "tools", '"tools" is not offered'),
        ({"include_stop_str_in_output": True}, "include_stop_str_in_output", "is not offered"),
        ({"store": True}, "store", "is not offered"),
        ({"stoop": "w1"}, "stoop", "no field 'stoop' is known; did you mean stop"),
        ({"prompt": "w1"}, "prompt", "no field 'prompt' is known"),
        ({"x" * 10_000: 1}, "x" * 100, "no field 'xxxx"),
        ({"stream_options": {"include": True}}, "stream_options.include", "not permitted"),
        ({"temperature": "hot"}, "temperature", "valid number"),
    ],
)
def test_a_field_is_refused_with_what_was_wrong(
    client: httpx.Client, change: dict[str, Any], param: str, said: str
) -> None:
    found, text = error(client, CHAT, chat() | change)
    assert found == param
    assert said in text
    assert len(text) < 300


@pytest.mark.parametrize(
    ("prompt", "param", "said"),
    [
        (5, "prompt", "wanted a text or a list of token ids, not a number"),
        ({"a": 1}, "prompt", "not an object"),
        ([], "prompt", "the list is empty"),
        ([[]], "prompt", "the list is empty"),
        (["w5", "w6"], "prompt", "one prompt"),
        ([[5], [6]], "prompt", "one prompt"),
        ([5, "w5"], "prompt.1", "wanted a token id, not text"),
        ([True], "prompt.0", "wanted a token id, not true"),
        ([1.5], "prompt.0", "wanted a token id, not a number"),
        ([5, -1], "prompt", "the model has no token -1"),
        ([10**30], "prompt", "the model has no token"),
    ],
)
def test_a_prompt_is_refused_with_what_was_wrong(client: httpx.Client, prompt: Any, param: str, said: str) -> None:
    found, text = error(client, COMPLETIONS, {"model": "red", "prompt": prompt})
    assert found == param
    assert said in text


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        (CHAT, {"messages": [user("w5" * 50_000)]}, "messages"),
        (CHAT, {"messages": [user([{"type": "text", "text": ""}] * 2000)]}, "messages"),
        (CHAT, {"messages": [user("")] * (TOKENS + 1)}, "messages"),
        (COMPLETIONS, {"prompt": "w5 " * 30_000}, "prompt"),
        (COMPLETIONS, {"prompt": [5] * (TOKENS + 1)}, "prompt"),
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_tokenized(
    client: httpx.Client, path: str, change: dict[str, Any], param: str
) -> None:
    body = chat() if path == CHAT else {"model": "red"}
    found, text = error(client, path, body | change)
    assert found == param
    assert "are more than this server's context of 128" in text


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": [user(f"w5 {HALF}")]}, "messages.0.content"),
        ({"messages": [user([TEXT, {"type": "text", "text": HALF}])]}, "messages.0.content.1.text"),
        ({"messages": [user("w5", name=HALF)]}, "messages.0.name"),
        ({"stop": ["w1", HALF]}, "stop.1"),
        ({"model": HALF}, "model"),
        ({"model": "auto", "messages": [user(f"w10 {HALF}")]}, "messages.0.content"),
        ({"user": HALF}, "user"),
        ({"metadata": {"a": HALF}}, "metadata.a"),
        ({"traitroute": {"session": HALF}}, "traitroute.session"),
    ],
)
def test_half_a_character_is_refused_in_every_text(client: httpx.Client, change: dict[str, Any], param: str) -> None:
    found, text = error(client, CHAT, chat() | change)
    assert found == param
    assert "half of a surrogate pair" in text
    whole = json.loads(json.dumps(chat() | change).replace("\\ud83d", "\\ud83d\\ude42"))
    assert "surrogate" not in client.post(CHAT, json=whole).text


def test_half_a_character_in_a_prompt_is_refused(client: httpx.Client) -> None:
    assert error(client, COMPLETIONS, {"model": "red", "prompt": HALF})[0] == "prompt"


@pytest.mark.parametrize(
    "body",
    [
        chat(user("w5 " * 2_700_000)),
        chat(*[user("w5")] * 200_000),
        {"model": "red", "prompt": [5] * 2_700_000},
    ],
    ids=["text", "messages", "tokens"],
)
def test_eight_of_eight_megabytes_cost_little(client: httpx.Client, server: Any, body: Any) -> None:
    path, sent = CHAT if "messages" in body else COMPLETIONS, json.dumps(body).encode()
    process, peak, over = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not over.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss - before)

    def ask() -> tuple[int, float]:
        start = time.monotonic()
        with server.client() as each:
            return each.post(path, content=sent).status_code, time.monotonic() - start

    watching = threading.Thread(target=watch)
    watching.start()
    with ThreadPoolExecutor(8) as clients:
        answers = [each.result() for each in [clients.submit(ask) for _ in range(8)]]
    over.set()
    watching.join()
    assert {status for status, _ in answers} == {413}
    # It took 66 s and 7.9 GB; one to two seconds are the clients' own on a busy machine.
    assert max(seconds for _, seconds in answers) < 5
    assert peak[0] < 300 * 2**20


@pytest.fixture(scope="module")
def bytes_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    """One as language models have it: of bytes, with merges, the longest of a long run of spaces."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([Path(__file__).read_text(encoding="utf-8")] * 2, trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return PromptTokenizer(folder)


@given(
    text=st.one_of(
        st.text(),
        st.lists(st.sampled_from(["    ", "def test", "client", "é", "語", "🙂", "\n", "<|end|>"])).map("".join),
    )
)
def test_no_text_that_fits_is_refused_by_its_characters(bytes_tokenizer: PromptTokenizer, text: str) -> None:
    tokens = len(bytes_tokenizer.tokenizer(text)["input_ids"])
    Context.of(bytes_tokenizer, tokens).check_characters(len(text), "prompt")


@pytest.mark.parametrize(("method", "path"), [("GET", CHAT), ("DELETE", "/v1/models")])
def test_a_wrong_method_is_told_the_right_one(client: httpx.Client, method: str, path: str) -> None:
    refused = client.request(method, path)
    assert (refused.status_code, refused.json()["error"]["code"]) == (405, 405)
    assert refused.headers["allow"] in ("POST", "GET, HEAD", "HEAD, GET")


def test_a_long_name_of_no_model_is_not_sent_back(client: httpx.Client) -> None:
    _, text = error(client, CHAT, chat(model="x" * 1000), 404)
    assert len(text) < 200


@pytest.mark.parametrize("path", ["/health/", "/v1/models/", "/v1/skills/"])
def test_nobody_is_sent_to_a_host_of_the_clients_naming(client: httpx.Client, path: str) -> None:
    reply = client.get(path, headers={"host": "evil.example"})
    assert reply.status_code == 404
    assert "location" not in reply.headers
