"""The configuration: one frozen model of everything an operator may say.

This package checks what the file alone can show; `replicator check` compares it with the world.
"""

from replicator.settings.admin import Admin, Api
from replicator.settings.cache_actions import CacheAction
from replicator.settings.chosen_tables import MOST_TABLES, choosing, expanded
from replicator.settings.cross_checks import target_problems
from replicator.settings.events import AwsSink, EventSink, RedisStreamSink, WebhookSink
from replicator.settings.filters import FilterSettings, ItemConditions, MeshFilter
from replicator.settings.model import (
    DEFAULT_PATH,
    LEAST_TOMBSTONE_TTL,
    Settings,
)
from replicator.settings.rules import (
    MODES,
    ActiveRule,
    MeshRule,
    OrderedRule,
    RuleSettings,
    VersionedRule,
)
from replicator.settings.sections import Region
from replicator.settings.sources import DEFAULT_SECRETS, ENV_PREFIX, NESTED, secrets_directory
from replicator.settings.tables import TABLE_TAGS, TableChoice

__all__ = [
    "DEFAULT_PATH",
    "DEFAULT_SECRETS",
    "ENV_PREFIX",
    "LEAST_TOMBSTONE_TTL",
    "MODES",
    "MOST_TABLES",
    "NESTED",
    "TABLE_TAGS",
    "ActiveRule",
    "Admin",
    "Api",
    "AwsSink",
    "CacheAction",
    "EventSink",
    "FilterSettings",
    "ItemConditions",
    "MeshFilter",
    "MeshRule",
    "OrderedRule",
    "RedisStreamSink",
    "Region",
    "RuleSettings",
    "Settings",
    "TableChoice",
    "VersionedRule",
    "WebhookSink",
    "choosing",
    "expanded",
    "secrets_directory",
    "target_problems",
]
