"""A rule that moves from its table's own stream to Kinesis and back while users write and workers are killed.

In Kinesis its shards are pushed, repeated and out of order, and split and merge. No repair follows the moves: it would
bring what is lost.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from replicator.laboratory.streamlab import StreamLab
from tests.integration.harness import AWS_REGIONS, Users, World, eventually, open_world

_THERE, _BACK, _PER_SECOND = 200, 64, 20
"""Changes up to when everything has come through Kinesis, those that follow, and their rate."""

_DISORDER: dict[str, Any] = {"kinesis_duplicates": 0.2, "kinesis_disorder": 1.0}


class Move:
    """The world, its laboratory, and the rule's way."""

    def __init__(self, world: World, lab: StreamLab) -> None:
        self.world = world
        self.lab = lab
        self.users = Users(world, seed=5, keys=20)

    def config(self, epoch: int, **stream: object) -> Path:
        rule = {"epoch": epoch, "on_gap": "skip", **({"stream": stream} if stream else {})}
        settings = self.world.settings(
            rule=rule,
            coordination={"region": "eu", "lease": "3s", "heartbeat": "500ms", "drained": "3s"},
        )
        settings["regions"]["us"] = {"region": AWS_REGIONS["us"], "endpoint_url": self.lab.url}
        return self.world.write_settings(settings, f"epoch-{epoch}.yaml")

    async def written(self, changes: int) -> None:
        await eventually("writing", lambda: self.users.written >= changes)

    async def stop(self) -> None:
        """All workers end as they should."""
        for daemon in self.world.daemons:
            if daemon.process.poll() is None:
                assert await asyncio.to_thread(daemon.terminate) == 0, daemon.log.read_text()[-2000:]

    def calls(self, operation: str) -> int:
        return int(self.lab.stats()["calls"].get(operation, {}).get("total", 0))

    async def begin(self, config: Path) -> None:
        """Two workers."""
        for _ in range(2):
            self.world.daemon(config)

    async def kill_each(self) -> None:
        """kill -9 of one worker after the other; each is started again."""
        for daemon in self.world.daemons[-2:]:
            await asyncio.sleep(1.0)
            daemon.kill()
            await asyncio.sleep(0.5)
            daemon.start()

    async def resharded(self) -> None:
        """Shards of the Kinesis stream split and merge."""
        for command in ("split", "merge", "split"):
            await asyncio.to_thread(self.lab.command, command, table="kinesis/changes")

    async def same(self) -> bool:
        await asyncio.to_thread(self.lab.command, "settle")
        return all(items == self.users.truth for items in (await self.world.replicas()).values())

    async def run(self) -> None:
        own = self.config(0)
        await asyncio.to_thread(self.world.initialise, own)
        await self.begin(own)
        writing = asyncio.ensure_future(self.users.write(_THERE, per_second=_PER_SECOND))
        await self.written(_THERE // 5)
        moved = self.config(1, kinesis="changes", fan_out=True)
        done = await asyncio.to_thread(lambda: self.world.command("init", "--enable-streams", config=moved))
        assert done.returncode == 0, done.stderr
        await self.written(2 * _THERE // 5)
        await self.stop()
        await self.begin(moved)
        await eventually("subscriptions", lambda: self.calls("SubscribeToShard") > 0)
        await asyncio.gather(self.kill_each(), self.resharded())
        await writing
        await eventually("identical replicas through Kinesis", self.same)
        writing = asyncio.ensure_future(self.users.write(_BACK, per_second=_PER_SECOND))
        await self.written(_THERE + _BACK // 3)
        await self.stop()
        back = self.config(2)
        await self.begin(back)
        await self.kill_each()
        await writing
        await eventually("identical replicas", self.same)
        await self.stop()


@pytest.mark.servers
@pytest.mark.long
def test_a_rule_moves_to_kinesis_and_back_under_load_and_kills_without_a_loss(tmp_path: Path) -> None:
    with open_world(tmp_path) as world:
        asyncio.run(world.create_tables())
        with StreamLab.start(tmp_path, world.endpoint, shards=2, takeover_seconds=1.0, **_DISORDER) as lab:
            move = Move(world, lab)
            asyncio.run(_made(lab))
            asyncio.run(move.run())


async def _made(lab: StreamLab) -> None:
    """The Kinesis stream, which is the user's."""
    from aiobotocore.session import AioSession

    async with AioSession().create_client(
        "kinesis",
        region_name=AWS_REGIONS["us"],
        endpoint_url=lab.url,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    ) as client:
        await client.create_stream(StreamName="changes", ShardCount=2)
