"""Values of items left out of what is answered: attributes show with their names and types, keys as they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

MASK = "•••"
_IMAGES = ("winner", "loser")


def masked(image: Mapping[str, Any] | None, keys: Collection[str] = ()) -> dict[str, Any] | None:
    """An image without its values."""
    if image is None:
        return None
    return {
        name: typed if name in keys else dict.fromkeys(typed, MASK) if isinstance(typed, Mapping) else MASK
        for name, typed in image.items()
    }


def shown_entry(entry: Mapping[str, Any], *, values: bool) -> dict[str, Any]:
    """A conflict entry, with the names of attributes in which its images differ."""
    winner, loser = (entry.get(name) or {} for name in _IMAGES)
    differs = sorted(name for name in {*winner, *loser} if winner.get(name) != loser.get(name))
    keys = entry.get("key") or {}
    images = {} if values else {name: masked(entry.get(name), keys) for name in _IMAGES}
    return {**entry, **images, "differs": differs, "masked": not values}
