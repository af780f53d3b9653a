"""Conflict entries as the conflict table holds them, read for commands; newest first."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from replicator.adapters.dynamodb.conflict_log import BY_KEY, BY_RULE, shown
from replicator.adapters.dynamodb.coordination import RuleRows
from replicator.checks.described_tables import ask, describe, pages
from replicator.checks.table_choices import with_tables
from replicator.domain.conflict_document import shown_time
from replicator.domain.conflicts import ConflictKind
from replicator.domain.errors import EXIT_USAGE, ReplicatorError
from replicator.domain.identifiers import RuleName
from replicator.domain.values import replace
from replicator.operations.item_key import KeyInvalid, parse_key
from replicator.operations.times import parse_moment

if TYPE_CHECKING:
    from replicator.operations.group import Group
    from replicator.settings import Settings

_WHOLE_ID = re.compile(r"[0-9a-f]{64}")
_PART_OF_ID = re.compile(r"[0-9a-f]{4,63}")


class FilterInvalid(ReplicatorError):
    """A filter of the command cannot be used."""

    exit_code = EXIT_USAGE


class EntryUnknown(ReplicatorError):
    """There is no such entry, or more than one."""

    advice = "`replicator conflicts list` shows ids; entries end with the table's `conflicts.ttl`."
    exit_code = EXIT_USAGE


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries a command is about. `key` as an operator types it; `since` as text that sorts like the entries'."""

    rule: str | None = None
    key: str | None = None
    kind: ConflictKind | None = None
    since: str | None = None
    limit: int | None = None

    def matches(self, entry: dict[str, Any]) -> bool:
        """Whether an entry passes the filters that no index answers."""
        return (
            self.rule in {None, entry.get("rule")}
            and self.kind in {None, entry.get("kind")}
            and (self.since is None or entry.get("detected_at", "") >= self.since)
        )


def parse_since(text: str, now: datetime) -> str:
    """A time (ISO 8601), or a duration back from now (`90m`, `7d`), as entries write times."""
    try:
        return shown_time(parse_moment(text, now).timestamp())
    except ValueError:
        raise FilterInvalid(
            f"--since {text} is neither a time nor a duration.",
            advice="Write for example 2026-07-01T12:00:00Z, or 90m, or 7d.",
        ) from None


def wanted_entries(
    *, rule: str | None, key: str | None, kind: str | None, since: str | None, limit: int | None
) -> EntryFilter:
    """The filters of an operator, checked. A span back is one of this machine's clock."""
    wanted_kind = None if kind is None else parse_kind(kind)
    moment = None if since is None else parse_since(since, datetime.now(UTC))
    return EntryFilter(rule, key, wanted_kind, moment, limit)


def parse_kind(text: str) -> ConflictKind:
    """A kind of conflict; every entry of every mode has one of these."""
    try:
        return ConflictKind(text)
    except ValueError:
        kinds = ", ".join(ConflictKind)
        raise FilterInvalid(f"--kind {text} is no kind of conflict.", advice=f"Kinds are: {kinds}.") from None


async def find(group: Group, wanted: EntryFilter) -> list[dict[str, Any]]:
    """The entries that match, newest first; with a key, the group has clients of the rules' first regions."""
    settings = group.settings if wanted.key is None else await with_tables(group.settings, group.places)
    return await ConflictEntries(group, settings).find(wanted)


class ConflictEntries:
    """The conflict table of a group; `settings`: with the tables that rules choose, when keys are asked for."""

    def __init__(self, group: Group, settings: Settings | None = None) -> None:
        self._settings = settings or group.settings
        self._places = group.places
        self._dynamodb = group.places[group.settings.coordination.region].dynamodb
        self._table = group.settings.conflict_table_name
        self._where = f"conflict table {self._table} in {group.settings.coordination.region}"
        self._rules = RuleRows(group.table)

    async def find(self, wanted: EntryFilter) -> list[dict[str, Any]]:
        """The entries that match, newest first."""
        items = None if wanted.key is None else await self._item_names(wanted)
        found = [entry for named in await self._by_name(wanted) for entry in await self._find(named, items)]
        found.sort(key=lambda entry: (entry.get("detected_at", ""), entry["id"]), reverse=True)
        return found[: wanted.limit]

    async def _by_name(self, wanted: EntryFilter) -> list[EntryFilter]:
        """The same for each name that the rule had: entries keep the one under which they were written."""
        if wanted.rule is None:
            return [wanted]
        configured = {rule.name for rule in self._settings.rules}
        former = (await self._rules.formerly()).get(RuleName(wanted.rule), frozenset())
        return [replace(wanted, rule=name) for name in (wanted.rule, *sorted(former - configured))]

    async def _find(self, wanted: EntryFilter, items: list[str] | None) -> list[dict[str, Any]]:
        """Entries of one name of a rule, or of all; of some items if these are named."""
        if items is not None:
            return [entry for item in items for entry in await self._query(BY_KEY, "item", item, wanted)]
        if wanted.rule is not None:
            return await self._query(BY_RULE, "rule", wanted.rule, wanted)
        return [entry async for entry in self._scan() if wanted.matches(entry)]

    async def rule_of(self, entry: dict[str, Any]) -> str | None:
        """The rule that an entry is of, by the name that it has now."""
        name: str | None = entry.get("rule")
        if name in {rule.name for rule in self._settings.rules}:
            return name
        formerly = await self._rules.formerly()
        return next((new for new, names in formerly.items() if name in names), name)

    async def one(self, text: str) -> dict[str, Any]:
        """The entry whose id begins so."""
        if _WHOLE_ID.fullmatch(text):
            what = f"GetItem on the {self._where}"
            key = {"id": {"S": text}}
            answer: Any = await ask(what, self._dynamodb.get_item, TableName=self._table, Key=key, ConsistentRead=True)
            found = [shown(answer["Item"])] if answer.get("Item") else []
        elif _PART_OF_ID.fullmatch(text):
            found = [entry async for entry in self._scan() if entry["id"].startswith(text)]
        else:
            raise EntryUnknown(f"{text} is not the id of a conflict entry, nor at least four characters of one.")
        if len(found) > 1:
            raise EntryUnknown(f"{len(found)} conflict entries begin with {text}.", advice="Write more of the id.")
        if not found:
            raise EntryUnknown(f"There is no conflict entry {text}.")
        return found[0]

    async def _item_names(self, wanted: EntryFilter) -> list[str]:
        """The key's name in the index, for every table that it may be a key of."""
        assert wanted.key is not None, "only asked for a key"
        names: dict[str, None] = {}
        problems = []
        for rule in self._settings.rules:
            if wanted.rule not in {None, rule.name}:
                continue
            if not rule.sources:  # a choice that finds no table
                continue
            region, table = rule.sources[0]
            try:
                key = parse_key(wanted.key, (await describe(self._places[region], table)).keys)
            except KeyInvalid as error:
                problems.append(error)
            else:
                names |= {key.side_key(named): None for _, named in rule.sources}
        if problems and not names:
            raise problems[0]
        return list(names)

    async def _query(self, index: str, attribute: str, value: str, wanted: EntryFilter) -> list[dict[str, Any]]:
        found = []
        request: dict[str, Any] = {
            "IndexName": index,
            "KeyConditionExpression": "#a = :a" + (" AND detected_at >= :since" if wanted.since else ""),
            "ExpressionAttributeNames": {"#a": attribute},
            "ExpressionAttributeValues": {
                ":a": {"S": value},
                **({":since": {"S": wanted.since}} if wanted.since else {}),
            },
            "ScanIndexForward": False,
        }
        what = f"Query on the {self._where}"
        async for row in pages(what, self._dynamodb.query, TableName=self._table, **request):
            entry = shown(row)
            if wanted.matches(entry):
                found.append(entry)
                if wanted.limit is not None and len(found) >= wanted.limit:
                    break
        return found

    async def _scan(self) -> AsyncIterator[dict[str, Any]]:
        what = f"Scan on the {self._where}"
        async for row in pages(what, self._dynamodb.scan, TableName=self._table, ConsistentRead=True):
            yield shown(row)
