"""production-stack's router with `"model": "auto"` routed inside it, in front of a vLLM that has a registry's adapters.

    python run.py --registry traitroute.db --base models/SmolLM2-135M-Instruct --router PATH/TO/vllm-router

The router (https://github.com/vllm-project/production-stack) wants Python 3.12 and versions of its own, so it has an
environment of its own, in which `pip install 'traitroute[gateway]'` was run too. In Kubernetes it finds engines and
adapters by itself: there its argument `--callbacks`, the variable TRAITROUTE_REGISTRY and an image that holds
traitroute are all that is needed.
"""

import argparse
import os
from pathlib import Path

from traitroute.adapters import Registry
from traitroute.serving.vllm import running_process, serve_command, serve_environment

CALLBACKS = "traitroute.serving.gateway.production_stack.callbacks"


def engine_command(registry: Registry, base: Path, *, port: int, options: tuple[str, ...] = ()) -> list[str]:
    """vLLM with all adapters, each under a name that ends in the digest of its weights."""
    named = [f"{each}={registry.weights.path(each.rpartition('@')[2])}" for each in names(registry)]
    options = ("--lora-modules", *named, *options)
    return serve_command(base, registry.servable(), port=port, options=options)


def router_command(registry: Registry, base: Path, *, router: str, engine: str, port: int) -> list[str]:
    """The router in front of the server `engine`, with routing inside."""
    models = [base.name, *names(registry)]
    command = [router, "--port", str(port), "--routing-logic", "roundrobin", "--service-discovery", "static"]
    command += ["--static-backends", ",".join([engine] * len(models)), "--static-models", ",".join(models)]
    return [*command, "--callbacks", CALLBACKS]


def names(registry: Registry) -> list[str]:
    """What the engine calls the adapters; what is listed so can be no other weights."""
    return [f"{each.name}@{each.weights_digest}" for each in registry.servable()]


def main() -> None:
    """Run both until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registry", required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--router", default="vllm-router")
    parser.add_argument("--port", type=int, default=8001)
    given = parser.parse_args()
    engine, url = "http://127.0.0.1:8000", f"http://127.0.0.1:{given.port}"
    with Registry.open(given.registry, read_only=True) as registry:
        engine_line = engine_command(registry, given.base, port=8000)
        router_line = router_command(registry, given.base, router=given.router, engine=engine, port=given.port)
    # The plugin would route in the engine.
    environment = serve_environment(given.registry, given.base) | {"VLLM_PLUGINS": ""}
    routing = os.environ | {"TRAITROUTE_REGISTRY": given.registry}
    with (
        running_process(engine_line, engine, log_path=Path("engine.log"), environment=environment),
        running_process(router_line, url, log_path=Path("router.log"), environment=routing),
    ):
        input(f"routing on {url}/v1 until you press return ")


if __name__ == "__main__":
    main()
