"""The rows of the table of failures, by number and name."""

from __future__ import annotations

from tests.production import (
    groups,
    leases,
    leases_mutants,
    lineage,
    lineage_mutants,
    over_http,
    parking,
    parking_mutants,
    reading,
    reading_mutants,
)
from tests.production.guarantee import Failure

FAILURES = (
    Failure(1, "last_page_of_a_closed_shard_dropped", reading.last_page, reading_mutants.LAST_PAGE),
    Failure(1, "last_page_over_http", over_http.last_page_over_http, over_http.LAST_PAGE, real_time=True),
    Failure(2, "child_opened_at_the_latest", reading.child_at_its_horizon, reading_mutants.CHILD),
    Failure(3, "generation_skipped_or_overtaken", lineage.generations_in_order, lineage_mutants.LINEAGE),
    Failure(4, "inconsistent_listings_believed", lineage.inconsistent_listings, lineage_mutants.LISTINGS),
    Failure(5, "discovery_that_never_comes_to_its_end", lineage.convergent_discovery, lineage_mutants.DISCOVERY),
    Failure(6, "throttled_describe_stream", lineage.describing_within_the_budget, lineage_mutants.DESCRIBING),
    Failure(6, "describe_stream_over_http", over_http.described_within_the_limit, over_http.LIMIT, real_time=True),
    Failure(7, "expired_iterators_in_a_loop", reading.expired_iterators, reading_mutants.ITERATORS),
    Failure(7, "expired_iterators_over_http", over_http.expired_iterators_over_http, over_http.EXPIRED, real_time=True),
    Failure(8, "silent_jump_behind_a_trim", reading.trimmed, reading_mutants.TRIMS),
    Failure(9, "checkpoint_past_what_is_not_applied", reading.contiguous_frontier, reading_mutants.FRONTIER),
    Failure(10, "partly_read_shard_marked_as_done", reading.end_only_when_applied, reading_mutants.ENDS),
    Failure(11, "zombies_that_write", leases.zombies, leases_mutants.ZOMBIES),
    Failure(12, "silence_behind_a_hand_off", leases.hand_offs, leases_mutants.HAND_OFFS),
    Failure(12, "waits_that_no_reader_tells", leases.waits_without_a_reader, leases_mutants.WAITS),
    Failure(13, "looks_alive_and_does_nothing", leases.looks_alive, leases_mutants.ALIVE),
    Failure(14, "leases_stolen_to_and_fro", leases.moves, leases_mutants.MOVES),
    Failure(15, "leases_that_cost_writes_per_shard", leases.coordination_cost, leases_mutants.COST),
    Failure(16, "idle_shards_that_cost_money", reading.idle_polling, reading_mutants.IDLE),
    Failure(17, "memory_that_grows_with_the_shards", reading.bounded_memory, reading_mutants.MEMORY),
    Failure(20, "deletes_undone_by_late_puts", leases.deletes_that_stay, leases_mutants.DELETES),
    Failure(31, "races_between_checkpoints", reading.single_writer, reading_mutants.SINGLE_WRITER),
    Failure(32, "stream_created_anew", lineage.stream_created_anew, lineage_mutants.STREAMS),
    Failure(33, "two_groups_on_one_table", groups.groups, leases_mutants.GROUPS, real_time=True, server=True),
    Failure(34, "refused_record_that_stops_its_shard", parking.refused_records, parking_mutants.REFUSED),
    Failure(34, "newest_refused_change_wins", parking.newest_wins, parking_mutants.NEWEST),
    Failure(34, "retry_that_undoes_a_delete", parking.deleted_stays_deleted, parking_mutants.DELETED),
    Failure(34, "refusals_without_end", parking.refusals_without_end, parking_mutants.BOUND),
)
