"""Lineage, leases, progress, heartbeats, pauses and gaps of one group, in one DynamoDB table.

Rows (hash `pk`, range `sk`), each with a schema version `sv`:

    <group>|<region>|<stream ARN>   shard|<shard id>        owner, epoch, seized_at; parents, closed, first,
                                                            found_at, vanished, vanished_at;
                                                            per target `at:<target>`, `rewind:<target>`,
                                                            `through:<target>`
    <group>|<region>|<stream ARN>   target|<target>         started_at, shape, members
    <group>|<region>|<stream ARN>   seat                    owner, epoch: its worker discovers the shards
    <group>|workers                 <worker id>             beat, news, admin, through; for operators also started,
                                                            program
    <group>|rules                   <rule>                  paused_at, note; driven_by, driven_since;
                                                            formerly: names that it had before
    <group>|functions               <rule>|<region>|<ARN>   seen_at, hours: what functions noted of a stream
    <group>|tables                  <rule>|<region>|<table> table_id, noted_at; former, accepted_at, accepted_by
    <group>|regions                 <rule>|<region>         paused_at, note
    <group>|streams                 <region>|<table>|<ms>   arn, drained_for
    <group>|gaps                    <gap id>                what was lost, grown_at; job; acknowledged_at,
                                                            acknowledged_by, note
    <group>|audit                   <ms>-<random>           who, what, command, origin, at, result, reason
    <group>|jobs                    job|<job id>            kind, rule, table, state, document, counts, created_at,
                                                            ended_at, note
    <group>|jobs                    on|job|<target>         job: the one that is at work on it; on|sweep|: a sweep
    <group>|jobs                    filled|<target>         at, job: a bootstrap brought it all there was
    <group>|job|<job id>            segment|<part>|<index>  owner, epoch, position, counts, done
    <group>|job|<job id>            note|<name>             said: what the job found

One module per port: `leases`, `members`, `registry`, `jobs`; and for operators `stored_progress`, what is stored of all
streams, `operations`, what they do to rows, and `rule_rows`, what they do to everything that has a rule's name
(its jobs in `rule_jobs`); `known_tables`, which tables rules have written;
`function_notes`, what functions noted of streams; `audit`, what was done through the admin API.
They use `table` (calls), `changes` (conditional updates as values), `names` (keys) and `rows` (parsing).
Invariant: a checkpoint is written only by the owner that the row names, under the epoch that it claimed; taking
a shard away raises the epoch.
"""

from __future__ import annotations

from replicator.adapters.dynamodb.coordination.function_notes import FunctionNotes
from replicator.adapters.dynamodb.coordination.jobs import DynamoJobs
from replicator.adapters.dynamodb.coordination.known_tables import KnownTable, KnownTables
from replicator.adapters.dynamodb.coordination.leases import DynamoCoordination
from replicator.adapters.dynamodb.coordination.members import DynamoMembership
from replicator.adapters.dynamodb.coordination.names import CHECKPOINT, REWIND, SCHEMA, Names
from replicator.adapters.dynamodb.coordination.operations import Operations, Pause, StoredGap
from replicator.adapters.dynamodb.coordination.registry import DynamoRegistry
from replicator.adapters.dynamodb.coordination.rows import CorruptRow, RowReader
from replicator.adapters.dynamodb.coordination.rule_rows import RuleRows
from replicator.adapters.dynamodb.coordination.stored_progress import StoredStream, stored_streams
from replicator.adapters.dynamodb.coordination.table import CoordinationTable

__all__ = [
    "CHECKPOINT",
    "REWIND",
    "SCHEMA",
    "CoordinationTable",
    "CorruptRow",
    "DynamoCoordination",
    "DynamoJobs",
    "DynamoMembership",
    "DynamoRegistry",
    "FunctionNotes",
    "KnownTable",
    "KnownTables",
    "Names",
    "Operations",
    "Pause",
    "RowReader",
    "RuleRows",
    "StoredGap",
    "StoredStream",
    "stored_streams",
]
