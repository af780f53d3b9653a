"""An event source mapping: reads a stream and calls a function with batches, as AWS Lambda does.

`mapping` is what a mapping does, with its choices in `options`; `feeds`, what it reads; `handlers`, what it calls.
"""

from __future__ import annotations

from replicator.laboratory.event_source.feeds import Fed, Feed, KinesisFeed, TableFeed
from replicator.laboratory.event_source.handlers import Handler, Handlers
from replicator.laboratory.event_source.mapping import Counts, EventSource, Invoke
from replicator.laboratory.event_source.options import Event, MappingOptions

__all__ = [
    "Counts",
    "Event",
    "EventSource",
    "Fed",
    "Feed",
    "Handler",
    "Handlers",
    "Invoke",
    "KinesisFeed",
    "MappingOptions",
    "TableFeed",
]
