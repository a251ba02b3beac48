"""What the embedded server answers: each adapter's own words, alone or in company, streamed or not."""

import asyncio
import json
from typing import Any

import httpx
import pytest

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
NAMES = ["red", "green", "blue", "tiny"]
PROMPTS = ["w51", "w40 w35", "w35 w40 w11 w27 w32 w25", "w18 w51 w56 w8 w48 w6 w39 w32 w44 w11"]


def chat(model: str, text: str, **more: Any) -> dict[str, Any]:
    settings = {"temperature": 0, "max_tokens": 12}
    return {"model": model, "messages": [{"role": "user", "content": text}], **settings, **more}


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    return choice["message"]["content"] if "message" in choice else choice["text"]


def events(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def ask_together(url: str, bodies: list[dict[str, Any]], path: str = CHAT) -> list[httpx.Response]:
    async def ask_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            return await asyncio.gather(*(client.post(path, json=body) for body in bodies))

    return asyncio.run(ask_all())


def expected(house: Any, name: str, prompt: str, max_tokens: int = 12) -> str:
    return house.alone(None if name == "tiny" else name, prompt, max_tokens)


def test_a_mixed_batch_answers_as_each_adapter_alone(server: Any, shared_house: Any) -> None:
    asked = [(name, prompt) for prompt in PROMPTS for name in NAMES]
    alone = [expected(shared_house, name, prompt) for name, prompt in asked]
    responses = ask_together(server.url, [chat(*each) for each in asked])
    assert [text_of(r) for r in responses] == alone
    assert len(set(alone)) == len(alone), "each adapter must be known by its answers"


def test_requests_of_different_lengths_join_and_leave(server: Any, shared_house: Any) -> None:
    asked = [(NAMES[i % 4], PROMPTS[i % 3], 1 + 7 * i % 23) for i in range(40)]
    alone = {key: expected(shared_house, *key) for key in set(asked)}
    bodies = [chat(name, prompt, max_tokens=n) for name, prompt, n in asked]
    assert [text_of(r) for r in ask_together(server.url, bodies)] == [alone[key] for key in asked]


def test_a_hundred_mixed_requests_are_answered_by_whom_header_and_model_name(server: Any, shared_house: Any) -> None:
    words = {"red": "w10 w11 w10", "green": "w21 w22 w21", "blue": "w34 w33 w34"}
    alone = {(n, w): expected(shared_house, n, w) for n in NAMES for w in words.values()}
    asked = [(["auto", *NAMES][i % 5], list(words.values())[i % 3]) for i in range(100)]
    responses = ask_together(server.url, [chat(*each) for each in asked])
    routed = set()
    for (model, text), response in zip(asked, responses, strict=True):
        ran = response.json()["model"]
        assert text_of(response) == alone[ran, text]
        if model == "auto":
            header = response.headers["x-traitroute-adapter"]
            assert ran == ("tiny" if header == "base" else header)
            routed.add(header)
        else:
            assert ran == model
    assert routed >= {"red", "green", "blue"}


def test_an_answer_says_how_it_ended_and_what_it_took(client: httpx.Client, shared_house: Any) -> None:
    whole = shared_house.alone("red", "w5 w6", 60).split()
    long = client.post(CHAT, json=chat("red", "w5 w6", max_tokens=len(whole) + 1)).json()
    ends = len(whole) < 60
    assert long["choices"][0]["finish_reason"] == ("stop" if ends else "length")
    short = client.post(CHAT, json=chat("red", "w5 w6", max_tokens=3)).json()
    assert short["choices"][0]["finish_reason"] == "length"
    assert short["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert short["object"] == "chat.completion"


@pytest.mark.parametrize("model", ["auto", "blue", "base"])
def test_chunks_of_a_stream_are_the_whole_answer(client: httpx.Client, model: str) -> None:
    body = chat(model, "w30 w31 w30", stream_options={"include_usage": True})
    whole = client.post(CHAT, json=body)
    with client.stream("POST", CHAT, json={**body, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers.get("x-traitroute-adapter") == whole.headers.get("x-traitroute-adapter")
        *chunks, counted = events(response)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(d.get("content", "") for d in deltas) == text_of(whole)
    assert len(deltas) > 8
    assert {chunk["model"] for chunk in chunks} == {whole.json()["model"]}
    assert chunks[-1]["choices"][0]["finish_reason"] == whole.json()["choices"][0]["finish_reason"]
    assert (counted["choices"], counted["usage"]) == ([], whole.json()["usage"])


def test_completions_take_text_or_token_ids(client: httpx.Client, shared_house: Any) -> None:
    alone = shared_house.alone("green", "w7 w8", 9)
    for prompt in ("w7 w8", ["w7 w8"], [7, 8], [[7, 8]]):
        body = {"model": "green", "prompt": prompt, "max_tokens": 9, "temperature": 0}
        response = client.post(COMPLETIONS, json=body)
        assert text_of(response) == alone
        assert response.json()["object"] == "text_completion"
        with client.stream("POST", COMPLETIONS, json={**body, "stream": True}) as streamed:
            said = [chunk["choices"][0]["text"] for chunk in events(streamed)]
        assert "".join(said) == alone


def test_a_stop_string_ends_the_answer_before_it(client: httpx.Client, shared_house: Any) -> None:
    words = shared_house.alone("blue", "w5", 12).split()
    stop = " ".join(words[4:6])
    before = " ".join(words)[: " ".join(words).find(stop)]
    body = chat("blue", "w5", stop=["never", stop])
    response = client.post(CHAT, json=body)
    assert text_of(response) == before
    assert response.json()["choices"][0]["finish_reason"] == "stop"
    with client.stream("POST", CHAT, json={**body, "stream": True}) as streamed:
        said = [chunk["choices"][0]["delta"].get("content", "") for chunk in events(streamed)]
    assert "".join(said) == before


def test_a_seed_repeats_what_is_drawn_whatever_the_batch(server: Any) -> None:
    body = chat("red", "w5", temperature=1.5, seed=7, ignore_eos=True)
    company = [chat(NAMES[i % 4], PROMPTS[i % 4], temperature=1.0) for i in range(12)]
    (alone,) = ask_together(server.url, [body])
    first, *_ = ask_together(server.url, [body, *company])
    (other,) = ask_together(server.url, [{**body, "seed": 8}])
    assert text_of(first) == text_of(alone) != text_of(other)


def test_a_narrow_nucleus_is_greedy(client: httpx.Client, shared_house: Any) -> None:
    body = chat("red", "w5", temperature=2.0, top_p=1e-6)
    assert text_of(client.post(CHAT, json=body)) == shared_house.alone("red", "w5", 12)


def test_the_end_token_may_be_ignored(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=chat("red", "w5", max_tokens=50, ignore_eos=True)).json()
    assert answer["usage"]["completion_tokens"] == 50


def test_the_model_list_shows_what_may_be_asked_for(client: httpx.Client) -> None:
    cards = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    assert list(cards) == ["tiny", "base", "auto", "blue", "green", "red"]
    assert cards["red"]["parent"] == "tiny"


def test_the_openai_client_reads_answers_and_streams(server: Any, shared_house: Any) -> None:
    openai = pytest.importorskip("openai", reason="needs it: pip install 'traitroute[client]'")
    alone = shared_house.alone("green", "w5 w6", 8)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        body = chat("green", "w5 w6", max_tokens=8)
        assert client.chat.completions.create(**body).choices[0].message.content == alone
        chunks = client.chat.completions.create(**body, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == alone
