"""A profile on a server that is not ours: what is wrong with it is said before anything is measured."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from traitroute.adapters import AdapterState, BaseModelError, Registry, ServerError
from traitroute.cli.main import app
from traitroute.profiling.base_model import open_base_files, open_base_model
from traitroute.profiling.matrix.everyday import REQUESTS
from traitroute.profiling.report.gains import find_gains
from traitroute.profiling.study import Study
from traitroute.serving.engines.completions import CompletionsClient
from traitroute.serving.gateway import GatewayOptions, gateway_app
from typer.testing import CliRunner

from ...servers import serving
from .conftest import EXAMPLES, SEEDS, House
from .test_profile_on_server import suite_of

pytestmark = pytest.mark.slow


@dataclass
class ForeignServer:
    """Answers with words of model and prompt; `alike` are models that answer as the base model does, in silence."""

    models: list[str] = field(default_factory=lambda: ["tiny", *SEEDS])
    alike: tuple[str, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)
    """What is added to the cards of the models."""
    instead: Response | None = None
    """The answer to every completion request."""
    changes: dict[str, Any] = field(default_factory=dict)
    """What is wrong with each answer."""
    asked: int = 0

    @contextmanager
    def running(self) -> Iterator[str]:
        routes = [
            Route("/v1/models", lambda _: JSONResponse({"data": [{"id": m, **self.told} for m in self.models]})),
            Route("/v1/completions", self._complete, methods=["POST"]),
        ]
        with serving(Starlette(routes=routes)) as url:
            yield url

    async def _complete(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.asked += body["max_tokens"] > 1
        if self.instead is not None:
            return self.instead
        model = self.models[0] if body["model"] in self.alike else body["model"]
        word = hashlib.sha256(f"{model} {body['prompt']}".encode()).digest()[0] % 60
        choice = {"text": f"w{word}", "finish_reason": "stop", **self.changes}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1}
        return JSONResponse({"model": body["model"], "choices": [choice], "usage": usage})


@dataclass(frozen=True)
class Ended:
    exit_code: int
    output: str
    told: str
    """The output, and the error."""


def profile(house: House, server: ForeignServer, *options: str) -> Ended:
    """Run `traitroute profile` on it."""
    place = ["--registry", str(house.registry.path), *options]
    with server.running() as url:
        result = CliRunner().invoke(app, ["profile", str(suite_of(house)), "--server", url, *place])
    return Ended(result.exit_code, result.output, f"{result.output}\n{result.exception or ''}")


def same_tokens(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sample be a text of which the server, which counts characters, makes as many tokens as we."""
    monkeypatch.setattr("traitroute.profiling.served.SAMPLE", "w")


@pytest.fixture(autouse=True)
def _short(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    same_tokens(house, monkeypatch)
    monkeypatch.setattr("traitroute.profiling.served.OPENING_S", 0.5)
    monkeypatch.setattr("traitroute.profiling.served.PATIENCE_S", 0.5)


def test_any_server_that_is_told_of_the_adapters_will_do(house: House) -> None:
    server = ForeignServer()
    done = profile(house, server)
    assert done.exit_code == 0, done.told
    assert server.asked == 4 * (3 * EXAMPLES + REQUESTS)
    assert "answers are measured, likelihoods are not" in done.output
    with Registry.open(house.registry.path, read_only=True) as registry:
        findings = find_gains(Study.open(registry), n_resamples=100)
    assert list(findings.tests) == ["strict", "lenient"]


@pytest.mark.parametrize(
    ("server", "told"),
    [
        (ForeignServer(models=["llama"]), "runs llama, and this profile is for"),
        (ForeignServer(models=[]), "lists no model"),
        (ForeignServer(models=["tiny", "red"]), "offers no adapter 'green', offers no adapter 'blue': nothing was"),
        (ForeignServer(models=["tiny", "red"]), "vllm serve … --enable-lora --lora-modules red=/"),
        (ForeignServer(told={"root": "e" * 64}), "has other weights for 'red'"),
        (ForeignServer(models=["tiny", "auto"]), "it follows another registry: start it with --registry"),
        (ForeignServer(instead=PlainTextResponse("no", 401)), "refused the request with status 401: no"),
        (ForeignServer(instead=PlainTextResponse("Not Found", 404)), "refused the request with status 404"),
        (ForeignServer(instead=PlainTextResponse("oops", 500)), "stayed busy or away for 0.5 s: status 500: oops"),
        (ForeignServer(instead=PlainTextResponse("<html>")), "answered with something that is no JSON object"),
        (ForeignServer(instead=JSONResponse({"model": "tiny"})), "something that is no completion (choices: Field"),
        (ForeignServer(instead=JSONResponse({"model": "gpt"})), "was asked for 'tiny' and answered as 'gpt'"),
        (ForeignServer(changes={"text": None}), "something that is no completion (choices.0.text"),
        (ForeignServer(changes={"finish_reason": "abort"}), "ended an answer of 'tiny' as 'abort'"),
        (ForeignServer(changes={"token_ids": [-1]}), "something that is no completion (choices.0.token_ids.0"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_wrong_with_a_server_is_said_and_nothing_is_kept(
    house: House, server: ForeignServer, told: str
) -> None:
    done = profile(house, server)
    assert done.exit_code != 0
    assert told in done.told
    assert house.registry.profile_versions() == [1]
    assert len(house.registry.cells()) == 12


def test_a_server_that_is_away_is_told_and_no_registry_is_made(house: House) -> None:
    new = house.root / "new.db"
    place = ["--server", "http://127.0.0.1:9", "--registry", str(new)]
    done = CliRunner().invoke(app, ["profile", str(suite_of(house)), *place])
    assert "stayed busy or away for 0.5 s: ConnectError" in str(done.exception)
    assert not new.exists()


def test_a_server_of_another_tokenizer_is_another_model(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traitroute.profiling.served.SAMPLE", "w1 w2 w3")
    done = profile(house, ForeignServer())
    assert "makes 8 tokens of a text of which the tokenizer of" in done.told
    assert "makes 3: it runs another model" in done.told


def test_a_base_model_of_another_name_may_be_the_same(house: House) -> None:
    server = ForeignServer(models=["llama", *SEEDS])
    assert profile(house, server, "--same-base").exit_code == 0


def test_an_adapter_that_is_served_as_base_in_silence_is_set_aside(house: House) -> None:
    done = profile(house, ForeignServer(alike=("red",)))
    assert done.exit_code == 0, done.told
    assert "red was set aside" in done.output
    assert house.registry.adapter("red").state is AdapterState.DISABLED


def test_rows_that_the_server_has_no_room_for_are_left_out(house: House) -> None:
    done = profile(house, ForeignServer(told={"max_model_len": 5}))
    assert "take up to" in done.told and "context of 5" in done.told


def test_engine_and_server_exclude_each_other(house: House) -> None:
    assert "give one of them" in profile(house, ForeignServer(), "--engine", "transformers").told


def test_the_weights_of_a_served_base_model_need_not_be_here(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    known, whole = house.registry.base_models(), open_base_model(str(house.base))
    bare = house.root / "bare" / house.base.name
    shutil.copytree(house.base, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    assert open_base_files(str(bare), known).digest == whole.digest
    assert open_base_files(str(house.base), {}) == whole
    with pytest.raises(BaseModelError, match=r"has no \*\.safetensors, and nothing else tells which weights"):
        open_base_files(str(bare), {})
    done = profile(house, ForeignServer(), "--base", str(bare))
    assert done.exit_code == 0, done.told


def test_a_gateway_before_it_measures_too_though_base_answers_under_another_name(house: House) -> None:
    server = ForeignServer()
    with server.running() as upstream:
        options = GatewayOptions(upstreams=(upstream,))
        gateway = gateway_app(options, lambda: Registry.open(house.registry.path, read_only=True))
        with serving(gateway) as url:
            place = ["--server", url, "--registry", str(house.registry.path)]
            done = CliRunner().invoke(app, ["profile", str(suite_of(house)), *place])
    assert done.exit_code == 0, done.exception
    assert len(house.registry.profile_versions()) == 2


def test_a_base_model_that_is_answered_by_an_adapter_is_not_measured() -> None:
    cards = [{"id": "base"}, {"id": "red", "parent": "base"}]
    answer = {"model": "red", "choices": [{"text": "w1"}]}
    routes = [
        Route("/v1/models", lambda _: JSONResponse({"data": cards})),
        Route("/v1/completions", lambda _: JSONResponse(answer), methods=["POST"]),
    ]
    with serving(Starlette(routes=routes)) as url, CompletionsClient(url) as client:
        client.models()
        with pytest.raises(ServerError, match="asked for 'base' and answered as 'red'"):
            client.complete({"model": "base", "prompt": [1], "max_tokens": 1})
