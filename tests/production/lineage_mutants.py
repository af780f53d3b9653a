"""Guards of lineage and discovery, taken out: `lineage`'s scenarios must not survive without them."""

from __future__ import annotations

from typing import Any

from replicator.domain.identifiers import ShardId
from replicator.domain.shards import admission, lineage
from replicator.domain.shards import snapshot as view
from replicator.domain.shards.leases import Seat
from replicator.domain.shards.lineage import Shard
from replicator.engine.applying import ordered_driver as ordered
from replicator.engine.discovery import discovery
from replicator.engine.discovery.describe_rate import DescribeBudget
from replicator.engine.discovery.discovery import Discovery
from replicator.engine.ownership.stream_coordinator import StreamCoordinator
from replicator.engine.ownership.stream_succession import StreamSuccession
from replicator.laboratory import memory
from tests.production.guarantee import Mutant

# -- 3, 4: lineage ---------------------------------------------------------------------------------------------------


def _whoever_is_not_finished(_: Any) -> Any:
    return lambda graph, finished, begun: [shard_id for shard_id in graph if shard_id not in finished]


def _one_parent_is_enough(_: Any) -> Any:
    def ready(graph: Any, finished: Any, begun: Any) -> list[ShardId]:
        left = [shard for shard_id, shard in graph.items() if shard_id not in finished]
        return [shard.shard_id for shard in left if not shard.parents or not set(finished).isdisjoint(shard.parents)]

    return ready


def _begun_is_finished(_: Any) -> Any:
    return lambda needed, row: bool(row.checkpoints)


def _all_at_once(_: Any) -> Any:
    return lambda graph, stored, gone: [shard for shard_id, shard in graph.items() if shard_id not in stored]


def _as_listed_last(_: Any) -> Any:
    return lambda old, new: new


def _over_as_listed(_: Any) -> Any:
    async def is_over(self: Any, shard_id: ShardId) -> bool:
        page = await self._ports.stream.shard_page(self._ref, None)
        return any(shard.shard_id == shard_id and shard.closed for shard in page.shards)

    return is_over


LINEAGE = {
    "parents_first": Mutant("a child waits for its parents", ((view, "ready", _whoever_is_not_finished),)),
    "merges_wait_for_both": Mutant("a merge waits for both parents", ((view, "ready", _one_parent_is_enough),)),
    "finished_is_applied": Mutant(
        "a parent is finished when its end is stored", ((view, "_is_finished", _begun_is_finished),)
    ),
}
LISTINGS = {
    "late_parents": Mutant("a child is stored behind its parents", ((admission, "storable", _all_at_once),)),
    "links_stay": Mutant("knowledge only grows", ((lineage, "_grown", _as_listed_last),)),
    "open_parents_are_closed": Mutant("a shard that has a child is over", ((Discovery, "is_over", _over_as_listed),)),
}

# -- 5, 6: discovery -------------------------------------------------------------------------------------------------


def _at_the_end_of_the_listing(original: Any) -> Any:
    held: list[Shard] = []

    async def store(self: Any, seen: Any) -> None:
        held.extend(seen)
        if self._listing is None:
            await original(self, held)
            held.clear()

    return store


def _no_turns(_: Any) -> Any:
    async def turn(self: Any, *_: Any) -> None: ...

    return turn


def _a_rate_of_its_own(original: Any) -> Any:
    async def turn(self: Any, worker: Any, workers: Any) -> None:
        await original(self, worker, [worker])

    return turn


def _every_worker_takes_the_seat(_: Any) -> Any:
    async def take_seat(self: Any) -> None:
        self._seat.held = Seat(self._members.me, 1)

    return take_seat


DISCOVERY = {
    "failed_pages_are_asked_for_again": Mutant(
        "a listing goes on where a page failed", ((discovery, "_FAILURES_OF_A_PAGE", lambda _: 1),)
    ),
    "calls_have_a_time_limit": Mutant("a call is given up", ((discovery, "_CALL_SECONDS", lambda _: 1e9),)),
    "pages_are_stored_one_by_one": Mutant(
        "a page is stored when it is there", ((Discovery, "_store", _at_the_end_of_the_listing),)
    ),
}
DESCRIBING = {
    "token_bucket": Mutant("calls wait for their turn", ((DescribeBudget, "turn", _no_turns),)),
    "shared_by_all_workers": Mutant("workers share the rate", ((DescribeBudget, "turn", _a_rate_of_its_own),)),
    "one_discoverer": Mutant(
        "one worker has the seat and lists", ((Discovery, "claim_seat", _every_worker_takes_the_seat),)
    ),
}

# -- 32: streams -----------------------------------------------------------------------------------------------------


def _the_present_one(_: Any) -> Any:
    async def judge(self: Any) -> None:
        if await self._succession.successor(self._ref) is not None and await self._pass_on(self._rules):
            self._leave({rule.name for rule in self._rules})

    return judge


def _one_identity(_: Any) -> Any:
    return lambda stream: (stream.region, "one")


def _one_generation(original: Any) -> Any:
    return lambda rule, run, generation: original(rule, run, 1)


def _no_break(_: Any) -> Any:
    async def record_break(self: Any, *_: Any) -> None: ...

    return record_break


STREAMS = {
    "drained_first": Mutant(
        "a stream is left when it was read to its end", ((StreamCoordinator, "_judge", _the_present_one),)
    ),
    "keyed_by_stream": Mutant(
        "rows are keyed by the stream",
        ((memory.coordination, "identity", _one_identity), (memory.registry, "identity", _one_identity)),
    ),
    "generation_in_versions": Mutant(
        "the stream's generation stands in every version", ((ordered, "plan_run", _one_generation),)
    ),
    "break_is_a_gap": Mutant(
        "what lies between two streams is a gap", ((StreamSuccession, "_record_break", _no_break),)
    ),
}
