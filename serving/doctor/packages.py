"""Whether what serves is installed, fits, and would be loaded."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, entry_points, metadata, requires, version
from importlib.util import find_spec

from .finding import Finding, fail, ok, warn

CHECK_LIMIT_S = 180
_CHECK = "from traitroute.serving.vllm.plugin import check_vllm; check_vllm()"
_EMBEDDED = ("torch", "transformers", "peft", "uvicorn")
_GROUP = "vllm.endpoint_plugins"


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

    from ..vllm.plugin import SUPPORTED_VLLM

    try:
        found = version("vllm")
    except PackageNotFoundError:
        return fail("vllm", "importable, but without metadata", "install it again: `make install`")
    if not SpecifierSet(SUPPORTED_VLLM).contains(found, prereleases=True):
        advice = f"install vllm{SUPPORTED_VLLM}"
        return fail("vllm", f"{found}, which the plugin was not made for", advice)
    return ok("vllm", f"{found}, within {SUPPORTED_VLLM}")


def _check_parts() -> Finding:
    """In a process of its own: importing vLLM logs, takes seconds and can crash."""
    check = "vllm parts"
    command = [sys.executable, "-c", _CHECK]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=CHECK_LIMIT_S)
    except subprocess.TimeoutExpired:
        found = f"vLLM was not imported in {CHECK_LIMIT_S} s"
        return fail(check, found, "see whether `python -c 'import vllm'` ends")
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
        found = "not set" if given is None else "does not name traitroute"
        advice = "`traitroute serve` sets it; for your own `vllm serve`: VLLM_PLUGINS=traitroute"
        return warn(check, found, advice)
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
    found = f"installed: {', '.join(here) or 'none'}"
    return ok("extras", f"{found}; not: {', '.join(absent)}" if absent else found)


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
