"""What was written to a table before, kept in rows of its side table: the epochs of mode `ordered`, and the mode.

Every rule notes itself at its start for each table that it writes. A lower epoch is refused, and so is a table of
another mode: its tombstones do not compare, so they would keep items from being written, or let them come back. Each
row also carries the layout's version: an older program that meets a newer one stops.

A table whose keys are made from those of several sources has rows for each mapping, and one that names the mappings: a
mapping is refused if a key of it can be a key of another one that wrote there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import ClientError

from replicator.adapters.aws import wire
from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, translate
from replicator.adapters.dynamodb.expressions import SCHEMA_VERSION, SIDE_SCHEMA, TOMBSTONE_KEY
from replicator.domain.errors import NewerLayout, Unreachable, WorldMismatch
from replicator.domain.key_mapping import key_mapping
from replicator.domain.values import replace

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

    from replicator.domain.identifiers import RegionId, RuleName, TableName
    from replicator.domain.key_mapping import KeyMapping
    from replicator.domain.rules import Rule, Target

ORDERED = "ordered"
_DIGEST = 16
_MAPPING = "m_"
_NOT_NEWER = "(attribute_not_exists(#s) OR #s <= :s)"
_SAME_WRITER = "#e = :e AND (attribute_not_exists(#f) OR (#f = :f AND #g <= :g))"


# -- epochs ---------------------------------------------------------------------------------------------------------


class EpochClaim(msgspec.Struct, frozen=True):
    """What a rule is about to write to a replica table: `epoch`, from this stream of this source."""

    rule: str
    region_id: str
    table: str
    epoch: int
    source: str
    """Region id and table, as `us:orders`."""
    generation: int
    keys: KeyMapping | None = None

    @property
    def key(self) -> dict[str, AttributeValueTypeDef]:
        """The key of its side row."""
        return {TOMBSTONE_KEY: {"S": f"{self.table}|epoch{_part(self.keys)}"}}


async def note_epoch(client: DynamoDBClient, *, side_table: str, claim: EpochClaim) -> None:
    """Keep the highest epoch seen for a replica table in its side table, and the writer in it; a lower one is refused.

    So is another source, or an older stream of the same one, in an epoch that was written in: its versions could be
    below those that are there. `WorldMismatch` when the row contradicts the claim.
    """
    standing = await _note(
        client,
        side_table,
        claim,
        {"epoch": {"N": str(claim.epoch)}, "source": {"S": claim.source}, "generation": {"N": str(claim.generation)}},
        f"(attribute_not_exists(#e) OR #e < :e OR ({_SAME_WRITER}))",
    )
    if standing is not None:
        raise epoch_problem(standing, claim) or _refused(side_table, claim)


def epoch_problem(standing: Any, claim: EpochClaim) -> WorldMismatch | None:
    """How a side row, as it is, contradicts a claim; None when it does not."""
    where = f"{claim.table} in {claim.region_id}"
    if (newer := _newer(where, standing)) is not None:
        return newer
    seen = int(standing.get("epoch", {}).get("N", -1))
    if seen > claim.epoch:
        return WorldMismatch(
            f"Rule {claim.rule!r} has epoch {claim.epoch}, but {where} has already seen epoch {seen}.",
            advice=f"An epoch is never lowered: set `epoch: {seen}` or higher for the rule.",
        )
    source = standing.get("source", {}).get("S")
    if seen < claim.epoch or source is None:
        return None
    advice = f"Another source begins a new epoch: set `epoch: {seen + 1}` or higher for the rule, or writes are lost."
    if source != claim.source:
        return WorldMismatch(
            f"Rule {claim.rule!r} copies {claim.source} to {where} in epoch {seen}, in which {source} wrote there.",
            advice=advice,
        )
    if int(standing.get("generation", {}).get("N", 0)) > claim.generation:
        return WorldMismatch(
            f"Rule {claim.rule!r} copies {source} to {where} from an older stream than the one that it copied before.",
            advice=advice,
        )
    return None


# -- modes ----------------------------------------------------------------------------------------------------------


class ModeClaim(msgspec.Struct, frozen=True):
    """What a rule is about to do: write this table in this mode, under keys as they are or as `keys` makes them."""

    rule: str
    region_id: str
    table: str
    mode: str
    keys: KeyMapping | None = None

    @property
    def key(self) -> dict[str, AttributeValueTypeDef]:
        """The key of its side row."""
        return {TOMBSTONE_KEY: {"S": f"{self.table}|mode{_part(self.keys)}"}}

    @property
    def epoch_key(self) -> dict[str, AttributeValueTypeDef]:
        """The key of the row that only mode `ordered` writes; programs before this row existed wrote it too."""
        return {TOMBSTONE_KEY: {"S": f"{self.table}|epoch{_part(self.keys)}"}}

    @property
    def mappings_key(self) -> dict[str, AttributeValueTypeDef]:
        """The key of the row that names the mappings of a table."""
        return {TOMBSTONE_KEY: {"S": f"{self.table}|keys"}}


def _part(keys: KeyMapping | None) -> str:
    """What tells the rows of one mapping from those of others; empty of keys as they are."""
    return "" if keys is None else f"|{sha256(keys.text.encode()).hexdigest()[:_DIGEST]}"


async def note_mode(client: DynamoDBClient, *, side_table: str, claim: ModeClaim) -> None:
    """Note that a table is written in this mode; `WorldMismatch` when another one, or a newer program, wrote it."""
    problem = await standing_mode(client, side_table=side_table, claim=claim)
    if problem is not None:
        raise problem
    if claim.keys is not None:
        await _note_mapping(client, side_table, claim, claim.keys)
    standing = await _note(
        client,
        side_table,
        claim,
        {"mode": {"S": claim.mode}, "rule": {"S": claim.rule}},
        "(attribute_not_exists(#m) OR #m = :m)",
    )
    if standing is not None:
        raise mode_problem(standing, {}, claim, side_table) or _refused(side_table, claim)
    problem = await _mapping_problem(client, side_table, claim)  # of a claim that was made at the same time
    if problem is not None:
        raise problem


async def standing_mode(client: DynamoDBClient, *, side_table: str, claim: ModeClaim) -> WorldMismatch | None:
    """What contradicts a claim now; nothing is written."""
    problem = mode_problem(*await _rows(client, side_table, claim), claim, side_table)
    return problem or await _mapping_problem(client, side_table, claim)


def mode_problem(mode_row: Any, epoch_row: Any, claim: ModeClaim, side_table: str) -> WorldMismatch | None:
    """How the rows, as they are, contradict a claim; None when they do not. An empty row is one that is not there."""
    where = f"{claim.table} in {claim.region_id}"
    if (newer := _newer(where, mode_row, epoch_row)) is not None:
        return newer
    written = mode_row.get("mode", {}).get("S")
    if claim.mode != ORDERED and epoch_row:
        written = ORDERED
    if written in {None, claim.mode}:
        return None
    rows = " and ".join(f"{claim.table}|{name}" for name, row in (("mode", mode_row), ("epoch", epoch_row)) if row)
    return WorldMismatch(
        f"Rule {claim.rule!r} is of mode {claim.mode}, but {where} was written in mode {written}, whose deletes are"
        f" in the side table {side_table} and do not compare.",
        advice=f"Set the mode back to {written}, or set `side_table` to a new name and run `replicator init`;"
        f" docs/operations.md, 'Change the mode of a rule', has all steps. If nothing was replicated yet, delete"
        f" {rows} from {side_table}.",
    )


# -- how keys are made -----------------------------------------------------------------------------------------------


async def _mapping_problem(client: DynamoDBClient, side_table: str, claim: ModeClaim) -> WorldMismatch | None:
    """Why keys of a claim may be keys under which the table was written before; None when they cannot."""
    where = f"{claim.table} in {claim.region_id}"
    (known,) = await _rows_at(client, side_table, claim, claim.mappings_key)
    if (newer := _newer(where, known)) is not None:
        return newer
    found = {name: typed["S"] for name, typed in known.items() if name.startswith(_MAPPING)}
    others = [text for text in found.values() if claim.keys is None or text != claim.keys.text]
    if claim.keys is not None:
        as_they_are = replace(claim, keys=None)
        if any(await _rows(client, side_table, as_they_are)):
            others.append("")
    for text in others:
        if claim.keys is None or not text or claim.keys.meets(key_mapping(msgspec.json.decode(text))):
            written = f"under the keys {text}" if text else "under the keys of its source"
            return WorldMismatch(
                f"Rule {claim.rule!r} would write {where} under keys that may be those of others there: it was written"
                f" {written} before.",
                advice="Name another table for the replica, or let transform.key begin with a text of its own.",
            )
    return None


async def _note_mapping(client: DynamoDBClient, side_table: str, claim: ModeClaim, keys: KeyMapping) -> None:
    try:
        await client.update_item(
            TableName=side_table,
            Key=claim.mappings_key,
            UpdateExpression="SET #m = :m, #s = :s",
            ExpressionAttributeNames={"#m": f"{_MAPPING}{_part(keys)[1:]}", "#s": SCHEMA_VERSION},
            ExpressionAttributeValues={":m": {"S": keys.text}, ":s": {"N": str(SIDE_SCHEMA)}},
        )
    except CLIENT_ERRORS as error:
        raise translate(error, _what(side_table, claim)) from error


# -- whose a table is -----------------------------------------------------------------------------------------------


class SideTableClaims:
    """Which rules wrote tables, from the rows that they left in the side tables of those tables' regions."""

    def __init__(self, client_of: Callable[[str], DynamoDBClient], side_table: str) -> None:
        self._client_of = client_of
        self._side_table = side_table

    async def wrote(self, rule: Rule, target: Target, names: Collection[RuleName]) -> bool:
        """Whether a target's table was written before by its rule, under one of these names.

        The first version left no mode: then it is by the source that is noted beside the epoch, if one is.
        """
        assert target.table is not None, "only tables are claimed"
        claim = ModeClaim(rule.name, target.region, target.table, rule.mode, target.keys)
        mode_row, epoch_row = await _rows(self._client_of(target.region), self._side_table, claim)
        if mode_row:
            return mode_row.get("rule", {}).get("S") in names
        source = epoch_row.get("source", {}).get("S")
        return bool(epoch_row) and source in {None, f"{rule.source}:{rule.table}"}

    async def writer(self, region: RegionId, table: TableName, keys: KeyMapping | None = None) -> str | None:
        """The rule that wrote a table last, under keys that are made so, as far as it is noted."""
        mode_row, _ = await _rows(self._client_of(region), self._side_table, ModeClaim("", region, table, "", keys))
        written: str | None = mode_row.get("rule", {}).get("S")
        return written

    async def forget(self, region: RegionId, table: TableName, keys: KeyMapping | None = None) -> None:
        """Delete what is noted of a table that no rule writes any more, under keys that are made so."""
        claim, client = ModeClaim("", region, table, "", keys), self._client_of(region)
        try:
            for key in (claim.key, claim.epoch_key):
                await client.delete_item(TableName=self._side_table, Key=key)
            if keys is not None:
                await client.update_item(
                    TableName=self._side_table,
                    Key=claim.mappings_key,
                    UpdateExpression="REMOVE #m",
                    ExpressionAttributeNames={"#m": f"{_MAPPING}{_part(keys)[1:]}"},
                )
        except CLIENT_ERRORS as error:
            raise translate(error, f"DeleteItem on {self._side_table} in {region}") from error


# -- rows ----------------------------------------------------------------------------------------------------------


async def _rows(client: DynamoDBClient, side_table: str, claim: ModeClaim) -> tuple[Any, Any]:
    """The rows of a table's mode and epoch; one that is not there is empty."""
    mode_row, epoch_row = await _rows_at(client, side_table, claim, claim.key, claim.epoch_key)
    return mode_row, epoch_row


async def _rows_at(
    client: DynamoDBClient, side_table: str, claim: ModeClaim, *keys: dict[str, AttributeValueTypeDef]
) -> list[Any]:
    try:
        return [
            (await client.get_item(TableName=side_table, Key=key, ConsistentRead=True)).get("Item", {}) for key in keys
        ]
    except CLIENT_ERRORS as error:
        raise translate(error, f"GetItem on {side_table} in {claim.region_id}") from error


_ALIASES = {"epoch": "e", "source": "f", "generation": "g", "mode": "m", "rule": "r", SCHEMA_VERSION: "s"}


async def _note(
    client: DynamoDBClient,
    side_table: str,
    claim: EpochClaim | ModeClaim,
    values: Mapping[str, AttributeValueTypeDef],
    condition: str,
) -> Any | None:
    """Write a claim's row under a condition; None when it is written, else the row that contradicts it."""
    noted: dict[str, AttributeValueTypeDef] = {**values, SCHEMA_VERSION: {"N": str(SIDE_SCHEMA)}}
    try:
        await client.update_item(
            TableName=side_table,
            Key=claim.key,
            UpdateExpression="SET " + ", ".join(f"#{_ALIASES[name]} = :{_ALIASES[name]}" for name in noted),
            ConditionExpression=f"{condition} AND {_NOT_NEWER}",
            ExpressionAttributeNames={f"#{_ALIASES[name]}": name for name in noted},
            ExpressionAttributeValues={f":{_ALIASES[name]}": value for name, value in noted.items()},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except ClientError as error:
        if error_code(error) != wire.CONDITION_FAILED:
            raise translate(error, _what(side_table, claim)) from error
        return error.response.get("Item", {})
    except CLIENT_ERRORS as error:
        raise translate(error, _what(side_table, claim)) from error
    return None


def _what(side_table: str, claim: EpochClaim | ModeClaim) -> str:
    return f"UpdateItem on {side_table} in {claim.region_id}"


def _refused(side_table: str, claim: EpochClaim | ModeClaim) -> Unreachable:
    return Unreachable(f"{_what(side_table, claim)} was refused though no row contradicts it.")


def _newer(where: str, *rows: Any) -> NewerLayout | None:
    """What is wrong with side rows that a newer program wrote."""
    for row in rows:
        layout = int(row.get(SCHEMA_VERSION, {}).get("N", 0))
        if layout > SIDE_SCHEMA:
            return NewerLayout.of(row[TOMBSTONE_KEY]["S"], f"side table of {where}", layout=layout, known=SIDE_SCHEMA)
    return None
