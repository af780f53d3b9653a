"""Facts about caches: whether they answer, over what, and whether their users may do what rules ask of them.

Permissions are proven on a key made from each template that no item has, so no entry is ever touched.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import msgspec

from replicator.checks.comparison import World, table_at
from replicator.checks.facts import Fact, failed, ok, warning, wrong
from replicator.checks.region_facts import is_loopback
from replicator.domain.cache_keys import CacheVerb
from replicator.domain.cache_nodes import CacheNode, eviction_trouble
from replicator.domain.cache_urls import cluster_url, sentinel_url
from replicator.domain.errors import AccessRefused, ReplicatorError
from replicator.domain.image import Image
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.values import replace
from replicator.settings.compiled_rules import cache_use, debt_policy

if TYPE_CHECKING:
    from replicator.domain.cache_debt import DebtPolicy
    from replicator.settings import RuleSettings, Settings


class Probed(Protocol):
    """A cache that can be asked whether it is there and usable."""

    async def probe(self) -> None:
        """Raise a `ReplicatorError` when it is not."""

    async def flush_denied(self, patterns: Sequence[str] | None) -> str | None:
        """Why entries that match patterns could not be looked for; None when they could."""

    async def heads(self, keys: Sequence[str]) -> Sequence[bytes]:
        """The first bytes of entries."""

    async def nodes(self) -> Sequence[CacheNode]:
        """Its servers, as they say."""

    async def denied(self, key: str, verb: CacheVerb) -> Mapping[str, str]:
        """The commands that are denied to actions on a key that no item has, and the server's words."""


async def cache_facts(settings: Settings, caches: Mapping[str, Probed]) -> list[Fact]:
    """Whether every cache that rules use answers, and over what."""
    answers = await answering(settings.rules, caches)
    return [*answers.values(), *(fact for name in answers for fact in _encryption(name, settings.caches[name].url))]


async def answering(rules: Iterable[RuleSettings], caches: Mapping[str, Probed]) -> dict[str, Fact]:
    """Whether every cache that these rules use answers, by its name."""
    used = list(dict.fromkeys(action.cache for rule in rules for action in rule.cache))
    return dict(zip(used, await asyncio.gather(*(_answers(name, caches[name]) for name in used)), strict=True))


async def _answers(name: str, cache: Probed) -> Fact:
    try:
        await cache.probe()
    except ReplicatorError as error:
        fact = failed(f"cache {name}", "answers", error)
        return replace(fact, remedy=f"{fact.remedy} See caches.{name} in the configuration.")
    return ok(f"cache {name}", "answers")


def _encryption(name: str, url: str) -> Iterator[Fact]:
    """A warning when a cache is reached in clear text over a network."""
    address = urlsplit(url)
    if (behind := sentinel_url(url)) is not None:
        clear = not behind.tls and not all(is_loopback(host) for host, _ in behind.sentinels)
    elif (cluster := cluster_url(url)) is not None:
        clear = not cluster.tls and not all(is_loopback(host) for host, _ in cluster.nodes)
    else:
        clear = address.scheme == "redis" and not is_loopback(address.hostname or "")
    if clear:
        yield warning(
            f"cache {name}",
            "encrypted",
            f"caches.{name}.url has no TLS and is another machine, so items and password travel unencrypted.",
            "Use rediss://.",
        )


_STORING = "UNLINK, GET, SET, EVAL and EVALSHA"
_NEEDED = {
    CacheVerb.PUBLISH: "EVAL and EVALSHA (PUBLISH or XADD is not tried)",
    CacheVerb.INVALIDATE: "UNLINK",
    CacheVerb.REFRESH: _STORING,
    CacheVerb.WRITE_THROUGH: f"{_STORING}, and TIME",
}
"""The commands of every action, the one that needs most last."""


def cache_users(settings: Settings) -> list[Fact]:
    """The commands that the user of every cache needs, as the server takes them."""
    used = dict.fromkeys(name for rule in settings.rules for name in sorted(rule.caches_used))
    return [
        ok(f"cache {name}", "user", cache_use(settings, name).acl(settings.caches[name].username or "replicator"))
        for name in used
    ]


# -- permissions ---------------------------------------------------------------------------------------------------


async def prove_caches(settings: Settings, caches: Mapping[str, Probed], world: World) -> list[Fact]:
    """Whether the users of caches may do what rules ask of them; `caches`: those that answer."""
    wanted: dict[tuple[str, str], tuple[CacheVerb, str]] = {}
    for rule in settings.rules:
        for action in rule.cache:
            verb, place = CacheVerb(action.action), (action.cache, action.key)
            if place not in wanted or list(_NEEDED).index(verb) > list(_NEEDED).index(wanted[place][0]):
                wanted[place] = (verb, _unused_key(rule, action.template(settings.caches), world))
    used = dict.fromkeys(name for name, _ in wanted if name in caches)
    keys = {name: key for (name, _), (verb, key) in wanted.items() if verb is not CacheVerb.PUBLISH}
    return list(
        await asyncio.gather(
            *(
                _permissions(name, caches[name], KeyTemplate(template, settings.caches[name].prefix), verb, key)
                for (name, template), (verb, key) in wanted.items()
                if name in caches
            ),
            *(_flush(name, caches[name], debt_policy(settings, name)) for name in used),
            *(_nodes(name, caches[name]) for name in used),
            *(_verification(name, caches[name], keys[name]) for name in used if cache_use(settings, name).reads_again),
        )
    )


async def _flush(name: str, cache: Probed, policy: DebtPolicy) -> Fact:
    """Whether a cache can be flushed when it is owed too much, or came back old."""
    subject, fact = f"cache {name}", "flush"
    if not policy.may_flush:
        return ok(subject, fact, "never: keys begin with an attribute, so entries of others would go, too.")
    try:
        denied = await cache.flush_denied(policy.patterns)
    except ReplicatorError as error:
        return failed(subject, fact, error)
    if denied is not None:
        return warning(
            subject,
            fact,
            f"{denied} A cache with too large a backlog, or one restored from an old snapshot, could not be flushed.",
            f"Grant +scan to the user of caches.{name}.",
        )
    return ok(subject, fact, "FLUSHDB is not tried." if policy.patterns is None else "SCAN and UNLINK.")


async def _nodes(name: str, cache: Probed) -> Fact:
    """Over which servers it is spread, and what these do when their memory is used up."""
    subject, fact = f"cache {name}", "servers"
    try:
        nodes = await cache.nodes()
    except ReplicatorError as error:
        return failed(subject, fact, error)
    silent = [node.shown for node in nodes if node.trouble is not None]
    if silent:
        return warning(subject, fact, f"{'; '.join(silent)}.", "Restore it, or remove it from the cluster.")
    trouble = eviction_trouble(nodes)
    if trouble is not None:
        return warning(subject, fact, trouble, "Set maxmemory-policy to one that evicts, the same everywhere.")
    return ok(subject, fact, f"{'; '.join(node.shown for node in nodes)}.")


async def _verification(name: str, cache: Probed, key: str) -> Fact:
    """Whether entries can be read again behind their actions."""
    subject, fact = f"cache {name}", "verification"
    try:
        await cache.heads([key])
    except AccessRefused as error:
        found = f"{error.message} Entries cannot be read back, so nothing is verified."
        return warning(
            subject, fact, found, f"Grant +getrange to the user of caches.{name}, or set verify.share to 0%."
        )
    except ReplicatorError as error:
        return failed(subject, fact, error)
    return ok(subject, fact, "GETRANGE.")


async def _permissions(name: str, cache: Probed, template: KeyTemplate, verb: CacheVerb, key: str) -> Fact:
    subject, fact = f"cache {name}", "permissions"
    needed = _NEEDED[verb]
    try:
        denied = await cache.denied(key, verb)
    except ReplicatorError as error:
        return failed(subject, fact, error)
    if denied:
        commands = " ".join(f"+{command.lower()}" for command in denied)
        reason = next(iter(denied.values())).strip().rstrip(". ")
        return wrong(
            subject,
            fact,
            f"{', '.join(denied)} on keys like {key} is denied ({reason}).",
            f"Grant {commands} and the pattern ~{template.pattern} to the user of caches.{name}.",
        )
    return ok(subject, fact, f"{needed} on keys like {template.template}; nothing was written.")


def _unused_key(rule: RuleSettings, template: KeyTemplate, world: World) -> str:
    """A key that no item has, with values of the types that the tables declare."""
    token = f"replicator-probe-{secrets.token_hex(8)}"
    values = {
        "S": token,
        "N": str(secrets.randbelow(10**15) + 10**15),
        "B": base64.b64encode(token.encode()).decode(),
    }
    types: dict[str, str] = {}
    for region, name in (*rule.sources, *rule.replica_tables):
        table = table_at(world, region, name)
        types |= {} if table is None else {**table.types, **dict(table.keys)}
    kinds = {name: types.get(name, "S") for name in template.attributes}
    typed: dict[str, Any] = {name: {kind: values.get(kind, token)} for name, kind in kinds.items()}
    if template.listed is not None:
        typed[template.listed] = {"SS": [token]}
    key = template.key(Image(msgspec.json.encode(typed)))
    assert key is not None, "every attribute of the template is there"
    return key
