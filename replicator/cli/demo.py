"""`replicator demo`: the whole program on this machine, against real servers, with a verdict at the end."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    duration: Annotated[float, typer.Option(min=1, max=86_400, help="Seconds of traffic.")] = 20,
    rate: Annotated[float, typer.Option(min=1, max=10_000, help="Writes per second on the source tables.")] = 150,
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running after the verdict, until Ctrl-C.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object as the last line of output; progress on standard error.")
    ] = False,
) -> None:
    """Start local servers, replicate real traffic, and compare every table and cache item by item.

    Needs the extra `demo`: pip install 'replicator[demo]'.
    Exit code 1 when anything differs or too little was compared.
    """
    import asyncio

    from replicator.demo.command import DemoOptions
    from replicator.demo.command import demo as run

    raise typer.Exit(asyncio.run(run(DemoOptions(duration=duration, rate=rate, keep=keep, json=json))))
