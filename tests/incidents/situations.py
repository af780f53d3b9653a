"""The situations: what is set up, what breaks, and how `status` has to show that it is known."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.incidents.scenes import Scene, call
from tests.integration.faulty_endpoint import Fault, about

Break = Callable[[Scene], None]
_CLOCK_SECONDS = 90


def _nothing(scene: Scene) -> None:
    pass


@dataclass(frozen=True)
class Situation:
    """`kind`: of the problem that `status` is waited for to see, None when there is none; `halted`: replicas that get
    nothing from then on, whose lag is compared with the writer's clock; `before`: done before the worker starts;
    `minutes`: after which alerts are looked at."""

    name: str
    title: str
    about: str
    kind: str | None
    breaks: Break = _nothing
    before: Break = _nothing
    halted: tuple[str, ...] = ()
    minutes: int = 30
    changes: dict[str, Any] = field(default_factory=dict)


def _fail(fault: Fault, *regions: str, tables: tuple[str, ...] = ()) -> Break:
    def fails(scene: Scene) -> None:
        for region in regions:
            scene.endpoints[region].fail(fault, about(*tables) if tables else None)

    return fails


def _foreign_item(scene: Scene) -> None:
    item = {"pk": {"S": "customer-7"}, "by": {"S": "an application"}}
    call(scene.world, "eu", "PutItem", TableName="orders", Item=item)
    call(scene.world, "us", "PutItem", TableName="orders", Item={"pk": {"S": "customer-7"}, "n": {"N": "1"}})


def _index_of_numbers(scene: Scene) -> None:
    call(
        scene.world,
        "eu",
        "UpdateTable",
        TableName="orders",
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "total", "AttributeType": "N"},
        ],
        GlobalSecondaryIndexUpdates=[
            {
                "Create": {
                    "IndexName": "by_total",
                    "KeySchema": [{"AttributeName": "total", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "ALL"},
                }
            }
        ],
    )


def _total_as_text(scene: Scene) -> None:
    call(
        scene.world, "us", "PutItem", TableName="orders", Item={"pk": {"S": "customer-7"}, "total": {"S": "12.50 EUR"}}
    )


def _drop_replica(scene: Scene) -> None:
    call(scene.world, "eu", "DeleteTable", TableName="orders")


def _kill(scene: Scene) -> None:
    scene.daemons[0].kill()


def _stop(scene: Scene) -> None:
    scene.daemons[0].signal(signal.SIGSTOP)


def _pause(scene: Scene) -> None:
    scene.world.command("pause", "orders", "--note", "index is rebuilt", config=scene.config)


def _renew_stream(scene: Scene) -> None:
    """The worker is away while the stream is switched off, written past, and switched on again."""
    daemon = scene.daemons[0]
    daemon.terminate()
    call(scene.world, "us", "UpdateTable", TableName="orders", StreamSpecification={"StreamEnabled": False})
    call(scene.world, "us", "PutItem", TableName="orders", Item={"pk": {"S": "unrecorded"}, "n": {"N": "1"}})
    specification = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    call(scene.world, "us", "UpdateTable", TableName="orders", StreamSpecification=specification)
    daemon.start()


def _cut_cache(scene: Scene) -> None:
    scene.cache.close()


def _typo(scene: Scene) -> None:
    rule = {("replicass" if name == "replicas" else name): value for name, value in scene.rule.items()}
    scene.write({**scene.settings, "rules": [rule]})


def _behind_a_wrong_clock(scene: Scene) -> None:
    """The endpoints' clock is ahead, as a worker sees it whose own clock is slow."""
    for endpoint in scene.endpoints.values():
        endpoint.ahead_seconds = _CLOCK_SECONDS


SITUATIONS = (
    Situation("healthy", "Nothing is wrong", "Every replica has what was written.", None),
    Situation(
        "blocked",
        "An item blocks a replica",
        "The rule has `unstamped: stop`, and an application wrote an item of its own into the replica.",
        "blocked",
        _foreign_item,
        changes={"rule": {"unstamped": "stop"}},
    ),
    Situation(
        "parked",
        "A replica refuses an item",
        "An index of the replica in eu has numbers as its key; an item comes whose `total` is text.",
        "parked",
        _total_as_text,
        before=_index_of_numbers,
    ),
    Situation(
        "held", "A replica's table is gone", "The table in eu was deleted.", "held", _drop_replica, halted=("eu",)
    ),
    Situation(
        "denied",
        "A permission is missing",
        "The role may not write the table in eu any more.",
        "held",
        _fail(Fault.DENIED, "eu", tables=("orders",)),
        halted=("eu",),
    ),
    Situation(
        "paused",
        "A pause was forgotten",
        "An operator paused the rule. The alert is that of five hours later.",
        "paused",
        _pause,
        halted=("eu", "ap"),
        minutes=300,
    ),
    Situation("killed", "The only worker died", "It was ended by `kill -9`.", "no_worker", _kill, halted=("eu", "ap")),
    Situation(
        "stopped",
        "The only worker is stopped",
        "SIGSTOP: its process is there and does nothing.",
        "no_worker",
        _stop,
        halted=("eu", "ap"),
    ),
    Situation(
        "two-away",
        "Two regions are away",
        "Nothing answers in eu and in ap.",
        "blocked",
        _fail(Fault.REFUSE, "eu", "ap"),
        halted=("eu", "ap"),
    ),
    Situation(
        "throttled",
        "A replica is throttled",
        "Every write in eu is answered by `ProvisionedThroughputExceededException`.",
        "throttled",
        _fail(Fault.THROTTLE, "eu", tables=("orders",)),
        halted=("eu",),
    ),
    Situation(
        "hangs",
        "A replica accepts and never answers",
        "Connections to eu are open, and no answer comes.",
        "blocked",
        _fail(Fault.HANG, "eu"),
        halted=("eu",),
    ),
    Situation(
        "coordination",
        "The coordination table does not answer",
        "Requests that name the coordination table fail in us.",
        "coordination",
        _fail(Fault.ERROR, "us", tables=("replicator-coordination",)),
        halted=("eu", "ap"),
    ),
    Situation(
        "gap",
        "Records were lost before they were read",
        "The stream was switched off, written past, and on again; the rule has `on_gap: stop`.",
        "gap",
        _renew_stream,
        changes={"rule": {"on_gap": "stop"}},
    ),
    Situation("cache", "A cache is away", "The cache in eu and ap refuses connections.", "cache", _cut_cache),
    Situation(
        "full-disk",
        "The disk of the conflict log is full",
        "Conflicts go to a file on a full disk (`/dev/full`), and a change meets an item of an application.",
        "blocked",
        _foreign_item,
        changes={"conflicts": {"file": "/dev/full"}},
    ),
    Situation(
        "clock",
        f"The clock is {_CLOCK_SECONDS} seconds off",
        "The endpoints have another time than the worker, and the role may not write the table in eu.",
        "clock",
        _fail(Fault.DENIED, "eu", tables=("orders",)),
        before=_behind_a_wrong_clock,
        halted=("eu",),
    ),
    Situation(
        "reload",
        "A changed configuration is refused",
        "A key of the rule was misspelt in the file while the worker runs.",
        "configuration",
        _typo,
    ),
)
