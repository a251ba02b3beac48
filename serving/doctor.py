"""`traitroute doctor`'s checks: the registry, the installed packages and the gateway's upstreams, each with advice."""

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from http.client import HTTPException, HTTPResponse
from importlib.metadata import PackageNotFoundError, entry_points, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from ..adapters import AdapterState, Place, Registry, RegistryError, StoredProfile, TraitRouteError, check_not_base
from ..adapters.registry.schema import SCHEMA_VERSION
from ..router import Router
from .engines.probe import Effect
from .http.addresses import proxy_of, public

OLD = timedelta(days=90)
LEAST_FREE_BYTES = 2**30
VLLM_LIMIT_S = 180
UPSTREAM_LIMIT_S = 10
_CHECK = "from traitroute.serving.vllm.plugin import check_vllm; check_vllm()"
_EMBEDDED = ("torch", "transformers", "peft", "uvicorn")
_GROUP = "vllm.endpoint_plugins"


class Verdict(StrEnum):
    """`warn`: it works, but not as it could; `fail`: something will not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was checked, the result, and what to do about trouble."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def ok(check: str, result: str) -> Finding:
    """A finding without trouble."""
    return Finding(check, Verdict.OK, result)


def warn(check: str, result: str, advice: str) -> Finding:
    """A finding that it works, but not as it could."""
    return Finding(check, Verdict.WARN, result, advice)


def fail(check: str, result: str, advice: str) -> Finding:
    """A finding that something will not work."""
    return Finding(check, Verdict.FAIL, result, advice)


def listed(names: list[str], shown: int = 5) -> str:
    """The first names, and how many more."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def check_registry(
    place: Place, *, on_weights: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Finding]:
    """Check the registry at a path or URL; `on_weights` gets how many adapters' weights were read, and of how many."""
    try:
        with Registry.open(place, read_only=True) as registry:
            result = f"{registry.location}: schema {SCHEMA_VERSION}, revision {registry.revision()}"
            yield ok("registry", result)
            yield from _check_profile(registry)
            yield _check_adapters(registry)
            yield _check_names(registry)
            yield _check_effects(registry)
            yield from _check_stored(registry, on_weights)
    except (TraitRouteError, OSError) as exc:
        yield fail(
            "registry",
            str(exc),
            "give another with --registry, or see the message; servers that run go on with what they last read",
        )


def _check_profile(registry: Registry) -> Iterator[Finding]:
    try:
        stored = registry.latest_profile()
        if stored is None:
            yield fail("profile", "none: base answers every request", "run `traitroute profile`")
            return
        router = Router.from_registry(registry)
        router.route("Is there an answer?")
    except (TraitRouteError, ValueError, ArithmeticError) as exc:
        yield fail("profile", str(exc), "run `traitroute profile` again")
        return
    yield _check_age(stored)
    yield _check_changes(registry, stored, router.profile.adapters)


def _check_age(stored: StoredProfile) -> Finding:
    age = datetime.now(UTC) - stored.created_at
    result = f"version {stored.version}, {age.days} days old"
    if age > OLD:
        return warn("profile", result, "measure again if your requests have changed")
    return ok("profile", result)


def _check_changes(registry: Registry, stored: StoredProfile, known: tuple[str, ...]) -> Finding:
    check = "changes since"
    ready = registry.adapters(AdapterState.READY)
    newer = [a.name for a in ready if a.name in known and a.created_at > stored.created_at]
    if newer:
        result = f"other weights than were measured: {listed(newer)}"
        return warn(check, result, "measure what changed: `traitroute profile`")
    if unknown := [a.name for a in ready if a.name not in known]:
        return warn(
            check, f"ready but not in the profile: {listed(unknown)}", "measure what changed: `traitroute profile`"
        )
    gone = sorted(set(known) - {a.name for a in ready})
    if gone:
        result = f"in the profile but not ready, so never chosen: {listed(gone)}"
        return warn(check, result, "enable them, or profile again without them")
    return ok(check, "none: every adapter of the profile is ready, with the weights measured")


def _check_adapters(registry: Registry) -> Finding:
    counts = Counter(a.state for a in registry.adapters())
    result = ", ".join(f"{counts[state]} {state}" for state in AdapterState)
    if not counts[AdapterState.READY]:
        return warn("adapters", result, "none is ready, so base answers: run `traitroute profile`")
    return ok("adapters", result)


def _check_names(registry: Registry) -> Finding:
    shadowed = []
    for adapter in registry.adapters():
        try:
            check_not_base(adapter.name, adapter.base_model)
        except ValueError:
            shadowed.append(adapter.name)
    if shadowed:
        result = f"called like the base model, which may answer instead: {listed(shadowed)}"
        return warn("names", result, "add the adapter under another name, and remove this one")
    return ok("names", "no adapter is called like the base model")


def _check_effects(registry: Registry) -> Finding:
    """Whether every routable adapter was seen to change the probe."""
    check, ready = "applied", registry.adapters(AdapterState.READY)
    effects = {adapter.name: effect for adapter in ready if (effect := Effect.measured(adapter)) is not None}
    if hidden := [f"{name} ({effect})" for name, effect in effects.items() if not effect.is_shown]:
        result = f"the probe shows no more than noise: {listed(hidden)}"
        return warn(check, result, "see on which tasks their answers differ: `traitroute adapters show NAME`")
    if unread := [adapter.name for adapter in ready if adapter.name not in effects]:
        result = f"no proof from measuring: {listed(unread)}"
        return warn(
            check, result, "measure them where log-likelihoods are given; servers look for a proof of their own"
        )
    if not ready:
        return ok(check, "no adapter is ready, so none to prove")
    least = min(effects, key=lambda name: effects[name].nats)
    return ok(check, f"each ready adapter changes the probe, {least} least: {effects[least]}")


def _check_stored(registry: Registry, on_weights: Callable[[int, int], None]) -> Iterator[Finding]:
    try:
        folder = registry.weights.root
    except RegistryError as exc:
        yield fail("weights", str(exc), "export TRAITROUTE_WEIGHTS")
        return
    yield _check_weights(registry, on_weights)
    yield _check_disk(folder)


def _check_weights(registry: Registry, on_weights: Callable[[int, int], None]) -> Finding:
    adapters, broken = registry.servable(), []
    for done, adapter in enumerate(adapters):
        on_weights(done, len(adapters))
        try:
            registry.weights.verify(adapter.weights_digest)
        except (TraitRouteError, OSError):
            broken.append(adapter.name)
    on_weights(len(adapters), len(adapters))
    if broken:
        result = f"missing or changed: {listed(broken)}"
        advice = "restore them from a backup, or add the adapters again"
        return fail("weights", result, advice)
    return ok("weights", f"{len(adapters)} servable adapters, every digest right")


def _check_disk(folder: Path) -> Finding:
    there = next(each for each in (folder, *folder.resolve().parents) if each.is_dir())
    free = shutil.disk_usage(there).free
    result = f"{free / 2**30:.1f} GiB free where weights are kept"
    if free < LEAST_FREE_BYTES:
        return warn("disk", result, "free some: weights are copied here")
    return ok("disk", result)


def check_packages(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Check vLLM with our plugin, the embedded server's packages, and the extras."""
    if find_spec("vllm") is None:
        yield _without_vllm()
    else:
        yield _check_version()
        yield _check_parts()
        yield _check_entry_point()
        yield _check_plugins(environment)
    yield _check_extras()


def _without_vllm() -> Finding:
    missing = [package for package in _EMBEDDED if find_spec(package) is None]
    if missing:
        advice = "pip install 'traitroute[serve]', or 'traitroute[embedded]' for a laptop"
        return fail("vllm", f"not installed, and neither are {', '.join(missing)}", advice)
    advice = "pip install 'traitroute[serve]' for speed; `traitroute serve` works without"
    return warn("vllm", "not installed: the embedded server serves", advice)


def _check_version() -> Finding:
    from packaging.specifiers import SpecifierSet

    from .vllm.plugin import SUPPORTED_VLLM

    try:
        installed = version("vllm")
    except PackageNotFoundError:
        return fail("vllm", "importable, but without metadata", "install it again: `make install`")
    if not SpecifierSet(SUPPORTED_VLLM).contains(installed, prereleases=True):
        advice = f"install vllm{SUPPORTED_VLLM}"
        return fail("vllm", f"{installed}, which the plugin was not made for", advice)
    return ok("vllm", f"{installed}, within {SUPPORTED_VLLM}")


def _check_parts() -> Finding:
    """In a process of its own: importing vLLM logs, takes seconds and can crash."""
    check = "vllm parts"
    command = [sys.executable, "-c", _CHECK]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=VLLM_LIMIT_S)
    except subprocess.TimeoutExpired:
        result = f"vLLM was not imported in {VLLM_LIMIT_S} s"
        return fail(check, result, "see whether `python -c 'import vllm'` ends")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        advice = "install a version that the plugin supports"
        return fail(check, last.rpartition("ServerError: ")[2][:300], advice)
    return ok(check, "all that the plugin touches is there")


def _check_entry_point() -> Finding:
    check = "entry point"
    if not entry_points(group=_GROUP, name="traitroute"):
        advice = "install traitroute into this environment again"
        return fail(check, f"{_GROUP} has no traitroute: vLLM cannot find the plugin", advice)
    return ok(check, f"{_GROUP}: traitroute")


def _check_plugins(environment: Mapping[str, str]) -> Finding:
    check, given = "VLLM_PLUGINS", environment.get("VLLM_PLUGINS")
    if "traitroute" not in (given or "").split(","):
        result = "not set" if given is None else "does not name traitroute"
        advice = "`traitroute serve` sets it; for your own `vllm serve`: VLLM_PLUGINS=traitroute"
        return warn(check, result, advice)
    if not environment.get("TRAITROUTE_REGISTRY"):
        advice = "set TRAITROUTE_REGISTRY to the registry's path"
        return warn(check, "names traitroute, but TRAITROUTE_REGISTRY is not set", advice)
    return ok(check, "names traitroute, and TRAITROUTE_REGISTRY is set")


def _check_extras() -> Finding:
    extras = metadata("traitroute").get_all("Provides-Extra") or []
    needs = {extra: _needs(extra) for extra in extras}
    lacking = {e: [n for n in names if not _installed(n)] for e, names in needs.items()}
    here = [extra for extra in extras if not lacking[extra]]
    absent = [f"{e} (lacks {', '.join(names)})" for e, names in lacking.items() if names]
    result = f"installed: {', '.join(here) or 'none'}"
    return ok("extras", f"{result}; not: {', '.join(absent)}" if absent else result)


def _needs(extra: str) -> list[str]:
    marker = re.compile(rf"""extra\s*==\s*['"]{re.escape(extra)}['"]""")
    lines = [line for line in requires("traitroute") or [] if marker.search(line)]
    return [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in lines]


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def check_upstream(url: str, *, key: str | None = None) -> Finding:
    """Ask the server at `url` (with or without /v1) for its models; `key` is its API key."""
    check = f"upstream {public(url)}"
    try:
        proxy, parts = proxy_of(url), urlsplit(url)
        if "@" in parts.path + parts.query + parts.fragment:
            raise ValueError("a part of a user's name or password ended the host")
    except ValueError:
        advice = (
            "give it as http://HOST:PORT; in a user's name or a password write '@' as %40, '/' as %2F, '?' as %3F, "
            "'#' as %23"
        )
        return fail(check, "its URL cannot be read", advice)
    through = f" through the proxy {public(proxy)}" if proxy else ""
    server = url.rstrip("/").removesuffix("/v1")
    try:
        names = _models(f"{server}/v1/models", key)
    except HTTPError as exc:
        exc.close()
        if exc.code in (401, 403):
            advice = "name the variable with its key: --upstream-key-env NAME"
            return fail(check, f"refuses the key (status {exc.code})", advice)
        return fail(check, f"status {exc.code} for /v1/models{through}", "is it an OpenAI-compatible server?")
    except (URLError, HTTPException, OSError) as exc:
        reason = getattr(exc, "reason", None) or type(exc).__name__
        return fail(check, f"cannot be reached{through}: {reason}", "start it, or mend the URL")
    except (ValueError, KeyError, TypeError):
        return fail(check, "answers, but with no list of models", "is the URL right?")
    if not names:
        return warn(check, "reachable, without any model", "load one")
    result = f"{len(names)} models: {listed(names)}"
    metrics = _metrics(f"{server}/metrics", key)
    if b"\ntraitroute_registry_reachable 0.0\n" in metrics:
        result = f"its registry is away, so it goes on with what it read last: {result}"
        return warn(check, result, "see to the registry's file or database")
    idle, unproven = (_by_verdict(metrics, verdict) for verdict in ("idle", "unproven"))
    if idle:
        advice = "check their target modules and the server's LoRA options"
        return warn(check, f"answers as base when asked for {listed(idle)}, so sets them aside: {result}", advice)
    if unproven:
        result = f"no proof that it applies {listed(unproven)}: {result}"
        return warn(check, result, "see the reason at /v1/skills: it gave no log-probabilities, or none in time")
    return ok(check, result)


def _metrics(url: str, key: str | None) -> bytes:
    """The server's metrics; ours show what other servers do not."""
    try:
        with _open(url, key) as response:
            return response.read()
    except (HTTPException, OSError):
        return b""


def _by_verdict(metrics: bytes, verdict: str) -> list[str]:
    """The adapters on which the server's newest verdict is this."""
    line = rf'^traitroute_adapter_verdict\{{adapter="([^"]+)",verdict="{verdict}"[^}}]*\}} 1\.0$'
    return sorted(set(re.findall(line, metrics.decode(errors="replace"), re.MULTILINE)))


def _models(url: str, key: str | None) -> list[str]:
    with _open(url, key) as response:
        listing: Any = json.load(response)
    return [str(card["id"]) for card in listing["data"]]


def _open(url: str, key: str | None) -> HTTPResponse:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise URLError("the URL must begin with http:// or https://")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    user, _, _ = parts.netloc.rpartition("@")
    if user and not key:
        headers["authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
    proxy = proxy_of(url)
    opener = build_opener(ProxyHandler({parts.scheme: proxy} if proxy else {}), _NoRedirects)
    return opener.open(Request(public(url), headers=headers), timeout=UPSTREAM_LIMIT_S)


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirect, as the gateway does: the key is for this server and no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""
