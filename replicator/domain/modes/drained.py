"""What became of a key that a region of a mesh was owed, in words that the modes share."""

from __future__ import annotations

import enum


class Drained(enum.Enum):
    """What was brought to a region that had been owed a key; with each of these its row is settled, if unchanged."""

    PUT = "put"  # the item that stands at home, or something greater was there
    DELETED = "deleted"  # the delete that home remembers, or something greater was there
    NOTHING = "nothing"  # what stands at home now is brought by a record of its own
