"""The gateway's options: the servers behind it, and the names and keys that they know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ...adapters import InputError
from ..http.addresses import server_url


class Load(StrEnum):
    """How upstreams load adapters while they run; `none`: they have only what they list."""

    NONE = "none"
    VLLM = "vllm"
    SGLANG = "sglang"
    LORAX = "lorax"
    RAY = "ray"


@dataclass(frozen=True)
class GatewayOptions:
    """Where requests go and under which names and keys.

    `upstreams` are URLs without the `/v1`. `aliases` are the names under which upstreams may list an
    adapter, or the base model under `base`. `weights` is the weight store as the upstreams see it (None:
    at the same path as here). `slots` is how many adapters each of them computes with at a time (None: not known).
    `key` is what clients must present, `upstream_key` what upstreams are given; pages of the web `origins` may read
    answers. `sends` says whether requests are sent on from here, or else by Envoy.
    """

    upstreams: tuple[str, ...]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    load: Load = Load.NONE
    weights: Path | None = None
    slots: int | None = None
    key: str | None = field(default=None, repr=False)
    upstream_key: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    sends: bool = True


def upstream_urls(given: Sequence[str]) -> tuple[str, ...]:
    """The URLs of upstreams, checked, without the `/v1` at their ends.

    Raises:
        InputError: one is not a URL of a server, or is given twice.
    """
    urls = tuple(server_url(text, key_option="--upstream-key-env") for text in given)
    if twice := {url for url in urls if urls.count(url) > 1}:
        raise InputError(f"--upstream {min(twice)} is given twice: name every server once")
    return urls


def parse_aliases(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Turn `adapter=upstream-name` texts into the names that each adapter may bear.

    Raises:
        InputError: a text is not of that form.
    """
    aliases: dict[str, tuple[str, ...]] = {}
    for text in given:
        adapter, equals, name = text.partition("=")
        if not (adapter and equals and name):
            raise InputError(
                f"--alias {text!r} names no pair: wanted ADAPTER=NAME, the adapter's name here and the "
                "upstream's name for it, or base=NAME for the base model"
            )
        aliases[adapter] = (*aliases.get(adapter, ()), name)
    return aliases
