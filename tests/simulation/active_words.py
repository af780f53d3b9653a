"""What happens in `active_world`, in words."""

from __future__ import annotations

from replicator.domain.conflicts import LogConflict
from replicator.domain.identifiers import RegionId
from replicator.domain.modes.requests import (
    At,
    DeleteMarked,
    MergeTombstone,
    NoteRemoval,
    RaiseFloor,
    Restamp,
    SettleTombstone,
    StampedPut,
)
from replicator.domain.stamps import NO_ROW, Tombstone, Version, held, parse_version
from tests.simulation.active_owed import Owe
from tests.simulation.active_places import content_number
from tests.simulation.active_scenario import LETTERS, REGIONS
from tests.simulation.active_tree import DONE, NOWHERE
from tests.simulation.active_world import Move, State, World


def narrated(world: World, way: tuple[Move, ...]) -> list[str]:
    """A way in words, one line per move."""
    state, lines = world.start, []
    for number, move in enumerate(way, start=1):
        after = world.apply(state, move)
        changes = "  ".join(
            f"{LETTERS[region]}={shown(world, after, region)}"
            for region in range(world.regions)
            if after[region] != state[region]
        )
        lines.append(f"{number:4}. {described(world, state, move)}{'  => ' + changes if changes else ''}")
        state = after
    return lines


def described(world: World, state: State, move: Move) -> str:  # noqa: PLR0911 - one per kind of move
    """A move."""
    kind, whom, position = move
    match kind:
        case "user":
            op = world.next_op(state, whom)
            return f"user {LETTERS[whom]} {op.kind}{op.second}"
        case "step":
            return f"{_who(world, state, whom)} {_step(world, state, whom, position)}"
        case "away":
            return f"{_who(world, state, whom)} {_step(world, state, whom, position)}: no answer"
        case "drain":
            home, other = divmod(position, world.regions)
            return f"a drainer begins with what {LETTERS[home]} owes {LETTERS[other]}"
        case "die" | "drop":
            return f"{_who(world, state, whom)} {'dies' if kind == 'die' else 'stops'}"
        case "crash":
            return f"worker {LETTERS[whom]} crashes, replays from {position + 1}"
        case "join":
            return f"old worker {LETTERS[whom]} is gone, a new one begins"
        case _:
            return f"{kind} {LETTERS[whom]} {position + 1}"


def _who(world: World, state: State, index: int) -> str:
    region, _, _ = world.at(state, index)
    kind = "worker" if index < world.drainer else "drainer" if index < world.zombie else "zombie"
    return f"{kind} {LETTERS[region]}"


def _step(world: World, state: State, index: int, blind: int) -> str:
    region, position, node = world.at(state, index)
    stream, tree = world.place(state, region).stream, world.tree
    if world.drainer <= index < world.zombie:
        return _request(world, node)
    while not node or tree.asked[node][0] == DONE:
        if node:
            position += 1
        if position == len(stream):
            return f"passes {LETTERS[region]}{position}"
        node = tree.root(world.mesh(state, index), stream[position])
    words = [f"{LETTERS[region]}{position + 1}"]
    while node and tree.asked[node][0] == NOWHERE:
        words.append(f"{_request(world, node)}{' in vain' * blind},")
        answers = list(world.answered(state, node, region))
        state, node = answers[min(blind, len(answers) - 1)]
    return " ".join([*words, _request(world, node) if node else "done"])


def _request(world: World, node: int) -> str:
    match world.tree.request(node):
        case None:
            return "done"
        case LogConflict(kind=kind, winner_version=winner, loser_version=loser):
            lost = "an unversioned write" if loser is None else short(parse_version(loser))
            return f"logs {kind}: {short(parse_version(winner))} beat {lost}"
        case At(region, request):
            return f"{type(request).__name__}@{LETTERS[REGIONS.index(region)]}{_version(request)}"
        case Owe(region) as row:
            return f"Owe {LETTERS[REGIONS.index(region)]} {short(parse_version(row.decided))}"
        case request:
            return type(request).__name__


def _version(request: object) -> str:
    match request:
        case StampedPut(stamp=stamp) | Restamp(stamp=stamp):
            return f" {stamp.kind.value}{short(stamp.version)}"
        case MergeTombstone(tombstone=Tombstone(version)) | SettleTombstone(tombstone=Tombstone(version)):
            return f" {short(version)}"
        case RaiseFloor(floor=version) | NoteRemoval(removed=version) | DeleteMarked(version=version):
            return f" {short(version)}"
        case _:
            return ""


def short(version: Version | None) -> str:
    """A version: second, counter, region, sequence number."""
    if version is None:
        return "-"
    letter = LETTERS[REGIONS.index(RegionId(version.region))]
    return f"({version.micros // 1_000_000},{version.counter},{letter},{version.sequence % 10**40})"


def shown(world: World, state: State, region: int) -> str:
    """What a region holds."""
    slot = world.place(state, region).slot
    item, row = held(slot.item), slot.row
    text = "-"
    if item is not None:
        stamp = "" if item.stamp is None else f"{{{item.stamp.kind.value}{short(item.stamp.version)}}}"
        text = f"c{content_number(item.image)}{stamp}{'' if item.intact else '*'}"
    if row != NO_ROW:
        removed = f" ls={row.removed_at % 10**40} lv={short(row.removed)}" if row.removed_at is not None else ""
        text += f" row[v={short(row.deleted)} f={short(row.floor)}{removed}]"
    return text
