"""The verdict of one worker on what it reads and reports, from its own /status document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from replicator.domain.pacing import MOSTLY
from replicator.domain.presence import Reason, Standing
from replicator.domain.targets import parse_target
from replicator.domain.verdict.figures import (
    Away,
    AwayCache,
    Figures,
    Loss,
    Refused,
    Rest,
    TargetFigure,
    Throttle,
    Trouble,
    Unread,
    held_figure,
    late_canary,
    place_of,
    trouble_of,
)
from replicator.domain.verdict.judgement import judge

if TYPE_CHECKING:
    from replicator.observability.status_board import Board

_COORDINATION = Trouble(
    "It accepts no heartbeat from this worker.", "Check the table, its permissions and the network."
)


def verdict_of(document: Mapping[str, Any], board: Board) -> dict[str, Any]:
    """`verdict` and `problems`, as /status shows them."""
    verdict, problems = judge(_figures(document, board))
    return {"verdict": asdict(verdict), "problems": [asdict(problem) for problem in problems]}


def _figures(document: Mapping[str, Any], board: Board) -> Figures:
    unreachable = document["coordination"]["unreachable_seconds"]
    rules, refused = document["rules"], document["configuration"]["refused"]
    now = board.wall
    return Figures(
        group=board.group,
        rules=len({rule["name"] for rule in rules}),
        coordination=_COORDINATION if unreachable else None,
        targets=[*_read(rules), *_standing(document)],
        held=[held_figure(row, row["rule"]) for row in document["held"]],
        unread=[Unread(rule["name"], row["shards"], trouble_of(row)) for rule in rules for row in rule["standstills"]],
        rests=[Rest(str(name), None, max(0.0, now - since)) for name, since in board.paused.items()],
        losses=list(_losses(rules)),
        refused=list(_refused(rules)),
        away=list(_away(rules)),
        caches=[
            AwayCache(row["cache"], row["region"], row["seconds"], row["why"], row["keys"], row["owes_flush"])
            for row in document["caches"]
            if row["standing"] == Standing.AWAY
        ],
        throttled=[
            Throttle(row["rule"], row["region"], row["table"], min(row["limits"][kind] for kind in low))
            for row in document["writes"]
            if (low := [kind for kind, count in row["throttled_lately"].items() if count > MOSTLY])
        ],
        canaries=[late_canary(row) for row in document["canaries"] if row["late"]],
        clocks={str(board.worker): board.clock_behind},
        configuration=None if refused is None else trouble_of(refused),
        services={name: trouble_of(said) for name, said in document["services"].items()},
        differences={row["rule"]: row["differences"] for row in document["sweeps"] if row["differences"] > 0},
    )


def _read(rules: list[dict[str, Any]]) -> Iterator[TargetFigure]:
    for rule in rules:
        for shard in rule["shards"]:
            for row in shard["targets"]:
                target = parse_target(row["target"])
                if target is not None:
                    yield TargetFigure(
                        rule["name"],
                        place_of(target, shard["region"], rule["table"]),
                        shard["shard"],
                        row["lag_seconds"],
                        row["retention_left_seconds"],
                        None if row["blocked"] is None else trouble_of(row["blocked"]),
                        None if row["stalled"] is None else trouble_of(row["stalled"]),
                    )


def _standing(document: Mapping[str, Any]) -> Iterator[TargetFigure]:
    for row in document["standing"]:
        target = parse_target(row["target"])
        if target is not None:
            place = place_of(target, row["source"], row["table"])
            yield TargetFigure(row["rule"], place, row["shard"], row["lag_seconds"], row["retention_left_seconds"])


def _losses(rules: list[dict[str, Any]]) -> Iterator[Loss]:
    for rule in rules:
        for shard in rule["shards"]:
            for row in shard["targets"]:
                target = parse_target(row["target"])
                if target is not None and row["gap"] is not None:
                    place = place_of(target, shard["region"], rule["table"])
                    yield Loss(row["gap"]["id"], rule["name"], place)


def _refused(rules: list[dict[str, Any]]) -> Iterator[Refused]:
    for rule in rules:
        for row in rule["parked"]:
            target = parse_target(row["target"])
            if target is not None and row["keys"] + row["records"]:
                place = place_of(target, None, rule["table"])
                yield Refused(rule["name"], place, row["keys"], row["records"], row["oldest_seconds"])


def _away(rules: list[dict[str, Any]]) -> Iterator[Away]:
    for rule in rules:
        for row in rule["regions"]:
            if row["standing"] == Standing.AWAY and row["reason"] != Reason.DECLARED:
                rebuild = row["reason"] == Reason.OVERDUE
                yield Away(rule["name"], row["region"], row["seconds"], row["why"], row["keys"] or 0, rebuild)
