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
    FilterSettings,
    Region,
    RuleSettings,
    Settings,
    secrets_directory,
)

__all__ = [
    "DEFAULT_PATH",
    "DEFAULT_SECRETS",
    "ENV_PREFIX",
    "LEAST_TOMBSTONE_TTL",
    "NESTED",
    "Admin",
    "FilterSettings",
    "Region",
    "RuleSettings",
    "Settings",
    "secrets_directory",
]
