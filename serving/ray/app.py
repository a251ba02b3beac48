"""The app of Ray Serve LLM as its own builder makes it, with routing in its ingress, and adapters from our store."""

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ...adapters import InputError, Location, Registry
from ..gateway import GatewayOptions, Load
from ..gateway.inside import HERE, Inside
from ..state import BASE
from .weights import StoredWeights

if TYPE_CHECKING:
    from ray.serve import Application


def build_routed_app(arguments: dict[str, Any]) -> "Application":
    """What `ray.serve.llm:build_openai_app` builds, with routing.

    `arguments` are its own, and `registry`, a path or URL. The first of `llm_configs` is the base model of the
    registry's adapters.

    Raises:
        InputError: no registry is named, or something that the ingress cannot be given.
    """
    given = dict(arguments)
    if not (registry := given.pop("registry", None)):
        raise InputError("registry is missing: give the registry's path or URL among the app's arguments")
    try:
        from ray import serve
        from ray.llm._internal.common.dict_utils import maybe_apply_llm_deployment_config_defaults as over_defaults
        from ray.llm._internal.serve.core.configs.openai_api_models import to_model_metadata
        from ray.llm._internal.serve.core.ingress.ingress import init
        from ray.serve.llm import LLMServingArgs, build_llm_deployment
        from ray.serve.llm.ingress import OpenAiIngress, make_fastapi_ingress
    except ImportError as exc:
        raise ImportError("routing in Ray Serve LLM needs extras: pip install 'traitroute[ray-serve,serve]'") from exc
    wanted = LLMServingArgs.model_validate(given)
    location = Location.parse(registry).absolute()
    with Registry.open(location, read_only=True) as store:
        stored = {"model_downloader": partial(StoredWeights, store.weights.root)}
    # Each was read into an `LLMConfig`.
    configs: dict[str, Any] = {config.model_id: config for config in cast("list[Any]", wanted.llm_configs)}
    base = next(iter(configs))
    options = GatewayOptions(upstreams=(HERE,), aliases={BASE: (base,)}, load=Load.RAY)
    # Ray's own makers of an ingress take an app or make one; what they would make is needed, before it is pickled.
    app = init()
    app.add_middleware(Inside, registry=location.reveal(), options=options, is_ready=_is_ready)
    ingress = make_fastapi_ingress(OpenAiIngress, app=app)
    defaults = OpenAiIngress.get_deployment_options(list(configs.values()))
    settings = over_defaults(defaults, wanted.ingress_deployment_config)
    deployment: Any = serve.deployment(ingress, **settings)
    return deployment.bind(
        llm_deployments={
            name: build_llm_deployment(config, bind_kwargs=stored if name == base else {})
            for name, config in configs.items()
        },
        model_cards={name: to_model_metadata(name, config) for name, config in configs.items()},
    )


def _is_ready() -> bool:
    """Whether this replica has its ingress: Ray runs the app a moment before, when its routes would only fail."""
    from ray import serve

    return serve.get_replica_context().servable_object is not None
