"""The credentials of one region, read again when a service refuses them.

A profile's keys, a token file or a role may be rotated while the program runs. Invariant: after a refusal the whole
chain is read anew, at most once in `AGAIN_SECONDS`; what was read before stays in use when that fails.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from copy import copy
from typing import TYPE_CHECKING, Any

from aiobotocore.credentials import AioCredentials, AioDeferredRefreshableCredentials
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError, NoCredentialsError
from msgspec import Struct

from replicator.adapters.aws.descriptions import service_descriptions
from replicator.adapters.aws.errors import CREDENTIAL_CODES, error_code
from replicator.domain.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from aiobotocore.config import AioConfig
    from types_aiobotocore_sts.client import STSClient

    from replicator.settings import Region

AGAIN_SECONDS = 5.0
"""Least time between two readings after refusals."""

_MOMENT_SECONDS = 1.0
"""How long credentials are used without a look at their age: they are refreshed minutes before they expire."""

_STUCK_SECONDS = 60.0
_GARBAGE = (AttributeError, LookupError, RuntimeError, TypeError)
"""What the client's readers raise over what is no document of credentials, such as `[]` from a process."""

_FIXED = {"env": "the environment", "explicit": "the program's own memory"}
"""Where credentials come from that no reading can change while the process lives, by the client's names."""


class Source(Struct):
    """Credentials of one reading; `origin` is the client's name for where the base of them came from."""

    credentials: Any
    origin: str | None = None


class RenewableCredentials(AioCredentials):
    """Credentials for clients, taken from the newest reading."""

    def __init__(
        self, region_id: str, read: Callable[[], Awaitable[Source]], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__("", "", method="replicator")
        self._region_id = region_id
        self._read = read
        self._monotonic = monotonic
        self._source: Source | None = None
        self._turn = asyncio.Lock()
        self._read_at = -AGAIN_SECONDS
        self._wanted = False
        self._frozen: Any = None
        self._frozen_at = 0.0
        self._refused_at: float | None = None
        self._refusal = ""

    async def load(self) -> None:
        """Read the chain; raises what is wrong with it, unless there is an earlier reading to go on with."""
        async with self._turn:
            if self._source is not None and not self._wanted:
                return
            self._wanted, self._read_at = False, self._monotonic()
            try:
                self._source, self._frozen = await self._read(), None
            except (BotoCoreError, ClientError, ConfigurationInvalid, OSError, ValueError):
                if self._source is None:
                    raise
            except _GARBAGE as error:
                if self._source is None:
                    raise _unreadable("the shared AWS configuration", error) from error

    async def get_frozen_credentials(self) -> Any:  # type: ignore[override]  # the client awaits it
        """The credentials to sign a request with, refreshed when they are about to expire."""
        if self._source is None or self._wanted:
            await self.load()
        credentials = None if self._source is None else self._source.credentials
        if credentials is None:
            self.refused("NoCredentials")
            raise NoCredentialsError
        try:
            frozen = await credentials.get_frozen_credentials()
        except ClientError as error:
            self.refused(error_code(error))
            raise
        except (BotoCoreError, OSError):
            self.refused("CredentialRetrievalError")
            raise
        except (*_GARBAGE, ValueError) as error:
            self.refused("CredentialRetrievalError")
            raise _unreadable(credentials.method, error) from error
        self._frozen, self._frozen_at = frozen, self._monotonic()
        return frozen

    def at_hand(self) -> Any:
        """The same as they were a moment ago; None when they are to be looked at again."""
        if self._wanted or self._monotonic() - self._frozen_at > _MOMENT_SECONDS:
            return None
        return self._frozen

    def accepted(self) -> None:
        """A service took them."""
        self._refused_at = None

    async def get_account_id(self) -> str | None:  # type: ignore[override]  # the client awaits it
        """The account that these credentials name, if they name one."""
        account: str | None = (await self.get_frozen_credentials()).account_id
        return account

    def answered(self, parsed: Any, **_: object) -> None:
        """Hear a service's answer: a refusal of the credentials asks for another reading."""
        code = parsed.get("Error", {}).get("Code")
        if code in CREDENTIAL_CODES:
            self.refused(code)
        else:
            self.accepted()

    def refused(self, code: str) -> None:
        """Note that these credentials do not work, and read them again unless that was done a moment ago."""
        now = self._monotonic()
        self._refusal = code
        if self._refused_at is None:
            self._refused_at = now
        if now - self._read_at >= AGAIN_SECONDS:
            self._wanted = True

    def stuck(self) -> str | None:
        """Why only a restart can help: refused for long, and from where nothing new can come; None otherwise."""
        if self._refused_at is None or self._source is None or self._source.origin not in _FIXED:
            return None
        seconds = self._monotonic() - self._refused_at
        if seconds < _STUCK_SECONDS:
            return None
        return (
            f"region {self._region_id} has refused the credentials for {seconds:.0f} s ({self._refusal}), and they come"
            f" from {_FIXED[self._source.origin]}, so only a restart can bring new ones"
        )


def _unreadable(provider: str, error: Exception) -> CredentialRetrievalError:
    return CredentialRetrievalError(provider=provider, error_msg=type(error).__name__)


def region_session(
    region_id: str,
    settings: Region,
    config: AioConfig,
    monotonic: Callable[[], float] = time.monotonic,
    *,
    sessions: dict[str | None, AioSession] | None = None,
) -> tuple[AioSession, RenewableCredentials]:
    """A session for a region's clients, and its credentials, which are read when they are first needed.

    `sessions`: those of regions that are opened together, by profile; one is made for all regions of a profile. The
    handlers that it registers, hundreds, are the same for each, so a region has a copy that shares them. What is for
    one region alone is registered with its clients.
    """
    made = {} if sessions is None else sessions
    if settings.profile not in made:
        made[settings.profile] = _base(region_id, settings)
    session = copy(made[settings.profile])
    unread = [session]  # its chain was not read yet; to make another session takes a while

    async def read() -> Source:
        if settings.role_arn is not None:
            return _role(_base(region_id, settings), settings, config)
        base = unread.pop() if unread else _base(region_id, settings)
        credentials = await base.get_component("credential_provider").load_credentials()
        return Source(credentials, getattr(credentials, "method", None))

    credentials = RenewableCredentials(region_id, read, monotonic)
    session._credentials = credentials  # type: ignore[attr-defined]  # noqa: SLF001 - botocore offers no other way
    return session, credentials


def _base(region_id: str, settings: Region) -> AioSession:
    session = AioSession(profile=settings.profile)
    if settings.profile is not None and settings.profile not in session.available_profiles:
        raise ConfigurationInvalid(
            f"regions.{region_id}.profile: {settings.profile!r} is not in the shared AWS configuration.",
            advice="Add the profile to ~/.aws/config, or name another one.",
        )
    session.register_component("data_loader", service_descriptions(session.get_config_variable("data_path")))
    return session


def _role(base: AioSession, settings: Region, config: AioConfig) -> Source:
    """Credentials that come from assuming the region's role; refreshed before they expire."""

    async def assume() -> dict[str, str]:
        source.origin = getattr(await base.get_credentials(), "method", None)
        endpoint = settings.endpoints.sts or settings.endpoint_url
        sts: STSClient
        async with base.create_client(
            "sts",
            region_name=settings.region,
            endpoint_url=None if endpoint is None else str(endpoint).rstrip("/"),
            config=config,
        ) as sts:
            external: dict[str, Any] = {} if settings.external_id is None else {"ExternalId": settings.external_id}
            answer = await sts.assume_role(
                RoleArn=str(settings.role_arn), RoleSessionName=f"replicator-{os.getpid()}", **external
            )
        credentials = answer["Credentials"]
        return {
            "access_key": credentials["AccessKeyId"],
            "secret_key": credentials["SecretAccessKey"],
            "token": credentials["SessionToken"],
            "expiry_time": credentials["Expiration"].isoformat(),
        }

    source = Source(AioDeferredRefreshableCredentials(refresh_using=assume, method="sts-assume-role"))
    return source
