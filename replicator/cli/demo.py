"""`replicator demo`: the whole program on this machine, against real servers, with a verdict at the end."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Mode = Literal["ordered", "versioned", "active-active"]
Source = Literal["streams", "kinesis"]
Engine = Literal["pods", "lambda"]
CacheVerb = Literal["invalidate", "refresh", "write_through"]
_RATES: dict[Mode, float] = {"ordered": 150, "versioned": 60, "active-active": 40}
"""What two cores sustain, servers included."""

_SECONDS = 20.0
_CHAOS_SECONDS = 65.0
"""Failures and quiet times between them, and the horizon of a minute."""

_CACHE_RATE = 60.0
_READERS = 20
_MOST_READERS = 200
_MOST_SHARDS = 256
_MOST_WORKERS = 16
_SHARING_WORKERS = 2
"""Where there is something to share."""


def demo(  # noqa: PLR0913, PLR0917 - the options of a command
    duration: Annotated[
        float | None,
        typer.Option(min=1, max=86_400, help="Seconds of traffic.", show_default="20, 65 with --chaos"),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=10_000,
            help="User writes per second, in all regions together.",
            show_default=", ".join(f"{rate:.0f} {mode}" for mode, rate in _RATES.items()),
        ),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="ordered: one writer region. The others: users write in every region.")
    ] = "ordered",
    regions: Annotated[int, typer.Option(min=2, max=5, help="How many regions; mode ordered has three.")] = 3,
    shards: Annotated[
        int, typer.Option(min=1, max=_MOST_SHARDS, help="Shards of every stream at the start, made by the laboratory.")
    ] = 1,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_MOST_WORKERS,
            help="Processes of the daemon, which share the shards.",
            show_default=f"{_SHARING_WORKERS} with several shards, else 1",
        ),
    ] = None,
    *,
    engine: Annotated[
        Engine,
        typer.Option(help="What drives the rules: the daemon, or functions that event source mappings call."),
    ] = "pods",
    source: Annotated[
        Source, typer.Option(help="Where changes are read: the tables' streams, or Kinesis, repeated and out of order.")
    ] = "streams",
    fan_out: Annotated[
        bool, typer.Option("--fan-out", help="With --source kinesis: let shards be pushed (enhanced fan-out).")
    ] = False,
    bootstrap: Annotated[
        bool,
        typer.Option("--bootstrap", help="Let the first items be older than the streams, and bring them by bootstrap."),
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Send every change as an event, too, to a queue, a stream and a webhook.")
    ] = False,
    reshard: Annotated[
        bool, typer.Option("--reshard", help="Let shards split, merge and roll, about one change a second.")
    ] = False,
    cache: Annotated[
        CacheVerb | None,
        typer.Option(help="Show how stale readers of a few busy keys are, with this action for both caches."),
    ] = None,
    readers: Annotated[
        int | None,
        typer.Option(min=2, max=_MOST_READERS, help="Readers of the caches, by the reader library.", show_default="20"),
    ] = None,
    readers_plain: Annotated[
        bool, typer.Option("--readers-plain", help="Let them read by plain look-aside instead: entries stay stale.")
    ] = False,
    chaos: Annotated[
        bool,
        typer.Option(
            "--chaos",
            help="Kill a cache twice, which comes back empty and then old, kill the daemon, and let a Sentinel promote"
            " a replica that lags.",
        ),
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running after the verdict, until Ctrl-C.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object as the last line of output; progress on standard error.")
    ] = False,
) -> None:
    """Start local servers, replicate real traffic, and compare every table and cache item by item.

    With --shards or --reshard, the streams come from the stream laboratory, which counts whether a record was skipped
    or a shard was read before its parent's end; either makes the exit code 1. With --events, consumers of a FIFO queue,
    a Redis stream and a signed webhook must see every change of every item in order, though the webhook refuses
    everything for a while. With --cache, every read is compared with what the table beside the cache had shown when it
    began: the report says how many were stale by more than a second, 5 s and a minute, as nines, and which entries stay
    stale for good.

    Needs the extra `demo`: pip install 'replicator[demo]'.
    Exit code 1 when anything differs or too little was compared.
    """
    import asyncio

    from replicator.demo.command import demo as run
    from replicator.demo.layout import ORDERED_REGIONS
    from replicator.demo.run import DemoOptions

    if mode == "ordered" and regions != ORDERED_REGIONS:
        raise typer.BadParameter(f"mode ordered has {ORDERED_REGIONS} regions", param_hint="--regions")
    many = reshard or shards > 1 or source == "kinesis"
    if bootstrap and (mode != "ordered" or many):
        raise typer.BadParameter("goes with mode ordered, one shard and the tables' streams", param_hint="--bootstrap")
    sorts_batches = source == "kinesis" and engine == "lambda"
    if events and (mode != "ordered" or bootstrap or reshard or sorts_batches):
        raise typer.BadParameter(
            "goes with mode ordered, without --bootstrap and --reshard, and with lambda by the tables' streams",
            param_hint="--events",
        )
    if engine == "lambda" and (bootstrap or fan_out or (workers or 1) > 1):
        raise typer.BadParameter(
            "lambda goes without --bootstrap, --fan-out and --workers, which are of pods", param_hint="--engine"
        )
    if fan_out and source != "kinesis":
        raise typer.BadParameter("goes with --source kinesis", param_hint="--fan-out")
    if cache is None and (readers or readers_plain or chaos):
        cache = "refresh"
    if cache and (mode != "ordered" or many or bootstrap or events or engine == "lambda" or (workers or 1) > 1):
        raise typer.BadParameter("goes with mode ordered, one shard and one worker", param_hint="--cache")
    options = DemoOptions(
        duration=duration or (_CHAOS_SECONDS if chaos else _SECONDS),
        rate=rate or (_CACHE_RATE if cache else _RATES[mode]),
        keep=keep,
        json=json,
        mode=mode,
        regions=regions,
        engine=engine,
        source=source,
        fan_out=fan_out,
        shards=shards if many else None,
        reshard=reshard,
        workers=workers or (_SHARING_WORKERS if (many or bootstrap) and engine == "pods" else 1),
        bootstrap=bootstrap,
        events=events,
        cache=cache,
        readers=readers or _READERS,
        plain=readers_plain,
        chaos=chaos,
    )
    raise typer.Exit(asyncio.run(run(options)))
