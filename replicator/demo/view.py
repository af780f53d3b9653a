"""What a person sees of the demo: a live table on a terminal, plain lines elsewhere, and the closing report.

Everything goes to one console; with `--json` that is standard error, so standard output carries the result alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from replicator.demo.daemon_figures import DaemonFigures
from replicator.demo.lag import LagFigures, Lags, LagSampler, figures
from replicator.demo.reader import CacheReader, Read
from replicator.demo.shards import ShardWatch, counted, workers

LINE_SECONDS = 2.0
_RATE_SECONDS = 2.0
_MOST_WAYS = 2
"""That a line of progress shows one by one."""


class Traffic(Protocol):
    """What all writers have done."""

    @property
    def counts(self) -> Counter[str]:
        """Acknowledged writes, by kind."""

    @property
    def writes(self) -> int:
        """Acknowledged writes."""


def outcome(says: str, denies: str, *, is_so: bool, seconds: float) -> str:
    """How a wait of at most `seconds` ended, in words: never the one that was hoped for where it is not true."""
    return says if is_so else f"{denies} after {seconds:.0f} s"


@dataclass(slots=True)
class Stage:
    """Everything the view looks at while traffic runs."""

    writers: Traffic
    samplers: Sequence[LagSampler]
    readers: Sequence[CacheReader]
    shards: ShardWatch | None = None
    daemon: DaemonFigures = field(default_factory=DaemonFigures)
    _started_at: float = field(default_factory=time.monotonic)
    _recent: list[tuple[float, int]] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        """Seconds since the traffic started."""
        return time.monotonic() - self._started_at

    def writes_per_second(self) -> float:
        """Acknowledged writes over the last seconds; call it steadily."""
        now = time.monotonic()
        self._recent = [(at, count) for at, count in self._recent if at > now - _RATE_SECONDS]
        self._recent.append((now, self.writers.writes))
        (first_at, first), (last_at, last) = self._recent[0], self._recent[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0


class View:
    """The console."""

    def __init__(self, *, json: bool) -> None:
        self.console = Console(stderr=json, highlight=False)
        self._started_at = time.monotonic()
        self._live: Live | None = None
        self._line_at = 0.0

    def say(self, text: str) -> None:
        """One line of progress, with the time since the start."""
        self.console.print(f"[dim]{time.monotonic() - self._started_at:5.1f} s[/dim]  {text}", soft_wrap=True)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show a table that changes, where there is a terminal for it."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, auto_refresh=False, transient=True) as self._live:
            yield
        self._live = None

    def show(self, stage: Stage) -> None:
        """The present state; to be called steadily."""
        rate = stage.writes_per_second()
        if self._live is not None:
            self._live.update(_table(stage, rate), refresh=True)
        elif time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + LINE_SECONDS
            self.say(_line(stage, rate))
            if stage.shards is not None:
                self.say(" | ".join(_shard_parts(stage.shards)))


def _line(stage: Stage, rate: float) -> str:
    recent = {way: lags.recent() for way, lags in ways(stage.samplers)}
    if len(recent) > _MOST_WAYS:
        recent = {f"of {len(recent)} ways": [lag for lags in recent.values() for lag in lags]}
    lags = ", ".join(f"{way} {_lag(figures(some))}" for way, some in recent.items())
    hits = sum(reader.counts[Read.HIT] for reader in stage.readers)
    fills = sum(reader.counts[Read.FILLED] for reader in stage.readers)
    actions = stage.daemon.cache_actions.total()
    caches = f"caches {hits} hits, {fills} fills, {actions} actions"
    conflicts = f" | {stage.daemon.conflicts} conflicts" if stage.daemon.conflicts else ""
    return f"{stage.writers.writes} writes, {rate:.0f}/s | lag {lags}{conflicts} | {caches}"


def ways(samplers: Sequence[LagSampler]) -> Iterator[tuple[str, Lags]]:
    """Every measured way, named for people; by its destination alone where all writes have one origin."""
    one_origin = len({origin for sampler in samplers for origin in sampler.lags}) == 1
    for sampler in samplers:
        for origin, lags in sampler.lags.items():
            yield sampler.name if one_origin else f"{origin}>{sampler.name}", lags


_ACTIONS = {"refresh": "refreshes", "invalidate": "invalidations"}


def _lag(lag: LagFigures) -> str:
    """Median and 99th percentile."""
    return "-" if lag.p50_ms is None else f"{lag.p50_ms}/{lag.p99_ms} ms"


def _shard_parts(watch: ShardWatch) -> Iterator[str]:
    """Shards, their readers, and what these were given."""
    figures = watch.figures
    changed = f" ({counted(watch.changes)})" if watch.changes else ""
    yield f"{figures.open} open and {figures.closed} closed shards, {figures.generations} generations{changed}"
    owned = " + ".join(map(str, watch.owned))
    yield f"{workers(watch.workers)} with {owned} of them, {watch.hand_overs} hand-overs"
    yield f"{figures.records - figures.unread} of {figures.records} records read, {figures.read_early} children early"
    yield f"DescribeStream {watch.describes_per_second():.1f}/s"


def _shard_table(watch: ShardWatch) -> Iterator[Text | Table]:
    streams = Table("stream", "open shards", "closed", "generations", "records", box=None)
    several = len({stream.region for stream in watch.figures.streams}) > 1
    for stream in watch.figures.streams:
        name = f"{stream.table} in {stream.region}" if several else stream.table
        counts = (stream.open, stream.closed, stream.generations, stream.records)
        streams.add_row(name, *map(str, counts))
    yield streams
    for part in _shard_parts(watch):
        yield Text(part)
    if watch.resharding is not None and watch.resharding.last:
        yield Text(f"last change: {watch.resharding.last}", style="bold")


def _table(stage: Stage, rate: float) -> Group:
    counts = stage.writers.counts
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts))
    head = Text(f"{stage.elapsed:5.1f} s  {stage.writers.writes} writes, {rate:.0f}/s  ({kinds})")
    daemon = Text(f"the daemon: {stage.daemon.records} records done, {stage.daemon.conflicts} conflicts logged")
    replicas = Table("way", "lag p50", "lag p99", "lag max", title_justify="left", box=None)
    for way, lags in ways(stage.samplers):
        lag = figures(lags.recent())
        times = ["-" if value is None else f"{value} ms" for value in (lag.p50_ms, lag.p99_ms, lag.max_ms)]
        replicas.add_row(way, *times)
    caches = Table("cache", "by the daemon", "hits", "fills", "waits", "known absent", box=None)
    for reader in stage.readers:
        actions = stage.daemon.cache_actions[reader.cache.name]
        shown = [reader.counts[kind] for kind in (Read.HIT, Read.FILLED, Read.WAITED, Read.ABSENT)]
        caches.add_row(reader.cache.name, f"{actions} {_ACTIONS[reader.cache.action]}", *map(str, shown))
    shards = [] if stage.shards is None else _shard_table(stage.shards)
    return Group(head, daemon, replicas, caches, *shards)
