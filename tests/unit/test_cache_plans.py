from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import structs
from redis.crc import key_slot

from replicator.domain.cache_keys import (
    CachePlan,
    CacheRule,
    CacheVerb,
    Invalidate,
    Publication,
    Publish,
    Refill,
    Refresh,
    plan_cache,
    plan_invalidation,
    plan_refill,
    publish,
    settlement,
)
from replicator.domain.cache_values import Shape
from replicator.domain.filters import Equals, Filter, Where
from replicator.domain.identifiers import RegionId, SequenceNumber
from replicator.domain.image import Image
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.modes.ordered import Action, Change
from replicator.domain.records import ChangeRecord, Event, item_key
from replicator.domain.values import replace
from replicator.domain.versions import at_sequence, ordered_version
from replicator.laboratory.memory import acted, value_entry
from tests.unit.strategies import Typed, image

# -- key templates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "item", "key"),
    [
        ("order:{pk}", {"pk": {"S": "a b"}}, "order:a b"),
        ("{pk}:{sk}", {"pk": {"S": "a:b"}, "sk": {"N": "1.5"}}, "a%3Ab:1.5"),
        ("{pk}:{sk}", {"pk": {"S": "a"}, "sk": {"S": ":"}}, "a:%3A"),
        ("x{pk}", {"pk": {"B": "AA=="}}, "xAA=="),
        ("{{{pk}}}", {"pk": {"S": "{}%"}}, "{%7B%7D%25}"),
        ("k:{pk}", {"pk": {"S": "a\nb\x7f"}}, "k:a%0Ab%7F"),
        ("{a}-{b}", {"a": {"S": "1-2"}, "b": {"S": "ü"}}, "1%2D2-ü"),
        ("{a}{{{b}", {"a": {"S": "1"}, "b": {"S": "2"}}, "1{2"),
        ("{a}/x", {"a": {"S": "1/x"}}, "1/x/x"),
    ],
)
def test_a_template_makes_a_key_of_an_item(template: str, item: dict[str, Typed], key: str) -> None:
    assert KeyTemplate(template).key(image(item)) == key
    values = {name: next(iter(typed.values())) for name, typed in item.items()}
    assert KeyTemplate(template, "p/").values_in(f"p/{key}") == values


def test_a_key_that_no_item_makes_has_no_values() -> None:
    template = KeyTemplate("order:{pk}:{sk}")
    for key in ("order:a", "orders:a:1", "order:a:b:1", "order:%41:1", "order:a%3a:1"):
        assert template.values_in(key) is None, key


@pytest.mark.parametrize(
    ("template", "pattern"),
    [("order:{pk}", "order:*"), ("{a}:{b}", "*:*"), ("a*[x]?:{a}", "a\\*\\[x\\]\\?:*"), ("{{{pk}}}", "{*}")],
)
def test_a_template_has_a_pattern_that_all_its_keys_match(template: str, pattern: str) -> None:
    assert KeyTemplate(template).pattern == pattern
    assert KeyTemplate(template).prefix == template.partition("{a}" if "{a}" in template else "{pk}")[0].replace(
        "{{", "{"
    )


@pytest.mark.parametrize("typed", [{"BOOL": True}, {"NULL": True}, {"L": []}, {"M": {}}, {"SS": ["a"]}, {"NS": ["1"]}])
def test_an_attribute_that_is_not_text_number_or_binary_gives_no_key(typed: Typed) -> None:
    assert KeyTemplate("a:{x}").key(image({"pk": {"S": "k"}, "x": typed})) is None


def test_a_missing_attribute_gives_no_key() -> None:
    assert KeyTemplate("a:{pk}:{x}").key(image({"pk": {"S": "k"}})) is None


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("orders", "no {attribute} placeholder"),
        ("", "no {attribute} placeholder"),
        ("{{pk}}", "no {attribute} placeholder"),
        ("{}", "not a plain"),
        ("{pk!r}", "not a plain"),
        ("{pk:>4}", "not a plain"),
        ("{a}{b}", "nothing between"),
        ("{a[]}:{b[]}", "two lists"),
        ("{a[]}:{a}", "as a list and as a value"),
        ("{[]}", "not a plain"),
        ("{a}%{b}", "between two placeholders"),
        ("{a", "expected"),
        ("a}", "Single"),
    ],
)
def test_a_template_that_could_not_tell_items_apart_is_refused(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        KeyTemplate(template)


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        ({"SS": ["b", "a"]}, ("tag:a", "tag:b")),
        ({"NS": ["1", "2"]}, ("tag:1", "tag:2")),
        ({"BS": ["AA=="]}, ("tag:AA==",)),
        ({"L": [{"S": "a"}, {"N": "1"}, {"BOOL": True}, {"S": "a"}, {"M": {}}]}, ("tag:1", "tag:a")),
        ({"L": []}, ()),
        ({"S": "a"}, ()),
    ],
)
def test_a_list_has_a_key_for_each_of_its_elements(typed: Typed, keys: tuple[str, ...]) -> None:
    template = KeyTemplate("tag:{tags[]}")
    assert template.keys(image({"tags": typed})) == keys
    assert template.filled({"tags": "a%b"}) == "tag:a%25b"
    assert template.of_every(KEY) is None


def test_an_item_has_no_more_than_sixty_four_keys() -> None:
    template = KeyTemplate("{pk}:{tags[]}")
    many = image({"pk": {"S": "k"}, "tags": {"SS": [f"{n:02}" for n in range(65)]}})
    assert template.keys(many) == tuple(f"k:{n:02}" for n in range(64))
    assert template.overflows(many)
    assert not template.overflows(image({"pk": {"S": "k"}, "tags": {"SS": ["a"] * 64}}))


def test_a_prefix_is_literal_and_in_front() -> None:
    template = KeyTemplate("order:{pk}", "{shop}%:")
    assert template.key(image({"pk": {"S": "a"}})) == "{shop}%:order:a"
    assert template.of_every(KEY) == "{shop}%:order:k"
    assert (template.prefix, template.pattern) == ("{shop}%:order:", "{shop}%:order:*")
    assert KeyTemplate("{pk}", "x:").prefix == "x:"


alphabet = "ab25%{}:-ü\n"
strings = st.text(alphabet, max_size=4)
literals = st.text(alphabet, max_size=3).map(lambda text: text.replace("{", "{{").replace("}", "}}"))


@given(literals, literals, literals, st.tuples(strings, strings), st.tuples(strings, strings))
def test_items_with_different_attributes_never_share_a_key(
    head: str, between: str, tail: str, one: tuple[str, str], two: tuple[str, str]
) -> None:
    try:
        template = KeyTemplate(head + "{a}" + between + "{b}" + tail)
    except ValueError:
        assume(False)
    keys = [template.key(image({"a": {"S": left}, "b": {"S": right}})) for left, right in (one, two)]
    assert None not in keys
    assert (keys[0] == keys[1]) == (one == two)


@given(literals, literals, st.tuples(strings, strings, strings), st.tuples(strings, strings, strings))
def test_items_with_different_attributes_never_share_a_key_of_three_parts(
    first: str, second: str, one: tuple[str, str, str], two: tuple[str, str, str]
) -> None:
    try:
        template = KeyTemplate("{a}" + first + "{b}" + second + "{c}")
    except ValueError:
        assume(False)
    keys = [template.key(image(dict(zip("abc", ({"S": part} for part in parts), strict=True)))) for parts in (one, two)]
    assert (keys[0] == keys[1]) == (one == two)


# -- plans ---------------------------------------------------------------------------------------------------------

VERSION = "1" * 56
ACTING = [CacheVerb.INVALIDATE, CacheVerb.REFRESH, CacheVerb.WRITE_THROUGH]
KEY = item_key(b'{"pk":{"S":"k"}}')


def item(email: str | None, mark: str = "") -> dict[str, Typed]:
    return {"pk": {"S": "k"}, "mark": {"S": mark}, **({} if email is None else {"email": {"S": email}})}


def record(old: dict[str, Typed] | None, new: dict[str, Typed] | None, number: int = 1) -> ChangeRecord:
    event = Event.REMOVE if new is None else Event.INSERT if old is None else Event.MODIFY
    before = None if old is None else image(old)
    after = None if new is None else image(new)
    return ChangeRecord(event, KEY, before, after, SequenceNumber(str(number)), 0.0)


def change(new: dict[str, Typed] | None) -> Change:
    return Change(Action.REMOVE if new is None else Action.PUT, KEY, VERSION, None, None if new is None else image(new))


def rule(verb: CacheVerb, template: str = "user:{pk}:{email}") -> CacheRule:
    return CacheRule("main", RegionId("eu"), KeyTemplate(template), verb, timedelta(minutes=90))


@pytest.mark.parametrize(
    ("verb", "template"),
    [(CacheVerb.INVALIDATE, "user:{email}"), (CacheVerb.REFRESH, "user:{email}")],
    ids=["by choice", "because the template lacks the primary key"],
)
def test_invalidation_drops_the_key_of_every_image_once(verb: CacheVerb, template: str) -> None:
    records = [record(item("a"), item("b")), record(item("b"), item("c", "x")), record(item("c", "x"), item("a"))]
    plan = plan_cache(rule(verb, template), records, change(item("a")))
    assert plan.actions == (Invalidate("user:a"), Invalidate("user:b"), Invalidate("user:c"))
    assert plan.keyless == 0


def test_refresh_writes_the_new_image_under_its_key_and_drops_the_keys_it_left() -> None:
    new = item("b", "new")
    records = [record(item("a"), item("b"), number=7), record(item("b"), new, number=8)]
    plan = plan_cache(rule(CacheVerb.REFRESH), records, change(new))
    assert plan.actions == (Invalidate("user:k:a"), Refresh("user:k:b", VERSION, image(new).wire, 5_400_000))


def test_refresh_marks_the_last_key_of_a_removed_item_and_drops_the_others() -> None:
    records = [record(item("a"), item("b"), number=7), record(item("b"), None, number=8)]
    plan = plan_cache(rule(CacheVerb.REFRESH), records, change(None))
    assert plan.actions == (
        Invalidate("user:k:a"),
        Refresh("user:k:b", at_sequence(VERSION, 8), None, 5_400_000),
    )


@pytest.mark.parametrize("verb", ACTING)
@pytest.mark.parametrize("new", [None, item("b")], ids=["removed", "put"])
def test_a_record_without_its_old_image_drops_the_key_that_the_primary_key_makes(
    verb: CacheVerb, new: dict[str, Typed] | None
) -> None:
    found = record(None, new, number=7) if new else record(item("a"), None, number=7)
    one = structs.replace(found, old=None, partial=True)
    by_key = plan_cache(rule(verb, "user:{pk}"), [one], change(new))
    assert [action.key for action in by_key.actions] == ["user:k"]
    assert by_key.keyless == 0
    assert plan_cache(rule(verb), [one], change(new)).keyless == 1, "the key under which it stood is unknown"


def tagged(*tags: str, status: str = "open") -> dict[str, Typed]:
    return {"pk": {"S": "k"}, "status": {"S": status}, **({"tags": {"SS": list(tags)}} if tags else {})}


def test_the_tags_of_both_images_are_dropped() -> None:
    plan = plan_cache(rule(CacheVerb.INVALIDATE, "tag:{tags[]}"), [record(tagged("a", "b"), tagged("b", "c"))],
                      change(tagged("b", "c")))  # fmt: skip
    assert plan.actions == (Invalidate("tag:a"), Invalidate("tag:b"), Invalidate("tag:c"))
    without = plan_cache(rule(CacheVerb.INVALIDATE, "tag:{tags[]}"), [record(None, tagged())], change(tagged()))
    assert without == CachePlan((), 0)


def test_a_refresh_by_a_list_sets_every_key_that_the_item_has_and_drops_those_that_it_left() -> None:
    new = tagged("b", "c")
    plan = plan_cache(rule(CacheVerb.REFRESH, "{pk}:{tags[]}"), [record(tagged("a", "b"), new)], change(new))
    assert plan.actions == (
        Invalidate("k:a"),
        Refresh("k:b", VERSION, image(new).wire, 5_400_000),
        Refresh("k:c", VERSION, image(new).wire, 5_400_000),
    )
    gone = plan_cache(rule(CacheVerb.REFRESH, "{pk}:{tags[]}"), [record(tagged("a", "b"), None, 8)], change(None))
    assert [(action.key, getattr(action, "payload", 0)) for action in gone.actions] == [("k:a", None), ("k:b", None)]


def test_more_elements_than_keys_are_counted() -> None:
    many = tagged(*(f"{n:02}" for n in range(65)))
    plan = plan_cache(rule(CacheVerb.INVALIDATE, "tag:{tags[]}"), [record(None, many)], change(many))
    assert (len(plan.actions), plan.keyless) == (64, 1)


@pytest.mark.parametrize("verb", [CacheVerb.INVALIDATE, CacheVerb.REFRESH])
@pytest.mark.parametrize("template", ["open:{pk}", "open:{pk}:{status}"])
def test_only_items_that_pass_have_entries_and_those_that_leave_are_dropped(verb: CacheVerb, template: str) -> None:
    open_only = replace(rule(verb, template), when=Filter(equals=(Equals("status", "open"),)))

    def plan(old: dict[str, Typed] | None, new: dict[str, Typed] | None) -> list[str]:
        actions = plan_cache(open_only, [record(old, new, 7)], change(new)).actions
        return [type(action).__name__ for action in actions]

    opened, closed = tagged(), tagged(status="closed")
    kept = "Invalidate" if verb is CacheVerb.INVALIDATE else "Refresh"
    assert plan(opened, tagged("x"))[-1] == kept
    assert plan(closed, opened)[-1] == kept
    assert set(plan(opened, closed)) == {"Invalidate"}
    assert plan(closed, {**closed, "x": {"S": ""}}) == []
    assert plan(None, closed), "a reader may have stored that there is none"
    assert plan(closed, None)


def test_a_filter_that_cannot_judge_an_item_lets_it_pass() -> None:
    odd = replace(rule(CacheVerb.INVALIDATE, "x:{pk}"), when=Filter(where=Where("abs(status) > `1`")))
    assert odd.keys(image(tagged())) == ("x:k",)
    assert plan_cache(odd, [record(tagged(), tagged("a"))], change(tagged("a"))).actions == (Invalidate("x:k"),)
    never = replace(odd, when=Filter(exists=("nothing",)))
    assert never.keys(image(tagged())) == ()


def test_a_partial_record_counts_whatever_the_filter_says() -> None:
    never = replace(rule(CacheVerb.INVALIDATE, "x:{pk}"), when=Filter(exists=("nothing",)))
    partial = structs.replace(record(tagged(), tagged("a")), old=None, partial=True)
    assert plan_cache(never, [partial], change(tagged("a"))).actions == (Invalidate("x:k"),)


def test_a_write_through_also_fills_what_is_absent() -> None:
    (action,) = plan_cache(rule(CacheVerb.WRITE_THROUGH, "{pk}"), [record(None, item("a"))], change(item("a"))).actions
    assert action == Refresh("k", VERSION, image(item("a")).wire, 5_400_000, through=True)


def test_an_entry_holds_what_its_rule_says_and_a_marker_lives_by_itself() -> None:
    shaped = replace(
        rule(CacheVerb.REFRESH, "{pk}"), shape=Shape("json", attributes=("email",)), marker_ttl=timedelta(seconds=1)
    )
    (kept,) = plan_cache(shaped, [record(None, item("a"))], change(item("a"))).actions
    assert kept == Refresh("k", VERSION, b'{"email":"a"}', 5_400_000)
    (gone,) = plan_cache(shaped, [record(item("a"), None, 7)], change(None)).actions
    assert (getattr(gone, "payload", 0), getattr(gone, "ttl_ms", 0)) == (None, 1000)


def test_entries_that_are_stored_together_end_apart() -> None:
    jittered = replace(rule(CacheVerb.REFRESH), jitter=0.1)
    lives = [jittered.life_ms(str(key), VERSION, gone=False) for key in range(50)]
    assert len(set(lives)) > 40
    assert 4_860_000 <= min(lives) < 4_950_000
    assert 5_300_000 < max(lives) <= 5_400_000


def test_what_is_too_large_is_dropped_and_counted() -> None:
    small = replace(rule(CacheVerb.WRITE_THROUGH), max_bytes=len(image(item("b")).wire) - 1)
    plan = plan_cache(small, [record(item("a"), item("b"))], change(item("b")))
    assert plan == CachePlan((Invalidate("user:k:a"), Invalidate("user:k:b")), 0, 1)
    fits = replace(small, max_bytes=len(image(item("b")).wire))
    assert plan_cache(fits, [record(item("a"), item("b"))], change(item("b"))).too_large == 0


def told(publication: Publication, old: dict[str, Typed] | None, new: dict[str, Typed] | None) -> list[Any]:
    tells = replace(rule(CacheVerb.PUBLISH, "user:{email}"), publication=publication)
    actions = plan_cache(tells, [record(old, new, 7)], change(new)).actions
    return [(action.name, action.most, msgspec.json.decode(action.message)) for action in actions]  # type: ignore[union-attr]


def test_what_changed_is_told_by_its_key_and_without_values_unless_asked() -> None:
    assert told(Publication("users"), item("a"), item("b")) == [
        ("users", 0, {"key": "user:a", "deleted": False, "version": VERSION}),
        ("users", 0, {"key": "user:b", "deleted": False, "version": VERSION}),
    ]
    stream = Publication("users", is_stream=True, most=5, values=True)
    stamped = {**item("a"), "_rep": {"S": "x"}}
    assert told(stream, None, stamped) == [
        ("users", 5, {"key": "user:a", "deleted": False, "version": VERSION, "value": item("a")})
    ]
    assert told(stream, item("a"), None) == [("users", 5, {"key": "user:a", "deleted": True, "version": VERSION})]
    assert told(stream, None, item(None)) == []


def test_a_message_that_is_owed_names_its_entry_and_lies_where_its_stream_does() -> None:
    publication = Publication("users", is_stream=True, most=5)
    owed = publish(publication, "user:a", {"deleted": True})
    assert owed.key != publish(Publication("users"), "user:a", {}).key
    assert key_slot(owed.key.encode()) == key_slot(b"users")
    assert settlement(owed.key) == Publish(owed.key, "users", 5, b'{"key":"user:a"}')
    assert settlement("user:a") == Invalidate("user:a")
    assert replace(rule(CacheVerb.PUBLISH), publication=publication).drop("user:a") == settlement(owed.key)
    assert rule(CacheVerb.REFRESH).drop("user:a") == Invalidate("user:a")


def test_a_refill_concerns_the_keys_that_the_item_has_and_drops_the_others() -> None:
    through = rule(CacheVerb.WRITE_THROUGH)
    assert plan_refill(through, record(item("a"), item("b"))).actions == (
        Invalidate("user:k:a"),
        Refill("user:k:b", through=True),
    )
    refreshed = rule(CacheVerb.REFRESH)
    assert plan_refill(refreshed, record(item("a"), None)).actions == (Refill("user:k:a", through=False),)
    lacking = plan_refill(rule(CacheVerb.REFRESH, "user:{email}"), record(item("a"), item("b")))
    assert lacking.actions == (Invalidate("user:a"), Invalidate("user:b"))


def test_a_message_beside_a_source_has_no_version() -> None:
    tells = replace(rule(CacheVerb.PUBLISH, "user:{email}"), publication=Publication("users"))
    (action,) = plan_invalidation(tells, [record(None, item("a"))]).actions
    assert isinstance(action, Publish)
    assert action.message == b'{"key":"user:a","deleted":false}'


def test_an_item_that_loses_its_key_leaves_nothing_behind() -> None:
    plan = plan_cache(rule(CacheVerb.REFRESH), [record(item("a"), item(None))], change(item(None)))
    assert plan.actions == (Invalidate("user:k:a"),)


def test_a_removed_item_that_had_lost_its_key_before_is_marked_where_it_last_stood() -> None:
    records = [record(item("a"), item(None), number=7), record(item(None), None, number=8)]
    plan = plan_cache(rule(CacheVerb.REFRESH), records, change(None))
    assert plan.actions == (Refresh("user:k:a", at_sequence(VERSION, 7), None, 5_400_000),)


def test_an_entry_that_two_items_have_in_turn_is_never_left_with_the_first_ones_version() -> None:
    """Sequence numbers of different shards do not compare: the older shard's are greater for good."""
    older, younger = 9_000_000_000_000_000_000_000_000, 100_000_000_000_000_000_000_000
    first, second = (item_key(f'{{"pk":{{"S":"{name}"}}}}'.encode()) for name in ("u1", "u2"))
    by_email = rule(CacheVerb.REFRESH, "user:{email}")
    had: dict[str, Typed] = {"pk": {"S": "u1"}, "email": {"S": "ann"}}
    takes: dict[str, Typed] = {"pk": {"S": "u2"}, "email": {"S": "ann"}}
    writes = [
        (first, older, had, {**had, "email": {"S": "old"}}),
        (second, younger, {**takes, "email": {"S": "bob"}}, takes),
        (second, younger + 1, takes, {**takes, "note": {"S": "changed"}}),
    ]
    for holder in (first, second):
        stood = older - 1 if holder is first else younger
        entry: bytes | None = value_entry(ordered_version(0, 1, stood), image(had if holder is first else takes).wire)
        for key, number, old, new in writes[0 if holder is first else 2 :]:
            event = ChangeRecord(Event.MODIFY, key, image(old), image(new), SequenceNumber(str(number)), 0.0)
            done = Change(Action.PUT, key, ordered_version(0, 1, number), None, image(new))
            for action in plan_cache(by_email, [event], done).actions:
                if action.key == "user:ann":
                    entry = acted(entry, action)
        assert entry is None


@pytest.mark.parametrize("verb", ACTING)
def test_images_without_a_key_are_counted_and_hide_no_other(verb: CacheVerb) -> None:
    records = [record(item("a"), item(None)), record(item(None), item(None, "x"))]
    plan = plan_cache(rule(verb), records, change(item(None, "x")))
    assert [action.key for action in plan.actions] == ["user:k:a"]
    assert plan.keyless == 3


emails = st.sampled_from([None, "a", "b", "c"])


@given(st.lists(st.tuples(st.booleans(), emails), min_size=1, max_size=6), st.sampled_from(ACTING))
def test_coalescing_never_hides_a_cache_key(writes: list[tuple[bool, str | None]], verb: CacheVerb) -> None:
    records, before = [], None
    for number, (removes, email) in enumerate(writes):
        after = None if removes else item(email, str(number))
        if (before, after) != (None, None):
            records.append(record(before, after))
        before = after
    together = plan_cache(rule(verb), records, change(before))
    alone = [action.key for one in records for action in plan_cache(rule(verb), [one], change(None)).actions]
    assert {action.key for action in together.actions} == set(alone)
    assert len({action.key for action in together.actions}) == len(together.actions)


@pytest.mark.parametrize("template", ["order:{pk}", "{pk}", "a{{b{pk}c}}d", "{pk}:{pk}", "{sk}/{pk}", "x{pk}|{other}"])
def test_the_key_alone_tells_the_same_cache_key_as_an_image_where_the_template_names_no_more(template: str) -> None:
    rule = KeyTemplate(template)
    for wire in (b'{"pk":{"S":"a%{b}:|/c"}}', b'{"pk":{"N":"1"},"sk":{"S":"s:1"}}'):
        assert rule.of_every(item_key(wire)) == rule.key(Image(wire))
