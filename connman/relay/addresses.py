"""Whose attempt this is: the address of a client, seen through the proxies that are trusted and no others."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from connman.errors import InvalidOption

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_HOPS = 32
"""Proxies in a row that are looked through."""


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks that ``texts`` name, such as ``"10.0.0.0/8"`` or ``"::1"``.

    Raises: InvalidOption for what is none, and for one with host bits set, which is a slip.
    Threads: any.
    """
    found: list[Network] = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text.strip())
        except ValueError as error:
            raise InvalidOption(f"not an address or a network: {error}") from None
        found.append(_unmapped_network(network))
    return tuple(found)


def client_address(peer: str, headers: Iterable[tuple[str, str]], trusted: tuple[Network, ...]) -> str:
    """Return the address of the client, in its shortest form: ``peer``, or what trusted proxies say of it.

    X-Forwarded-For is read from the right, each hop only when the one before it is trusted: what a client writes into
    it stands further left and is never reached. An entry that is no address ends the walk: the client counts as the
    proxy that let it through. A ``peer`` that is no address (a Unix socket's) is returned as it is, and is not trusted.

    Threads: any.
    """
    here = parse(peer)
    if here is None or not trusted:
        return str(here or peer)
    hops = [hop for name, value in headers if name.lower() == "x-forwarded-for" for hop in value.split(",")]
    for hop in hops[: -MOST_HOPS - 1 : -1]:
        before = parse(hop)
        if before is None or not is_within(here, trusted):
            break
        here = before
    return str(here)


def parse(text: str) -> Address | None:
    """Return the address in ``text``, without port, brackets, zone, and IPv6 around an IPv4 address; None for no address.

    Threads: any.
    """
    text = text.strip().strip('"')
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(":" + port):
            return None
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _is_port(text: str) -> bool:
    return text[:1] == ":" and len(text) <= 6 and text[1:].isascii() and text[1:].isdigit()


def _unmapped_network(network: Network) -> Network:
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - 96))


def is_within(address: Address, trusted: Iterable[Network]) -> bool:
    """Return whether ``address`` lies in one of the networks.

    Threads: any.
    """
    return any(address.version == network.version and address in network for network in trusted)


def rate_key(address: str) -> str:
    """Return what is counted as one client: an IPv4 address, or the /64 of an IPv6 one, all of which one host may use.

    Threads: any.
    """
    found = parse(address)
    if found is None or found.version == 4:
        return str(found or address)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))


def is_loopback(host: str) -> bool:
    """Return whether only this machine gets to ``host``, an address or ``localhost``.

    Threads: any.
    """
    found = parse(host)
    return host.lower() == "localhost" if found is None else found.is_loopback
