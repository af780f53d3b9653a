"""Jobs and their segments in the coordination table.

Invariant: a job and its claim on every target come and go in one transaction, so no target ever has two; a segment's
position is written only by the owner that its row names, under the epoch that it claimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from replicator.adapters.dynamodb.coordination.changes import Change, flag, number, schema, seconds, text
from replicator.adapters.dynamodb.coordination.names import FILLED, JOB, NOTE, ON, SEGMENT, key
from replicator.adapters.dynamodb.coordination.rows import CorruptRow
from replicator.domain.errors import LeaseLost, Throttled
from replicator.domain.identifiers import RuleName, TableName, WorkerId
from replicator.domain.jobs import Counts, Job, JobKind, JobState, Part, Segment
from replicator.domain.targets import TargetId, parse_target

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination.changes import Value, When
    from replicator.adapters.dynamodb.coordination.rows import Row
    from replicator.adapters.dynamodb.coordination.table import CoordinationTable

_ENCODE = msgspec.json.Encoder().encode
_TRIES = 5


class DynamoJobs:
    """Jobs of one group."""

    def __init__(self, table: CoordinationTable) -> None:
        self._table = table
        self._names, self._reader = table.names, table.reader

    # -- jobs ------------------------------------------------------------------------------------------------------

    async def jobs(self) -> list[Job]:
        """Every job that is known, oldest first."""
        found = [self._job(row) for row in await self._table.query(self._names.jobs, JOB)]
        return sorted(found, key=lambda job: (job.created_at, job.job_id))

    async def _find(self, job_id: str) -> Job | None:
        row, _ = await self._table.get(self._key(job_id))
        return self._job(row) if row else None

    async def create(self, job: Job) -> Job | None:
        """Store a job, or nothing: the job that is on one of its targets already, and that is not it."""
        for _ in range(_TRIES):
            if await self._find(job.job_id) is not None:
                return None
            changes = [self._new(job)]
            for target in job.targets:
                place = self._on(job, target.text)
                row, _ = await self._table.get(place)
                on = self._reader.text(row, "job") if "job" in row else None
                other = None if on is None else await self._find(on)
                if other is not None and other.state.is_open:
                    return other
                taken = Change(
                    sets={"job": text(job.job_id), "sv": schema()}, when={"job": None if on is None else text(on)}
                )
                changes.append((place, taken))
            if await self._table.change_all(changes):
                return None
        raise Throttled(f"Other jobs come and go on the targets of rule {job.rule}.", advice="Ask again.")

    def _new(self, job: Job) -> tuple[Any, Change]:
        attributes = {
            "kind": text(job.kind),
            "rule": text(job.rule),
            "table": text(job.table),
            "document": document_of(job),
            "state": text(job.state),
            "note": text(job.note),
            "created_at": seconds(job.created_at),
            "sv": schema(),
        }
        return self._key(job.job_id), Change(sets=attributes, when={"state": None})

    async def change(self, seen: Job, state: JobState, *, note: str = "") -> bool:
        """Let a job rest or go on, if its state is still as seen."""
        change = Change(sets={"state": text(state), "note": text(note)}, when={"state": text(seen.state)})
        return await self._table.update(self._key(seen.job_id), change) is not None

    async def end(  # noqa: PLR0913 - what is stored of an end
        self, seen: Job, state: JobState, *, at: float, counts: Counts, note: str = "", follows: Job | None = None
    ) -> bool:
        """Let a job be over, its targets free, and its segments forgotten; False when it was over already."""
        sets = {
            "state": text(state),
            "note": text(note),
            "ended_at": seconds(at),
            "counts": text(_ENCODE(counts).decode()),
        }
        changes = [(self._key(seen.job_id), Change(sets=sets, when={"state": text(seen.state)}))]
        changes += [] if follows is None else [self._new(follows)]
        for target in seen.targets:
            ours = {"job": text(seen.job_id)}
            change = Change(removes=("job",), when=ours)
            if follows is not None:
                change = Change(sets={"job": text(follows.job_id)}, when=ours)
            changes.append((self._on(seen, target.text), change))
            if seen.fills(state):
                filled = Change(sets={"at": seconds(at), "job": text(seen.job_id), "sv": schema()})
                changes.append((key(self._names.jobs, f"{FILLED}{target.text}"), filled))
        ended = await self._table.change_all(changes)
        if ended:
            for row in await self._table.query(self._names.job(seen.job_id), SEGMENT):
                await self._table.delete({"pk": row["pk"], "sk": row["sk"]})
        return ended

    async def filled(self) -> dict[TargetId, float]:
        """Targets that a bootstrap has filled, and when."""
        rows = await self._table.query(self._names.jobs, FILLED)
        named = {parse_target(self._reader.text(row, "sk").removeprefix(FILLED)): row for row in rows}
        return {target: self._reader.seconds(row, "at") for target, row in named.items() if target is not None}

    async def forget(self, job_id: str) -> None:
        """Delete a job that is over, with all that it said."""
        for row in await self._table.query(self._names.job(job_id)):
            await self._table.delete({"pk": row["pk"], "sk": row["sk"]})
        await self._table.delete(self._key(job_id))

    # -- segments --------------------------------------------------------------------------------------------------

    async def segments(self, job_id: str) -> list[Segment]:
        """The segments of a job that were ever claimed."""
        return [self._segment(job_id, row) for row in await self._table.query(self._names.job(job_id), SEGMENT)]

    async def claim(self, seen: Segment, owner: WorkerId) -> Segment | None:
        """Take a segment if it still is as seen, and raise its epoch; None when another worker was faster."""
        change = Change(
            sets={"owner": text(owner), "epoch": number(seen.epoch + 1), "of": number(seen.of), "sv": schema()},
            when={
                "epoch": number(seen.epoch) if seen.epoch else None,
                "owner": None if seen.owner is None else text(seen.owner),
                "done": None,
            },
        )
        row = await self._table.update(self._segment_key(seen), change)
        return None if row is None else self._segment(seen.job_id, row)

    async def save(self, held: Segment, position: str | None, counts: Counts, *, done: bool = False) -> Segment:
        """Store how far a segment is; `LeaseLost` unless owner and epoch are those of `held`."""
        change = Change(
            sets={
                "counts": text(_ENCODE(counts).decode()),
                **({} if position is None else {"position": text(position)}),
                **({"done": flag()} if done else {}),
            },
            removes=("owner",) if done else (),
            when=_ours(held),
        )
        row = await self._table.update(self._segment_key(held), change)
        if row is None:
            raise LeaseLost(f"Segment {held.name} of job {held.job_id} went to another worker.")
        return self._segment(held.job_id, row)

    async def release(self, held: Segment) -> None:
        """Give a segment back; quiet when it is no longer ours."""
        await self._table.update(self._segment_key(held), Change(removes=("owner",), when=_ours(held)))

    # -- what a job says -------------------------------------------------------------------------------------------

    async def note(self, job_id: str, notes: Mapping[str, Any]) -> None:
        """Store what a job has to say, by name."""
        for name, said in notes.items():
            change = Change(sets={"said": text(_ENCODE(said).decode()), "sv": schema()})
            await self._table.update(key(self._names.job(job_id), f"{NOTE}{name}"), change)

    async def notes(self, job_id: str, limit: int | None = None) -> Sequence[tuple[str, Any]]:
        """What a job has said, by name; at most so many."""
        rows = await self._table.query(self._names.job(job_id), NOTE)
        return [
            (self._reader.text(row, "sk").removeprefix(NOTE), self._json(row, "said")) for row in rows[slice(limit)]
        ]

    # -- rows ------------------------------------------------------------------------------------------------------

    def _key(self, job_id: str) -> Any:
        return key(self._names.jobs, f"{JOB}{job_id}")

    def _on(self, job: Job, target: str) -> Any:
        """The row that says which job is on a target; sweeps have rows of their own."""
        return key(self._names.jobs, f"{ON}{'sweep' if job.gives_way else 'job'}|{target}")

    def _segment_key(self, segment: Segment) -> Any:
        return key(self._names.job(segment.job_id), f"{SEGMENT}{segment.name}")

    def _job(self, row: Row) -> Job:
        reader = self._reader
        reader.check_schema(row)
        document = self._json(row, "document")
        try:
            return Job(
                job_id=reader.text(row, "sk").removeprefix(JOB),
                kind=JobKind(reader.text(row, "kind")),
                rule=RuleName(reader.text(row, "rule")),
                table=TableName(reader.text(row, "table")),
                targets=tuple(target for name in document["targets"] if (target := parse_target(name)) is not None),
                parts=tuple(
                    Part(str(name), int(segments), None if chosen is None else tuple(map(int, chosen)))
                    for name, segments, chosen in document["parts"]
                ),
                options=dict(document["options"]),
                state=JobState(reader.text(row, "state")),
                by=str(document["by"]),
                created_at=reader.seconds(row, "created_at"),
                items=int(document["items"]),
                counts=self._counts(row),
                ended_at=reader.seconds(row, "ended_at") if "ended_at" in row else None,
                note=reader.text(row, "note"),
            )
        except (LookupError, TypeError, ValueError) as error:
            raise reader.corrupt(row, "document") from error

    def _segment(self, job_id: str, row: Row) -> Segment:
        reader = self._reader
        reader.check_schema(row)
        part, _, index = reader.text(row, "sk").removeprefix(SEGMENT).rpartition("|")
        if not index.isdecimal():
            raise reader.corrupt(row, "sk")
        return Segment(
            job_id=job_id,
            part=part,
            index=int(index),
            of=reader.number(row, "of"),
            owner=WorkerId(reader.text(row, "owner")) if "owner" in row else None,
            epoch=reader.number(row, "epoch"),
            position=reader.text(row, "position") if "position" in row else None,
            counts=self._counts(row),
            done="done" in row,
        )

    def _counts(self, row: Row) -> dict[str, float]:
        if "counts" not in row:
            return {}
        counts = self._json(row, "counts")
        if not isinstance(counts, dict) or not all(isinstance(each, int | float) for each in counts.values()):
            raise self._reader.corrupt(row, "counts")
        return counts

    def _json(self, row: Row, name: str) -> Any:
        try:
            return msgspec.json.decode(self._reader.text(row, name))
        except (msgspec.DecodeError, ValueError) as error:
            if isinstance(error, CorruptRow):
                raise
            raise self._reader.corrupt(row, name) from error


def document_of(job: Job) -> Value:
    """What of a job never changes, but for a rule's name."""
    document = {
        "targets": [target.text for target in job.targets],
        "parts": [(part.name, part.segments, part.chosen) for part in job.parts],
        "options": job.options,
        "by": job.by,
        "items": job.items,
    }
    return text(_ENCODE(document).decode())


def _ours(held: Segment) -> When:
    assert held.owner is not None, "a held segment has an owner"
    return {"epoch": number(held.epoch), "owner": text(held.owner)}
