"""Times as operators write them, and as operations return them: in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from replicator.settings.values import Duration


def moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time; None when it is not known, which rows write as 0."""
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None and seconds > 0 else None


def parse_moment(text: str, now: datetime) -> datetime:
    """A time (ISO 8601, UTC unless it says otherwise), or a duration back from now (`90m`, `7d`); else `ValueError`."""
    try:
        written = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now - TypeAdapter[timedelta](Duration).validate_python(text)
        except (ValidationError, OverflowError) as error:
            raise ValueError(text) from error
    return written if written.tzinfo else written.replace(tzinfo=UTC)
