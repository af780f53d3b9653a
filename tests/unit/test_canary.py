"""What a canary is, how it looks, and what its arrivals say."""

from __future__ import annotations

import pytest

from replicator.domain.canary import (
    EXPIRES_SECONDS,
    MISSED,
    PREFIX,
    CanaryPlace,
    Schema,
    Track,
    canary_item,
    canary_key,
    is_canary,
    is_canary_of,
    number_of,
    percentile,
    refusal,
    version_refusal,
)
from replicator.domain.identifiers import RegionId, RuleName
from replicator.domain.image import Image
from replicator.domain.modes.versioned.ranks import LOWEST, VersionAttribute, VersionType
from replicator.domain.records import item_key
from replicator.domain.verdict.figures import AwayCache, Figures, LateCanary, Rest, TargetFigure, Trouble
from replicator.domain.verdict.judgement import judge
from replicator.domain.verdict.kinds import Kind, Problem
from replicator.settings import Settings
from replicator.settings.compiled_rules import cache_use

RULE, US, EU = RuleName("orders"), RegionId("us"), RegionId("eu")
PLAIN = Schema((("pk", "S"),))


def made(schema: Schema = PLAIN, version: VersionAttribute | None = None, now: float = 1_700_000_000.25) -> Image:
    return canary_item(schema, RULE, US, writer="w", number=7, now=now, version=version)


def test_a_key_is_told_apart_by_its_beginning_alone() -> None:
    key = canary_key(Schema((("pk", "S"), ("at", "N"), ("raw", "B"))), RULE, US)
    assert key.parts == (("at", "N", "0"), ("pk", "S", f"{PREFIX}orders#us"), ("raw", "B", "Y2FuYXJ5"))
    assert is_canary(key)
    assert is_canary_of(key, RULE)
    assert not is_canary_of(key, RuleName("order"))
    assert not is_canary(item_key(b'{"pk":{"S":"a replicator-canary#orders#us"}}'))


def test_only_a_partition_key_of_text_takes_one() -> None:
    assert refusal((("pk", "S"), ("sk", "B"))) is None
    assert "pk is of type N" in (refusal((("pk", "N"), ("sk", "S"))) or "")


def test_an_item_expires_only_where_the_table_has_a_time_to_live() -> None:
    assert made(Schema(PLAIN.keys, "exp")).attributes["exp"] == {"N": str(1_700_000_000 + EXPIRES_SECONDS)}
    assert not any(value == {"N": str(1_700_000_000 + EXPIRES_SECONDS)} for value in made().attributes.values())


@pytest.mark.parametrize(
    "version",
    [
        VersionAttribute("v"),
        VersionAttribute("v", VersionType.STRING),
        VersionAttribute("v", VersionType.STRING, 13),
        VersionAttribute("v", VersionType.TIME),
        *(VersionAttribute("v", VersionType.TIME, width) for width in (20, 24, 27, 30)),
    ],
    ids=str,
)
def test_its_version_grows_and_counts_as_one(version: VersionAttribute) -> None:
    assert version_refusal(version) is None
    versions = [version.of(made(version=version, now=now)) for now in (1_700_000_000.25, 1_700_000_001.5)]
    assert LOWEST < versions[0] < versions[1]


@pytest.mark.parametrize(
    "version", [VersionAttribute("v", VersionType.STRING, 8), VersionAttribute("v", VersionType.TIME, 22)], ids=str
)
def test_a_version_without_room_for_a_time_is_refused(version: VersionAttribute) -> None:
    assert version_refusal(version)


def test_only_an_item_of_the_same_writer_has_a_number() -> None:
    assert number_of(made(), "w") == 7
    assert number_of(made(), "another") is None
    assert number_of(None, "w") is None
    assert number_of(Image(b'{"pk":{"S":"a"},"replicator_writer":{"S":"w"}}'), "w") is None


def track() -> Track:
    return Track(CanaryPlace(RULE, US, "orders", EU), 30.0, since=100.0)


def test_lag_and_age_count_from_the_write_that_arrived() -> None:
    seen = track()
    seen.wrote(1, 110.0)
    seen.wrote(2, 140.0)
    seen.saw(None, 141.0)
    assert seen.told(140.0).age(145.0) == 45.0  # none has arrived since it was begun
    seen.saw(2, 142.0)  # the first one was overwritten on its way
    told = seen.told(140.0)
    assert (told.arrived, told.p50, told.p99, told.age(145.0)) == (1, 2.0, 2.0, 5.0)
    assert seen.look_in(145.0) is None
    seen.saw(2, 150.0)
    assert seen.told(140.0).arrived == 1


def test_late_is_more_than_three_periods_and_who_is_to_blame_shows() -> None:
    seen = track()
    assert not seen.told(100.0).is_late(100.0 + MISSED * 30)
    assert seen.told(100.0).is_late(100.1 + MISSED * 30)
    assert seen.told(100.0).is_unwritten(100.1 + MISSED * 30)
    assert not seen.told(180.0).is_unwritten(100.1 + MISSED * 30)


def test_what_is_kept_of_a_target_that_is_away_is_bounded_and_looks_become_rare() -> None:
    seen = track()
    waits = []
    for number in range(1000):
        seen.wrote(number, 100.0 + 30 * number)
        waits.append(seen.look_in(101.0 + 30 * number) or 0.0)
    assert len(seen.wanted) == MISSED + 1
    assert waits[0] == 0.1
    assert max(waits) <= 30.0


def test_percentiles_are_values_that_were_seen() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0], 0.99) == 3.0
    assert percentile([float(n) for n in range(1, 101)], 0.5) == 50.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0


# -- the verdict -------------------------------------------------------------------------------------------------------


def late(region: str = "eu", cache: str = "", *, unwritten: bool = False, why: str = "") -> LateCanary:
    return LateCanary("orders", "us", region, cache, 120.0, unwritten, why)


def problems(*canaries: LateCanary, **figures: object) -> list[Problem]:
    return judge(Figures("g", 1, workers=1, canaries=canaries, **figures))[1]  # type: ignore[arg-type]


def test_a_canary_that_is_late_is_a_problem_for_each_place() -> None:
    found = problems(late(), late("ap"), late(cache="main"))
    assert {each.place for each in found} == {"eu", "ap", "main"}
    assert {each.kind for each in found} == {Kind.CANARY}


def test_one_that_is_not_written_is_one_problem_with_its_reason() -> None:
    (found,) = problems(late(unwritten=True, why="PutItem is denied."), late("ap", unwritten=True))
    assert "is not written" in found.text
    assert found.reason == "PutItem is denied."


def test_what_explains_it_is_shown_in_its_place() -> None:
    blocked = TargetFigure("orders", "eu", "s0", 300.0, 9e4, blocked=Trouble("It is away.", ""))
    assert [each.kind for each in problems(late(), targets=[blocked])] == [Kind.BLOCKED]
    assert [each.kind for each in problems(late(), rests=[Rest("orders", None, 60.0)])] == [Kind.PAUSED]
    away = AwayCache("main", "eu", 60.0, "no answer", 1)
    assert [each.kind for each in problems(late(cache="main"), caches=[away])] == [Kind.CACHE]


# -- the configuration -------------------------------------------------------------------------------------------------


def settings(**rule: object) -> Settings:
    return Settings.model_validate(
        {
            "group": "test",
            "regions": {"us": {"region": "us-east-1"}, "eu": {"region": "eu-west-1"}},
            "coordination": {"region": "us"},
            "caches": {"main": {"region": "eu", "url": "redis://localhost/0"}},
            "rules": [{"name": "orders", "table": "orders", "canary": {}, **rule}],
        }
    )


ORDERED: dict[str, object] = {"source": "us", "replicas": ["eu"]}


def test_a_caches_user_may_store_and_read_the_entries_that_canaries_drop() -> None:
    of = {**ORDERED, "cache": [{"cache": "main", "key": "order:{pk}:v1"}]}
    use = cache_use(settings(**of), "main")
    assert set(use.patterns) == {"order:*:v1", f"order:{PREFIX}*"}
    assert {"unlink", "get", "set", "eval", "evalsha", "time", "getrange"} <= set(use.commands)
    assert set(cache_use(settings(**{**of, "canary": None}), "main").patterns) == {"order:*:v1"}


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({**ORDERED, "canary": {"every": "900ms"}}, "less than 1s"),
        (
            {"source": "us", "replicas": [{"region": "eu", "transform": {"key": {"pk": "x-{pk}"}}}]},
            "rule 'orders' can have no canary, because a replica's transform",
        ),
        (
            {"mode": "versioned", "regions": ["us", "eu"], "version": {"attribute": "v", "type": "string", "width": 8}},
            "rule 'orders' can have no canary, because its version has 8 characters",
        ),
    ],
    ids=["too often", "keys are mapped", "no room for a time"],
)
def test_what_can_have_none_is_refused_with_a_sentence(rule: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        settings(**rule)
