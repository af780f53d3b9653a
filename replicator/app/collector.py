"""The garbage collector of a daemon: what lives as long as the process is looked at once, or not at all."""

from __future__ import annotations

import gc

COLLECT_AFTER = (25_000, 20, 20)
"""Thresholds (`gc.set_threshold`).

With a thousand shards a full collection takes 170 ms, and all of them took a third of the processor; garbage in cycles,
above all of the AWS client, is a few megabytes between two of the youngest objects.
"""


def keep_what_is_imported() -> None:
    """Keep it out of every collection, and collect what comes from now on."""
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def keep_what_is_made() -> None:
    """Keep what was made since then out of every later collection, without its garbage."""
    gc.collect()
    gc.freeze()
