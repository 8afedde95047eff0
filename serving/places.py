"""Limits on the number of visitors, in total and per network address, and on the rate of their jobs."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Protocol, TypeVar

from serving.errors import Refused
from utils.errors import InputError

FULL_SECONDS = 60  # after which a visitor tries again if all places are taken
USED_SECONDS = 10  # and if those of the address are
PRUNED = 1000  # addresses of a rate from which on those without recent jobs are forgotten
IPV6_SITE = 64  # bits: prefix length of the network usually assigned to one visitor


class Busy(Refused):
    """No place is free: status 503 if all places are taken, 429 if the share or the rate of the address is used."""


class Owned(Protocol):
    """Something that is kept for a visitor."""

    @property
    def address(self) -> str: ...


Item = TypeVar("Item", bound=Owned)


def keep(kept: dict[str, Item], token: str, new: Item, size: Callable[[Item], int], limit: int) -> None:
    """Keep an item; the oldest are dropped, first those of an address that has more than half of all.

    Args:
        kept: Items by token, the oldest first; changed in place. The new one always stays.
        size: Size of an item.
        limit: Largest size of all items.
    """
    kept[token] = new

    def total(address: str | None = None) -> int:
        return sum(size(item) for item in kept.values() if address in (None, item.address))

    while len(kept) > 1 and total() > limit:
        crowded = total(new.address) > limit // 2
        del kept[next(key for key, item in kept.items() if not crowded or item.address == new.address)]


class Rate:
    """Limit on the jobs of an address per minute; all of them may come at once.

    Args:
        per_minute: Number of jobs.
    """

    def __init__(self, per_minute: int):
        self.per_minute, self.interval = per_minute, 60 / per_minute
        self.used_until: dict[str, float] = {}  # address -> time at which all its jobs are available again

    def use(self, address: str) -> None:
        """Count a job.

        Raises:
            Busy: the address had all its jobs of a minute.
        """
        now = time.monotonic()
        start = max(now, self.used_until.get(address, now))
        wait = start + self.interval - now - 60
        if wait > 1e-6:
            message = f"your network address has sent more than {self.per_minute} requests in a minute; wait a moment"
            raise Busy(message, 429, math.ceil(wait))
        if len(self.used_until) > PRUNED:
            self.used_until = {key: until for key, until in self.used_until.items() if until > now}
        self.used_until[address] = start + self.interval


class Places:
    """Places of visitors.

    Args:
        total: Number of places.
        share: Number of places per address; reduced to ``total - 1`` (but not below 1), so that one address never takes
            all places.
        full: Error if all places are taken.
        used: Error if the share of an address is used.
        per_minute: Number of places that an address can take in a minute; None for no limit.
    """

    def __init__(self, total: int, share: int, full: str, used: str, per_minute: int | None = None):
        self.total, self.share = total, share_of(total, share)
        self.rate = Rate(per_minute) if per_minute else None
        self.full, self.used = full, used
        self.held: Counter[str] = Counter()  # address -> places

    @property
    def taken(self) -> int:
        """Number of places that are taken."""
        return self.held.total()

    def take(self, address: str) -> None:
        """Take a place for an address.

        Raises:
            Busy: no place is free, or the share or the rate of the address is used.
        """
        if self.taken >= self.total:
            raise Busy(self.full, 503, FULL_SECONDS)
        if self.held[address] >= self.share:
            raise Busy(self.used, 429, USED_SECONDS)
        if self.rate is not None:
            self.rate.use(address)
        self.held[address] += 1

    def release(self, address: str) -> None:
        """Release a place of an address."""
        self.held[address] -= 1
        if not self.held[address]:
            del self.held[address]

    @contextmanager
    def hold(self, address: str) -> Iterator[None]:
        """Context manager that holds a place; raises ``Busy`` as ``take`` does."""
        self.take(address)
        try:
            yield
        finally:
            self.release(address)


def share_of(total: int, share: int) -> int:
    """Return the maximum share of an address: at least 1, and less than the total if possible."""
    return max(1, min(share, total - 1))


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """Parse the address or network of a proxy.

    Raises:
        InputError: the text is neither.
    """
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise InputError(
            f"--trusted-proxy is {text[:60]!r}; give an address such as 127.0.0.1 or a network such as 10.0.0.0/8"
        ) from error


class Proxy:
    """The reverse proxy in front of the app, if there is one.

    Args:
        network: Address or network of the proxy. ``X-Forwarded-For`` is only used from there; None for no proxy.
    """

    def __init__(self, network: str | None):
        self.network = parse_network(network) if network else None

    def trusts(self, peer: str) -> bool:
        """Whether a connection from the address ``peer`` comes from the proxy."""
        try:
            return self.network is not None and _parsed(peer) in self.network
        except ValueError:
            return False

    def visitor(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the network address that a request counts for.

        Args:
            peer: Address that the connection comes from.
            forwarded: Values of the headers ``X-Forwarded-For``. The last address, added by the proxy, is used.
        """
        if forwarded and self.trusts(peer):
            last = forwarded[-1].rpartition(",")[2].strip()
            try:
                ip_address(last)
            except ValueError:
                return site_of(peer)
            return site_of(last)
        return site_of(peer)


def site_of(address: str) -> str:
    """Return an IPv4 address unchanged, and the /64 network of an IPv6 address, which belongs to one visitor."""
    try:
        parsed = _parsed(address)
    except ValueError:
        return address
    return str(ip_network((int(parsed), IPV6_SITE), strict=False)) if isinstance(parsed, IPv6Address) else str(parsed)


def _parsed(address: str):
    """Parse an address; an IPv4 address within IPv6 becomes the IPv4 address."""
    parsed = ip_address(address)
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
