"""What the API does to positions, leases and tables that were created anew, as their commands do it."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

from replicator.admin.api.endpoints import Endpoint, Field
from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import ShardId
from replicator.operations import leases, rewind
from replicator.operations.accepted_tables import AcceptedTable, accept
from replicator.operations.leases import Released, ReleaseRequest
from replicator.operations.rewind import GoneShard, RewindRequest

if TYPE_CHECKING:
    from replicator.admin.api.endpoints import Asked

_SHOWN_STEPS = 200


async def _planned(asked: Asked) -> rewind.Plan:
    given = asked.given
    shard = None if given["shard"] is None else ShardId(given["shard"])
    request = RewindRequest(given["rule"], given["to"], shard, given["region"], given["stream"])
    return await rewind.plan(asked.group, request)


async def _preview(asked: Asked) -> Any:
    planned = await _planned(asked)
    steps = [
        {"stream": step.stored.stream.where, "shard": step.row.shard_id, "target": target.text, "position": old.text}
        for step in planned.steps
        for target, old in step.old.items()
    ]
    return {
        "rule": asked.given["rule"],
        "to": asked.given["to"],
        "seen": _seen(asked, planned),
        "steps": steps[:_SHOWN_STEPS],
        "count": len(steps),
        "gone": planned.gone,
    }


def _seen(asked: Asked, planned: rewind.Plan) -> str:
    """A digest of what would be read again; positions of a living rule move on, and are no part of it."""
    scope = sorted(
        [each.stored.stream.arn, each.row.shard_id, target.text] for each in planned.steps for target in each.old
    )
    return sha256(json.dumps([asked.given["rule"], asked.given["to"], scope]).encode()).hexdigest()


async def _rewind(asked: Asked) -> Any:
    planned = await _planned(asked)
    if _seen(asked, planned) != asked.given["seen"]:
        sentence = "The rewind would now affect other shards or targets than were shown; nothing was moved."
        raise WorldMismatch(sentence, advice="Load it again.")
    done = await rewind.carry_out(asked.group, planned)
    moved = [{"stream": each.stream.where, "shard": each.shard, "target": each.target.text} for each in done.moved]
    return {
        "rule": asked.given["rule"],
        "to": asked.given["to"],
        "moved": moved,
        "busy": done.busy,
        "gone": planned.gone,
    }


async def _release(asked: Asked) -> Any:
    given = asked.given
    request = ReleaseRequest(given["shard"], given["stream"], given["worker"], everything=given["all"])
    return {"group": asked.group.settings.group, "released": await leases.release(asked.group, request)}


async def _accept(asked: Asked) -> Any:
    given = asked.given
    assert asked.caller.name is not None, "whatever changes something has a token"
    found = await accept(asked.group, given["rule"], given["region"], given["table"], by=asked.caller.name)
    return {"accepted": found}


def _rewound(place: Literal["query", "body"]) -> tuple[Field, ...]:
    def field(name: str, about: str, *, required: bool = False) -> Field:
        option = f"--{name}" if place == "body" else None
        return Field(name, about, place=place, option=option, required=required)

    return (
        Field("rule", "name of the rule", place="path", required=True, most=128),
        field("to", "a sequence number, a time, a span back from now such as 2h, or trim_horizon", required=True),
        field("shard", "only this one and its descendants"),
        field("stream", "its stream, when several have it; or region:table"),
        field("region", "only this replica; in a mesh, only this region's stream"),
    )


_SHARD = Field("shard", "only this one", place="body", option="--shard", most=128)

MOVES = (
    Endpoint("rewinding", "GET", "/rules/{rule}/rewind", "What a rewind would read again",
             {"rule": str, "to": str, "seen": str, "steps": list[dict[str, Any]], "count": int,
              "gone": list[GoneShard]}, _preview, _rewound("query"), token=True),
    Endpoint("rewind", "POST", "/rules/{rule}/rewind", "Move a rule's checkpoints back while workers run",
             {"rule": str, "to": str, "moved": list[dict[str, Any]], "busy": list[str], "gone": list[GoneShard]},
             _rewind,
             (*_rewound("body"), Field("seen", "the preview's value; refused if it no longer matches",
                                       place="body", option="", required=True)),
             command="rewind", seconds=90.0),
    Endpoint("release_leases", "POST", "/leases/release",
             "Release the leases of shards; workers claim them again, possibly the same workers",
             {"group": str, "released": list[Released]}, _release,
             (_SHARD, Field("stream", "its stream, when several have it; or region:table", place="body",
                            option="--stream"),
              Field("worker", "everything that this worker owns", place="body", option="--worker", most=128),
              Field("all", "everything", "boolean", place="body", option="--all", default=False)),
             command="leases release", seconds=60.0),
    Endpoint("accept_table", "POST", "/rules/{rule}/accept",
             "Let a rule continue with a table that was dropped and re-created",
             {"accepted": list[AcceptedTable]}, _accept,
             (Field("rule", "name of the rule", place="path", required=True, most=128),
              Field("region", "the region of the re-created table", place="body", option="--region", required=True),
              Field("table", "only this one", place="body", option="--table")),
             command="rules accept"),
)  # fmt: skip
"""What moves positions and shards, and the preview of one."""
