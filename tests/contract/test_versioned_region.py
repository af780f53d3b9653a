"""The writes of mode `versioned` in memory and on a server: one contract, and the proof that both agree."""

from __future__ import annotations

import itertools
import json
from random import Random
from typing import Any

import pytest

from replicator.adapters.aws.clients import Place
from replicator.domain.errors import LeaseLost
from replicator.domain.image import Image, canonical
from replicator.domain.modes.requests import (
    Absent,
    Done,
    Found,
    GetTombstone,
    RaiseTombstone,
    Refused,
    Remove,
    Replace,
    Response,
    VersionAtMost,
    VersionCondition,
    VersionedRequest,
    VersionIs,
)
from replicator.domain.modes.versioned.ranks import VersionAttribute, VersionType
from replicator.domain.records import ItemKey
from replicator.laboratory.memory import MemoryRegion, OpenFence, Slot
from tests.contract.worlds import DynamoRegionBench, RegionBench, Turnstile, gathered

OPEN = OpenFence()
K = ItemKey((("pk", "S", "k"),))
NUMBER = VersionAttribute("ver")

Typed = dict[str, Any]
BIG = 2**53
NUMBERS = [
    *("0", "-0", "1", "1.0", "1.5", "-1", "-1.25", "10", "9"),
    *(str(BIG), str(BIG + 1), str(BIG - 1), f"{BIG}.5", f"-{BIG}", f"-{BIG + 1}"),
    *("9" * 38, "9" * 37 + "8", "-" + "9" * 38, "0." + "0" * 37 + "1", "1E+125", "1E-130", "-1E+125"),
]
TEXTS = ["", "0", "1", "01", "a", "b", "ab", "B", "\u00fc", "\uffee", "\U0001f600", 'quo"te', "back\\slash"]
OTHERS: list[Typed] = [
    {"BOOL": True},
    {"NULL": True},
    {"B": "AAE="},
    {"L": [{"N": "1"}]},
    {"M": {"inner": {"S": "x"}}},
    {"NS": ["1", "2"]},
    {"SS": ["a", "b"]},
]
VALUES: list[Typed | None] = [None, *({"N": number} for number in NUMBERS), *({"S": text} for text in TEXTS), *OTHERS]


def item(name: str, version: Typed | None, value: str = "a") -> Image:
    attributes = {"pk": {"S": name}, "value": {"S": value}, **({} if version is None else {"ver": version})}
    return Image(json.dumps(attributes, separators=(",", ":"), ensure_ascii=False).encode())


def seen(image: Image | None) -> bytes | None:
    """An item as far as worlds must agree: its content, however it is spelled."""
    return None if image is None else canonical(image)


def comparable(response: Response) -> tuple[str, bytes | None]:
    match response:
        case Done(standing):
            return "done", seen(standing)
        case Refused(standing):
            return "refused", seen(standing)
        case _:
            raise AssertionError(response)


async def test_a_put_onto_a_missing_key_took_nothing_away(region_bench: RegionBench) -> None:
    new = item("k", {"N": "1"})
    assert await region_bench.region.execute(Replace(K, new, Absent()), OPEN) == Done(None)
    assert seen((await region_bench.found([K]))[K].item) == seen(new)


async def test_a_put_tells_what_it_replaced_and_a_refusal_what_stands_there(region_bench: RegionBench) -> None:
    old, new = item("k", {"N": "1"}, "old"), item("k", {"N": "2"}, "new")
    await region_bench.seed({K: Slot(old)})
    replaced = await region_bench.region.execute(Replace(K, new, NUMBER.exactly(old)), OPEN)
    refused = await region_bench.region.execute(Replace(K, old, NUMBER.exactly(old)), OPEN)
    assert comparable(replaced) == ("done", seen(old))
    assert comparable(refused) == ("refused", seen(new))


async def test_a_delete_tells_what_it_removed_even_when_that_is_nothing(region_bench: RegionBench) -> None:
    old = item("k", {"N": "2"})
    await region_bench.seed({K: Slot(old)})
    remove = [Remove(K, NUMBER.at_most(NUMBER.of(item("k", {"N": version})))) for version in ("1", "2", "2")]
    told = [comparable(await region_bench.region.execute(request, OPEN)) for request in remove]
    assert told == [("refused", seen(old)), ("done", seen(old)), ("done", None)]


@pytest.mark.parametrize("text", ['quo"te', "back\\slash", "\U0001f600", ""])
async def test_a_tombstone_of_a_text_version_is_kept_as_it_is(region_bench: RegionBench, text: str) -> None:
    version = VersionAttribute("ver", VersionType.STRING).of(item("k", {"S": text}))
    assert await region_bench.region.execute(RaiseTombstone(K, version), OPEN) == Done()
    assert await region_bench.region.execute(GetTombstone(K), OPEN) == Found(tombstone=version)


async def test_nothing_is_sent_behind_a_fallen_fence(region_bench: RegionBench) -> None:
    old = item("k", {"N": "1"})
    await region_bench.seed({K: Slot(old)})
    for request in (Replace(K, old, NUMBER.exactly(old)), Remove(K, NUMBER.exactly(old))):
        with pytest.raises(LeaseLost):
            await region_bench.region.execute(request, Turnstile(LeaseLost("The lease is gone.")))


# -- agreement -----------------------------------------------------------------------------------------------------


def condition(dice: Random, kind: int, standing: Typed | None) -> VersionCondition:
    """A condition of each kind; often about exactly what stands there."""
    value = standing if dice.random() < 0.4 else dice.choice(VALUES)
    if kind == 0:
        return Absent()
    if kind == 1:
        return VersionIs("ver", None if value is None else json.dumps(value, ensure_ascii=False).encode())
    if kind == 2:
        number = value["N"] if value is not None and "N" in value else dice.choice([None, *NUMBERS])
        assert number is None or isinstance(number, str)
        return VersionAtMost("ver", "N", number)
    text = value["S"] if value is not None and "S" in value else dice.choice([None, *TEXTS])
    assert text is None or isinstance(text, str)
    return VersionAtMost("ver", "S", text)


def cases(dice: Random, rounds: int) -> list[tuple[Slot, VersionedRequest]]:
    """Every value under every kind of condition, against random values; one key per case."""
    made: list[tuple[Slot, VersionedRequest]] = []
    for number, (_, value, kind) in enumerate(itertools.product(range(rounds), [*VALUES, "absent"], range(4))):
        name = f"case {number}"
        where = ItemKey((("pk", "S", name),))
        standing = None if isinstance(value, str) else value
        slot = Slot(None if isinstance(value, str) else item(name, standing))
        when = condition(dice, kind, standing)
        if isinstance(when, VersionAtMost) or (isinstance(when, VersionIs) and dice.random() < 0.5):
            made.append((slot, Remove(where, when)))
        else:
            made.append((slot, Replace(where, item(name, dice.choice(VALUES), "new"), when)))
    return made


@pytest.mark.servers
async def test_conditions_on_versions_evaluated_in_memory_and_rendered_for_a_server_agree(dynamo_place: Place) -> None:
    made = cases(Random("versions"), rounds=20)
    assert len(made) == 20 * len([*VALUES, "absent"]) * 4 > 3000
    start = {request.key: slot for slot, request in made}
    server, memory = DynamoRegionBench(dynamo_place, {"pk": "S"}), MemoryRegion()
    await server.create()
    await server.seed(start)
    memory.slots.update(start)
    told = await gathered([server.region.execute(request, OPEN) for _, request in made])
    after = await server.found(list(start))
    differences = []
    for (slot, request), response in zip(made, told, strict=True):
        expected = comparable(memory.carry_out(request))
        same_state = seen(memory.item(request.key)) == seen(after[request.key].item)
        if comparable(response) != expected or not same_state:
            differences.append((slot.item and slot.item.wire, request, comparable(response), expected, same_state))
    assert differences == []
    assert {comparable(response)[0] for response in told} == {"done", "refused"}


@pytest.mark.servers
async def test_a_number_keeps_its_version_on_its_way_through_a_server(dynamo_place: Place) -> None:
    server = DynamoRegionBench(dynamo_place, {"pk": "S"})
    await server.create()
    keys = [ItemKey((("pk", "S", number),)) for number in NUMBERS]
    await server.seed({where: Slot(item(number, {"N": number})) for where, number in zip(keys, NUMBERS, strict=True)})
    found = await server.found(keys)
    for where, number in zip(keys, NUMBERS, strict=True):
        stored = found[where].item
        assert stored is not None
        version = NUMBER.of(stored)
        assert version == NUMBER.of(item("k", {"N": number}))
        removed = await server.region.execute(Remove(where, NUMBER.at_most(version)), OPEN)
        assert comparable(removed) == ("done", seen(stored))
