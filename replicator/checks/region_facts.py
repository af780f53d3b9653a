"""Facts about places rather than tables: whether they answer, to which identity, at what time, and over what."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING

from replicator.checks.facts import Fact, failed, ok, skipped, warning, wrong
from replicator.checks.world import RegionWorld
from replicator.domain.errors import AccessRefused
from replicator.domain.values import replace

if TYPE_CHECKING:
    from replicator.settings import Settings

SKEW_WARNING_SECONDS = 5.0
SKEW_FAILURE_SECONDS = 60.0
SKEW_AT_START_SECONDS = 30.0
"""A start goes on with any clock, and reports one that is so far off: only `check` refuses."""
_SYNCHRONISE = "Synchronise this machine's clock (NTP): its log bears it, and AWS refuses requests beyond 5 min."


def region_facts(settings: Settings, region: RegionWorld, *, thorough: bool) -> Iterator[Fact]:
    """Whether a region answers, to which identity, at what time, and over what."""
    subject = f"region {region.region}"
    place = settings.regions[region.region]
    endpoint = place.endpoints.dynamodb or place.endpoint_url
    where = place.region if endpoint is None else f"{place.region} at {endpoint.host}:{endpoint.port}"
    if region.down is not None:
        name = "credentials" if isinstance(region.down, AccessRefused) else "answers"
        fact = failed(subject, name, region.down)
        yield replace(fact, remedy=f"{fact.remedy} See regions.{region.region} in the configuration.")
        return
    yield ok(subject, "answers", f"{where}.")
    if thorough:
        yield _credentials(subject, region)
        yield _clock(subject, region.skew_seconds)
    elif region.skew_seconds is not None and abs(region.skew_seconds) > SKEW_AT_START_SECONDS:
        yield warning(subject, "clock", _skewed(region.skew_seconds), _SYNCHRONISE)
    if endpoint is not None and endpoint.scheme == "http" and not is_loopback(endpoint.host or ""):
        yield warning(
            subject,
            "encrypted",
            f"regions.{region.region} has an http:// endpoint on another machine, so items travel unencrypted.",
            "Use an https:// endpoint.",
        )


def _credentials(subject: str, region: RegionWorld) -> Fact:
    if region.identity_error is None:
        return ok(subject, "credentials", f"account {region.account}.")
    return warning(
        subject,
        "credentials",
        f"DynamoDB answers, but the identity is unknown: {region.identity_error.message}",
        f"Set regions.{region.region}.endpoints.sts if STS is elsewhere; replicator itself needs it only for roles.",
    )


def _clock(subject: str, skew: float | None) -> Fact:
    if skew is None:
        return skipped(subject, "clock", "The endpoint sends no time.")
    found = _skewed(skew)
    if abs(skew) > SKEW_FAILURE_SECONDS:
        return wrong(subject, "clock", found, _SYNCHRONISE)
    if abs(skew) > SKEW_WARNING_SECONDS:
        return warning(subject, "clock", found, _SYNCHRONISE)
    return ok(subject, "clock", "within a second." if abs(skew) < 1 else found)


def _skewed(skew: float) -> str:
    return f"This machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the region's."


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
