"""What the demo replicates: regions, tables and caches, and the rules that the daemon is given for them, by mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from replicator.domain.values import replace

SOURCE: Final = "us"
"""The writer region of mode `ordered`."""

REGIONS: Final = {
    "us": "us-east-1",
    "eu": "eu-west-1",
    "ap": "ap-northeast-1",
    "sa": "sa-east-1",
    "ca": "ca-central-1",
}
ORDERED_REGIONS: Final = 3
VERSION: Final = "ver"
"""The attribute that the application raises in mode `versioned`."""

_CACHE_KEY = "order:{customer}:{order}"


@dataclass(frozen=True, slots=True)
class DemoCache:
    """A cache beside a region's table, as one rule uses it."""

    name: str
    region: str
    action: str
    key: str
    """The template."""


@dataclass(frozen=True, slots=True)
class DemoTable:
    """A table that is replicated: `key` is (attribute, type) of the hash key and, if there is one, of the range key."""

    rule: str
    key: tuple[tuple[str, str], ...]
    names: dict[str, str]
    """Table name by region id."""

    caches: tuple[DemoCache, ...] = ()

    @property
    def kinesis(self) -> str:
        """The Kinesis stream that its changes go to, in every region where they do."""
        return f"{self.rule}-changes"

    @property
    def replicas(self) -> tuple[str, ...]:
        """Region ids of the replicas, in mode `ordered`."""
        return tuple(region for region in self.names if region != SOURCE)


@dataclass(frozen=True, slots=True)
class Layout:
    """A mode with its regions and tables."""

    mode: str
    regions: dict[str, str]
    """AWS region by region id."""

    tables: tuple[DemoTable, ...]
    kinesis: bool = False
    """Whether changes are read in Kinesis streams, one for each table."""
    fan_out: bool = False
    """Whether their shards are pushed."""

    @property
    def written(self) -> tuple[str, ...]:
        """The regions in which users write; their tables have streams."""
        return (SOURCE,) if self.mode == "ordered" else tuple(self.regions)

    def used_caches(self) -> Iterator[tuple[DemoTable, DemoCache]]:
        """Every cache, with the table whose items it holds."""
        for table in self.tables:
            for cache in table.caches:
                yield table, cache

    def rules(self) -> list[dict[str, Any]]:
        """The rules as the configuration file writes them."""
        return [self._rule(table) for table in self.tables]

    def _rule(self, table: DemoTable) -> dict[str, Any]:
        home = table.names[SOURCE]
        actions = []
        for cache in table.caches:
            action = {"cache": cache.name, "key": cache.key, "action": cache.action}
            actions.append(action | {"ttl": "1h"} if cache.action != "invalidate" else action)
        members = {
            region: region if name == home else {"region": region, "table": name}
            for region, name in table.names.items()
        }
        rule: dict[str, Any] = {"name": table.rule, "table": home, "mode": self.mode}
        if self.mode == "ordered":
            rule |= {"source": SOURCE, "replicas": [members[region] for region in table.replicas]}
        else:
            rule |= {"regions": list(members.values())}
        if self.mode == "versioned":
            rule |= {"version": VERSION}
        if self.kinesis:
            rule |= {"stream": {"kinesis": table.kinesis, "fan_out": self.fan_out}}
        return rule | {"cache": actions}


def ordered() -> Layout:
    """One writer region, two replicas with a cache beside each."""
    regions = dict(list(REGIONS.items())[:ORDERED_REGIONS])
    caches = (
        DemoCache("eu_cache", "eu", "refresh", _CACHE_KEY),
        DemoCache("ap_cache", "ap", "invalidate", _CACHE_KEY),
    )
    return Layout("ordered", regions, _tables(regions, "ap", caches))


def cached(action: str) -> Layout:
    """The orders of mode `ordered` alone, with the same action for both caches."""
    whole = ordered()
    orders = whole.tables[0]
    return replace(
        whole, tables=(replace(orders, caches=tuple(replace(cache, action=action) for cache in orders.caches)),)
    )


def mesh(mode: str, count: int) -> Layout:
    """Users and a cache in every one of `count` regions."""
    regions = dict(list(REGIONS.items())[:count])
    caches = tuple(DemoCache(f"{region}_cache", region, "invalidate", _CACHE_KEY) for region in regions)
    return Layout(mode, regions, _tables(regions, list(regions)[-1], caches))


def layout_of(mode: str, count: int, *, kinesis: bool = False, fan_out: bool = False) -> Layout:
    """The layout of a mode; mode `ordered` has its three regions, whatever `count` says."""
    return replace(ordered() if mode == "ordered" else mesh(mode, count), kinesis=kinesis, fan_out=fan_out)


def _tables(regions: dict[str, str], renamed: str, caches: tuple[DemoCache, ...]) -> tuple[DemoTable, ...]:
    """Orders, with caches, and sessions, without; in the region `renamed` they have other names."""

    def names(name: str) -> dict[str, str]:
        return {region: f"{name}-copy" if region == renamed else name for region in regions}

    return (
        DemoTable("orders", (("customer", "S"), ("order", "N")), names("orders"), caches),
        DemoTable("sessions", (("id", "S"),), names("sessions")),
    )


ORDERED: Final = ordered()
ORDERS = ORDERED.tables[0]
