"""`python -m replicator.laboratory.streamlab`: the stream laboratory as a process of its own.

Invariant: one JSON line on standard output gives the address once it listens; SIGTERM and SIGINT end it cleanly.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import uvloop

from replicator.laboratory.servers import LOOPBACK, MiniStack
from replicator.laboratory.streamlab.script import Step, parse_script
from replicator.laboratory.streamlab.server import laboratory


def main(  # noqa: PLR0913, PLR0917 - one for each option
    upstream: Annotated[str, typer.Option(help="The MiniStack behind it; one of its own when left out.")] = "",
    port: Annotated[int, typer.Option(help="Where to listen on 127.0.0.1; 0: a free port.")] = 0,
    seed: Annotated[int, typer.Option(help="Of all dice.")] = 0,
    shards: Annotated[int, typer.Option(help="Open shards of a stream when it begins.")] = 4,
    roll_seconds: Annotated[float, typer.Option(help="How old a shard gets before it rolls; 0: it does not.")] = 0.0,
    script: Annotated[Path | None, typer.Option(help="Commands as JSON, or YAML; see docs/laboratory.md.")] = None,
    descriptor: Annotated[int | None, typer.Option(help="A bound socket to listen on, instead of a port.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="Any other option, as name=value.")] = None,
) -> None:
    """Serve DynamoDB Streams with many shards in front of MiniStack."""
    steps = [] if script is None else parse_script(_plain(script))
    options = {"shards": shards, "roll_seconds": roll_seconds} | dict(_pair(text) for text in option or [])
    with ExitStack() as stack:
        if not upstream:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlab-")))
            upstream = stack.enter_context(MiniStack.start(directory)).endpoint_url
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(upstream, _socket(port, descriptor), seed, steps, options))


async def _serve(upstream: str, bound: socket.socket, seed: int, steps: list[Step], options: dict[str, Any]) -> None:
    async with laboratory(upstream, seed=seed, bound=bound, script=steps, **options) as lab:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, lab.background.broken.set)
        sys.stdout.write(msgspec.json.encode({"url": lab.url, "upstream": upstream, "seed": seed}).decode() + "\n")
        sys.stdout.flush()
        await lab.background.broken.wait()


def _socket(port: int, descriptor: int | None) -> socket.socket:
    if descriptor is not None:
        return socket.socket(fileno=descriptor)
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((LOOPBACK, port))
    return bound


def _plain(script: Path) -> Any:
    return msgspec.yaml.decode(script.read_bytes())


def _pair(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value


if __name__ == "__main__":
    typer.run(main)
