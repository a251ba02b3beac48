"""`traitroute serve --engine transformers` with SmolLM2, asked through the openai client."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from traitroute.adapters import AdapterState, Registry
from traitroute.profiling import PACKAGED, open_base_model
from traitroute.profiling.training import adapter_record

pytestmark = pytest.mark.slow

openai = pytest.importorskip("openai", reason="needs it: pip install 'traitroute[client]'")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

NAMES = ("red", "green", "blue")
QUESTION = "What is the capital of France?"
KEY = "a key for this test"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> dict[str, Path]:
    """Random adapters of SmolLM2."""
    base, root = open_base_model(PACKAGED), tmp_path_factory.mktemp("real")
    modules = ("q_proj", "v_proj", "o_proj", "down_proj")
    return {
        name: tiny.save_adapter(base.path, root / name, seed=seed, modules=modules, lora_alpha=16)
        for seed, name in enumerate(NAMES)
    }


@pytest.fixture(scope="module")
def registry(folders: dict[str, Path], put_profile: Any) -> Path:
    base = open_base_model(PACKAGED)
    path = next(iter(folders.values())).with_name("registry.db")
    with Registry.create(path) as registry:
        for name, folder in folders.items():
            adapter = adapter_record(name, name, base, registry.weights.add(folder))
            registry.add_adapter(adapter.model_copy(update={"state": AdapterState.READY}))
        put_profile(registry)
    return path


@pytest.fixture(scope="module")
def url(registry: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("traitroute")), "serve"]
    command += ["--engine", "transformers", "--registry", str(registry), "--port", str(port)]
    command += ["--api-key-env", "A_KEY", "--max-loras", "2"]
    told = {"A_KEY": KEY, "TRAITROUTE_PRECISION": "float32"}
    log = registry.with_name("server.log")
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=os.environ | told, stdout=out, stderr=out)
    address = f"http://127.0.0.1:{port}"
    try:
        _await(address, process, log)
        yield address
        process.send_signal(signal.SIGTERM)
        # uvicorn ends in good order, and then by the signal that it was sent.
        assert process.wait(30) == -signal.SIGTERM, log.read_text()
    finally:
        process.kill()
        process.wait()


def _await(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until and process.poll() is None:
        try:
            with urlopen(f"{address}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.3)
    pytest.fail(log.read_text())


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        yield client


def ask(client: Any, model: str, text: str = QUESTION, **more: Any) -> Any:
    settings = {"temperature": 0, "max_tokens": 12, **more}
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **settings)


def plain(folder: Path | None) -> str:
    """What plain `generate` says in float32."""
    base = open_base_model(PACKAGED).path
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    if folder is not None:
        model = peft.PeftModel.from_pretrained(model, str(folder))
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    out = model.eval().generate(**prompt, max_new_tokens=12, do_sample=False)
    answer = out[0, prompt["input_ids"].shape[1] :]
    return tokenizer.decode(answer, skip_special_tokens=True)


def test_a_mixed_batch_says_what_plain_generation_does(client: Any, folders: dict[str, Path]) -> None:
    alone = {name: plain(folder) for name, folder in folders.items()} | {"base": plain(None)}
    assert len(set(alone.values())) == 4
    asked = [*alone] * 4
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda name: ask(client, name), asked))
    assert [a.choices[0].message.content for a in answers] == [alone[name] for name in asked]
    assert [a.model for a in answers] == [PACKAGED if n == "base" else n for n in asked]


def test_a_stream_is_the_whole_answer(client: Any) -> None:
    whole = ask(client, "base", max_tokens=40)
    chunks = list(ask(client, "base", max_tokens=40, stream=True, stream_options={"include_usage": True}))
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == whole.choices[0].message.content
    assert "Paris" in said
    assert chunks[-1].usage == whole.usage


def test_auto_is_answered_by_the_adapter_that_its_header_names(client: Any) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="auto",
        messages=[{"role": "user", "content": "w10 w11 w10"}],
        temperature=0,
        max_tokens=4,
    )
    assert raw.headers["x-traitroute-adapter"] == raw.parse().model == "red"
    named = ask(client, "red", "w10 w11 w10", max_tokens=4)
    assert raw.parse().choices[0].message == named.choices[0].message


def test_what_is_not_offered_and_a_wrong_key_are_refused(client: Any, url: str) -> None:
    with pytest.raises(openai.BadRequestError, match='"n" is not offered'):
        ask(client, "base", n=2)
    with pytest.raises(openai.AuthenticationError):
        ask(client.with_options(api_key="wrong"), "base")
