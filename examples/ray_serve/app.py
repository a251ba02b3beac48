"""Ray Serve LLM, with `"model": "auto"` routed in its ingress. From this folder:

    serve run app:app registry=/data/traitroute.db base=/models/SmolLM2-135M-Instruct replicas=2

Then ask it as any server of OpenAI's kind:

    curl -si localhost:8000/v1/chat/completions -H 'content-type: application/json' \\
      -d '{"model": "auto", "messages": [{"role": "user", "content": "how long do I boil eggs"}]}'
"""

from pathlib import Path
from typing import Any

from ray.serve import Application  # pyright: ignore[reportMissingImports]
from traitroute.adapters import Registry
from traitroute.serving.ray import build_routed_app
from traitroute.serving.vllm.options import CPU_VARIABLES, engine_options, on_cpu


def app(arguments: dict[str, str]) -> Application:
    """Serve the base model `base`, a folder or a name on the Hub, with the adapters of `registry`, a path or URL."""
    with Registry.open(arguments["registry"], read_only=True) as registry:
        adapters = registry.servable()
    model: dict[str, Any] = {
        # A name without a colon, which parts the base model's name from an adapter's.
        "model_loading_config": {"model_id": Path(arguments["base"]).name, "model_source": arguments["base"]},
        "engine_kwargs": engine_options(adapters, max_model_len=int(arguments.get("context", "2048"))),
        "lora_config": {"max_num_adapters_per_replica": len(adapters)},
        # All requests for an adapter go to one replica, until it has so many.
        "deployment_config": {"num_replicas": int(arguments.get("replicas", "1")), "max_ongoing_requests": 32},
    }
    if on_cpu():
        # One processor for a replica and its engine together.
        model["placement_group_config"] = {"bundles": [{"CPU": 1}]}
        model["deployment_config"]["ray_actor_options"] = {"num_cpus": 0}
        model["runtime_env"] = {"env_vars": CPU_VARIABLES}
    ingress = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0.1}}
    return build_routed_app(
        {"registry": arguments["registry"], "llm_configs": [model], "ingress_deployment_config": ingress}
    )
