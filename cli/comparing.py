"""How commands compare adapters on recurring requests: the options, and what is made of them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..adapters import Adapter, InputError, Registry
from ..serving.http.tenants import VARIABLE as TENANTS
from ..serving.http.tenants import read_tenants
from ..serving.traffic.sampling import KEY, SampleKeys
from .options import judge_of, secret

if TYPE_CHECKING:
    from ..profiling.recurring import Allowed, Comparer
    from ..profiling.referees import Referee
    from ..serving.engines import Engine

BY = ("judge", "agreement", "format")
JudgeModel = Annotated[str | None, typer.Option("--judge", metavar="MODEL", help="The judge: a model at --judge-url.")]
JudgeUrl = Annotated[str | None, typer.Option("--judge-url", help="The judge's OpenAI-compatible server, up to /v1.")]
JudgeKey = Annotated[str | None, typer.Option("--judge-key-env", help="Environment variable with the judge's API key.")]
Tenants = Annotated[
    Path | None,
    typer.Option(
        "--tenants", metavar="FILE", envvar=TENANTS, help="The tenants' file, where texts of tenants are kept."
    ),
]


def referee_of(by: str, judge: str | None, judge_url: str | None, judge_key_env: str | None) -> "Referee":
    """Who says which answer is better, as the options name it.

    Raises:
        InputError: they name none, or half of a judge.
    """
    from ..profiling.referees import ByAgreement, ByFormat, ByJudge

    if by not in BY:
        raise InputError(f"answers are compared by {', '.join(BY)}, not by {by!r}")
    metric = judge_of(judge, judge_url, judge_key_env)
    secret("--judge-key-env", judge_key_env)
    if by != "judge":
        if metric is not None:
            raise InputError(f"--judge is for comparing by judge, not by {by}")
        return ByAgreement() if by == "agreement" else ByFormat()
    if metric is None:
        raise InputError("a judge is a model and where it runs: give --judge MODEL and --judge-url URL")
    return ByJudge(metric)


def comparer_of(
    store: Registry,
    engine: "Engine",
    referee: "Referee",
    tenants: Path | None,
    say: Callable[[str], None] = lambda text: None,
) -> "Comparer":
    """What compares the kinds of a registry on the server of `engine`.

    Raises:
        InputError: the servers' key is not given.
    """
    from ..profiling.recurring import Comparer

    return Comparer(store, engine, referee, sample_keys(), _allowed(tenants), say=say)


def sample_keys() -> SampleKeys:
    """The servers' key, by which texts are read.

    Raises:
        InputError: it is not given.
    """
    if (keys := SampleKeys.from_environment()) is None:
        raise InputError(f"{KEY} is not set: the texts are read with the servers' key")
    return keys


def _allowed(file: Path | None) -> "Allowed":
    """Which adapters may answer a tenant's texts: those that it may use; without the tenants' file none may."""
    known = read_tenants(file.read_text(encoding="utf-8")) if file is not None else {}

    def allowed(tenant: str | None, adapter: Adapter) -> bool:
        if tenant is None:
            return True
        return tenant in known and known[tenant].samples and known[tenant].may_use(adapter.name, adapter.tags)

    return allowed
