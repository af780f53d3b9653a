"""The stream laboratory: DynamoDB Streams with a true shard lineage in front of MiniStack, and everything that breaks.

`laboratory(upstream_url, seed=1, shards=4)` serves one in this process, `StreamLab.start(directory, upstream_url)` as a
child process, `python -m replicator.demo.streamlab` for people. See docs/laboratory.md.
"""

from replicator.demo.streamlab.laboratory import Laboratory
from replicator.demo.streamlab.process import StreamLab
from replicator.demo.streamlab.script import parse_script
from replicator.demo.streamlab.server import laboratory

__all__ = ["Laboratory", "StreamLab", "laboratory", "parse_script"]
