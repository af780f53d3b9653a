"""What several keys must agree on, as far as the file alone can show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from pydantic import SecretStr

from replicator.domain.canary import version_refusal
from replicator.domain.key_mapping import KeyMapping
from replicator.domain.modes.versioned.ranks import VersionAttribute, VersionType
from replicator.settings.admin import Admin, api_problems
from replicator.settings.aws_regions import region_problem
from replicator.settings.cache_checks import cache_problems
from replicator.settings.events import RedisStreamSink, WebhookSink, signing_key
from replicator.settings.rules import ActiveRule, OrderedRule, RuleSettings, VersionedRule
from replicator.settings.sections import Cache, CoordinationSettings, Region
from replicator.settings.sources import as_variable
from replicator.settings.transforms import TransformSettings

_SHORTEST_SECRET = 16
_APART = (
    "; two rules write one table only if transform.key of each begins or ends with a text of its own, in one attribute"
)
MOST_TARGETS = 80
"""Targets that may follow one table."""


class Configured(Protocol):
    """What of the settings must agree."""

    @property
    def admin(self) -> Admin:
        """The admin server."""

    @property
    def regions(self) -> Mapping[str, Region]:
        """The places, by their ids."""

    @property
    def coordination(self) -> CoordinationSettings:
        """Where leases and progress live."""

    @property
    def caches(self) -> Mapping[str, Cache]:
        """The caches, by their names."""

    @property
    def secrets(self) -> Mapping[str, SecretStr]:
        """Keys of signatures, by their names."""

    @property
    def rules(self) -> Sequence[RuleSettings]:
        """The rules."""

    @property
    def places_of_rules(self) -> Sequence[int]:
        """The index in the file of every rule."""


def problems_of(settings: Configured) -> list[str]:
    """One line per contradiction, as `path: sentence`."""
    return [
        *_place_problems(settings),
        *_region_problems(settings),
        *_name_problems(settings),
        *_reader_problems(settings),
        *_stream_problems(settings),
        *_key_problems(settings),
        *_rule_problems(settings),
        *_choice_problems(settings),
        *_canary_problems(settings),
        *target_problems(settings),
        *api_problems(settings.admin.api, settings.secrets),
    ]


def _canary_problems(settings: Configured) -> Iterator[str]:
    """What can carry no canary: keys that are made anew, and versions that hold no time."""
    for index, rule in enumerate(settings.rules):
        if rule.canary is None:
            continue
        mapped = isinstance(rule, OrderedRule) and any(
            replica.transform is not None and replica.transform.key is not None for replica in rule.replicas
        )
        why = "a replica's transform makes keys of the items' own attributes" if mapped else None
        if isinstance(rule, VersionedRule):
            asked = rule.version
            why = version_refusal(VersionAttribute(asked.attribute, VersionType(asked.type), asked.width))
        if why is not None:
            yield f"rules[{index}].canary: rule {rule.name!r} can have no canary, because {why}"


def _members(rule: RuleSettings) -> list[tuple[str, str]]:
    """(path inside the rule, region id) of every region that a rule names."""
    if isinstance(rule, OrderedRule):
        replicas = [(f"replicas[{n}].region", replica.region) for n, replica in enumerate(rule.replicas)]
        return [("source", rule.source), *replicas]
    return [(f"regions[{n}].region", member.region) for n, member in enumerate(rule.regions)]


def _place_problems(settings: Configured) -> Iterator[str]:
    """Regions that AWS has not; where endpoints are set, the name only goes into signatures and may be any."""
    for region_id, region in settings.regions.items():
        problem = None if region.endpoint_url or region.endpoints.any_but_sts else region_problem(region.region)
        if problem is not None:
            yield f"regions.{region_id}.region: {problem}"


def _region_problems(settings: Configured) -> list[str]:
    used = [("coordination.region", settings.coordination.region)]
    used += [(f"caches.{name}.region", cache.region) for name, cache in settings.caches.items()]
    for index, rule in enumerate(settings.rules):
        used += [(f"rules[{index}].{path}", region) for path, region in _members(rule)]
        for n, sink in enumerate(rule.events):
            bucket = None if sink.oversize is None else sink.oversize.s3.region
            asked = {"region": sink.region, "oversize.s3.region": bucket}
            used += [(f"rules[{index}].events[{n}].{key}", region) for key, region in asked.items() if region]
    known = ", ".join(settings.regions)
    return [
        f"{path}: region {name!r} is not one of regions ({known})"
        for path, name in used
        if name not in settings.regions
    ]


def _reader_problems(settings: Configured) -> list[str]:
    """One row holds the positions of all targets on a shard, and one request changes them together."""
    targets: dict[tuple[str, str], int] = {}
    for rule in settings.rules:
        targets_of_rule = 1 + len(rule.events)
        if isinstance(rule, OrderedRule):
            beside = {settings.caches[action.cache].region for action in rule.cache if action.cache in settings.caches}
            targets_of_rule = len(set(rule.regions_written) | beside & {rule.source}) + len(rule.events)
        for place in rule.sources or [(rule.regions_used[0], f"of rule {rule.name}")]:
            targets[place] = targets.get(place, 0) + targets_of_rule
    return [
        f"rules: table {table} in region {region} is brought to {count} targets; at most {MOST_TARGETS} may follow one"
        for (region, table), count in targets.items()
        if count > MOST_TARGETS
    ]


def _stream_problems(settings: Configured) -> list[str]:
    """One reader reads a table for all rules, so they read it in one place; and a stream belongs to named tables."""
    problems = []
    read: dict[tuple[str, str], tuple[str, str | None]] = {}
    for index, rule in enumerate(settings.rules):
        if rule.choice is not None and rule.streams:
            problems.append(
                f"rules[{index}].stream: rule {rule.name!r} chooses its tables, and which of them send their changes to"
                " a Kinesis stream is not known; name one table instead, or leave this out"
            )
        if isinstance(rule, VersionedRule) and rule.events:
            problems.append(
                f"rules[{index}].events: mode versioned marks nothing that it writes, so what users wrote in a region"
                " and what was brought there look alike; remove it, or use mode active-active"
            )
        if isinstance(rule, ActiveRule) and any(each.precision == "millisecond" for each in rule.streams.values()):
            problems.append(
                f"rules[{index}].stream.precision: in mode active-active two writes of an item within a millisecond"
                " would have one version, and regions would go on to differ; let the destination write microseconds"
                " (UpdateKinesisStreamingDestination)"
            )
        for region, table in rule.sources:
            named = rule.streams.get(region)
            mine = None if named is None else named.model_dump_json()
            name, other = read.setdefault((region, table), (rule.name, mine))
            if other != mine:
                problems.append(
                    f"rules[{index}].stream: rules {name!r} and {rule.name!r} read table {table!r} in region {region!r}"
                    " in different streams; write the same for both"
                )
    return problems


def _name_problems(settings: Configured) -> list[str]:
    """Names that are one in the environment, where `-` is written `_`."""
    named = [
        *(("caches", name, f"caches.{name}") for name in settings.caches),
        *(("secrets", name, f"secrets.{name}") for name in settings.secrets),
        *(("rules", rule.name, f"rules[{index}].name") for index, rule in enumerate(settings.rules)),
    ]
    seen: dict[tuple[str, str], str] = {}
    problems = []
    for kind, name, path in named:
        other = seen.setdefault((kind, as_variable(name)), name)
        if other != name:
            problems.append(
                f"{path}: {name!r} and {other!r} are one name in the environment, where - is written _; change one"
            )
    return problems


def _rule_problems(settings: Configured) -> list[str]:
    problems = []
    seen: set[str] = set()
    for index, rule in enumerate(settings.rules):
        path = f"rules[{index}]"
        if rule.name in seen:
            problems.append(f"{path}.name: rule {rule.name!r} is there twice; a rule's name is its identity")
        seen.add(rule.name)
        if isinstance(rule, OrderedRule) and not rule.replicas and not rule.cache and not rule.events:
            problems.append(
                f"{path}.replicas: rule {rule.name!r} has neither replicas nor caches nor events, so it does nothing"
            )
        members = [(at, region) for at, region in _members(rule) if at != "source"]
        regions = [region for _, region in members]
        problems += [
            f"{path}.{at}: region {region!r} is there twice"
            for n, (at, region) in enumerate(members)
            if region in regions[:n]
        ]
        used = {region for _, region in _members(rule)}
        problems += [f"{path}.{said}" for said in cache_problems(settings.caches, rule, used)]
        problems += _sink_problems(settings, rule, path)
        problems += _transform_problems(settings, rule, path)
    return problems


def _sink_problems(settings: Configured, rule: RuleSettings, path: str) -> Iterator[str]:
    seen: set[str] = set()
    for n, sink in enumerate(rule.events):
        where, name = f"{path}.events[{n}]", sink.sink_name
        if name in seen:
            yield f"{where}.name: {name!r} is there twice; give it a name of its own, which is its identity"
        seen.add(name)
        if isinstance(sink, RedisStreamSink) and sink.cache not in settings.caches:
            known = ", ".join(settings.caches) or "none is configured"
            yield f"{where}.cache: {sink.cache!r} is not one of caches ({known})"
        if isinstance(sink, WebhookSink) and sink.secret not in settings.secrets:
            known = ", ".join(settings.secrets) or "none is configured"
            yield f"{where}.secret: must be the name of one of secrets ({known}), and is none"
        elif isinstance(sink, WebhookSink):
            try:
                signing_key(settings.secrets[sink.secret])
            except ValueError as error:
                yield f"secrets.{sink.secret}: {error}"


def _transform_problems(settings: Configured, rule: RuleSettings, path: str) -> list[str]:
    problems = []
    members = rule.replicas if isinstance(rule, OrderedRule) else ()
    transforms: list[tuple[str, TransformSettings | None]] = [
        (f"{path}.replicas[{n}].transform", replica.transform) for n, replica in enumerate(members)
    ]
    transforms += [(f"{path}.events[{n}].transform", sink.transform) for n, sink in enumerate(rule.events)]
    for where, transform in transforms:
        if transform is None:
            continue
        mapping = transform.mapping
        if mapping is not None and rule.primary_key:
            problems += [f"{where}.key: {said}" for said in key_problems(mapping, rule.primary_key)]
        elif mapping is None and (touched := sorted(transform.touched & set(rule.primary_key))):
            problems.append(f"{where}: changes {', '.join(touched)} of the primary key, which stays as it is")
        if transform.mask is not None:
            name = transform.mask.hmac
            if name not in settings.secrets:
                known = ", ".join(settings.secrets) or "none is configured"
                problems.append(f"{where}.mask.hmac: must be the name of one of secrets ({known}), and is none")
            elif len(settings.secrets[name].get_secret_value()) < _SHORTEST_SECRET:
                problems.append(
                    f"secrets.{name}: must have at least {_SHORTEST_SECRET} characters to key masks, or values can be"
                    " found by trying"
                )
    return problems


def key_problems(mapping: KeyMapping, primary_key: Iterable[str]) -> Iterator[str]:
    """Why two items of a table with this key could have one key at the target, or none."""
    names = set(primary_key)
    if lacking := sorted(names - mapping.sources):
        yield f"lacks {' and '.join(lacking)} of the primary key, so two items could have one key"
    if strange := sorted(mapping.sources - names):
        yield f"names {', '.join(strange)}, which is no attribute of the primary key"


def _key_problems(settings: Configured) -> list[str]:
    """Filters of meshes look at key attributes alone, as far as the rule says which these are."""
    return [
        f"rules[{index}].filter.{condition}: {name!r} is no attribute of primary_key, and regions of mode {rule.mode}"
        " must decide alike about every version of an item"
        for index, rule in enumerate(settings.rules)
        if not isinstance(rule, OrderedRule) and rule.primary_key
        for condition, names in (("key_prefix", rule.filter.key_prefix), ("equals", rule.filter.equals))
        for name in names
        if name not in rule.primary_key
    ]


def _choice_problems(settings: Configured) -> list[str]:
    """What only a rule that names its table may say: the tables of a choice have one name everywhere."""
    problems = []
    for index, rule in enumerate(settings.rules):
        if rule.choice is None:
            continue
        key, members = ("replicas", rule.replicas) if isinstance(rule, OrderedRule) else ("regions", rule.regions)
        problems += [
            f"rules[{index}].{key}[{n}].table: rule {rule.name!r} chooses its tables, and they have the same name"
            " everywhere; name one table instead, or leave this out"
            for n, member in enumerate(members)
            if member.table is not None
        ]
        used = [settings.regions[region].place for region in rule.regions_used if region in settings.regions]
        if len(set(used)) < len(used):
            problems.append(
                f"rules[{index}].{key}: two regions of rule {rule.name!r} are one place, so every table that it chooses"
                " would be its own replica"
            )
    return problems


def target_problems(settings: Configured) -> list[str]:
    """No table is written by two rules, and what a rule of mode `ordered` reads is written by none.

    Two rules of mode `ordered` may write one table if no key of the one can be a key of the other.
    Rules that choose their tables say nothing here before it is known which these are (`chosen_tables`).
    """

    def place(region: str, table: str) -> tuple[object, ...] | None:
        known = settings.regions.get(region)
        return None if known is None else (known.place, table)

    ordered = (rule for rule in settings.rules if isinstance(rule, OrderedRule))
    sources = {place(region, table): rule.name for rule in ordered for region, table in rule.sources}
    writers: dict[tuple[object, ...] | None, list[tuple[str, KeyMapping | None]]] = {}
    problems = []
    for index, rule in zip(settings.places_of_rules, settings.rules, strict=True):
        key = "replicas" if isinstance(rule, OrderedRule) else "regions"
        for n, ((region, table), mapping) in enumerate(written_under(rule)):
            where = place(region, table)
            path = f"rules[{index}].{key}[{n}]"
            if where is None:
                continue
            if where in sources:
                problems.append(
                    f"{path}: table {table!r} in region {region!r} is the source of rule {sources[where]!r};"
                    " a source cannot be a replica"
                )
                continue
            for writer, other in writers.get(where, ()):
                if mapping is None or mapping.meets(other):
                    mapped = mapping is not None or other is not None
                    problems.append(
                        f"{path}: table {table!r} in region {region!r} is already written by rule {writer!r}"
                        + (_APART if mapped else "")
                    )
            writers.setdefault(where, []).append((rule.name, mapping))
    return problems


def written_under(rule: RuleSettings) -> list[tuple[tuple[str, str], KeyMapping | None]]:
    """(region id, table) of every table that is written, and how its keys are made; None: they are the source's."""
    if not isinstance(rule, OrderedRule):
        return [(place, None) for place in rule.replica_tables]
    transforms = [replica.transform for replica in rule.replicas]
    mappings = [None if transform is None else transform.mapping for transform in transforms]
    return list(zip(rule.replica_tables, mappings, strict=False))
