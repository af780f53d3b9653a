"""The configuration as one frozen model.

Precedence: YAML file < secrets directory < `REPLICATOR_...` environment. Unknown keys are refused.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from replicator.settings.admin import Admin
from replicator.settings.cross_checks import problems_of
from replicator.settings.rules import RuleSettings
from replicator.settings.sections import (
    Apply,
    Cache,
    ConflictSettings,
    CoordinationSettings,
    CopyingSettings,
    Log,
    ParkingSettings,
    Polling,
    Region,
    Telemetry,
)
from replicator.settings.sources import ENV_PREFIX, NESTED, Renaming, SecretsSource, secrets_directory
from replicator.settings.values import Duration, Group, Name, RegionName, Table

DEFAULT_PATH = Path("/etc/replicator/replicator.yaml")
LEAST_TOMBSTONE_TTL = timedelta(hours=48)
_AWAY_AFTER = timedelta(seconds=1), timedelta(minutes=10)


class Settings(BaseSettings):
    """Everything that an operator may say."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=NESTED,
        title="replicator configuration",
    )

    group: Group = Field(description="names this deployment in every coordination key")
    regions: dict[RegionName, Region] = Field(min_length=1)
    coordination: CoordinationSettings
    side_table: Table | None = Field(default=None, description="default: replicator-side-<group>")
    owed_table: Table | None = Field(default=None, description="default: replicator-owed-<group>")
    tombstone_ttl: Duration = Field(default=timedelta(days=7), description="at least 48h")
    away_after: Duration = Field(
        default=timedelta(seconds=5), description="a mesh's region that does not answer for so long is away"
    )
    admin: Admin = Admin()
    polling: Polling = Polling()
    apply: Apply = Apply()
    client: Literal["stock", "lean"] = Field(
        default="lean", description="what sends the hot calls: the AWS client, or a transport of our own"
    )
    log: Log = Log()
    telemetry: Telemetry | None = Field(default=None, description="traces; none unless a collector is named")
    conflicts: ConflictSettings = ConflictSettings()
    parking: ParkingSettings = ParkingSettings()
    copying: CopyingSettings = CopyingSettings()
    drain: Duration = Field(default=timedelta(seconds=20), description="time to finish after SIGTERM")
    secrets: dict[Name, SecretStr] = Field(default={}, description="keys of signatures, by names of your own")
    caches: dict[Name, Cache] = {}
    rules: list[RuleSettings] = Field(min_length=1)

    @property
    def places_of_rules(self) -> list[int]:
        """The index in the file of every rule; one that chooses its tables is there once per table."""
        names = list(dict.fromkeys(rule.name for rule in self.rules))
        return [names.index(rule.name) for rule in self.rules]

    @property
    def own_table_names(self) -> frozenset[str]:
        """Names of the tables that replicator keeps for itself; no choice of a rule finds them."""
        return frozenset(
            {self.side_table_name, self.owed_table_name, self.coordination.table, self.conflict_table_name}
        )

    @property
    def side_table_name(self) -> str:
        """The side table's name, the same in every region."""
        return self.side_table or f"replicator-side-{self.group}"

    @property
    def owed_table_name(self) -> str:
        """The name of the table of owed keys, the same in the region of every source whose targets may be owed any."""
        return self.owed_table or f"replicator-owed-{self.group}"

    @property
    def conflict_table_name(self) -> str:
        """The conflict table's name, in the coordination region."""
        return self.conflicts.table or f"replicator-conflicts-{self.group}"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = problems_of(self)
        if self.tombstone_ttl < LEAST_TOMBSTONE_TTL:
            problems.append("tombstone_ttl: must be at least 48h, or a late write could resurrect a deleted item")
        if not _AWAY_AFTER[0] <= self.away_after <= _AWAY_AFTER[1]:
            problems.append("away_after: must be from 1s to 10m")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - there is no dotenv file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced by the nested one
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over secrets over the file, which is handed over as init arguments."""
        assert isinstance(init_settings, InitSettingsSource)
        written = init_settings.init_kwargs
        secrets = SecretsSource(settings_cls, secrets_directory())
        return Renaming(env_settings, written), Renaming(secrets, written), init_settings
