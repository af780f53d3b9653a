"""The stream laboratory: DynamoDB Streams with a true shard lineage in front of MiniStack, and everything that breaks.

`laboratory(upstream_url, seed=1, shards=4)` serves one in this process, `StreamLab.start(directory, upstream_url)` as a
child process, `python -m replicator.laboratory.streamlab` for people. See docs/laboratory.md.
"""

from replicator.laboratory.streamlab.laboratory import Laboratory
from replicator.laboratory.streamlab.process import StreamLab
from replicator.laboratory.streamlab.script import parse_script
from replicator.laboratory.streamlab.server import laboratory

__all__ = ["Laboratory", "StreamLab", "laboratory", "parse_script"]
