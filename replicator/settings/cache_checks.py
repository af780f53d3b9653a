"""What the cache actions of a rule must agree on with its caches and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import timedelta

from replicator.domain.key_templates import KeyTemplate
from replicator.settings.cache_actions import CacheAction
from replicator.settings.rules import OrderedRule, RuleSettings, VersionedRule
from replicator.settings.sections import Cache

_LEAST_TTL = timedelta(seconds=1)


def cache_problems(caches: Mapping[str, Cache], rule: RuleSettings, used: AbstractSet[str]) -> Iterator[str]:
    """The first problem of each action, since later ones often follow from it; `used`: the rule's regions."""
    for n, action in enumerate(rule.cache):
        first = next(_problems_of(action, caches, rule, used), None)
        if first is not None:
            yield f"cache[{n}].{first}"


def _problems_of(
    action: CacheAction, caches: Mapping[str, Cache], rule: RuleSettings, used: AbstractSet[str]
) -> Iterator[str]:
    cache = caches.get(action.cache)
    if cache is None:
        known = ", ".join(caches) or "none is configured"
        yield f"cache: {action.cache!r} is not one of caches ({known})"
        return
    if cache.region not in used:
        yield f"cache: cache {action.cache!r} is in region {cache.region!r}, which rule {rule.name!r} does not use"
    yield from _debt_problems(action, cache, caches)
    if action.ttl is not None and action.ttl < _LEAST_TTL:
        yield "ttl: must be at least 1s"
    if action.marker_ttl is not None and action.marker_ttl < _LEAST_TTL:
        yield "marker_ttl: must be at least 1s"
    yield from _storing_problems(action, cache, rule, used)


def _debt_problems(action: CacheAction, cache: Cache, caches: Mapping[str, Cache]) -> Iterator[str]:
    debt = cache.debt
    if debt.policy == "flush" and action.action == "publish":
        yield (
            f"action: caches.{action.cache}.debt.policy flush drops entries and tells of none, so messages would be"
            " lost; set policy: wait"
        )
    if (debt.policy, debt.flush) == ("flush", "keys") and not action.template(caches).prefix:
        yield (
            f"key: begins with an attribute, so caches.{action.cache}.debt.policy flush would drop entries that are not"
            " the rule's; let the key begin with a text, set policy: wait, or flush: database if the database holds"
            " nothing else"
        )


def _storing_problems(action: CacheAction, cache: Cache, rule: RuleSettings, used: AbstractSet[str]) -> Iterator[str]:
    """An entry can be stored only beside a table whose items have a version that orders them."""
    replicas = {replica.region for replica in rule.replicas} if isinstance(rule, OrderedRule) else set()
    versioned = {member.region for member in rule.regions} if isinstance(rule, VersionedRule) else replicas
    if cache.region not in (versioned if action.stores else used) or (action.values and cache.region not in replicas):
        yield "action: a cache beside a table that users write allows only invalidate, or publish without values"
    if action.stores and (lacking := KeyTemplate(action.key).lacks(_keys_in(rule, cache.region))):
        yield (
            f"key: lacks {' and '.join(lacking)} of the primary key, so several items may share an entry, and their"
            " versions do not compare; put the whole key into the template, or set action: invalidate"
        )


def _keys_in(rule: RuleSettings, region: str) -> Iterable[str]:
    """The key attributes of the rule's table in a region, as far as the file says which these are."""
    for replica in rule.replicas if isinstance(rule, OrderedRule) else ():
        if replica.region == region and replica.transform is not None and replica.transform.key is not None:
            return replica.transform.key
    return rule.primary_key
