"""The configuration: one frozen model of everything an operator may say.

This package checks what the file alone can show; `replicator check` compares it with the world.
"""

from replicator.settings.model import (
    DEFAULT_PATH,
    DEFAULT_SECRETS,
    ENV_PREFIX,
    LEAST_TOMBSTONE_TTL,
    NESTED,
    Admin,
    Region,
    Settings,
    secrets_directory,
)
from replicator.settings.rules import (
    MODES,
    ActiveRule,
    CacheAction,
    FilterSettings,
    MeshFilter,
    MeshRule,
    OrderedRule,
    RuleSettings,
    VersionedRule,
)

__all__ = [
    "DEFAULT_PATH",
    "DEFAULT_SECRETS",
    "ENV_PREFIX",
    "LEAST_TOMBSTONE_TTL",
    "MODES",
    "NESTED",
    "ActiveRule",
    "Admin",
    "CacheAction",
    "FilterSettings",
    "MeshFilter",
    "MeshRule",
    "OrderedRule",
    "Region",
    "RuleSettings",
    "Settings",
    "VersionedRule",
    "secrets_directory",
]
