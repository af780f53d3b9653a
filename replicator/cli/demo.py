"""`replicator demo`: the whole program on this machine, against real servers, with a verdict at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from replicator.demo.run import DemoOptions

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
    regions: Annotated[int, typer.Option(min=2, max=5, help="Number of regions; mode ordered has three.")] = 3,
    shards: Annotated[
        int, typer.Option(min=1, max=_MOST_SHARDS, help="Shards of every stream at the start (stream laboratory).")
    ] = 1,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_MOST_WORKERS,
            help="Daemon processes that share the shards.",
            show_default=f"{_SHARING_WORKERS} with several shards, else 1",
        ),
    ] = None,
    *,
    engine: Annotated[
        Engine,
        typer.Option(help="What runs the rules: daemons, or functions called by event source mappings."),
    ] = "pods",
    source: Annotated[
        Source,
        typer.Option(help="Where changes are read: the tables' streams, or Kinesis with repeated, reordered records."),
    ] = "streams",
    fan_out: Annotated[bool, typer.Option("--fan-out", help="With --source kinesis: use enhanced fan-out.")] = False,
    bootstrap: Annotated[
        bool,
        typer.Option(
            "--bootstrap", help="Begin with items that are older than the streams, and copy them by a bootstrap."
        ),
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Also send every change as an event to a queue, a stream and a webhook.")
    ] = False,
    reshard: Annotated[
        bool, typer.Option("--reshard", help="Split, merge and roll shards, about once a second.")
    ] = False,
    cache: Annotated[
        CacheVerb | None,
        typer.Option(help="Measure stale reads of a few busy keys, with this action for both caches."),
    ] = None,
    readers: Annotated[
        int | None,
        typer.Option(
            min=2, max=_MOST_READERS, help="Number of cache readers that use the reader library.", show_default="20"
        ),
    ] = None,
    readers_plain: Annotated[
        bool, typer.Option("--readers-plain", help="Let them use plain cache-aside instead, to show stale entries.")
    ] = False,
    chaos: Annotated[
        bool,
        typer.Option(
            "--chaos",
            help="Kill a cache twice (it returns empty, then with old data), kill the daemon, and let a Sentinel"
            " promote a lagging replica.",
        ),
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep everything running after the verdict, until Ctrl-C.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line; progress goes to standard error.")
    ] = False,
) -> None:
    """Start local servers, replicate traffic, compare every item.

    With --shards or --reshard, the streams come from the stream laboratory, which detects skipped records and shards
    read before their parents' end; either makes the exit code 1. With --events, consumers of a FIFO queue, a Redis
    stream and a signed webhook must receive every change of every item in order, although the webhook refuses requests
    for a while. With --cache, every read is compared with the table next to the cache: the report says how many reads
    were stale by more than a second, 5 s and a minute, as nines, and which entries remain stale.

    Needs the extra `demo`: pip install 'replicator[demo]'.
    Exit code 1: something differs, or too little was compared.
    """
    import asyncio

    from replicator.demo.command import demo as run
    from replicator.demo.run import DemoOptions

    many = reshard or shards > 1 or source == "kinesis"
    if cache is None and (readers or readers_plain or chaos):
        cache = "refresh"
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
    _check_combination(options)
    raise typer.Exit(asyncio.run(run(options)))


def _check_combination(options: DemoOptions) -> None:
    """Refuse options that do not go together."""
    from replicator.demo.layout import ORDERED_REGIONS

    ordered, many, functions = options.mode == "ordered", options.shards is not None, options.engine == "lambda"
    if ordered and options.regions != ORDERED_REGIONS:
        raise typer.BadParameter(f"mode ordered has {ORDERED_REGIONS} regions", param_hint="--regions")
    if options.bootstrap and (not ordered or many):
        raise typer.BadParameter("goes with mode ordered, one shard and the tables' streams", param_hint="--bootstrap")
    # Functions sort the batches of a Kinesis stream, so consumers would see repeated events.
    sorts_batches = options.source == "kinesis" and functions
    if options.events and (not ordered or options.bootstrap or options.reshard or sorts_batches):
        raise typer.BadParameter(
            "goes with mode ordered, without --bootstrap and --reshard, and with lambda by the tables' streams",
            param_hint="--events",
        )
    if functions and (options.bootstrap or options.fan_out or options.workers > 1):
        raise typer.BadParameter(
            "lambda goes without --bootstrap, --fan-out and --workers, which need daemons", param_hint="--engine"
        )
    if options.fan_out and options.source != "kinesis":
        raise typer.BadParameter("goes with --source kinesis", param_hint="--fan-out")
    others = many or options.bootstrap or options.events or functions or options.workers > 1
    if options.cache and (not ordered or others):
        raise typer.BadParameter("goes with mode ordered, one shard and one worker", param_hint="--cache")
