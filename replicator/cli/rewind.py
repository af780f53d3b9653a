"""`replicator rewind`: what will be read again is shown, and done once it is confirmed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.cli.confirmation import ask, need_yes
from replicator.cli.output import note, print_json, print_rows, shown_time
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_STOPPED
from replicator.domain.progress import END, HORIZON
from replicator.domain.verdict.kinds import counted, were
from replicator.operations import rewind
from replicator.operations.group import rule_named
from replicator.operations.rewind import Plan, RewindRequest, Rewound
from replicator.operations.times import moment

if TYPE_CHECKING:
    from replicator.operations.group import Group
    from replicator.operations.rewind_plan import Step

_SHOWN_ROWS = 50
_COLUMNS = ("stream", "shard", "target", "position", "is read again")


def rewind_rule(config: Path | None, request: RewindRequest, *, yes: bool, as_json: bool) -> int:
    """Show what will be read again, ask, and move the positions."""
    settings = loaded(config)
    regions = rule_named(settings, request.rule).regions_used
    need_yes(yes=yes, as_json=as_json)

    async def work(group: Group) -> tuple[Plan, Rewound]:
        planned = await rewind.plan(group, request)
        if not as_json:
            _show(planned)
        if not planned.steps:
            return planned, Rewound()
        ask(f"Let {_counted(planned)} of rule {request.rule} read these records again?", yes=yes)
        return planned, await rewind.carry_out(group, planned)

    planned, done = on_group(settings, work, regions)
    for shard in done.busy:
        note(f"shard {shard} changed its owner repeatedly; run this command again for it.")
    if as_json:
        print_json({"rule": request.rule, "to": request.to, "rewound": done.moved, "gone": planned.gone})
    elif done.moved:
        sys.stdout.write(
            f"{counted(len(done.moved), 'position')} of rule {request.rule} {were(len(done.moved))} moved back.\n"
        )
    else:
        sys.stdout.write("There is nothing to rewind.\n")
    return EXIT_STOPPED


def _show(planned: Plan) -> None:
    rows = [
        (step.stored.stream.where, step.row.shard_id, target.text, old.text, _extent(step))
        for step in planned.steps
        for target, old in step.old.items()
    ]
    if rows:
        print_rows(_COLUMNS, rows[:_SHOWN_ROWS])
    if len(rows) > _SHOWN_ROWS:
        sys.stdout.write(f"... and {len(rows) - _SHOWN_ROWS} more.\n")
    if planned.gone:
        note(f"{counted(len(planned.gone), 'shard')} left the stream and {were(len(planned.gone))} not changed.")
    sys.stdout.flush()


def _extent(step: Step) -> str:
    """What of a shard will be read again."""
    since = [moment(rewind.before) for rewind in step.move.rewinds.values() if rewind.before > 0]
    if since:
        return f"since {shown_time(since[0])}"
    place = next(iter(step.move.positions.values()))
    if place is not None and place != HORIZON:
        return f"behind {place.text}"
    return "all that is left of it" if END in step.old.values() else "from its oldest record"


def _counted(planned: Plan) -> str:
    targets = {target for step in planned.steps for target in step.old}
    return f"{counted(len(targets), 'target')} on {counted(len(planned.steps), 'shard')}"
