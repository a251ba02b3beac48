"""Adapters are measured through the embedded server as the engine in this process measures them."""

import math
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from traitroute.adapters import InputError, RefusalError, ServerError
from traitroute.serving.engines import EngineRequest, TransformersEngine
from traitroute.serving.engines.completions import CompletionsClient
from traitroute.serving.engines.openai import OpenAIEngine


@pytest.fixture
def measuring(shared_house, server) -> Iterator[OpenAIEngine]:
    engine = OpenAIEngine(CompletionsClient(server.url), shared_house.base)
    yield engine
    engine.close()


def ask(adapter, text: str = "w11 w12 w10", **more) -> EngineRequest:
    return EngineRequest(({"role": "user", "content": text},), adapter, **{"max_tokens": 12, **more})


def test_answers_are_those_of_the_engine_in_this_process(shared_house, measuring) -> None:
    local = TransformersEngine(shared_house.base, shared_house.registry.weights, precision="float32")
    adapters = [None, *shared_house.registry.adapters()]
    asked = [ask(a, text) for a in adapters for text in ("w11 w12 w10", "w20 w3", "w35 w36 w4 w5")]
    found, wanted = measuring.run(asked), local.run(asked)
    assert [r.text for r in found] == [r.text for r in wanted]
    assert [r.output_tokens for r in found] == [r.output_tokens for r in wanted]
    assert [r.finish_reason for r in found] == [r.finish_reason for r in wanted]
    assert len({r.text for r in found}) > len(adapters)


def test_without_prompt_logprobs_likelihoods_are_unknown_and_the_name_says_so(shared_house, measuring) -> None:
    [result] = measuring.run([ask(None, candidates=("w1 w2", "w3"))])
    assert measuring.name == "openai-traitroute-answers"
    assert all(math.isnan(score) for score in result.log_likelihoods)
    assert result.candidate_tokens == (2, 1)


def test_scores_alone_are_refused_where_the_server_gives_none(measuring) -> None:
    with pytest.raises(ServerError, match="cannot be scored there: measure through vLLM"):
        measuring.run([ask(None, max_tokens=0, candidates=("w1",))])


def test_what_the_server_has_no_room_for_is_not_sent(measuring) -> None:
    with pytest.raises(InputError, match=r"take up to \d+ tokens .* more than the 128"):
        measuring.run([ask(None, "w11 " * 120)])


def test_a_refusal_is_told_at_once(shared_house, measuring) -> None:
    unknown = shared_house.registry.adapter("red").model_copy(update={"name": "nobody"})
    with pytest.raises(RefusalError, match=r"status 404.*'nobody' does not exist") as refused:
        measuring.run([ask(unknown)])
    assert refused.value.status == 404


def test_a_wrong_key_is_a_refusal(house, serve) -> None:
    with serve(house, api_key="right") as server:
        for key, refused in (
            ("wrong", pytest.raises(RefusalError, match="status 401")),
            ("right", nullcontext()),
        ):
            with CompletionsClient(server.url, api_key=key) as client, refused:
                OpenAIEngine(client, house.base)


def test_a_full_server_is_asked_again(house, serve) -> None:
    with serve(house, queue=2) as server, CompletionsClient(server.url) as client:
        engine = OpenAIEngine(client, house.base, concurrency=8)
        asked = [ask(None, f"w{10 + n} w5", max_tokens=40) for n in range(24)]
        assert engine.run(asked) == [result for each in asked for result in engine.run([each])]


def test_a_server_that_stays_away_is_told_after_the_patience() -> None:
    away = pytest.raises(ServerError, match=r"stayed busy or away for 0.5 s: ConnectError")
    with CompletionsClient("http://127.0.0.1:9", patience_s=0.5) as client, away:
        client.models()


def test_a_name_that_means_other_weights_on_the_server_is_not_measured(shared_house, measuring) -> None:
    red, green = (shared_house.registry.adapter(name) for name in ("red", "green"))
    measuring.check_offered(red)
    other = green.model_copy(update={"name": "red"})
    with pytest.raises(ServerError, match="has other weights for 'red': does it follow"):
        measuring.check_offered(other)
    with pytest.raises(ServerError, match="offers no adapter 'nobody'"):
        measuring.check_offered(green.model_copy(update={"name": "nobody"}))
