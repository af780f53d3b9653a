"""Which entries a target keeps in step, as a text beside its position: what another configuration did not keep shows.

A position says that everything before it is done, and that includes the cache actions of the configuration that was in
force. Entries that were not in it may be older than the table since. Invariant: two targets have the same text when
every change of an item acts on the same entries of the same caches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from replicator.domain.cache_keys import CacheRule, CacheVerb
from replicator.domain.filters import Filter
from replicator.domain.identifiers import ShardId
from replicator.domain.shards.leases import LeaseRow
from replicator.domain.targets import TargetId

_DIGITS = 16


def kept_entries(caches: Iterable[CacheRule]) -> str:
    """The entries that these caches have of an item, as words `cache:digest` in order; messages are no entries."""
    words = {f"{rule.cache}:{_digest(rule)}" for rule in caches if rule.verb is not CacheVerb.PUBLISH}
    return " ".join(sorted(words))


def newly_kept(entries: str, before: str) -> list[str]:
    """Caches with entries that were not kept in step before, sorted."""
    return sorted({word.partition(":")[0] for word in set(entries.split()) - set(before.split())})


def with_those_of_parents(row: LeaseRow, rows: Mapping[ShardId, LeaseRow]) -> dict[TargetId, str]:
    """What a shard's targets keep; one that has not begun there keeps what it kept on all of the shard's parents."""
    kept: dict[TargetId, set[str]] = {}
    for parent in (rows[shard_id] for shard_id in row.shard.parents if shard_id in rows):
        for target_id, entries in parent.keeps.items():
            kept[target_id] = kept.get(target_id, set(entries.split())) & set(entries.split())
    of_parents = {target_id: " ".join(sorted(words)) for target_id, words in kept.items()}
    return {name: words for name, words in of_parents.items() if name not in row.checkpoints} | dict(row.keeps)


def _digest(rule: CacheRule) -> str:
    parts = (rule.key.pattern, rule.key.template, *(() if rule.when is None else _conditions(rule.when)))
    return sha256("\n".join(parts).encode()).hexdigest()[:_DIGITS]


def _conditions(when: Filter) -> tuple[str, ...]:
    where = "" if when.where is None else when.where.expression
    return repr(when.key_prefix), repr(when.equals), repr(when.exists), where
