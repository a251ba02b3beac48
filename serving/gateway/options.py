"""What an operator says of the servers behind the gateway."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from ...adapters import InputError
from ..http.addresses import public


class Load(StrEnum):
    """The upstreams' own way to take adapters while they run; `none`: they have what they list."""

    NONE = "none"
    VLLM = "vllm"
    SGLANG = "sglang"
    LORAX = "lorax"


@dataclass(frozen=True)
class GatewayOptions:
    """Where requests go and under which names and keys.

    `upstreams` are URLs without the `/v1`. `aliases` are the names under which upstreams may list an
    adapter, or the base model under `base`. `weights` is the weight store as the upstreams see it (None:
    at the same path as here). `key` is what clients must present, `upstream_key` what upstreams are given; pages
    of the web `origins` may read answers.
    """

    upstreams: tuple[str, ...]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    load: Load = Load.NONE
    weights: Path | None = None
    key: str | None = field(default=None, repr=False)
    upstream_key: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()


def upstream_urls(given: Sequence[str]) -> tuple[str, ...]:
    """Check the URLs of upstreams and take a `/v1` off their ends, which clients' paths bring.

    Raises:
        InputError: one is not a URL of a server, or is given twice.
    """
    urls = tuple(_upstream_url(text) for text in given)
    if twice := {url for url in urls if urls.count(url) > 1}:
        raise InputError(f"--upstream {min(twice)} is given twice: name every server once")
    return urls


def _upstream_url(text: str) -> str:
    try:
        url = urlsplit(text)
        valid = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        url, valid = None, False
    if url is None or not valid or "@" in text or url.query or url.fragment:
        raise InputError(
            f"--upstream {public(text)!r} is not the address of a server: wanted http:// or https://, a host and "
            "perhaps a port and a path, as in http://localhost:8000 (keys go into --upstream-key-env)"
        )
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/').removesuffix('/v1')}"


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
