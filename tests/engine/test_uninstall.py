"""Uninstall in the engine's small world: stamps and side rows go, each as it was seen, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import msgspec
import pytest

from replicator.domain.copying.uninstalls import Kept, is_side_row, stamp_of
from replicator.domain.image import Image, canonical, stamped, unreserved
from replicator.domain.jobs import Job, JobKind, JobState, parts_of
from replicator.domain.key_mapping import key_mapping
from replicator.domain.modes.requests import StampIs, Unstamp
from replicator.domain.records import ItemKey, item_key
from replicator.domain.stamps import NO_PARENT, Stamp, StampKind, Version, content_of, held, write_sequence
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version
from replicator.engine.copying.uninstalling import SIDE_TABLE
from replicator.engine.limits import Limits
from tests.engine.job_world import SIDE, JobWorldOf, job
from tests.engine.mesh_world import ACTIVE
from tests.engine.test_verify_meshes import Looker, level
from tests.engine.world import EU, ORDERS, US, Process, World, eu_rule, image, key_of, slow, until

ASKED = job(
    JobKind.UNINSTALL,
    parts=parts_of([(EU, ORDERS), (EU, SIDE)], 2),
    job_id="u",
    options={SIDE_TABLE: SIDE},
)
V1, V2 = ordered_version(0, 1_700_000_000_000, 7), ordered_version(0, 1_700_000_000_000, 8)


def side(text: str, version: str = V1) -> tuple[ItemKey, Image]:
    row = {"k": {"S": text}, "v": {"S": version}, "exp": {"N": "1700000000"}}
    return item_key(json.dumps({"k": row["k"]}).encode()), Image(json.dumps(row).encode())


@dataclass
class Small:
    """A replica of 25 items that the rule has stamped, and that no worker runs any more."""

    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        self.jobs = JobWorldOf(self.world, page_items=5)
        for number in range(25):
            name = f"k{number:02d}"
            self.world.region.write_foreign(key_of(name), Image(stamped(image(name, 1), V1)))
        for text in (key_of("gone").side_key("orders"), key_of("gone").side_key("others"), "orders|epoch"):
            self.jobs.side.write_foreign(*side(text))

    def alone(self, limits: Limits | None = None) -> Process:
        """A process that does jobs and reads nothing."""
        return self.jobs.process(limits=limits, only_jobs=True)

    async def run(self) -> Job:
        assert await self.jobs.rows.create(ASKED) is None
        async with self.alone():
            return await self.jobs.ended("u")

    def stamps(self) -> set[str]:
        return {key.parts[0][2] for key, item in self.world.region.items() if "_rep" in item.attributes}


async def test_stamps_and_tombstones_of_the_table_go_and_nothing_else() -> None:
    small = Small()
    small.world.region.write_foreign(key_of("plain"), image("plain", 1))
    small.world.region.write_foreign(key_of("theirs"), Image(stamped(image("theirs", 1), "release 7")))
    before = {key: canonical(item) for key, item in small.world.region.items()}
    over = await small.run()
    assert over.state is JobState.DONE
    assert small.stamps() == {"theirs"}
    assert {key: canonical(item) for key, item in small.world.region.items()} == before
    assert {key.parts[0][2] for key, _ in small.jobs.side.items()} == {
        key_of("gone").side_key("others"),
        "orders|epoch",
    }
    assert (over.counts["unstamped"], over.counts["side_rows"], over.counts["foreign"]) == (25, 1, 1)
    assert not over.counts.get("left")


async def test_an_item_whose_stamp_changed_between_look_and_write_is_left_and_counted() -> None:
    small = Small()
    region, execute = small.world.region, small.world.region.execute

    async def raced(request, fence):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        if isinstance(request, Unstamp) and request.key == key_of("k03"):
            region.write_foreign(request.key, Image(stamped(image("k03", 2), V2)))
        if isinstance(request, Unstamp) and request.key == key_of("k04"):
            region.write_foreign(request.key, image("k04", 2))
        return await execute(request, fence)

    region.execute = raced  # type: ignore[method-assign]
    over = await small.run()
    assert small.stamps() == {"k03"}
    left = region.item(key_of("k03"))
    assert left is not None
    assert left.stamp == V2
    assert (over.counts["left"], over.counts["unstamped"]) == (1, 23)


async def test_a_process_that_is_killed_loses_no_page_that_it_stored() -> None:
    small = Small()
    assert await small.jobs.rows.create(replace(ASKED, parts=parts_of([(EU, ORDERS)], 1))) is None
    slow(small.world.region.faults, 1.0)
    first = small.alone(Limits(job_pages=1))
    first.start()
    await until(lambda: len(small.stamps()) <= 15)
    await first.kill()
    stored = sum(segment.counts.get("unstamped", 0) for segment in await small.jobs.rows.segments("u"))
    scanned = small.jobs.scans[EU].pages
    async with small.alone():
        over = await small.jobs.ended("u")
    assert over.state is JobState.DONE
    assert not small.stamps()
    assert stored >= 5
    assert small.jobs.scans[EU].pages - scanned == (25 - stored) / 5
    assert 20 <= over.counts["unstamped"] <= 25
    assert not over.counts.get("left")


async def test_no_worker_of_the_rule_does_it() -> None:
    small = Small()
    small.jobs.kinds = {kind: made for kind, made in small.jobs.kinds.items() if kind is not JobKind.UNINSTALL}
    assert await small.jobs.rows.create(ASKED) is None
    async with small.jobs.process(eu_rule()):
        before = small.jobs.scans[EU].pages
        await until(lambda: small.world.now() > 1_700_000_030)
        assert (await small.jobs.state("u"), small.jobs.scans[EU].pages) == (JobState.RUNNING, before)
    assert len(small.stamps()) == 25


async def test_every_region_of_a_mesh_loses_its_stamps_and_an_unfinished_delete_keeps_its_mark() -> None:
    world = await level(ACTIVE)
    marked = world[US].item(key_of("a"))
    assert marked is not None
    seen = held(marked)
    assert seen is not None
    assert seen.stamp is not None
    sealed = msgspec.structs.replace(seen.stamp, kind=StampKind.MARK).sealed("12345678")
    world[US].write_foreign(key_of("a"), Image(stamped(unreserved(marked), sealed)))
    counts = await Looker(world).job(JobKind.UNINSTALL, **{SIDE_TABLE: SIDE})
    assert (counts["unstamped"], counts["unfinished"], counts["left"]) == (15, 1, 0)
    assert {key.parts[0][2] for name in world.names for key, item in world[name].items() if item.stamp} == {"a"}
    content = [{key: canonical(item) for key, item in world[name].items()} for name in world.names]
    assert content[0] == content[1]
    assert len(content[0]) == 8


async def test_a_rule_without_stamps_has_nothing_to_scan_and_is_done() -> None:
    small = Small()
    assert await small.jobs.rows.create(replace(ASKED, parts=())) is None
    async with small.alone():
        assert (await small.jobs.ended("u")).state is JobState.DONE


def active(kind: StampKind, attribute: str = "_rep") -> Image:
    plain = image("a", 1)
    version = Version(1_700_000_000_000_000, 0, "eu", write_sequence(1_700_000_000_000, 1))
    return Image(stamped(plain, Stamp(version, kind, content_of(plain), NO_PARENT).sealed("12345678"), attribute))


@pytest.mark.parametrize(
    ("item", "attribute", "found"),
    [
        (Image(stamped(image("a", 1), V1)), "_rep", StampIs(b'{"S":"%b"}' % V1.encode())),
        (Image(stamped(image("a", 1), V1)), "_other", None),
        (image("a", 1), "_rep", None),
        (active(StampKind.MARK), "_rep", Kept.MARKED),
        (active(StampKind.MARK, "mine"), "mine", Kept.MARKED),
        (Image(stamped(image("a", 1), "release 7")), "_rep", Kept.FOREIGN),
        (Image(b'{"pk":{"S":"a"},"_rep":{"N":"7"}}'), "_rep", Kept.FOREIGN),
    ],
)
def test_only_stamps_of_ours_are_taken_and_no_mark_of_a_delete(
    item: Image, attribute: str, found: StampIs | Kept | None
) -> None:
    assert stamp_of(item, attribute) == found


def test_a_stamp_of_a_mesh_is_taken_as_it_was_seen() -> None:
    item = active(StampKind.VALUE, "mine")
    found = stamp_of(item, "mine")
    assert isinstance(found, StampIs)
    assert found.seen is not None
    assert json.loads(found.seen) == item.attributes["mine"]


def test_side_rows_are_told_by_their_table() -> None:
    long = ItemKey((("pk", "S", "x" * 2000),))
    assert all(is_side_row(key.side_key("orders"), {"orders": None}) for key in (key_of("a"), long))
    others = ("orders|epoch", "orders|mode", "orders|keys", "orders.eu|[1]", "orders")
    assert not any(is_side_row(text, {"orders": None}) for text in others)
    merged = {"orders": key_mapping({"pk": "a#{id}"})}
    mine, others_of = key_of("a#1"), key_of("b#1")
    assert [is_side_row(key.side_key("orders"), merged) for key in (mine, others_of, long)] == [True, False, False]
