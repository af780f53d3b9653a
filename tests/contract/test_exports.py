"""Where exports lie: a bucket as S3 speaks, and a directory, answer alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replicator.adapters.export_sources import export_files
from replicator.domain.copying.exports import ExportUnusable
from replicator.ports.exports import ExportFiles
from tests.contract.conftest import WORLDS
from tests.contract.worlds import fresh, place

FILES = {
    "a/AWSDynamoDB/1/manifest-summary.json": b"{}",
    "a/AWSDynamoDB/1/data/x.json.gz": bytes(range(256)) * 3000,
    "b/other.txt": b"",
}


@pytest.fixture(params=WORLDS)
async def files(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ExportFiles]:
    async with place(request.getfixturevalue("dynamodb_url")) as opened:
        if request.param == "memory":
            for name, content in FILES.items():
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_bytes(content)
            yield export_files(str(tmp_path), opened)[0]
            return
        bucket = fresh("exports")
        async with opened.s3() as client:
            await client.create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": opened.settings.region}
            )
            for name, content in FILES.items():
                await client.put_object(Bucket=bucket, Key=name, Body=content)
        found, folder = export_files(f"s3://{bucket}/a/", opened)
        assert folder == "a/"
        yield found


async def test_names_are_found_below_a_folder(files: ExportFiles) -> None:
    assert await files.names("a/") == sorted(name for name in FILES if name.startswith("a/"))
    assert await files.names("") == sorted(FILES)


async def test_files_are_read_whole_and_in_pieces(files: ExportFiles) -> None:
    name = "a/AWSDynamoDB/1/data/x.json.gz"
    assert await files.read("a/AWSDynamoDB/1/manifest-summary.json") == b"{}"
    pieces = [piece async for piece in files.chunks(name)]
    assert len(pieces) > 1
    assert b"".join(pieces) == FILES[name]


async def test_what_is_not_there_is_said(files: ExportFiles) -> None:
    with pytest.raises(ExportUnusable):
        await files.read("a/nothing")
