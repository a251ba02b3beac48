"""Addresses of other servers: how they are shown, and through which proxy they are reached."""

from contextlib import suppress
from ipaddress import ip_address, ip_network
from socket import inet_aton
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def public(url: str) -> str:
    """The URL without what may be secret: user, password, query and fragment, wherever a mistake may have put them."""
    scheme, separator, rest = url.rpartition("://") if "://" in url else ("", "", url)
    return scheme.rpartition("@")[2] + separator + _cut(rest.rpartition("@")[2])


def proxy_of(url: str) -> str | None:
    """The proxy by which the environment wants `url` reached; a server on this machine is never behind one.

    `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` mean what they mean to `urllib`; `NO_PROXY` may hold networks too.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    exempt = proxy_bypass(f"{host}:{parts.port}" if parts.port else host)
    if not proxy or exempt or _is_here(host) or _is_within(host, proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _cut(text: str) -> str:
    return text.partition("?")[0].partition("#")[0]


def _is_within(host: str, no_proxy: str) -> bool:
    """Whether `no_proxy` holds a network with this address, as in 10.0.0.0/8."""
    for entry in no_proxy.split(","):
        with suppress(ValueError):
            if ip_address(host) in ip_network(entry.strip(), strict=False):
                return True
    return False


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        try:
            # 127.1 and 2130706433 are addresses to whoever connects.
            address = ip_address(inet_aton(host))
        except OSError:
            return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified
