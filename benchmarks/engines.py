"""How fast each engine generates and scores on this machine: the figures of docs/decisions.md.

    python benchmarks/engines.py                   all variants, each in a process of its own
    python benchmarks/engines.py --rows 16         fewer prompts

Needs the extra `profile`, and vLLM for its rows. Prompts: generated word problems; one LoRA of rank 16 on all linear
layers, trained on eight rows (speed does not depend on what it learnt).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from traitroute.adapters import WeightStore
from traitroute.profiling import PACKAGED, Task, Training, open_base_model, train_adapter
from traitroute.profiling.training import adapter_record
from traitroute.serving.engines import EngineRequest, open_engine
from traitroute.serving.vllm.options import CPU_VARIABLES

NEW_TOKENS = 64
ALLOCATOR = {name: value for name, value in CPU_VARIABLES.items() if name.startswith("MALLOC")}


def main() -> None:
    """Run every variant in a fresh process and print tokens a second, side by side."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--variant", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(measure(*arguments.variant, rows=arguments.rows)))
        return
    print(f"{'engine':<14}{'allocator':<11}{'who':<6}{'generate':>10}{'score':>10}   tokens/s")
    for engine in ("transformers", "vllm"):
        for allocator in ("default", "keeping"):
            for who, speeds in _in_process(engine, allocator, arguments.rows).items():
                print(f"{engine:<14}{allocator:<11}{who:<6}{speeds[0]:>10.0f}{speeds[1]:>10.0f}")


def measure(engine_name: str, folder: str, *, rows: int) -> dict[str, tuple[float, float]]:
    """Tokens generated and prompt tokens scored a second, for the base model and for one LoRA."""
    base = open_base_model(PACKAGED)
    task = Task.model_validate(
        {"name": "word_problems", "rows": {"built_in": "mini"}, "source": True} | {"train": 8, "test": rows}
    )
    trained = train_adapter(task.training_set, base, Training(), Path(folder) / "adapter")
    weights = WeightStore(Path(folder) / "weights")
    adapter = adapter_record("speed", task.name, base, weights.add(trained.folder))
    engine = open_engine("vllm" if engine_name == "vllm" else "transformers", base.path, weights, [adapter])
    speeds: dict[str, tuple[float, float]] = {}
    for who, used in (("warm", adapter), ("base", None), ("lora", adapter)):
        prompts = [({"role": "user", "content": e.prompt},) for e in task.test_examples]
        start = time.perf_counter()
        done = engine.run([EngineRequest(p, used, max_tokens=NEW_TOKENS) for p in prompts])
        generated = sum(r.output_tokens for r in done) / (time.perf_counter() - start)
        start = time.perf_counter()
        done = engine.run([EngineRequest(p, used, candidates=(p[0]["content"],)) for p in prompts])
        scored = sum(r.candidate_tokens[0] for r in done) / (time.perf_counter() - start)
        speeds[who] = (generated, scored)
    engine.close()
    del speeds["warm"]
    return speeds


def _in_process(engine: str, allocator: str, rows: int) -> dict[str, list[float]]:
    environment = {k: v for k, v in os.environ.items() if k not in ALLOCATOR}
    if allocator == "keeping":
        environment |= ALLOCATOR
    elif engine == "vllm":
        # The engine sets these by itself unless they are set; glibc's own default is 65536 maps.
        environment |= {"MALLOC_MMAP_MAX_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
        environment |= {"MALLOC_TOP_PAD_": "131072"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--rows", str(rows), "--variant", engine, folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
