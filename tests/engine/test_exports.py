"""Bootstrap from a point-in-time export, as files in a directory: the same items, below what changed since."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from replicator.domain.image import Image
from replicator.domain.jobs import Job, JobState, Part
from replicator.domain.rules import Start
from replicator.domain.values import replace
from tests.engine.job_world import JobWorldOf, job
from tests.engine.test_bootstrap import filled
from tests.engine.world import eu_rule, until

FOLDER = "AWSDynamoDB/01-a/"


def export(root: Path, images: Iterable[Image], at: float, *, files: int = 3, table: str = "orders") -> None:
    """Write what DynamoDB writes; data files of two gzip members, as a writer that flushes makes them."""
    data = root / FOLDER / "data"
    data.mkdir(parents=True)
    lines = [b'{"Item":%b}\n' % image.wire for image in images]
    names = []
    for number in range(files):
        mine = lines[number::files]
        half = len(mine) // 2
        text = gzip.compress(b"".join(mine[:half])) + gzip.compress(b"".join(mine[half:]))
        (data / f"{number}.json.gz").write_bytes(text)
        names.append(json.dumps({"itemCount": len(mine), "dataFileS3Key": f"{FOLDER}data/{number}.json.gz"}))
    (root / FOLDER / "manifest-files.json").write_text("\n".join(names))
    summary = {
        "tableArn": f"arn:aws:dynamodb:us-east-1:1:table/{table}",
        "exportTime": datetime.fromtimestamp(at, UTC).isoformat(),
        "outputFormat": "DYNAMODB_JSON",
        "exportType": "FULL_EXPORT",
        "itemCount": len(lines),
    }
    (root / FOLDER / "manifest-summary.json").write_text(json.dumps(summary))


def from_export(root: Path, segments: int = 2) -> Job:
    options = {"verify": False, "export": str(root)}
    return replace(job(options=options), parts=(Part("export", segments),))


async def test_what_an_export_shows_arrives_below_what_changed_since(tmp_path: Path) -> None:
    world = filled(items=100)
    jobs = JobWorldOf(world)
    async with jobs.process(), jobs.process():
        await asyncio.sleep(60)
        export(tmp_path, world.source.items.values(), world.now())
        for number in range(0, 99, 3):
            world.put(f"k{number}", "new")
            world.delete(f"k{number + 1}")
        await jobs.rows.create(from_export(tmp_path))
        over = await jobs.ended()
        await until(world.same)
    assert (over.state, over.counts["items"]) == (JobState.DONE, 100)
    assert over.counts["copied"] == 34, "what was changed or deleted since is newer"


async def test_a_killed_worker_goes_on_at_its_line(tmp_path: Path) -> None:
    world = filled(items=2500)
    jobs = JobWorldOf(world)
    async with jobs.process() as first, jobs.process():
        await asyncio.sleep(60)
        export(tmp_path, world.source.items.values(), world.now(), files=1)
        await jobs.rows.create(from_export(tmp_path, segments=1))
        await until(lambda: bool(jobs.rows.saves))
        await first.kill()
        over = await jobs.ended()
        assert world.same()
    assert over.counts["items"] == 2500
    assert [segment.position for segment in jobs.rows.saves][:2] == ["0:1000", "0:2000"]


async def test_an_export_from_before_the_stream_is_refused(tmp_path: Path) -> None:
    world = filled(items=5)
    jobs = JobWorldOf(world)
    export(tmp_path, world.source.items.values(), world.now() - 10 * 86_400)
    await jobs.rows.create(from_export(tmp_path))
    async with jobs.process():
        over = await jobs.ended()
    assert over.state is JobState.FAILED
    assert "the changes between would be lost" in over.note
    assert world.holds() == {}


async def test_of_a_rule_that_starts_at_the_latest_the_export_must_be_younger(tmp_path: Path) -> None:
    world = filled(items=5)
    jobs = JobWorldOf(world)
    export(tmp_path, world.source.items.values(), world.now() - 60)
    await jobs.rows.create(from_export(tmp_path))
    async with jobs.process(eu_rule(start=Start.LATEST)):
        assert (await jobs.ended()).state is JobState.FAILED


async def test_an_export_of_another_table_or_none_is_refused(tmp_path: Path) -> None:
    world = filled(items=5)
    jobs = JobWorldOf(world)
    export(tmp_path / "other", world.source.items.values(), world.now(), table="bills")
    async with jobs.process():
        for number, folder in enumerate(("other", "empty")):
            (tmp_path / folder).mkdir(exist_ok=True)
            await jobs.rows.create(replace(from_export(tmp_path / folder), job_id=f"e{number}"))
            assert (await jobs.ended(f"e{number}")).state is JobState.FAILED


async def test_a_damaged_file_is_said_and_nothing_is_guessed(tmp_path: Path) -> None:
    world = filled(items=50)
    jobs = JobWorldOf(world)
    async with jobs.process():
        await asyncio.sleep(60)
        export(tmp_path, world.source.items.values(), world.now(), files=1)
        path = tmp_path / FOLDER / "data" / "0.json.gz"
        path.write_bytes(path.read_bytes()[:200] + b"\0" * 50)
        await jobs.rows.create(from_export(tmp_path, segments=1))
        over = await jobs.ended()
    assert over.state is JobState.FAILED
    assert "damaged" in over.note
