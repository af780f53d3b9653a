"""The stream laboratory for tests: many shards with a true lineage, and everything that breaks, in five lines.

    async with laboratory(dynamodb_url, seed=7, shards=4) as lab:    # dynamodb_url: a MiniStack
        ...                                  # lab.url is the endpoint for DynamoDB and its streams, in every region
        lab.split("orders")                  # tables whose description passed through have four shards, now five open
        await lab.settle()                   # all that was written by now is in the shards
        assert lab.stats()["skipped"] == {"-": 0}

Without a MiniStack `lab.make("orders", "eu-west-1", shards=4)` makes a stream and `await lab.generate("orders",
count=1000)` its records. docs/laboratory.md has every command and option.
"""

from replicator.laboratory.streamlab import Laboratory, StreamLab, laboratory, parse_script

__all__ = ["Laboratory", "StreamLab", "laboratory", "parse_script"]
