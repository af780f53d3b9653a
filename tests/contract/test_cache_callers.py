"""The readers in other languages that the page shows, on a real Valkey; each where its runtime is."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from replicator.cache.scripts import FILL, LOOK
from tests.contract.worlds import fresh, redis_bench

pytestmark = pytest.mark.servers
CALLERS = Path(__file__).parents[2] / "examples" / "callers"
GO = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
COMMANDS = {"caller.js": ["node"], "Caller.java": ["java"], "caller.go": [GO or "go", "run"]}


def said(command: Sequence[str], directory: Path) -> str:
    offline = {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "GO111MODULE": "off"}
    environment = os.environ | offline | {"GOCACHE": str(directory / "go")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "file", ["caller.js", *(pytest.param(file, marks=pytest.mark.long) for file in ("Caller.java", "caller.go"))]
)
async def test_a_caller_fills_then_hits_then_waits_for_others(file: str, redis_url: str, tmp_path: Path) -> None:
    start = COMMANDS[file]
    needed = "javac" if file.endswith(".java") else start[0]  # a runtime alone cannot run a source file
    if shutil.which(needed) is None:
        pytest.skip(f"{needed} is not installed")
    program = [*start, str(CALLERS / file)]
    if file.endswith(".go"):
        binary = str(tmp_path / "caller")
        said([start[0], "build", "-o", binary, str(CALLERS / file)], tmp_path)
        program = [binary]
    key = fresh("ü")
    words = [*program, str(urlsplit(redis_url).port), key, LOOK, FILL]
    async with redis_bench(redis_url) as bench:
        await bench.client.script_flush()
        assert said([*words, "one é"], tmp_path) == "lease one é"
        assert (await bench.found([key]))[key] == "V:|one é".encode()
        assert said([*words, "two"], tmp_path) == "hit one é"
        await bench.seed({key: b"L:another"})
        assert said([*words, "three"], tmp_path) == "wait three"
        assert (await bench.found([key]))[key] == b"L:another"
