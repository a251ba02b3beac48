"""One adapter's row, by us or by lm-evaluation-harness, in a process of its own: `one_row.py JOB.json RESULT.json`.

The process notes its own processor time, its children's included, when all is loaded and when the row is there.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

Texts = dict[str, list[str]]
"""What was written on each example, by task."""


Job = dict[str, Any]
"""What a process does: its `side`, a name of `SIDES`, and what that takes; `limit` is rows a task, or None."""


def seconds(started: float) -> dict[str, float]:
    """Processor and wall seconds since this process began."""
    spent = os.times()
    return {
        "cpu": spent.user + spent.system + spent.children_user + spent.children_system,
        "wall": time.time() - started,
    }


def ours(job: Job) -> dict[str, Any]:
    """`traitroute adapters add` and `adapters measure`, `--full` where the share is 1."""
    from traitroute.adapters import AllowedSources, Importer, Registry
    from traitroute.profiling.base_model import open_base_model
    from traitroute.profiling.matrix.profiled import Profiled
    from traitroute.profiling.matrix.row import measure_row
    from traitroute.profiling.profile import quiet_libraries
    from traitroute.serving import open_engine

    quiet_libraries()
    with Registry.open(Path(job["registry"])) as store:
        base = open_base_model(Profiled.open(store).summary.base_model)
        engine = open_engine("transformers", base.path, store.weights, [])
        loaded = seconds(job["started"])
        adapter = Importer(store, AllowedSources(typed=True)).add(job["name"], job["folder"], same_base=True).adapter
        full = job["share"] == 1
        measured = measure_row(adapter, engine, store, base, share=job["share"], full=full)
        engine.close()
        done = seconds(job["started"])
        base_scores = [float(score) for score in Profiled.open(store).summary.base]
    row = measured.row
    return {
        "loaded": loaded,
        "done": done,
        "engine": engine.name,
        "examples": row.examples.tolist(),
        "base": base_scores,
        "gains": row.gains.tolist(),
        "errors": row.errors.tolist(),
    }


def harness(job: Job) -> dict[str, Any]:
    """The harness's hf backend with `peft=`, over its task files."""
    import transformers
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
        model = HFLM(
            pretrained=job["base"], peft=job["folder"], dtype=job["precision"], device="cpu", batch_size=job["batch"]
        )
        # Its own 13,000 tasks take seconds to index, and none is used.
        manager = TaskManager(include_path=job["harness"], include_defaults=False)
        loaded = seconds(job["started"])
        results: Any = simple_evaluate(
            model=model,
            tasks=job["tasks"],
            task_manager=manager,
            limit=job["limit"],
            apply_chat_template=True,
            bootstrap_iters=0,
        )
        done = seconds(job["started"])
    texts = {name: _texts(results["samples"][name]) for name in job["tasks"]}
    return {"loaded": loaded, "done": done, "texts": texts}


def _texts(samples: Sequence[dict[str, Any]]) -> list[str]:
    return [sample["resps"][0][0] for sample in sorted(samples, key=lambda sample: sample["doc_id"])]


def answers(job: Job) -> dict[str, Any]:
    """What our engine writes on the first rows of every task, in the precision that is asked for."""
    from traitroute.adapters import Registry
    from traitroute.profiling import open_base_model
    from traitroute.profiling.matrix.measure import request_for
    from traitroute.profiling.matrix.profiled import Profiled
    from traitroute.profiling.profile import quiet_libraries
    from traitroute.serving.engines import TransformersEngine

    quiet_libraries()
    with Registry.open(Path(job["registry"])) as store:
        adapter, tasks = store.adapter(job["name"]), Profiled.open(store).tasks
        base = open_base_model(job["base"])
        engine = TransformersEngine(base.path, store.weights, precision=job["precision"])
        texts: Texts = {}
        for task in tasks:
            asked = [request_for(task, e, adapter) for e in task.test_examples[: job["limit"]]]
            texts[task.name] = [result.text for result in engine.run(asked)]
    return {"texts": texts}


SIDES = {"ours": ours, "harness": harness, "answers": answers}


def main() -> None:
    """Do the job."""
    job: Job = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps(SIDES[job["side"]](job)))


if __name__ == "__main__":
    main()
