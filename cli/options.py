"""Options that several commands share."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..adapters import InputError, Location, Registry, RegistryError, StoredProfile

if TYPE_CHECKING:
    from ..profiling.tasks.metrics.judge import Judge
    from ..serving import EngineName

ServerKey = Annotated[str | None, typer.Option("--api-key-env", help="Environment variable with the server's API key.")]
Concurrency = Annotated[int, typer.Option(min=1, max=64, help="Requests that are under way at the server at a time.")]
On = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="PLACE",
        help="Who does the work: local, this process; local:N, N processes of this machine, each with an N-th of its "
        "cores; ray, the Ray cluster of this machine; ray:HOST:6379 or ray://HOST:10001, another.",
    ),
]
WebOrigins = Annotated[
    list[str] | None,
    typer.Option(
        "--cors-origin",
        metavar="ORIGIN",
        envvar="TRAITROUTE_CORS_ORIGINS",
        help="Origin of web pages that may read answers, as https://app.example; repeatable (in the variable: "
        "separated by spaces). '*' is any, with a key only.",
    ),
]
RegistryPath = Annotated[
    Location,
    typer.Option(
        "--registry",
        parser=Location.parse,
        metavar="FILE|URL",
        envvar="TRAITROUTE_REGISTRY",
        help="The registry: a file, beside which adapter weights lie, or postgresql+psycopg://USER@HOST/DATABASE, "
        "with the weights in $TRAITROUTE_WEIGHTS.",
    ),
]
DEFAULT_REGISTRY = Location(path=Path("traitroute.db"))


def secret(option: str, variable: str | None) -> str | None:
    """The key in the environment variable that `option` names, since command lines are seen by all users; None without
    one.

    Raises:
        InputError: it is not set, or could not stand in a header.
    """
    if variable is None:
        return None
    if not (value := os.environ.get(variable, "").strip()):
        raise InputError(f"{option}: the environment variable {variable} is not set: export it first")
    if not (value.isascii() and value.isprintable()):
        raise InputError(f"{option} {variable}: a key is printable ASCII text on one line")
    return value


def engine_name(name: str) -> "EngineName":
    """The value of `--engine`.

    Raises:
        InputError: there is no such engine.
    """
    if name not in ("auto", "transformers", "vllm"):
        raise InputError(f"--engine is auto, transformers or vllm, not {name!r}")
    return name


def names(text: str) -> list[str]:
    """The names of a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def newest_profile(store: Registry, version: int | None = None) -> StoredProfile:
    """The newest profile of a registry, or the given version.

    Raises:
        RegistryError: nothing was profiled yet, or there is no such version.
    """
    stored = store.latest_profile() if version is None else store.profile(version)
    if stored is None:
        raise RegistryError(f"{store.location} holds no profile yet: run `traitroute profile`")
    return stored


def judge_of(model: str | None, url: str | None, key_env: str | None) -> "Judge | None":
    """The judge that the options name.

    Raises:
        InputError: they name half of one, or its settings are not as they should be.
    """
    if model is None and url is None and key_env is None:
        return None
    if model is None or url is None:
        raise InputError("a judge is a model and where it runs: give --judge MODEL and --judge-url URL")
    from ..profiling.tasks.metrics.judge import Judge
    from ..profiling.tasks.metrics.registry import read_metric

    try:
        judge = read_metric({"name": "judge", "model": model, "url": url, "api_key_env": key_env})
    except ValueError as exc:
        raise InputError(f"--judge: {exc}") from exc
    assert isinstance(judge, Judge)
    return judge
