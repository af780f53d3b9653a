"""How the laboratory behaves: everything that `set` can change while it runs."""

from __future__ import annotations

from typing import Literal

import msgspec


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """AWS's behaviour by default, faults switched off. Durations are seconds of the laboratory's clock."""

    shards: int = 1
    """Of a stream when it begins."""
    table_shards: dict[str, int] = {}
    """The same for some tables, by name."""
    digits: int = 21
    """Of the first sequence numbers, at most 40."""
    poll_seconds: float = 0.1
    """Longest pause between two looks at an idle stream of MiniStack."""
    page_size: int = 100
    """Shards in a page of DescribeStream."""
    child_listed_after: float = 0.0
    """A child is listed that much later than it exists."""
    parent_open_for: float = 0.0
    """A closed parent is listed as open for that long, beside its child."""
    missing_page_rate: float = 0.0
    """Share of DescribeStream pages that come without their shards."""
    order: Literal["creation", "reversed", "shuffled"] = "creation"
    """Of a listing; AWS lists parents first."""
    shard_filter: Literal["honoured", "ignored", "refused"] = "honoured"
    retention_seconds: float = 86_400.0
    iterator_seconds: float = 900.0
    roll_seconds: float = 0.0
    """Every shard rolls when it is about that old (0.8 to 1.2 of it); 0: never. AWS: about 14400."""
    describes_per_second: int = 10
    """DescribeStream calls per stream before LimitExceededException; 0: no limit."""
    reads_per_second: int = 0
    """GetRecords calls per shard before ProvisionedThroughputExceededException; 0: no limit. AWS: about 5."""
    empty_pages: int = 0
    """Empty pages that a new iterator gives before records."""
    empty_page_rate: float = 0.0
    """Share of pages that come empty although there are records."""
    last_page: Literal["records", "empty"] = "records"
    """Whether the page without NextShardIterator has the last records, or follows them."""
    most_records: int = 1000
    most_bytes: int = 1_048_576
    ttl_identity: Literal["model", "documentation"] = "model"
    """How `userIdentity` is spelt: as in the service's model (Type), or as in its documentation (type)."""
    kinesis: bool = True
    """Whether Kinesis is served here; else its calls pass through."""
    consumer_seconds: float = 0.0
    """How long a consumer of a Kinesis stream is being made."""
    subscription_seconds: float = 300.0
    """How long a subscription to a shard lives."""
    takeover_seconds: float = 5.0
    """So long after one was made another one is refused; later it takes over."""
    heartbeat_seconds: float = 5.0
    """So often an event without records is sent."""
    kinesis_duplicates: float = 0.0
    """Share of the changes that come to a Kinesis stream twice."""
    kinesis_disorder: float = 0.0
    """Seconds that a change may take into a Kinesis stream: so much later ones may come before it."""
