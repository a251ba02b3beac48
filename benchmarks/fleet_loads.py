"""What loading an adapter costs vLLM, by the adapter's size: the time of a load that benchmarks/fleet.py goes by.

    python benchmarks/fleet_loads.py                   SmolLM2-135M, ranks 8 to 256; a minute or two

A real vLLM in this process, in float32 with eager execution, is given adapters of random weights that lie on the local
disk, just written, so that reading them is reading the page cache. Timed is `add_lora`: reading, checking, and taking
a slot. The last line is the size of a rank-16 adapter of all linear modules of a model of 8 billion parameters.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from serving.stand import PACKAGED_WEIGHTS, save_adapters
from traitroute.profiling import PACKAGED, open_base_model
from traitroute.serving.vllm.options import CPU_VARIABLES, PRIVACY_VARIABLES

RANKS = (8, 32, 64, 128, 256)
SLOTS = 2
LARGE_MB = 84.0
"""41.9 million parameters in bfloat16."""


def main() -> None:
    """Load, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=int, default=6, help="adapters of each rank")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    base = open_base_model(PACKAGED).path
    with tempfile.TemporaryDirectory() as name:
        folders = {rank: [Path(name) / f"{rank}-{i}" for i in range(given.loads)] for rank in RANKS}
        for rank, each in folders.items():
            save_adapters(base, each, weights=PACKAGED_WEIGHTS, rank=rank)
        found = _measured(base, folders)
    print("| rank | MB | ms a load: median | least | greatest |\n|---:|---:|---:|---:|---:|")
    for row in found:
        times = row["ms"]
        print(f"| {row['rank']} | {row['mb']:.1f} | {np.median(times):.0f} | {min(times):.0f} | {max(times):.0f} |")
    slope, rest = np.polyfit([row["mb"] for row in found], [np.median(row["ms"]) for row in found], 1)
    print(f"a load takes {rest:.0f} ms and {slope:.2f} ms a MB; of {LARGE_MB:.0f} MB {rest + slope * LARGE_MB:.0f} ms")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def _measured(base: Path, folders: dict[int, list[Path]]) -> list[dict[str, Any]]:
    os.environ |= CPU_VARIABLES | PRIVACY_VARIABLES
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING"}
    from vllm import LLM
    from vllm.lora.request import LoRARequest

    options: dict[str, Any] = {"max_loras": SLOTS, "max_cpu_loras": SLOTS, "max_lora_rank": max(folders)}
    options |= {"max_model_len": 256, "dtype": "float32", "enforce_eager": True}
    engine: Any = LLM(model=str(base), enable_lora=True, **options).llm_engine
    found: list[dict[str, Any]] = []
    number = 0
    for rank, each in folders.items():
        times = []
        for folder in each:
            number += 1
            request = LoRARequest(folder.name, number, str(folder))
            began = time.perf_counter()
            assert engine.add_lora(request)
            times.append(1000 * (time.perf_counter() - began))
        size = (each[0] / "adapter_model.safetensors").stat().st_size / 1e6
        # The first of a rank finds caches cold that have nothing to do with it.
        found.append({"rank": rank, "mb": size, "ms": times[1:]})
    return found


if __name__ == "__main__":
    main()
